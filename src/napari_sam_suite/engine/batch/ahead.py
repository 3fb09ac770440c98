"""Reading on a thread of its own, a few items before they are asked for."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

_AHEAD = 2
"""Frames that are read before their turn."""


class Ahead(Generic[T]):
    """Goes through an iterable on a thread of its own, a few items ahead."""

    def __init__(self, items: Iterable[T], most: int = _AHEAD) -> None:
        self._queue: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(
            most
        )
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(items,), name="sam-reading", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            kind, item = self._queue.get()
            if kind == "end":
                return
            if kind == "error":
                raise item  # type: ignore[misc]
            yield item  # type: ignore[misc]

    def close(self) -> None:
        """Stop reading; what was read ahead is dropped."""
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def _work(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                self._put("item", item)
                if self._closed.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - for the one who takes the items
            self._put("error", error)
        else:
            self._put("end", None)

    def _put(self, kind: str, item: T | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put((kind, item), timeout=0.1)
            except queue.Full:
                continue
            return

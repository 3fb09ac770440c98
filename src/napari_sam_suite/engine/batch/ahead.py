"""Reading on a thread of its own, a few items before they are asked for."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")

_AHEAD = 2
"""Frames that are read before their turn."""


class Ahead(Generic[T]):
    """Goes through an iterable on a thread of its own, a few items ahead.

    Where what is done with an item takes next to no time, both threads would only wait
    for Python's lock: `pause` lets whoever takes an item read it.

    Parameters
    ----------
    items : iterable
        Asked by one thread at a time, but not always by the same.
    most : int
        Items that are read before their turn.
    """

    def __init__(self, items: Iterable[T], most: int = _AHEAD) -> None:
        self._items = iter(items)
        self._most = most
        self._ready: deque[tuple[str, T | BaseException | None]] = deque()
        self._reading = self._paused = self._closed = False
        self._news = threading.Condition()
        self._thread = threading.Thread(
            target=self._work, name="sam-reading", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        with self._news:
            while not self._ready:
                if self._paused and not self._reading:
                    self._ready.append(self._read())
                else:
                    self._news.wait()
            kind, item = self._ready.popleft()
            if kind != "item":
                self._ready.append(("end", None))
            if self._reading:
                self._news.notify_all()
        if kind == "end":
            raise StopIteration
        if kind == "error":
            raise item  # type: ignore[misc]
        return item  # type: ignore[return-value]

    def pause(self, *, paused: bool = True) -> None:
        """Read nothing before its turn, or begin again to do so."""
        if paused != self._paused:
            with self._news:
                self._paused = paused
                self._news.notify_all()

    def close(self) -> None:
        """Stop reading; what was read ahead is dropped."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        self._thread.join()

    def _work(self) -> None:
        kind = "item"
        while kind == "item":
            with self._news:
                self._news.wait_for(lambda: self._closed or not self._paused)
                if self._closed or any(kind != "item" for kind, _ in self._ready):
                    return
                self._reading = True
            kind, item = self._read()
            with self._news:
                self._news.wait_for(self._has_room)
                self._ready.append((kind, item))
                self._reading = False
                self._news.notify_all()

    def _has_room(self) -> bool:
        return self._closed or len(self._ready) < (1 if self._paused else self._most)

    def _read(self) -> tuple[str, T | BaseException | None]:
        try:
            return "item", next(self._items)
        except StopIteration:
            return "end", None
        except Exception as error:  # noqa: BLE001 - for the one who takes the items
            return "error", error

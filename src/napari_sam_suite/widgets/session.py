"""The engine that a panel uses: one at a time, and ended with the window."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL
from napari_sam_suite.widgets.attention import no_collection
from napari_sam_suite.widgets.bridge import Background

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.widgets.bridge import Stop
    from napari_sam_suite.widgets.settings import Preferences

_HEAVY = ("auto", "jobs", "models.load", "objects", "suppression")
_preparing = threading.Lock()
_prepared = threading.Event()

StartEngine = Callable[[str, "Preferences"], "Engine"]


def prepare(_: object = None, stop: Stop = lambda: False) -> None:
    """Import what runs models and draws polygons: seconds, so not on the main thread.

    One call at a time: Triton is loaded with settings of the whole process.

    Raises
    ------
    Cancelled
        If it was stopped, which is looked at between imports.
    """
    with _preparing, no_collection():
        if _prepared.is_set():
            return
        for part in _parts():
            if stop():
                raise Cancelled
            part()
        _prepared.set()


def is_prepared() -> bool:
    """Whether `prepare` has nothing left to do."""
    return _prepared.is_set()


def _parts() -> Iterator[Callable[[], object]]:
    from napari_sam_suite.engine.models.preload import (
        load_torch_libraries,
        load_triton,
    )

    yield load_triton
    yield load_torch_libraries
    for module in _HEAVY:
        yield partial(import_module, f"napari_sam_suite.engine.{module}")
    yield _build_once
    yield _draw_once


def _build_once() -> None:
    """Import what a network needs, which is most of it."""
    from napari_sam_suite.engine.models.load import load_model

    load_model(DEFAULT_MODEL, device="cpu", random_weights=True)


def _draw_once() -> None:
    """Let napari load its compiled triangulation."""
    from napari.layers import Shapes

    Shapes([np.eye(3, 2)], shape_type="polygon")


def start_engine(model: str, chosen: Preferences) -> Engine:
    """Start an engine as the preferences want it."""
    from napari_sam_suite.engine.jobs import Engine

    return Engine(
        model,
        device=chosen.device,
        folder=chosen.folder,
        embedding_bytes=chosen.cache_bytes,
    )


class Session:
    """Keeps the engine of the model that was used last."""

    def __init__(self, start: StartEngine = start_engine) -> None:
        self._start = start
        self._engine: Engine | None = None
        self._key: tuple[Any, ...] = ()
        self._importing: Background | None = None

    def prepare(self) -> Background:
        """Call `prepare` on a thread of its own; while it runs, return the same."""
        if self._importing is None:
            self._importing = Background(prepare, daemon=False)
            self._importing.failed.connect(self._not_prepared)
            self._importing.start()
        return self._importing

    def _not_prepared(self, _: Exception) -> None:
        self._importing = None

    def engine(self, model: str, chosen: Preferences) -> tuple[Engine, bool]:
        """Return the engine for a model, and whether it is a new one."""
        key = (model, *chosen)
        fresh = self._engine is None or key != self._key
        if self._engine is None or fresh:
            self.close()
            self._engine = self._start(model, chosen)
            self._key = key
        return self._engine, fresh

    def close(self, timeout: float = 0) -> None:
        """End the engine; wait for it at most `timeout` seconds."""
        if self._importing is not None:
            self._importing.cancel()
        if self._engine is not None:
            self._engine.close(timeout)
        self._engine = None


def name_device(model: SamModel, _: Job[str]) -> str:
    """Say where a model runs; a task for the engine."""
    if model.device.type != "cuda":
        return str(model.device.type).upper()
    import torch

    return str(torch.cuda.get_device_name(str(model.device)))

"""The engine that a panel uses: one at a time, and ended with the window."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.widgets.settings import Preferences

_HEAVY = ("auto", "jobs", "models.load", "objects", "suppression")
_prepared = threading.Event()

StartEngine = Callable[[str, "Preferences"], "Engine"]


def prepare(*_: object) -> None:
    """Import what runs models: seconds, so not on the main thread."""
    from napari_sam_suite.engine.models.preload import load_triton

    load_triton()
    for module in _HEAVY:
        import_module(f"napari_sam_suite.engine.{module}")
    _prepared.set()


def is_prepared() -> bool:
    """Whether `prepare` has nothing left to do."""
    return _prepared.is_set()


def start_engine(model: str, chosen: Preferences) -> Engine:
    """Start an engine as the preferences want it."""
    from napari_sam_suite.engine.jobs import Engine

    return Engine(model, device=chosen.device, folder=chosen.folder)


class Session:
    """Keeps the engine of the model that was used last."""

    def __init__(self, start: StartEngine = start_engine) -> None:
        self._start = start
        self._engine: Engine | None = None
        self._key: tuple[Any, ...] = ()

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
        if self._engine is not None:
            self._engine.close(timeout)
        self._engine = None


def name_device(model: SamModel, _: Job[str]) -> str:
    """Say where a model runs; a task for the engine."""
    if model.device.type != "cuda":
        return str(model.device.type).upper()
    import torch

    return str(torch.cuda.get_device_name(model.device))

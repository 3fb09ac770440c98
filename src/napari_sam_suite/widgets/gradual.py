"""A result layer changed frame by frame, while the window stays usable."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.bridge import Background
from napari_sam_suite.widgets.placement import to_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.components import ViewerModel

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.results import Results
    from napari_sam_suite.widgets.runs import Run

    Prepare = Callable[[FrameIndex], Callable[[], Any]]
    Take = Callable[[FrameIndex, Any], Objects]

_CHUNK = 150  # shapes added to a layer at once
_SHARE = 3  # pauses over the time that drawing takes


class Gradual(QObject):
    """Works on the frames of a run on another thread, the shown frame first.

    New shapes are added a few at a time, with pauses.

    Parameters
    ----------
    viewer : ViewerModel
        Tells which frame is shown.
    results : Results
        Adds the shapes.

    Signals
    -------
    done()
        The layer is as it was wanted.
    failed(Exception)
        It is not, and this is why.
    """

    done = Signal()
    failed = Signal(object)

    def __init__(
        self, viewer: ViewerModel, results: Results, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer, self._results = viewer, results
        self._run: Run | None = None
        self._queue: list[FrameIndex] = []
        self._chunks: list[Objects] = []
        self._work: Background | None = None
        self._generation = 0
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.timeout.connect(self._go_on)

    @property
    def idle(self) -> bool:
        """Whether there is nothing left to do."""
        waiting = self._pause.isActive() or self._queue or self._chunks
        return self._work is None and not waiting

    def start(
        self, run: Run, frames: Iterable[FrameIndex], prepare: Prepare, take: Take
    ) -> None:
        """Go through frames, in place of what was still to be gone through.

        Parameters
        ----------
        run : Run
            Whose layer is changed.
        frames : iterable of FrameIndex
            In any order.
        prepare : callable
            Called with a frame when it is its turn; what it returns is called on the
            other thread.
        take : callable
            Called with the frame and what came of it, on this thread; takes out what
            goes, and returns the objects that come.
        """
        self._run, self._prepare, self._take = run, prepare, take
        shown = shown_frame(self._viewer, run)
        self._queue = sorted(frames, key=lambda frame: frame != shown)
        self._go_on()

    def stop(self) -> None:
        """Leave out the frames that have not been worked on, and draw the others."""
        self._generation += 1
        self._pause.stop()
        chunks, self._chunks = self._chunks, []
        self._queue, self._work = [], None
        for objects in chunks:
            self._show(objects)

    def is_gone(self) -> bool:
        """Whether somebody has removed the layer of the run."""
        return self._run is None or is_gone(self._viewer, self._run)

    def _go_on(self) -> None:
        """Draw what is there; with nothing to draw, begin with the next frame."""
        if self._work is not None or self._pause.isActive():
            return
        if self._chunks:
            start = time.perf_counter()
            self._show(self._chunks.pop(0))
            rest = (time.perf_counter() - start) * _SHARE
            self._pause.start(round(rest * 1000))
            return
        if not self._queue:
            self.done.emit()
            return
        frame, here, take = self._queue.pop(0), self._generation, self._take
        think = self._prepare(frame)
        work = self._work = Background(lambda *_: think(), self)
        work.done.connect(lambda found: self._found(here, frame, found, take))
        work.failed.connect(lambda error: self._fail(here, error))
        for end in (work.done, work.failed):
            end.connect(lambda _: work.deleteLater())
        work.start()

    def _found(
        self, generation: int, frame: FrameIndex, found: Any, take: Take
    ) -> None:
        if generation != self._generation:
            return
        self._work = None
        if self.is_gone():
            self.stop()
            return
        self._chunks = _in_chunks(take(frame, found))
        self._go_on()

    def _show(self, objects: Objects) -> None:
        if self._run is not None and not self.is_gone():
            self._results.show(self._run, objects)

    def _fail(self, generation: int, error: Exception) -> None:
        if generation == self._generation:
            self.stop()
            self.failed.emit(error)


def is_gone(viewer: ViewerModel, run: Run) -> bool:
    """Whether somebody has removed the layer of a run."""
    return run.layer is not None and run.layer not in viewer.layers


def shown_frame(viewer: ViewerModel, run: Run) -> FrameIndex | None:
    """Frame of a run that the viewer shows; None where its layer is gone."""
    if run.layer is None or run.layer not in viewer.layers:
        return None
    leading = len(run.picture.placement.axes) - 2
    place = to_data(run.layer, viewer.dims.point)
    return run.picture.placement.frame(place[:leading].tolist())


def _in_chunks(objects: Objects) -> list[Objects]:
    """The same objects in parts that a layer takes without a halt."""
    rows = np.arange(len(objects))
    return [objects.select(rows[i : i + _CHUNK]) for i in range(0, len(rows), _CHUNK)]

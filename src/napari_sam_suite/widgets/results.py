"""The result layers: runs that fill them, and the way back from each run."""

from __future__ import annotations

import time
import uuid
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from napari.layers import Image, Shapes
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.drawing import (
    Drawing,
    delete_rows,
    drawn_row,
    read_rows,
)
from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.runs import Run, nothing
from napari_sam_suite.widgets.table import column, name_rows, set_features

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.components import ViewerModel

    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.run import FrameResult
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.runs import Mode, Step

_SHARE = 8  # pauses over the time that drawing takes, while the run goes on
_CHUNK = 80  # shapes put in or taken out in one turn of the event loop, at least
_FEW = 20  # objects that are drawn without waiting for a turn
_HAND = 300  # ms between two looks at what somebody is drawing by hand
_PART = 16  # and at least this part of the layer: napari looks at all of it each time


class Results(QObject):
    """Puts objects into Shapes layers, and takes whole runs out and back in.

    While a run goes on, drawing takes no more than a small share of the time. What is
    drawn into a layer that is there, and what goes from it, goes a few shapes in each
    turn of the event loop.

    Signals
    -------
    began(Run), taken(Run, FrameResult)
        A run starts, or has finished a frame.
    stepping(), stepped()
        Something is going to be, or was, undone or done again.
    changed()
        What can be undone is something else.
    failed(Exception)
        Objects could not be drawn.
    """

    began = Signal(object)
    taken = Signal(object, object)
    stepping = Signal()
    stepped = Signal()
    changed = Signal()
    failed = Signal(object)

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._done: list[Step] = []
        self._undone: list[Step] = []
        self._all: WeakSet[Run] = WeakSet()
        self._runs: list[Run] = []  # with something to draw, the next one first
        self._chunks: deque[Objects] = deque()  # of the first of them
        self._by_hand: list[str] = []  # ids of what was drawn while shapes had to go
        self._drawing = Drawing(viewer, self)
        self._drawing.failed.connect(self.failed)
        self._drawing.changed.connect(self._go_on)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._turn)

    @property
    def can_undo(self) -> bool:
        """Whether there is a run to take away."""
        return bool(self._done) and self.settled

    @property
    def can_redo(self) -> bool:
        """Whether there is a run to bring back."""
        return bool(self._undone) and self.settled

    @property
    def settled(self) -> bool:
        """Whether everything that was found is in the viewer."""
        return not self._runs and self._drawing.idle

    def reveal(self) -> None:
        """Show a new layer at once, which otherwise takes a moment."""
        self._drawing.reveal()

    def begin(self, picture: Picture, recipe: dict[str, Any], mode: Mode) -> Run:
        """Start a run; its recipe goes into the layer's metadata.

        There it also says which frames were searched, those without objects too.
        """
        name = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {uuid.uuid4().hex[:4]}"
        run = Run(name, picture, {**recipe, "searched": []}, mode)
        if mode != "new":
            run.layer = self.layer_of(picture)
        self._all.add(run)
        self.began.emit(run)
        return run

    def add(self, run: Run, result: FrameResult) -> None:
        """Take a finished frame; it is drawn soon."""
        if run in self._undone:
            return  # it was taken away before it came to its end
        run.pending.append(result)
        run.recipe["searched"].append(list(result.frame))
        run.frames += 1
        run.found += len(result.objects)
        self.taken.emit(run, result)
        self._draw_soon(run)

    def finish(self, run: Run, then: Callable[[], object] | None = None) -> None:
        """Say that no more frames come.

        When all is drawn, the run can be undone, and `then` is called. A few new
        objects are drawn at once: somebody has just pressed a key for them.
        """
        run.ended, run.then = True, then
        little = self._is_little(run)
        self._draw_soon(run)
        while little and run in self._runs and not self._drawing.building:
            self._turn()

    def push(self, step: Step) -> None:
        """Make a step that was taken the next one to be undone."""
        self._done.append(step)
        self._undone.clear()
        self.changed.emit()

    def drop(self, step: Step) -> None:
        """Forget a step that changed nothing after all."""
        self._done.remove(step)
        self.changed.emit()

    @property
    def last(self) -> Step | None:
        """The step that would be undone."""
        return self._done[-1] if self._done else None

    @property
    def next(self) -> Step | None:
        """The step that would be done again."""
        return self._undone[-1] if self._undone else None

    def done(self, step: Step) -> bool:
        """Whether a step can be taken back, if need be after later ones."""
        return step in self._done

    def undone(self, step: Step) -> bool:
        """Whether a step was taken back."""
        return step in self._undone

    def layer_of(self, picture: Picture) -> Shapes | None:
        """The newest result layer of an image, if there is one."""
        wanted = (list(picture.names), picture.placement.axes)
        for layer in reversed(self._viewer.layers):
            about = layer.metadata.get(KEY)
            if not isinstance(layer, Shapes) or not about:
                continue
            known = (about.get("image"), about.get("axes"))
            if known == wanted and not self._was_another(about, picture):
                return layer
        return None

    def _was_another(self, about: dict[str, Any], picture: Picture) -> bool:
        """Whether the last run of a layer saw another image of the same name."""
        runs = list(about.get("runs", {}).values())
        seen = runs[-1].get("image", {}) if runs else {}
        now = picture.image.sizes._asdict()
        # a stack may have grown since
        if any(seen.get("sizes", now)[axis] != now[axis] for axis in "yx"):
            return True
        paths = [
            layer.source.path
            for layer in self._viewer.layers
            if isinstance(layer, Image) and layer.name == picture.names[0]
        ]
        before = str(seen.get("path") or "")
        return bool(before and paths) and not _same_file(before, paths[0] or "")

    def rename(self, before: str, now: str) -> None:
        """An image layer has another name: that of their image, to its runs."""
        for run in self._all:
            names = run.picture.names
            if before in names:
                names = tuple(now if name == before else name for name in names)
                run.picture = replace(run.picture, names=names)

    def undo(self) -> None:
        """Take the last step back.

        The layer stays, even if nothing is left in it: drivers have crashed at the
        next redraw where a Shapes layer was removed.
        """
        self.stepping.emit()
        step = self._done.pop()
        step.undo(self)
        self._undone.append(step)
        self.stepped.emit()
        self.changed.emit()

    def redo(self) -> None:
        """Do again what was taken back last."""
        self.stepping.emit()
        step = self._undone.pop()
        step.redo(self)
        self._done.append(step)
        self.stepped.emit()
        self.changed.emit()

    def show(self, run: Run, new: Objects) -> None:
        """Add objects to the layer of a run, at once."""
        self._drawing.show(run, new)

    def take(self, run: Run, column: str, values: Iterable[str]) -> Objects:
        """Remove objects from the layer of a run, by a feature, and return them."""
        if run.layer is None or not self._drawing.is_there(run.layer):
            return nothing()
        which = run.layer.features[column].isin(list(values))
        return self._drawing.take(run, np.asarray(which, dtype=bool))

    def replace(self, run: Run, ids: Iterable[str]) -> None:
        """Take objects out for a run; its undoing brings them back."""
        run.let_go(self.take(run, "id", ids))

    def remove(self, run: Run, ids: Iterable[str]) -> None:
        """Remove objects from the layer of a run, by their ids."""
        if run.layer is not None and self._drawing.is_there(run.layer):
            which = np.asarray(run.layer.features["id"].isin(list(ids)), dtype=bool)
            delete_rows(run.layer, np.flatnonzero(which).tolist())

    # -- drawing, turn by turn ----------------------------------------------------

    def _draw_soon(self, run: Run) -> None:
        if run not in self._runs:
            self._runs.append(run)
        if run.ended or not self._timer.isActive():
            self._timer.start(0)

    def _is_little(self, run: Run) -> bool:
        """Whether all that is left to draw are a few new objects of this run."""
        left = sum(len(result.objects) for result in run.pending)
        others = [one for one in self._runs if one is not run]
        busy = others or self._chunks or run.outdated or run.mode == "replace"
        return not busy and left <= _FEW

    def _go_on(self) -> None:
        """A layer was built, or can be seen."""
        if self._runs and not self._timer.isActive():
            self._timer.start(0)
        self.changed.emit()

    def _turn(self) -> None:
        """Draw a part of the next run, or say that it has all that it found."""
        if not self._runs or self._drawing.building:
            return
        run = self._runs[0]
        start = time.perf_counter()
        try:
            drew = self._draw_some(run)
        except Exception as error:  # noqa: BLE001 - a timer has nobody to raise to
            drew = True
            self.failed.emit(error)
        if not drew:
            self._runs.remove(run)
            self._close(run)
        took = time.perf_counter() - start
        if self._runs and not self._drawing.building:
            pause = round(took * 1000 * (1 if run.ended else _SHARE))
            self._timer.start(max(pause, _HAND if self._waits(run) else 0))

    def _draw_some(self, run: Run) -> bool:
        """Put some new shapes in, or else take some old ones out, if there are any."""
        if self._chunks:
            self._drawing.show(run, self._chunks.popleft())
            return True
        if run.outdated and self._take_outdated(run):
            return True
        if run.pending:
            self._collect(run)
            return True
        return self._waits(run)

    def _waits(self, run: Run) -> bool:
        """Whether all that is left is to take shapes out, while somebody draws one."""
        busy = bool(self._chunks or run.pending) or not run.outdated
        return not busy and run.layer is not None and drawn_row(run.layer) is not None

    def _collect(self, run: Run) -> None:
        """Make chunks of the frames that have come; a new layer takes all at once."""
        from napari_sam_suite.engine.objects import Objects

        results, run.pending = run.pending, []
        if run.layer is None and run.mode != "new":
            run.layer = self.layer_of(run.picture)  # another run has made it meanwhile
        there = self._drawing.is_there(run.layer)
        if run.mode == "replace" and there:
            run.outdated.update(result.frame for result in results)
        new = Objects.concat(result.objects for result in results)
        new = new.with_features(run=run.id)
        size = _chunk(run) if there else max(len(new), 1)
        rows = np.arange(len(new))
        self._chunks.extend(
            new.select(rows[first : first + size]) for first in range(0, len(new), size)
        )

    def _take_outdated(self, run: Run) -> bool:
        """Take out some of what earlier runs have in frames that are finished.

        Not while somebody draws a shape there by hand, which would break off; it stays.
        """
        layer = run.layer
        if layer is None or not self._drawing.is_there(layer):
            run.outdated.clear()
            return False
        drawn = drawn_row(layer)
        if drawn is not None:
            name_rows(layer, [drawn])
            name = column(layer, "id")[drawn]
            if name not in self._by_hand:
                self._by_hand.append(name)
            return False
        if len(layer.features) > layer.nshapes:
            # napari leaves the row of a shape that was given up, and not always last
            left = ~layer.features["id"].isin(self._by_hand[-1:])
            set_features(layer, layer.features[left].iloc[: layer.nshapes])
        # where they are, and not what the table says: it knows no frame of shapes
        # that were drawn by hand or moved
        frame, data = run.picture.placement.frame, layer.data
        old = layer.features["run"].to_numpy() != run.id
        old &= ~layer.features["id"].isin(self._by_hand).to_numpy(dtype=bool)
        for row in np.flatnonzero(old).tolist():
            old[row] = frame(data[row][0][:-2]) in run.outdated
        if not old.any():
            run.outdated.clear()
            self._by_hand.clear()
            return False
        rows = np.flatnonzero(old)[: _chunk(run)].tolist()
        run.let_go(read_rows(layer, rows, run.picture.placement))
        delete_rows(layer, rows)
        return True

    def _close(self, run: Run) -> None:
        """Let a run that has ended be undone."""
        if not run.ended:
            return
        known = run in self._done or run in self._undone
        if not known and (run.found or len(run.replaced)):
            self.push(run)
        if run.then is not None:
            run.then()
        self.changed.emit()


def _same_file(one: str, other: str) -> bool:
    return Path(one).absolute() == Path(other).absolute()


def _chunk(run: Run) -> int:
    """How many shapes of a run's layer change in one turn."""
    there = 0 if run.layer is None else run.layer.nshapes
    return max(_CHUNK, there // _PART)

"""The result layers: runs that fill them, and the way back from each run."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.bridge import Background
from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.reveal import Reveal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.components import ViewerModel
    from numpy.typing import NDArray

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.run import FrameResult
    from napari_sam_suite.widgets.layers import Picture, Placement

Mode = Literal["replace", "add", "new"]
"""What becomes of earlier objects: replaced in the same frames, kept, or left alone
in their own layer."""

_MANY = 50  # objects of a new layer, from which on another thread makes the triangles
_SHARE = 8  # pauses over the time that drawing takes


def nothing() -> Objects:
    """No objects."""
    # tables and polygons are heavy, and the panel should open at once
    from napari_sam_suite.engine.objects import Objects

    return Objects.empty()


@dataclass(eq=False)
class Run:
    """One run and its traces in the viewer.

    Attributes
    ----------
    layer : Shapes or None
        Where its objects are; none before the first is found.
    replaced : Objects
        What it took out of the layer.
    withdrawn : Objects
        What it had found, while it is undone.
    """

    id: str
    picture: Picture
    recipe: dict[str, Any]
    mode: Mode
    layer: Shapes | None = None
    replaced: Objects = field(default_factory=nothing)
    withdrawn: Objects = field(default_factory=nothing)
    pending: list[FrameResult] = field(default_factory=list)
    frames: int = 0
    found: int = 0
    what = "The run"

    def undo(self, results: Results) -> None:
        """Take it away, and bring back what it had replaced."""
        self.withdrawn = results.take(self, "run", [self.id])
        results.show(self, self.replaced)
        if self.layer is not None:
            self.layer.metadata[KEY]["runs"].pop(self.id, None)

    def redo(self, results: Results) -> None:
        """Bring it back."""
        results.take(self, "id", self.replaced.features["id"])
        results.show(self, self.withdrawn)


class Step(Protocol):
    """Something done to result layers that can be taken back: a run, for example."""

    what: str
    """Begins the sentence that tells of it."""

    def undo(self, results: Results) -> None:
        """Take it back."""

    def redo(self, results: Results) -> None:
        """Do it again."""


class Results(QObject):
    """Puts objects into Shapes layers, and takes whole runs out and back in.

    The shapes of a new layer are made on another thread, and it is shown part by part,
    by `Reveal`. While a run goes on, drawing takes no more than a small share of the
    time.

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
        self._work: Background | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._flush)
        self._waiting: list[Run] = []
        self._later: list[tuple[Run, Objects]] = []
        self._reveal = Reveal(viewer, self)
        self._reveal.done.connect(self.changed)

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
        return self._work is None and not self._waiting and self._reveal.idle

    def begin(self, picture: Picture, recipe: dict[str, Any], mode: Mode) -> Run:
        """Start a run; its recipe goes into the layer's metadata.

        There it also says which frames were searched, those without objects too.
        """
        name = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {uuid.uuid4().hex[:4]}"
        run = Run(name, picture, {**recipe, "searched": []}, mode)
        if mode != "new":
            run.layer = self.layer_of(picture)
        self.began.emit(run)
        return run

    def add(self, run: Run, result: FrameResult) -> None:
        """Take a finished frame; it is drawn soon."""
        run.pending.append(result)
        if run not in self._waiting:
            self._waiting.append(run)
        run.recipe["searched"].append(list(result.frame))
        run.frames += 1
        run.found += len(result.objects)
        self.taken.emit(run, result)
        if not self._timer.isActive():
            self._timer.start(0)

    def finish(self, run: Run) -> None:
        """Draw what is left; from here on the run can be undone."""
        self._timer.stop()
        self._flush()
        if (run.found or len(run.replaced)) and run not in self._done:
            self.push(run)
        self.changed.emit()

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
            if (about.get("image"), about.get("axes")) == wanted:
                return layer
        return None

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

    def take(self, run: Run, column: str, values: Iterable[str]) -> Objects:
        """Remove objects from the layer of a run, by a feature, and return them."""
        if run.layer is None or not self._alive(run.layer):
            return nothing()
        which = run.layer.features[column].isin(list(values))
        return self._take(run, np.asarray(which, dtype=bool))

    def replace(self, run: Run, ids: Iterable[str]) -> None:
        """Take objects out for a run; its undoing brings them back."""
        from napari_sam_suite.engine.objects import Objects

        run.replaced = Objects.concat([run.replaced, self.take(run, "id", ids)])

    def remove(self, run: Run, ids: Iterable[str]) -> None:
        """Remove objects from the layer of a run, by their ids."""
        if run.layer is not None and self._alive(run.layer):
            which = np.asarray(run.layer.features["id"].isin(list(ids)), dtype=bool)
            _delete(run.layer, np.flatnonzero(which).tolist())

    # -- drawing -----------------------------------------------------------------

    def _flush(self) -> None:
        from napari_sam_suite.engine.objects import Objects

        if not self._waiting or self._work is not None:
            return
        run = self._waiting.pop(0)
        start = time.perf_counter()
        results, run.pending = run.pending, []
        new = Objects.concat(result.objects for result in results)
        new = new.with_features(run=run.id)
        if run.mode == "replace" and self._alive(run.layer):
            self._replace(run, [result.frame for result in results])
        try:
            self.show(run, new)
        except Exception as error:  # noqa: BLE001 - a timer has nobody to raise to
            self._fail(error)
        if self._work is None:
            rest = (time.perf_counter() - start) * _SHARE
            self._timer.start(round(rest * 1000))

    def show(self, run: Run, new: Objects) -> None:
        """Add objects to the layer of a run."""
        from napari_sam_suite.widgets.shapes import layer_options, to_vertices

        if not len(new):
            return
        layer = run.layer
        if layer is None and self._work is not None:
            self._later.append((run, new))  # for the layer that is being built
            return
        if layer is not None and not layer.data and not self._alive(layer):
            self._viewer.add_layer(layer)
        if layer is not None and self._alive(layer):
            layer.metadata[KEY]["runs"][run.id] = run.recipe
            self._append(layer, run.picture, new)
            return
        options = layer_options(
            new,
            run.picture.placement,
            f"{run.picture.image.name} objects",
            {"image": list(run.picture.names), "runs": {run.id: run.recipe}},
        )
        options["visible"] = False
        placement = run.picture.placement
        if len(new) < _MANY:
            self._attach(run, Shapes(to_vertices(new, placement), **options))
            return
        self._work = Background(
            lambda *_: Shapes(to_vertices(new, placement), **options), self
        )
        self._work.done.connect(lambda layer: self._built(run, layer))
        self._work.failed.connect(self._not_built)
        self._work.start()

    def _not_built(self, error: Exception) -> None:
        self._fail(error)
        self._catch_up()

    def _built(self, run: Run, layer: Shapes) -> None:
        self._work = None
        self._attach(run, layer)
        self._catch_up()
        self.changed.emit()

    def _catch_up(self) -> None:
        """Draw what has come while a layer was built."""
        later, self._later = self._later, []
        for run, new in later:
            self.show(run, new)
        self._flush()

    def _fail(self, error: Exception) -> None:
        self._work = None
        self.failed.emit(error)
        self.changed.emit()

    def _attach(self, run: Run, layer: Shapes) -> None:
        run.layer = layer
        self._reveal.add(layer)

    def _append(self, layer: Shapes, picture: Picture, new: Objects) -> None:
        import pandas as pd

        from napari_sam_suite.widgets.shapes import EDGE, colours, to_vertices
        from napari_sam_suite.widgets.table import set_features

        before = layer.features.copy()
        layer.add(
            to_vertices(new, picture.placement),
            shape_type="polygon",
            edge_width=EDGE,
            edge_color=colours(
                new.features["tag"].tolist(), layer.metadata[KEY].get("colours")
            ),
            face_color=np.zeros((len(new), 4)),
        )
        table = pd.concat([before, new.features], ignore_index=True)
        set_features(layer, table)

    # -- the way back ------------------------------------------------------------

    def _replace(self, run: Run, frames: Iterable[FrameIndex]) -> None:
        """Take out what earlier runs have in frames that are finished."""
        from napari_sam_suite.engine.objects import Objects

        layer = run.layer
        if layer is None:
            return
        # where they are, and not what the table says: it knows no frame of shapes
        # that were drawn by hand or moved
        frame, wanted = run.picture.placement.frame, set(frames)
        there = np.array([frame(d[0][:-2]) in wanted for d in layer.data], dtype=bool)
        old = self._take(run, there & (layer.features["run"].to_numpy() != run.id))
        run.replaced = Objects.concat([run.replaced, old])

    def _take(self, run: Run, which: NDArray[np.bool_]) -> Objects:
        """Remove rows from the layer of a run, and return them."""
        layer = run.layer
        if layer is None or not which.any():
            return nothing()
        rows = np.flatnonzero(which).tolist()
        objects = read_rows(layer, rows, run.picture.placement)
        _delete(layer, rows)
        return objects

    def _alive(self, layer: Shapes | None) -> bool:
        return layer is not None and layer in self._viewer.layers


def _delete(layer: Shapes, rows: Sequence[int]) -> None:
    layer.selected_data = set(rows)
    layer.remove_selected()


def read_rows(layer: Shapes, rows: Sequence[int], placement: Placement) -> Objects:
    """Objects of some shapes of a layer, as they are now."""
    from napari_sam_suite.widgets.shapes import to_objects

    data, kinds = layer.data, layer.shape_type
    return to_objects(
        [data[row] for row in rows],
        [kinds[row] for row in rows],
        layer.features.iloc[list(rows)],
        placement,
    )

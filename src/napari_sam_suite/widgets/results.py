"""The result layers: runs that fill them, and the way back from each run."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.bridge import Background
from napari_sam_suite.widgets.layers import KEY

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

_MANY = 250
_SHARE = 8


def _nothing() -> Objects:
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
    replaced: Objects = field(default_factory=_nothing)
    withdrawn: Objects = field(default_factory=_nothing)
    pending: list[FrameResult] = field(default_factory=list)
    frames: int = 0
    found: int = 0


class Results(QObject):
    """Puts objects into Shapes layers, and takes whole runs out and back in.

    Large batches are built on another thread and added at once; while a run goes on,
    drawing takes no more than a small share of the time.

    Signals
    -------
    changed()
        What can be undone is something else.
    failed(Exception)
        Objects could not be drawn.
    """

    changed = Signal()
    failed = Signal(object)

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._done: list[Run] = []
        self._undone: list[Run] = []
        self._work: Background | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._flush)
        self._waiting: list[Run] = []

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
        return self._work is None and not self._waiting

    def begin(self, picture: Picture, recipe: dict[str, Any], mode: Mode) -> Run:
        """Start a run; its recipe goes into the layer's metadata."""
        name = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {uuid.uuid4().hex[:4]}"
        run = Run(name, picture, recipe, mode)
        if mode != "new":
            run.layer = self.layer_of(picture)
        return run

    def add(self, run: Run, result: FrameResult) -> None:
        """Take a finished frame; it is drawn soon."""
        run.pending.append(result)
        if run not in self._waiting:
            self._waiting.append(run)
        run.frames += 1
        run.found += len(result.objects)
        if not self._timer.isActive():
            self._timer.start(0)

    def finish(self, run: Run) -> None:
        """Draw what is left; from here on the run can be undone."""
        self._timer.stop()
        self._flush()
        if (run.found or len(run.replaced)) and run not in self._done:
            self._done.append(run)
            self._undone.clear()
        self.changed.emit()

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
        """Take the last run away, and bring back what it had replaced.

        The layer stays, even if nothing is left in it: drivers have crashed at the
        next redraw where a Shapes layer was removed.
        """
        run = self._done.pop()
        run.withdrawn = self._take(run, self._rows(run, "run", [run.id]))
        if run.layer is not None:
            run.layer.metadata[KEY]["runs"].pop(run.id, None)
        self._show(run, run.replaced)
        self._undone.append(run)
        self.changed.emit()

    def redo(self) -> None:
        """Bring the run back that was taken away last."""
        run = self._undone.pop()
        self._take(run, self._rows(run, "id", run.replaced.features["id"]))
        self._show(run, run.withdrawn)
        self._done.append(run)
        self.changed.emit()

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
        self._show(run, new)
        if self._work is None:
            rest = (time.perf_counter() - start) * _SHARE
            self._timer.start(round(rest * 1000))

    def _show(self, run: Run, new: Objects) -> None:
        from napari_sam_suite.widgets.shapes import layer_options, to_vertices

        if not len(new):
            return
        layer = run.layer
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
        placement = run.picture.placement
        if len(new) < _MANY:
            self._attach(run, Shapes(to_vertices(new, placement), **options))
            return
        # the triangles are made elsewhere; only the drawing is left for this thread
        self._work = Background(
            lambda *_: Shapes(to_vertices(new, placement), **options), self
        )
        self._work.done.connect(lambda layer: self._built(run, layer))
        self._work.failed.connect(self._fail)
        self._work.start()

    def _built(self, run: Run, layer: Shapes) -> None:
        self._work = None
        self._attach(run, layer)
        self._flush()
        self.changed.emit()

    def _fail(self, error: Exception) -> None:
        self._work = None
        self.failed.emit(error)
        self.changed.emit()

    def _attach(self, run: Run, layer: Shapes) -> None:
        run.layer = layer
        self._viewer.add_layer(layer)

    def _append(self, layer: Shapes, picture: Picture, new: Objects) -> None:
        import pandas as pd

        from napari_sam_suite.widgets.shapes import EDGE, colours, to_vertices

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
        layer.features = pd.concat([before, new.features], ignore_index=True)

    # -- the way back ------------------------------------------------------------

    def _replace(self, run: Run, frames: Iterable[FrameIndex]) -> None:
        """Take out what earlier runs have in frames that are finished."""
        from napari_sam_suite.engine.objects import Objects

        layer = run.layer
        if layer is None:
            return
        table = layer.features
        wanted = {tuple(frame) for frame in frames}
        places = zip(table["position"], table["time"], table["z"], strict=True)
        there = np.array([place in wanted for place in places], dtype=bool)
        old = self._take(run, there & (table["run"].to_numpy() != run.id))
        run.replaced = Objects.concat([run.replaced, old])

    def _take(self, run: Run, which: NDArray[np.bool_]) -> Objects:
        """Remove rows from the layer of a run, and return them."""
        layer = run.layer
        if layer is None or not which.any():
            return _nothing()
        rows = np.flatnonzero(which).tolist()
        objects = read_rows(layer, rows, run.picture.placement)
        layer.selected_data = set(rows)
        layer.remove_selected()
        return objects

    def _rows(self, run: Run, column: str, values: Iterable[str]) -> NDArray[np.bool_]:
        if run.layer is None or not self._alive(run.layer):
            return np.zeros(0, dtype=bool)
        return np.asarray(run.layer.features[column].isin(list(values)), dtype=bool)

    def _alive(self, layer: Shapes | None) -> bool:
        return layer is not None and layer in self._viewer.layers


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

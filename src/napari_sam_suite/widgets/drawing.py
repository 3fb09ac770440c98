"""Objects drawn in Shapes layers, and taken out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Shapes
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.widgets.bridge import Background
from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.placement import placement_of, put_onto
from napari_sam_suite.widgets.reveal import Reveal
from napari_sam_suite.widgets.table import REJECTED, column, paint, set_features

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.placement import Placement
    from napari_sam_suite.widgets.runs import Run

_CORNERS = 3  # of the smallest shape with an area
_MANY = 50  # objects of a new layer, from which on another thread makes the triangles


class Drawing(QObject):
    """Draws the objects of runs in their layers.

    The shapes of a new layer are made on another thread, and it is shown part by part,
    by `Reveal`.

    Signals
    -------
    changed()
        A layer has been built, or can be seen.
    failed(Exception)
        Objects could not be drawn.
    """

    changed = Signal()
    failed = Signal(object)

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._work: Background | None = None
        self._later: list[tuple[Run, Objects]] = []
        self._reveal = Reveal(viewer, self)
        self._reveal.done.connect(self.changed)

    @property
    def building(self) -> bool:
        """Whether the shapes of a new layer are being made."""
        return self._work is not None

    @property
    def idle(self) -> bool:
        """Whether everything that was shown can be seen."""
        return self._work is None and self._reveal.idle

    def is_there(self, layer: Shapes | None) -> bool:
        """Whether the viewer has a layer."""
        return layer is not None and layer in self._viewer.layers

    def reveal(self) -> None:
        """Show at once what is in the viewer, and not to be seen yet."""
        self._reveal.finish()

    def show(self, run: Run, new: Objects) -> None:
        """Add objects to the layer of a run, which is made if there is none."""
        if not len(new):
            return
        layer = run.layer
        if layer is None and self.building:
            self._later.append((run, new))  # for the layer that is being built
            return
        if layer is not None and not layer.data and not self.is_there(layer):
            self._viewer.add_layer(layer)
        if layer is not None and self.is_there(layer):
            layer.metadata[KEY]["runs"][run.id] = run.recipe
            self._follow(layer, run.picture)
            _append(layer, run.picture, new)
            return
        self._build(run, new)

    def take(self, run: Run, which: NDArray[np.bool_]) -> Objects:
        """Remove rows from the layer of a run, and return them."""
        from napari_sam_suite.engine.objects import Objects

        layer = run.layer
        if layer is None or not which.any():
            return Objects.empty()
        rows = np.flatnonzero(which).tolist()
        objects = read_rows(layer, rows, run.picture.placement)
        delete_rows(layer, rows)
        return objects

    def _build(self, run: Run, new: Objects) -> None:
        """Make a new layer, of many objects on a thread of its own."""
        from napari_sam_suite.widgets.shapes import layer_options, to_vertices

        placement = run.picture.placement
        options = layer_options(
            new,
            placement,
            f"{run.picture.image.name} objects",
            {"image": list(run.picture.names), "runs": {run.id: run.recipe}},
        )
        options["visible"] = False
        if len(new) < _MANY:
            self._attach(run, Shapes(to_vertices(new, placement), **options))
            return
        self._work = Background(
            lambda *_: Shapes(to_vertices(new, placement), **options), self
        )
        self._work.done.connect(lambda layer: self._built(run, layer))
        self._work.failed.connect(self._not_built)
        self._work.start()

    def _built(self, run: Run, layer: Shapes) -> None:
        self._work = None
        self._attach(run, layer)
        self._catch_up()

    def _not_built(self, error: Exception) -> None:
        self._work = None
        self.failed.emit(error)
        self._catch_up()

    def _catch_up(self) -> None:
        """Draw what has come while a layer was built."""
        later, self._later = self._later, []
        for run, new in later:
            self.show(run, new)
        self.changed.emit()

    def _attach(self, run: Run, layer: Shapes) -> None:
        run.layer = layer
        if (column(layer, "review") == REJECTED).any():
            paint(layer)
        self._follow(layer, run.picture)
        self._reveal.add(layer)

    def _follow(self, layer: Shapes, picture: Picture) -> None:
        """Put a result layer onto its image, which may have been moved meanwhile."""
        for image in self._viewer.layers:
            known = isinstance(image, Image) and image.name == picture.names[0]
            if known and image.ndim == len(picture.letters):
                there = picture.placement
                put_onto(layer, placement_of(image, picture.letters, there.channel))


def is_of(layer: Layer, names: Iterable[str]) -> bool:
    """Whether a layer is of the image of these layers, or does not say of which.

    One of them is enough: channels of the same image have the same pixels.
    """
    image = layer.metadata.get(KEY, {}).get("image")
    return not image or not set(image).isdisjoint(names)


def check_image(layer: Layer, picture: Picture) -> None:
    """Refuse a layer of another image: its objects are not on these pixels.

    Raises
    ------
    ParameterError
        If it says that it is of another one.
    """
    if not is_of(layer, picture.names):
        theirs = " + ".join(layer.metadata[KEY]["image"])
        raise ParameterError(
            f"The objects of {layer.name!r} are of {theirs}, not of "
            f"{picture.image.name}.",
            f"Tick {theirs}, or copy the shapes into a layer of your own.",
        )


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


def drawn_row(layer: Shapes) -> int | None:
    """Row of the shape that somebody is drawing by hand now, if there is one."""
    # napari has no public way to ask, and warns of what is private
    bare: Any = getattr(layer, "__wrapped__", layer)
    return bare._moving_value[0] if bare._is_creating else None


def delete_rows(layer: Shapes, rows: Sequence[int]) -> None:
    """Remove shapes of a layer, in ascending rows; others stay selected.

    A shape that is being drawn by hand is finished: napari ends the drawing anyway,
    but only when another shape has its row.
    """
    if not len(rows):
        return
    drawn = drawn_row(layer)
    if drawn is not None:
        rows = _end_drawing(layer, drawn, rows)
    rest = set(layer.selected_data).difference(rows)
    layer.selected_data = set(rows)
    layer.remove_selected()
    layer.selected_data = {row - int(np.searchsorted(rows, row)) for row in rest}


def _end_drawing(layer: Shapes, drawn: int, rows: Sequence[int]) -> Sequence[int]:
    """Finish a shape; one of too few points goes with the rows that are to go."""
    bare: Any = getattr(layer, "__wrapped__", layer)
    if len(layer.data[drawn]) > _CORNERS:  # the last follows the mouse
        bare._finish_drawing()
        return rows
    bare._is_creating = False
    return sorted({*rows, drawn})


def _append(layer: Shapes, picture: Picture, new: Objects) -> None:
    import pandas as pd

    from napari_sam_suite.widgets.shapes import EDGE, colours, to_vertices

    # napari leaves a row behind of a shape that was given up while it was drawn
    before = layer.features.iloc[: layer.nshapes]
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
    if "review" in new.features and (new.features["review"] == REJECTED).any():
        paint(layer)

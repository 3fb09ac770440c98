"""The layer that shows what was pointed at, and what it gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Shapes

from napari_sam_suite.widgets.layers import SHOWN
from napari_sam_suite.widgets.placement import put_onto

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from numpy.typing import NDArray

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.prompts.prompt import Box, Prompt
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.turns import Outline

_NAME = "Prompt"
_NOW, _KEPT, _BOX = "#ffff00", "#00bfff", "#ffffff"
_INSIDE, _OUTSIDE = "#00ff66", "#ff3355"
_DOT = 120  # dots to the shorter side of the image


class Sketch:
    """A layer that shows what was pointed at and what it gave.

    One for both, as each layer costs its time whenever something is clicked, and one
    for each kind of axes. They are emptied and not removed: drivers have crashed at
    the next redraw where a Shapes layer was removed.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._layers: dict[str, Shapes] = {}  # by their axes

    def show(
        self,
        picture: Picture,
        frame: FrameIndex,
        prompt: Prompt | None,
        now: Sequence[Outline],
        kept: Sequence[Outline],
    ) -> None:
        """Draw the prompt, its answer, and the answers kept for later.

        Parameters
        ----------
        picture : Picture
            Whose place in the viewer they take.
        frame : FrameIndex
            Of the prompt.
        prompt : Prompt, optional
            Its points and its box.
        now, kept : sequence of (Polygon or MultiPolygon, FrameIndex)
            Outlines (y, x), each with its frame.
        """
        from napari_sam_suite.widgets.shapes import polygon_vertices

        drawn = _Drawn()
        for outlines, colour in ((kept, _KEPT), (now, _NOW)):
            polygons = [polygon for polygon, _ in outlines]
            frames = np.array([found for _, found in outlines]).reshape(-1, 3)
            for vertices in polygon_vertices(polygons, frames, picture.placement):
                drawn.add(vertices, "polygon", colour)
        if prompt is not None:
            leading = picture.placement.at(frame)

            def corners(box: Box) -> NDArray[np.float32]:
                y0, x0, y1, x1 = box
                places = [(y0, x0), (y0, x1), (y1, x1), (y1, x0)]
                return np.array([(*leading, *place) for place in places], np.float32)

            if prompt.box is not None:
                drawn.add(corners(prompt.box), "polygon", _BOX)
            radius = max(3.0, min(picture.image.sizes[-2:]) / _DOT) / 2
            for dots, colour in ((prompt.inside, _INSIDE), (prompt.outside, _OUTSIDE)):
                for y, x in dots:
                    around = (y - radius, x - radius, y + radius, x + radius)
                    drawn.add(corners(around), "ellipse", colour, colour)
        _redraw(self._at(picture), drawn)

    def clear(self) -> None:
        """Show nothing."""
        for layer in self._layers.values():
            if layer in self._viewer.layers:
                _redraw(layer, _Drawn())

    def _at(self, picture: Picture) -> Shapes:
        """The layer of these axes, made again where it is gone; others are emptied."""
        layers, axes = self._viewer.layers, picture.placement.axes
        layer = self._layers.get(axes)
        for other, shown in self._layers.items():
            if other != axes and shown in layers:
                _redraw(shown, _Drawn())
        if layer is not None and layer in layers:
            put_onto(layer, picture.placement)
            return layer
        selected = set(layers.selection)
        options = {"ndim": len(axes), **picture.placement.options}
        layer = Shapes(name=_NAME, opacity=1.0, metadata={SHOWN: True}, **options)
        layers.append(layer)
        if set(layers.selection) != selected:
            layers.selection = selected
        self._layers[axes] = layer
        return layer


@dataclass
class _Drawn:
    """Shapes to be shown, in step with each other."""

    data: list[NDArray[np.float32]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    faces: list[str] = field(default_factory=list)

    def add(
        self,
        vertices: NDArray[np.float32],
        kind: str,
        edge: str,
        face: str = "transparent",
    ) -> None:
        """Another shape."""
        self.data.append(vertices)
        self.kinds.append(kind)
        self.edges.append(edge)
        self.faces.append(face)


def _redraw(layer: Shapes, drawn: _Drawn) -> None:
    with layer.events.highlight.blocker():  # nothing is selected, and a mesh is spared
        if layer.data:
            layer.data = []
        if drawn.data:
            layer.add(
                drawn.data,
                shape_type=drawn.kinds,
                edge_width=1.5,
                edge_color=drawn.edges,
                face_color=drawn.faces,
            )

"""Clicks, drags and keys in the viewer, and what they have pointed at so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.layers import SHOWN, put_onto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from napari.components import ViewerModel
    from numpy.typing import NDArray

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.prompts.prompt import Box, Prompt
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.turns import Outline

OUTSIDE = "Shift"
"""The modifier of a click on what does not belong to the object."""

_LEFT = 1
_STILL = 4  # screen pixels that the mouse may move in a click
_NAME = "Prompt"
_NOW, _KEPT, _BOX = "#ffff00", "#00bfff", "#ffffff"
_INSIDE, _OUTSIDE = "#00ff66", "#ff3355"
_DOT = 120  # dots to the shorter side of the image


class Pointing(QObject):
    """Listens to mouse and keys in the viewer while it is switched on.

    A left drag is a box then, and no longer moves the image; the wheel and the other
    buttons are as always, and so is everything while a layer is being drawn in.

    Signals
    -------
    pointed(ndarray, bool)
        A click, in world coordinates, and whether it is inside of the object.
    stretching(ndarray, ndarray), boxed(ndarray, ndarray)
        Two corners in world coordinates, while the mouse moves and at its end.
    dropped()
        It was switched off while the mouse moved; the box comes to nothing.

    Parameters
    ----------
    viewer : ViewerModel
        Where to listen.
    keys : mapping of str to callable
        What keys do, whichever layer is active.
    also : mapping of str to callable
        What keys do unless the active layer has them for itself.
    """

    pointed = Signal(object, bool)
    stretching = Signal(object, object)
    boxed = Signal(object, object)
    dropped = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        keys: Mapping[str, Callable[[], None]],
        also: Mapping[str, Callable[[], None]],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._keys, self._also = keys, also
        self._bound: list[tuple[Any, Mapping[str, Callable[[], None]]]] = []
        self.on = False

    def turn(self, on: bool) -> None:
        """Listen, or no longer."""
        if on == self.on:
            return
        self.on = on
        if on:
            self._viewer.mouse_drag_callbacks.append(self._drag)
        else:
            self._viewer.mouse_drag_callbacks.remove(self._drag)
        active = self._viewer.layers.selection.events.active
        if on:
            active.connect(self._bind)
        else:
            active.disconnect(self._bind)
        self._bind()

    def _bind(self, _: Any = None) -> None:
        """Give the keys to the viewer and to the active layer, whose own come first."""
        for owner, keys in self._bound:
            for key in keys:
                owner.bind_key(key, None)
        self._bound = []
        if self.on:
            self._bound.append((self._viewer, {**self._keys, **self._also}))
            layer = self._viewer.layers.selection.active
            if layer is not None and not _drawn_in(layer):
                self._bound.append((layer, self._keys))
        for owner, keys in self._bound:
            for key, action in keys.items():
                owner.bind_key(key, lambda _, do=action: do(), overwrite=True)

    def _drag(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        # What is handled does not move the camera.
        active = viewer.layers.selection.active
        if event.button != _LEFT or viewer.dims.ndisplay != 2 or _drawn_in(active):
            return
        event.handled = True
        inside = OUTSIDE not in event.modifiers
        start, pixel = np.array(event.position), np.array(event.pos)
        far = False
        yield
        while self.on and event.type == "mouse_move":
            event.handled = True
            far = far or bool(np.abs(np.array(event.pos) - pixel).max() > _STILL)
            if far:
                self.stretching.emit(start, np.array(event.position))
            yield
        if not self.on:
            self.dropped.emit()
            return
        event.handled = True
        if far:
            self.boxed.emit(start, np.array(event.position))
        else:
            self.pointed.emit(start, inside)


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


def _drawn_in(layer: Any) -> bool:
    """Whether the mouse does something in a layer."""
    return str(getattr(layer, "mode", "pan_zoom")) != "pan_zoom"


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

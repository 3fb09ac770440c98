"""Clicks, drags and keys in the viewer, and what they have pointed at so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points, Shapes
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.layers import KEY, SHOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from napari.components import ViewerModel
    from numpy.typing import NDArray

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.prompts.prompt import Prompt
    from napari_sam_suite.widgets.layers import Picture

OUTSIDE = "Shift"
"""The modifier of a click on what does not belong to the object."""

_LEFT = 1
_STILL = 4  # screen pixels that the mouse may move in a click
_NAMES = ("Prompt outline", "Prompt points")
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
    """

    pointed = Signal(object, bool)
    stretching = Signal(object, object)
    boxed = Signal(object, object)

    def __init__(
        self,
        viewer: ViewerModel,
        keys: Mapping[str, Callable[[], None]],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._keys = keys
        self._bound: list[Any] = []
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
        for owner in self._bound:
            for key in self._keys:
                owner.bind_key(key, None)
        layer = self._viewer.layers.selection.active
        there = [self._viewer, *([] if layer is None or _drawn_in(layer) else [layer])]
        self._bound = there if self.on else []
        for owner in self._bound:
            for key, action in self._keys.items():
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
        while event.type == "mouse_move":
            event.handled = True
            far = far or bool(np.abs(np.array(event.pos) - pixel).max() > _STILL)
            if far:
                self.stretching.emit(start, np.array(event.position))
            yield
        event.handled = True
        if far:
            self.boxed.emit(start, np.array(event.position))
        else:
            self.pointed.emit(start, inside)


class Sketch:
    """Two layers that show what was pointed at and what it gave.

    They are emptied and not removed: drivers have crashed at the next redraw where a
    Shapes layer was removed.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._outlines: Shapes | None = None
        self._points: Points | None = None
        self._axes = ""

    def show(
        self,
        picture: Picture,
        frame: FrameIndex,
        prompt: Prompt | None,
        now: Objects | None,
        kept: Objects,
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
        now, kept : Objects
            Outlines.
        """
        from napari_sam_suite.widgets.shapes import to_vertices

        outlines, points = self._layers(picture)
        shapes: list[NDArray[Any]] = []
        colours: list[str] = []
        for objects, colour in ((kept, _KEPT), (now, _NOW)):
            if objects is not None and len(objects):
                found = to_vertices(objects, picture.placement)
                shapes += found
                colours += [colour] * len(found)
        leading = picture.placement.at(frame)
        if prompt is not None and prompt.box is not None:
            y0, x0, y1, x1 = prompt.box
            corners = [(y0, x0), (y0, x1), (y1, x1), (y1, x0)]
            shapes.append(np.array([(*leading, *c) for c in corners], np.float32))
            colours.append(_BOX)
        _redraw(outlines, shapes, colours)
        dots = [] if prompt is None else [*prompt.inside, *prompt.outside]
        places = np.array([(*leading, *dot) for dot in dots], np.float32)
        places = places.reshape(-1, len(picture.placement.axes))
        if np.array_equal(points.data, places):
            return
        points.data = places
        if dots and prompt is not None:
            points.face_color = [_INSIDE] * len(prompt.inside) + [_OUTSIDE] * len(
                prompt.outside
            )

    def owns(self, layer: object) -> bool:
        """Whether it draws in a layer."""
        return layer is not None and layer in (self._outlines, self._points)

    def clear(self) -> None:
        """Show nothing."""
        if self._outlines is not None and self._outlines in self._viewer.layers:
            _redraw(self._outlines, [], [])
        if self._points is not None and self._points in self._viewer.layers:
            self._points.data = np.zeros((0, self._points.ndim))

    def _layers(self, picture: Picture) -> tuple[Shapes, Points]:
        """The two layers, made again where they are gone or have other axes."""
        layers, axes = self._viewer.layers, picture.placement.axes
        same = axes == self._axes
        outlines, points = self._outlines, self._points
        selected = set(layers.selection)
        options = {"ndim": len(axes), **picture.placement.options}
        if outlines is None or outlines not in layers or not same:
            outlines = Shapes(
                name=_NAMES[0],
                face_color="transparent",
                opacity=1.0,
                metadata={SHOWN: True},
                **options,
            )
            layers.append(outlines)
        if points is None or points not in layers or not same:
            size = max(3.0, min(picture.image.sizes[-2:]) / _DOT)
            points = Points(name=_NAMES[1], size=size, border_width=0, **options)
            layers.append(points)
        for layer in (outlines, points):
            for name in ("scale", "translate"):
                there = getattr(layer, name)
                wanted = options.get(name, there)
                if not np.array_equal(there, wanted):  # each costs a new slice
                    setattr(layer, name, wanted)
            # whoever takes the active layer for a result has marked it as one
            layer.metadata.pop(KEY, None)
        if set(layers.selection) != selected:
            layers.selection = selected
        self._outlines, self._points, self._axes = outlines, points, axes
        return outlines, points


def _drawn_in(layer: Any) -> bool:
    """Whether the mouse does something in a layer."""
    return str(getattr(layer, "mode", "pan_zoom")) != "pan_zoom"


def _redraw(
    layer: Shapes, shapes: Sequence[NDArray[Any]], colours: Sequence[str]
) -> None:
    if layer.data:
        layer.data = []
    if shapes:
        layer.add(
            list(shapes),
            shape_type="polygon",
            edge_width=1.5,
            edge_color=list(colours),
            face_color="transparent",
        )

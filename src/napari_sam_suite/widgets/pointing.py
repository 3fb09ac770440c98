"""Clicks, drags and keys in the viewer, while something is pointed at there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from napari.components import ViewerModel
    from napari.layers import Layer

OUTSIDE = "Shift"
"""The modifier of a click on what does not belong to the object."""

_LEFT = 1
_STILL = 4  # screen pixels that the mouse may move in a click


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
        self._layer: Layer | None = None
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
        layer = self._viewer.layers.selection.active if self.on else None
        self._follow(layer)
        if self.on:
            self._bound.append((self._viewer, {**self._keys, **self._also}))
        if layer is not None and not _drawn_in(layer):
            self._bound.append((layer, self._keys))
        for owner, keys in self._bound:
            for key, action in keys.items():
                owner.bind_key(key, lambda _, do=action: do(), overwrite=True)

    def _follow(self, layer: Layer | None) -> None:
        """Hear when a layer begins to be drawn in, or no longer is."""
        if layer == self._layer:
            return
        if self._layer is not None:
            self._layer.events.mode.disconnect(self._bind)
        self._layer = layer
        if layer is not None:
            layer.events.mode.connect(self._bind)

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


def _drawn_in(layer: Any) -> bool:
    """Whether the mouse does something in a layer."""
    return str(getattr(layer, "mode", "pan_zoom")) != "pan_zoom"

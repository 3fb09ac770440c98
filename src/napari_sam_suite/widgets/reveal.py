"""A new layer shown a part at a time, so that no turn of the event loop is long."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QWidget

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Shapes

_TURN = 40  # ms between one part and the next


class Reveal(QObject):
    """Adds a Shapes layer hidden, and shows it a moment later, part by part.

    Adding takes some 0.1 s, whatever is in the layer. Drawing it first takes as long
    again, because each of its five parts (faces, highlights, their lines and corners,
    text) brings a program for the graphics card that has to be built. The text, which
    also draws the letters of a font, is shown once the layer has one. The window draws
    nothing in the turn in which the layer is added, but in the next.

    Signals
    -------
    done()
        The layer can be seen; what marks selected shapes follows.
    """

    done = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layer: Shapes | None = None
        self._parts: list[Any] = []
        self._timer = QTimer(self)
        self._timer.setInterval(_TURN)
        self._timer.timeout.connect(self._next)

    @property
    def idle(self) -> bool:
        """Whether there is no layer that is still hidden."""
        return self._layer is None

    def add(self, layer: Shapes) -> None:
        """Add a layer that is not visible yet to the viewer; shows it soon."""
        self.finish()
        _rest(self._window())
        self._viewer.add_layer(layer)
        self._layer = layer
        self._timer.start()

    def finish(self) -> None:
        """Show at once what is still to be shown."""
        while self._layer is not None or self._parts:
            self._next()

    def _window(self) -> QWidget | None:
        """The window of the panel that this belongs to."""
        owner = self.parent()
        while owner is not None and not isinstance(owner, QWidget):
            owner = owner.parent()
        return None if owner is None else owner.window()

    def _next(self) -> None:
        """Show the faces first, then one more part each time."""
        if self._layer is not None:
            layer, self._layer = self._layer, None
            if layer in self._viewer.layers:
                self._parts = self._hide_parts(layer)
                layer.visible = True
            self.done.emit()
        elif self._parts:
            _show(self._parts.pop(0))
        if self.idle and not self._parts:
            self._timer.stop()

    def _hide_parts(self, layer: Shapes) -> list[Any]:
        """All parts of the layer's drawing but its faces, hidden.

        None where the viewer has no window, or one of another make: napari has no
        public way to them, and they only save time.
        """
        with suppress(AttributeError, KeyError):
            # what a plugin is given warns of everything that is private
            viewer = getattr(self._viewer, "__wrapped__", self._viewer)
            canvas = viewer.window._qt_viewer.canvas
            node = canvas.layer_to_visual[layer].node
            parts = [
                node.highlight_lines,
                node.highlight_vertices,
                node.shape_highlights,
            ]
            for part in (*parts, node.text):
                part.visible = False
            layer.text.events.string.connect(lambda: _show(node.text))
            return parts
        return []


def _rest(window: QWidget | None) -> None:
    """Let a window draw nothing for a moment, and then all at once."""
    if window is None or not window.updatesEnabled():
        return
    window.setUpdatesEnabled(False)

    def go_on() -> None:
        with suppress(RuntimeError):  # it may have been closed
            window.setUpdatesEnabled(True)

    QTimer.singleShot(_TURN // 2, go_on)


def _show(part: Any) -> None:
    """Make a part visible; one of a layer that has been removed is no harm."""
    with suppress(Exception):
        part.visible = True

"""The layer that shows what SAM sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_sam_suite.engine.errors import EngineError
from napari_sam_suite.widgets.bridge import Background
from napari_sam_suite.widgets.layers import KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.widgets.layers import Picture

_NAME = "What SAM sees"


class Preview(QObject):
    """Composes the frame that is shown, on a thread of its own, into one layer.

    Signals
    -------
    failed(str)
        Why there is nothing to see.
    removed()
        The user deleted the layer.
    """

    failed = Signal(str)
    removed = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layer: Image | None = None
        self._on = False
        self._wanted: tuple[Picture, FrameIndex] | None = None
        self._work: Background | None = None

    def show(self, picture: Picture, frame: FrameIndex) -> None:
        """Show this frame as soon as it is composed; only the last wish counts."""
        self._on = True
        self._wanted = (picture, frame)
        self._next()

    def hide(self) -> None:
        """Remove the layer."""
        self._on = False
        self._wanted = None
        layer, self._layer = self._layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _next(self) -> None:
        if self._work is not None or self._wanted is None:
            return
        picture, frame = self._wanted
        self._wanted = None

        def work(*_: Any) -> Any:
            from napari_sam_suite.engine.composite import compose

            fixed = picture.composite.resolve(picture.image)
            return picture, compose(picture.image.frame(frame), fixed)

        self._work = Background(work, self)
        self._work.done.connect(self._put)
        self._work.failed.connect(self._fail)
        self._work.start()

    def _fail(self, error: Exception) -> None:
        self._work = None
        message = str(error) if isinstance(error, EngineError) else repr(error)
        self.failed.emit(message)
        self._next()

    def _put(self, result: tuple[Picture, Any]) -> None:
        self._work = None
        picture, rgb = result
        if self._on:
            if self._layer is not None and self._layer not in self._viewer.layers:
                self._layer = None
                self._on = False
                self.removed.emit()
                return
            self._place(picture, rgb)
        self._next()

    def _place(self, picture: Picture, rgb: Any) -> None:
        options = picture.placement.flat()
        if self._layer is not None:
            self._layer.data = rgb
            self._layer.scale = options["scale"]
            self._layer.translate = options["translate"]
            return
        layer = Image(rgb, rgb=True, name=_NAME, metadata={KEY: {}}, **options)
        layers = self._viewer.layers
        top = max(
            (layers.index(name) for name in picture.names if name in layers), default=0
        )
        selected = set(layers.selection)
        layers.insert(top + 1, layer)
        layers.selection = selected
        self._layer = layer

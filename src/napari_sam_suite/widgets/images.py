"""Choose image layers, and say what their axes are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_sam_suite.engine.errors import ImageError
from napari_sam_suite.widgets.aim import Aim
from napari_sam_suite.widgets.layers import (
    KEY,
    MEANINGS,
    Picture,
    build_picture,
    current_frame,
    guess_axes,
    leading_sizes,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_sam_suite.engine.frames import FrameIndex

_ROWS = 4
_LAYER = Qt.ItemDataRole.UserRole
_SHOWN = (
    "colormap",
    "contrast_limits",
    "gamma",
    "visible",
    "blending",
    "data",
    "scale",
    "translate",
    "rotate",
    "shear",
    "affine",
)


class ImageChooser(QWidget):
    """Tick one image layer, or several that are the channels of one image.

    Signals
    -------
    changed()
        Other layers or axes, or they look different.
    renamed(str, str)
        A layer had the first name, and has the second.
    """

    changed = Signal()
    renamed = Signal(str, str)

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._known: list[Image] = []
        self._names: dict[int, str] = {}  # of the layers, by their ids
        self._meant: dict[int, str] = {}
        self._shown: Image | None = None
        self._lengths: tuple[int, ...] = ()
        self.list = QListWidget()
        self.list.setIconSize(QSize(10, 10))
        self.list.setToolTip(
            "Tick the image, or each of its channels. Colours, contrast and "
            "visibility are those of the layers."
        )
        self.hint = QLabel("Open one, or try File, Open Sample, SAM Suite.")
        self.hint.setWordWrap(True)
        self.axes = QWidget()
        self._axis_line = QHBoxLayout(self.axes)
        self._axis_line.setContentsMargins(0, 0, 0, 0)
        self.combos: list[QComboBox] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.hint)
        layout.addWidget(self.list)
        layout.addWidget(self.axes)
        self.list.itemChanged.connect(self._ticked)
        viewer.layers.events.inserted.connect(self._inserted)
        viewer.layers.events.removed.connect(self._refill)
        viewer.layers.events.reordered.connect(self._refill)
        self._refill()

    def disconnect_viewer(self) -> None:
        """Stop listening to the viewer and its layers."""
        events = self._viewer.layers.events
        events.inserted.disconnect(self._inserted)
        for event in (events.removed, events.reordered):
            event.disconnect(self._refill)
        for layer in self._known:
            self._listen(layer, connect=False)
        self._known = []

    def layers(self) -> list[Image]:
        """The ticked layers, the lowest first."""
        return [
            item.data(_LAYER)
            for item in reversed(self._items())
            if item.checkState() == Qt.CheckState.Checked
        ]

    def choose(self, *layers: Image) -> None:
        """Tick exactly these layers."""
        with signals_blocked(self.list):
            for item in self._items():
                ticked = item.data(_LAYER) in layers  # or in napari's proxies of them
                item.setCheckState(_check(ticked))
        self._show_axes()

    def letters(self) -> str:
        """Meaning of every axis of the ticked layers."""
        return "".join(str(combo.currentData()) for combo in self.combos) + "YX"

    def picture(self) -> Picture:
        """The ticked layers as one image.

        Raises
        ------
        ImageError
            If there are none, or they do not fit together.
        """
        layers = self.layers()
        letters = self.letters()
        if len(set(letters)) != len(letters):
            raise ImageError(
                "Two axes have the same meaning.", "Choose another one for one of them."
            )
        channel = self.frame()[1] if layers else 0
        return build_picture(layers, letters, channel=channel)

    def frame(self) -> tuple[FrameIndex, int]:
        """Frame and channel that the viewer shows of the ticked layers."""
        return current_frame(self.layers()[0], self.letters(), self._viewer.dims.point)

    def aim(self) -> Aim:
        """Tells what places in the viewer are in the ticked layers."""
        return Aim(self.layers()[0], self.letters())

    def _items(self) -> list[QListWidgetItem]:
        rows = (self.list.item(row) for row in range(self.list.count()))
        return [item for item in rows if item is not None]

    def _inserted(self, event: Any) -> None:
        if isinstance(event.value, Image):
            self._refill()

    def _refill(self, _: Any = None) -> None:
        """Show the layers that there are; ticks stay where they were."""
        ticked = self.layers()
        images = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image) and KEY not in layer.metadata
        ]
        for layer in self._known:
            if layer not in images:
                self._listen(layer, connect=False)
        new = [layer for layer in images if layer not in self._known]
        for layer in new:
            self._listen(layer, connect=True)
        self._known = images
        alive = {id(layer) for layer in images}
        self._meant = {k: meant for k, meant in self._meant.items() if k in alive}
        ticked = [layer for layer in ticked if layer in images]
        for layer in new:
            if not ticked or _is_channel_of(layer, ticked[0]):
                ticked.append(layer)
        if not ticked and images:
            ticked = [images[-1]]
        with signals_blocked(self.list):
            self.list.clear()
            for layer in reversed(images):
                self.list.addItem(_item(layer, layer in ticked))
        self._fit()
        self._show_axes()

    def _fit(self) -> None:
        count = self.list.count()
        self.list.setVisible(count > 0)
        self.hint.setVisible(count == 0)
        height = max(16, self.list.sizeHintForRow(0))
        self.list.setFixedHeight(min(count, _ROWS) * height + 6)

    def _ticked(self, item: QListWidgetItem) -> None:
        """Layers of another shape cannot be channels of the same image."""
        layer = item.data(_LAYER)
        if item.checkState() == Qt.CheckState.Checked:
            fitting = [one for one in self.layers() if _same_shape(one, layer)]
            self.choose(*fitting)
        else:
            self._show_axes()

    def _show_axes(self) -> None:
        layers = self.layers()
        first = layers[0] if layers else None
        lengths = () if first is None else leading_sizes(first)
        if (first, lengths) != (self._shown, self._lengths):
            self._shown, self._lengths = first, lengths
            for combo in self.combos:
                self._axis_line.removeWidget(combo)
                combo.deleteLater()
            self.combos = []
            if first is not None:
                self._add_axes(first)
            self.axes.setVisible(bool(self.combos))
        self.changed.emit()

    def _remember(self) -> None:
        """Keep what the user says of the axes of a layer, for as long as it lives."""
        self._meant[id(self._shown)] = self.letters()
        self.changed.emit()

    def _add_axes(self, layer: Image) -> None:
        try:
            letters = self._meant.get(id(layer), "")
            if len(letters) != layer.ndim:
                letters = guess_axes(layer.axis_labels)
        except ImageError:
            letters = "P" * layer.ndim
        for number, size in enumerate(leading_sizes(layer)):
            combo = QComboBox()
            for letter, meaning in MEANINGS.items():
                combo.addItem(f"{meaning} ({size})", letter)
            combo.setCurrentIndex(combo.findData(letters[number]))
            combo.setMinimumContentsLength(6)
            combo.setToolTip(
                f"What axis {number} of the image ({layer.axis_labels[number]}) is."
            )
            combo.currentIndexChanged.connect(lambda _: self._remember())
            self._axis_line.addWidget(combo, 1)
            self.combos.append(combo)

    def _listen(self, layer: Image, *, connect: bool) -> None:
        for name in _SHOWN:
            event = getattr(layer.events, name)
            if connect:
                event.connect(self._restyled)
            else:
                event.disconnect(self._restyled)
        if connect:
            self._names[id(layer)] = layer.name
            layer.events.name.connect(self._renamed)
        else:
            self._names.pop(id(layer), None)
            layer.events.name.disconnect(self._renamed)

    def _renamed(self, event: Any) -> None:
        """Results know their image by its name: they learn the new one."""
        layer = event.source
        before = self._names.get(id(layer), layer.name)
        self._names[id(layer)] = layer.name
        for other in self._viewer.layers:
            about = other.metadata.get(KEY) or {}
            if before in about.get("image", ()):
                now = {before: layer.name}
                about["image"] = [now.get(name, name) for name in about["image"]]
        self.renamed.emit(before, layer.name)
        self._refill()

    def _restyled(self, _: Any = None) -> None:
        with signals_blocked(self.list):
            for item in self._items():
                item.setIcon(_icon(item.data(_LAYER)))
        self._show_axes()


def _item(layer: Image, ticked: bool) -> QListWidgetItem:
    item = QListWidgetItem(_icon(layer), layer.name)
    item.setData(_LAYER, layer)
    item.setFlags(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled)
    item.setCheckState(_check(ticked))
    return item


def _icon(layer: Image) -> QIcon:
    """The layer's colour; hollow where it is hidden."""
    picture = QPixmap(10, 10)
    picture.fill(QColor(0, 0, 0, 0))
    if layer.visible:
        colours = np.asarray(layer.colormap.map(np.array([0.7, 1.0])))[:, :3]
        brightest = colours[colours.sum(1).argmax()]
        red, green, blue = (brightest * 255).astype(int).tolist()
        picture.fill(QColor(red, green, blue))
    return QIcon(picture)


def _check(ticked: bool) -> Qt.CheckState:
    return Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked


def _same_shape(one: Image, other: Image) -> bool:
    if one is other or one.rgb or other.rgb:
        return one is other
    return bool(one.data.shape == other.data.shape)


def _is_channel_of(layer: Image, first: Image) -> bool:
    one, other = layer.source, first.source
    together = (one.path, one.sample) == (other.path, other.sample)
    added = str(layer.blending) == "additive"
    return added and together and _same_shape(layer, first)

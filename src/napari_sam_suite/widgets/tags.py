"""The Tags tab: name what objects are, by mouse or by key."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QIcon, QKeySequence, QPixmap
from qtpy.QtWidgets import (  # type: ignore[attr-defined]
    QColorDialog,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QPushButton,
    QShortcut,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_sam_suite.widgets.layers import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from numpy.typing import NDArray

_KEYS = 9
_TAG = Qt.ItemDataRole.UserRole


class TagTab(QWidget):
    """Tags of one Shapes layer: how many objects have each, its colour and its key.

    Parameters
    ----------
    viewer : ViewerModel
        The active Shapes layer is worked on.
    fallback : callable
        The layer where no Shapes layer is active, or None.

    Signals
    -------
    said(str)
        What happened, in one sentence.
    """

    said = Signal(str)

    def __init__(
        self, viewer: ViewerModel, fallback: Callable[[], Shapes | None]
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._fallback = fallback
        self._layer: Shapes | None = None
        self.tree = QTreeWidget()
        self.tree.setColumnCount(3)
        self.tree.setHeaderLabels(["Tag", "Objects", "Key"])
        self.tree.setRootIsDecorated(False)
        self.tree.setToolTip("Double-click a tag to rename it.")
        self.name = QLineEdit()
        self.name.setPlaceholderText("New tag")
        self.add = QPushButton("Add")
        self.assign = QPushButton()
        self.assign.setMinimumHeight(30)
        self.colour = QPushButton("Colour...")
        self._lay_out()
        self.add.clicked.connect(self._add)
        self.name.returnPressed.connect(self._add)
        self.assign.clicked.connect(lambda: self.tag_selection(self.current()))
        self.colour.clicked.connect(self._choose_colour)
        self.tree.currentItemChanged.connect(lambda *_: self._show_buttons())
        self.tree.itemChanged.connect(self._renamed)
        for number in range(1, _KEYS + 1):
            shortcut = QShortcut(QKeySequence(f"Alt+{number}"), self)
            shortcut.setContext(Qt.ShortcutContext.WindowShortcut)
            shortcut.activated.connect(partial(self.press_key, number))
        viewer.layers.selection.events.active.connect(self.refresh)
        self.refresh()

    def disconnect_viewer(self) -> None:
        """Stop listening to the viewer and its layers."""
        self._viewer.layers.selection.events.active.disconnect(self.refresh)
        self._listen(None)

    def tags(self) -> list[str]:
        """All tags of the layer, those without an object included."""
        if self._layer is None:
            return []
        from napari_sam_suite.engine.features import UNASSIGNED

        used = sorted(set(self._values()), key=lambda tag: (tag != UNASSIGNED, tag))
        return list(dict.fromkeys([*self._about().get("tags", []), *used]))

    def current(self) -> str:
        """The chosen tag; empty if there is none."""
        item = self.tree.currentItem()
        return "" if item is None else str(item.data(0, _TAG))

    def press_key(self, number: int) -> None:
        """Give the tag of a key to the selected objects."""
        tags = self.tags()
        if number <= len(tags):
            self.tag_selection(tags[number - 1])

    def tag_selection(self, tag: str) -> None:
        """Give a tag to the objects that are selected in the layer."""
        layer = self._layer
        if layer is None or not tag:
            return
        rows = sorted(layer.selected_data)
        if not rows:
            self.said.emit("Select objects first: press S, then click or drag.")
            return
        values = self._values()
        values[rows] = tag
        self._set(values)
        what = "1 object is" if len(rows) == 1 else f"{len(rows)} objects are"
        self.said.emit(f"{what} {tag} now.")

    def rename(self, old: str, new: str) -> None:
        """Rename a tag; objects of both names are one group afterwards."""
        layer, new = self._layer, new.strip()
        if layer is None or not new or new == old:
            self.refresh()
            return
        about = self._about()
        about["tags"] = [new if tag == old else tag for tag in self.tags()]
        if old in about.get("colours", {}):
            about["colours"].setdefault(new, about["colours"].pop(old))
        values = self._values()
        values[values == old] = new
        self._set(values)

    def recolour(self, tag: str, colour: str) -> None:
        """Show a tag in another colour, ``#rrggbb``."""
        if self._layer is not None and tag:
            self._about().setdefault("colours", {})[tag] = colour
            self._set(self._values())

    def refresh(self, _: Any = None) -> None:
        """Show the tags of the layer that is worked on."""
        active = self._viewer.layers.selection.active
        layer = active if isinstance(active, Shapes) else self._fallback()
        self._listen(layer)
        if layer is not None:
            # a tag keeps its key, whatever is tagged later
            self._about()["tags"] = self.tags()
        chosen = self.current()
        with signals_blocked(self.tree):
            self.tree.clear()
            for number, tag in enumerate(self.tags(), 1):
                item = self._item(tag, number)
                self.tree.addTopLevelItem(item)
                if tag == chosen:
                    self.tree.setCurrentItem(item)
        self._show_buttons()

    def _lay_out(self) -> None:
        header = self.tree.header()
        if header is not None:
            header.setStretchLastSection(False)
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
            for column in (1, 2):
                header.setSectionResizeMode(
                    column, QHeaderView.ResizeMode.ResizeToContents
                )
        line = QHBoxLayout()
        line.addWidget(self.name, 1)
        line.addWidget(self.add)
        line.addWidget(self.colour)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 10, 6, 6)
        layout.addWidget(self.tree, 1)
        layout.addLayout(line)
        layout.addWidget(self.assign)

    def _item(self, tag: str, number: int) -> QTreeWidgetItem:
        from napari_sam_suite.widgets.shapes import colours

        count = int(np.count_nonzero(self._values() == tag))
        key = f"Alt+{number}" if number <= _KEYS else ""
        item = QTreeWidgetItem([tag, str(count), key])
        item.setData(0, _TAG, tag)
        item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
        picture = QPixmap(10, 10)
        rgba = colours([tag], self._about().get("colours"))[0] * 255
        picture.fill(QColor(*rgba.astype(int).tolist()))
        item.setIcon(0, QIcon(picture))
        return item

    def _about(self) -> dict[str, Any]:
        layer = self._layer
        return {} if layer is None else layer.metadata.setdefault(KEY, {})

    def _values(self) -> NDArray[np.object_]:
        """Tag of every object."""
        layer = self._layer
        if layer is None:
            return np.empty(0, dtype=object)
        from napari_sam_suite.engine.features import UNASSIGNED

        if "tag" not in layer.features:
            return np.full(len(layer.data), UNASSIGNED, dtype=object)
        values = layer.features["tag"].fillna(UNASSIGNED).astype(str)
        return np.array(values, dtype=object)

    def _set(self, values: Any) -> None:
        from napari_sam_suite.widgets.shapes import colours

        layer = self._layer
        if layer is None:
            return
        selected = set(layer.selected_data)
        layer.features = layer.features.assign(tag=[str(value) for value in values])
        layer.edge_color = colours(values, self._about().get("colours"))
        layer.selected_data = selected
        self.refresh()

    def _listen(self, layer: Shapes | None) -> None:
        if layer is self._layer:
            return
        if self._layer is not None:
            self._layer.events.features.disconnect(self.refresh)
        self._layer = layer
        if layer is not None:
            layer.events.features.connect(self.refresh)

    def _show_buttons(self) -> None:
        tag = self.current()
        why = "There are no objects yet." if self._layer is None else ""
        row = self.tree.indexOfTopLevelItem(self.tree.currentItem()) + 1 if tag else 0
        key = f"  (Alt+{row})" if 0 < row <= _KEYS else ""
        self.assign.setText(f"Tag selection as {tag}{key}" if tag else "Tag selection")
        self.assign.setEnabled(bool(tag))
        self.assign.setToolTip(why or ("" if tag else "Choose a tag above."))
        self.colour.setEnabled(bool(tag))
        self.colour.setToolTip(why or ("" if tag else "Choose a tag above."))
        for control in (self.name, self.add):
            control.setEnabled(self._layer is not None)
            control.setToolTip(why)

    def _add(self) -> None:
        tag = self.name.text().strip()
        if tag and self._layer is not None:
            about = self._about()
            about["tags"] = list(dict.fromkeys([*self.tags(), tag]))
            self.name.clear()
            self.refresh()
            self.tree.setCurrentItem(self.tree.topLevelItem(about["tags"].index(tag)))

    def _renamed(self, item: QTreeWidgetItem, _: int) -> None:
        self.rename(str(item.data(0, _TAG)), item.text(0))

    def _choose_colour(self) -> None:
        chosen = QColorDialog.getColor(parent=self)
        if chosen.isValid():
            self.recolour(self.current(), chosen.name())

"""The Tags tab: name what objects are, by mouse or by key."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QColorDialog,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_sam_suite.widgets.edits import Edits
from napari_sam_suite.widgets.form import scrolled
from napari_sam_suite.widgets.levels import LevelButton
from napari_sam_suite.widgets.review import SELECT_FIRST, Review, bind
from napari_sam_suite.widgets.soon import Soon
from napari_sam_suite.widgets.tab import Tab
from napari_sam_suite.widgets.table import about, column

if TYPE_CHECKING:
    from napari.layers import Shapes

    from napari_sam_suite.widgets.tab import Parts, State

_KEYS = 9
_HEIGHT = 90  # px, for a header and three tags
_TAG = Qt.ItemDataRole.UserRole


class TagTab(Tab):
    """Tags of one Shapes layer: how many objects have each, its colour and its key.

    The active Shapes layer is worked on. The keys work while it is active, whichever
    tab is open.
    """

    title = "Tags"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        viewer = parts.viewer
        self._layer: Shapes | None = None
        self._soon = Soon(self.refresh, self)
        self._edits = Edits(self)
        self.review = Review(viewer, self._edits)
        self.levels = LevelButton(parts, self._edits)
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
        self.review.said.connect(self.said)
        self.levels.said.connect(self.said)
        self.levels.failed.connect(self.failed)
        self._edits.changed.connect(self.refresh)
        viewer.layers.selection.events.active.connect(self._soon.ask)
        parts.results.changed.connect(self._soon.ask)
        self.refresh()

    def show_state(self, state: State) -> None:
        """Another image may have other results."""
        if self.parts.shapes_layer() != self._layer:
            self.refresh()

    def disconnect_viewer(self) -> None:
        """Stop listening to the viewer and its layers."""
        self.parts.viewer.layers.selection.events.active.disconnect(self._soon.ask)
        self._listen(None)
        self.review.set_layer(None)
        self.levels.set_layer(None)

    def tags(self) -> list[str]:
        """All tags of the layer, those without an object included."""
        if self._layer is None:
            return []
        from napari_sam_suite.engine.features import UNASSIGNED

        used = sorted(
            set(column(self._layer, "tag")), key=lambda tag: (tag != UNASSIGNED, tag)
        )
        return list(dict.fromkeys([*about(self._layer).get("tags", []), *used]))

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
            self.said.emit(SELECT_FIRST)
            return
        values = column(layer, "tag")
        values[rows] = tag
        what = "1 object is" if len(rows) == 1 else f"{len(rows)} objects are"
        self._edits.change(layer, f"{what} {tag}", tag=values)
        self.said.emit(f"{what} {tag} now.")

    def rename(self, old: str, new: str) -> None:
        """Rename a tag; objects of both names are one group afterwards."""
        layer, new = self._layer, new.strip()
        if layer is None or not new or new == old:
            self.refresh()
            return
        tags = [new if tag == old else tag for tag in self.tags()]
        colours = dict(about(layer).get("colours", {}))
        if old in colours:
            colours.setdefault(new, colours.pop(old))
        values = column(layer, "tag")
        values[values == old] = new
        settings = {"tags": list(dict.fromkeys(tags)), "colours": colours}
        self._edits.change(layer, f"{old} is called {new}", settings, tag=values)

    def recolour(self, tag: str, colour: str) -> None:
        """Show a tag in another colour, ``#rrggbb``."""
        layer = self._layer
        if layer is not None and tag:
            colours = about(layer).get("colours", {}) | {tag: colour}
            what = f"{tag} has another colour"
            self._edits.change(layer, what, {"colours": colours})

    def refresh(self, _: Any = None) -> None:
        """Show the tags of the layer that is worked on."""
        layer = self.parts.shapes_layer()
        self._listen(layer)
        if layer is not None:
            # a tag keeps its key, whatever is tagged later
            about(layer)["tags"] = self.tags()
        chosen = self.current()
        counts = Counter(column(layer, "tag"))
        with signals_blocked(self.tree):
            self.tree.clear()
            for number, tag in enumerate(about(layer).get("tags", []), 1):
                item = self._item(tag, number, counts[tag])
                self.tree.addTopLevelItem(item)
                if tag == chosen:
                    self.tree.setCurrentItem(item)
        self._show_buttons()
        self.review.set_layer(layer)
        self.levels.set_layer(layer)

    def _lay_out(self) -> None:
        header = self.tree.header()
        if header is not None:
            header.setStretchLastSection(False)
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
            for place in (1, 2):
                header.setSectionResizeMode(
                    place, QHeaderView.ResizeMode.ResizeToContents
                )
        line = QHBoxLayout()
        line.addWidget(self.name, 1)
        line.addWidget(self.add)
        line.addWidget(self.colour)
        below = QHBoxLayout()
        below.addWidget(self.assign, 1)
        below.addWidget(self.levels)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(6, 10, 6, 6)
        self.tree.setMinimumHeight(_HEIGHT)
        column.addWidget(self.tree, 1)
        column.addLayout(line)
        column.addLayout(below)
        column.addWidget(self.review)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scrolled(inside))

    def _item(self, tag: str, number: int, count: int) -> QTreeWidgetItem:
        from napari_sam_suite.widgets.shapes import colours

        key = f"Alt+{number}" if number <= _KEYS else ""
        item = QTreeWidgetItem([tag, str(count), key])
        item.setData(0, _TAG, tag)
        item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
        picture = QPixmap(10, 10)
        rgba = colours([tag], about(self._layer).get("colours"))[0] * 255
        picture.fill(QColor(*rgba.astype(int).tolist()))
        item.setIcon(0, QIcon(picture))
        return item

    def _listen(self, layer: Shapes | None) -> None:
        if layer == self._layer:
            return
        if self._layer is not None:
            self._layer.events.features.disconnect(self.refresh)
            bind(self._layer, {f"Alt-{n}": None for n in range(1, _KEYS + 1)})
        self._layer = layer
        if layer is not None:
            layer.events.features.connect(self.refresh)
            keys = {f"Alt-{n}": partial(self.press_key, n) for n in range(1, _KEYS + 1)}
            bind(layer, keys)

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
            tags = list(dict.fromkeys([*self.tags(), tag]))
            self.name.clear()
            self._edits.change(self._layer, f"{tag} is a new tag", {"tags": tags})
            self.tree.setCurrentItem(self.tree.topLevelItem(tags.index(tag)))

    def _renamed(self, item: QTreeWidgetItem, _: int) -> None:
        self.rename(str(item.data(0, _TAG)), item.text(0))

    def _choose_colour(self) -> None:
        chosen = QColorDialog.getColor(parent=self)
        if chosen.isValid():
            self.recolour(self.current(), chosen.name())

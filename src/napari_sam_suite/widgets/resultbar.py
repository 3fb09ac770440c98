"""What becomes of results: replace or add, undo, and what to do with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from napari_sam_suite.widgets.runs import Mode

_MODES = {
    "replace": ("Replace in these frames", "Earlier objects of the same frames go."),
    "add": ("Add to the layer", "Earlier objects stay."),
    "new": ("Put into a new layer", "Earlier layers stay as they are."),
}


class ResultBar(QWidget):
    """Controls below the tabs.

    Signals
    -------
    undone(), redone(), copied(), saved(), drawn()
        Undo run, bring back, copy as Python, save recipe, show as labels.
    """

    undone = Signal()
    redone = Signal()
    copied = Signal()
    saved = Signal()
    drawn = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.mode_box = QComboBox()
        for mode, (text, tip) in _MODES.items():
            self.mode_box.addItem(text, mode)
            self.mode_box.setItemData(self.mode_box.count() - 1, tip, 3)
        self.undo = QPushButton("Undo run")
        self.redo = QPushButton("Bring back")
        self.more = QPushButton("More")
        menu = QMenu(self.more)
        menu.setToolTipsVisible(True)
        self.copy = menu.addAction("Copy as Python", self.copied.emit)
        self.labels = menu.addAction("Show as labels", self.drawn.emit)
        self.save = menu.addAction("Save recipe...", self.saved.emit)
        self.more.setMenu(menu)
        self.undo.clicked.connect(self.undone)
        self.redo.clicked.connect(self.redone)
        line = QHBoxLayout()
        for button in (self.undo, self.redo):
            line.addWidget(button, 1)
        line.addWidget(self.more, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.mode_box)
        layout.addLayout(line)
        self.show_state(undo=False, redo=False, result=False, busy=False)
        self.show_tab(draws=True)

    @property
    def mode(self) -> Mode:
        """What becomes of earlier objects."""
        return cast("Mode", self.mode_box.currentData())

    def show_tab(self, *, draws: bool) -> None:
        """Say what becomes of earlier results, where the shown tab makes new ones."""
        self.mode_box.setEnabled(draws)
        self.mode_box.setToolTip(
            "What becomes of earlier results of this image."
            if draws
            else "This tab makes no objects, so nothing is replaced."
        )

    def show_state(self, *, undo: bool, redo: bool, result: bool, busy: bool) -> None:
        """Enable what can be done now, and say why the rest cannot."""
        wait = "Wait for the run to end."
        self.undo.setEnabled(undo and not busy)
        self.undo.setToolTip(
            wait if busy else "Take the last run away." if undo else "There is no run."
        )
        self.redo.setEnabled(redo and not busy)
        self.redo.setToolTip(
            wait if busy else "Show it again." if redo else "No run was undone."
        )
        self.more.setEnabled(result)
        self.more.setToolTip("" if result else "There is no result yet.")

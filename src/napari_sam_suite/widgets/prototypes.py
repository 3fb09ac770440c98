"""What few-shot learnt, saved for later, and loaded in place of examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sam_suite.engine.errors import EngineError

if TYPE_CHECKING:
    from napari_sam_suite.engine.fewshot.prototypes import Prototypes

_FILES = "Prototypes (*.safetensors)"


class PrototypeBox(QWidget):
    """Buttons that save what was learnt, and load what was learnt before.

    Attributes
    ----------
    learnt : Prototypes or None
        Of the last search, with what was accepted and rejected since.
    loaded : Prototypes or None
        Searched with in place of examples.
    path : str
        Where they were loaded from.

    Signals
    -------
    changed()
        Other prototypes are to be searched with, or none.
    said(str), failed(Exception)
        What happened.
    """

    changed = Signal()
    said = Signal(str)
    failed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.learnt: Prototypes | None = None
        self.loaded: Prototypes | None = None
        self.path = ""
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.save_button = QPushButton("Save prototypes…")
        self.load_button = QPushButton("Load prototypes…")
        self.drop_button = QPushButton("Use the tags again")
        self._lay_out()
        self.save_button.clicked.connect(self.ask_and_save)
        self.load_button.clicked.connect(self.ask_and_load)
        self.drop_button.clicked.connect(self.drop)
        self._show()

    def keep(self, learnt: Prototypes | None) -> None:
        """Take what a search, or a verdict after it, has taught."""
        self.learnt = learnt
        self._show()

    def ask_and_save(self) -> None:
        """Save them where the user wants it."""
        name, _ = QFileDialog.getSaveFileName(
            self, "Save prototypes", "prototypes.safetensors", _FILES
        )
        if name:
            self.save(Path(name))

    def save(self, path: Path) -> None:
        """Write what was learnt: ``NAME.safetensors`` and, beside it, ``NAME.json``."""
        from napari_sam_suite.engine.fewshot.prototype_files import prototype_files

        if self.learnt is None:
            return
        try:
            self.learnt.save(path)
        except EngineError as error:
            self.failed.emit(error)
        else:
            arrays, about = prototype_files(path)
            self.said.emit(f"Saved {arrays.name} and {about.name}.")

    def ask_and_load(self) -> None:
        """Load the ones that the user chooses."""
        name, _ = QFileDialog.getOpenFileName(self, "Load prototypes", "", _FILES)
        if name:
            self.load(Path(name))

    def load(self, path: Path) -> None:
        """Search with saved prototypes from now on."""
        from napari_sam_suite.engine.fewshot.prototypes import Prototypes

        try:
            self.loaded = Prototypes.load(path)
        except EngineError as error:
            self.failed.emit(error)
            return
        self.path = str(path)
        self._show()
        self.changed.emit()

    def drop(self) -> None:
        """Learn from tagged shapes again."""
        self.loaded, self.path = None, ""
        self._show()
        self.changed.emit()

    def _show(self) -> None:
        self.save_button.setEnabled(self.learnt is not None)
        self.save_button.setToolTip(
            "What was learnt from the examples, to be used on other images."
            if self.learnt is not None
            else "Find similar objects first: that is when it is learnt."
        )
        self.load_button.setToolTip("Search with these, without examples.")
        loaded = self.loaded
        self.about.setVisible(loaded is not None)
        self.drop_button.setVisible(loaded is not None)
        if loaded is not None:
            tags = ", ".join(loaded.tags)
            self.about.setText(
                f"Finds {tags} as learnt from {len(loaded)} examples "
                f"({Path(self.path).name}, {loaded.model}, {loaded.mode} mode)."
            )

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.addWidget(self.save_button)
        buttons.addWidget(self.load_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.about)
        layout.addWidget(self.drop_button)
        layout.addLayout(buttons)

"""What can be done with results once they are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QApplication, QFileDialog, QWidget

from napari_sam_suite.engine.errors import EngineError
from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.overview import MANY, start_overview
from napari_sam_suite.widgets.recipe import as_python
from napari_sam_suite.widgets.repeat import to_recipe

if TYPE_CHECKING:
    from napari.layers import Shapes

    from napari_sam_suite.widgets.tab import Parts


class Outcome(QObject):
    """Does what the buttons below the tabs say.

    Parameters
    ----------
    parts : Parts
        The buttons, the image and the results.

    Signals
    -------
    said(str), failed(Exception)
        What happened.
    """

    said = Signal(str)
    failed = Signal(object)

    def __init__(self, parts: Parts, parent: QWidget) -> None:
        super().__init__(parent)
        self._parts = parts
        self._results = parts.results
        self._window = parent
        bar = parts.bar
        bar.undone.connect(self.undo)
        bar.redone.connect(self.redo)
        bar.copied.connect(self.copy)
        bar.saved.connect(self.ask_and_save)
        bar.drawn.connect(self.draw_labels)

    def undo(self) -> None:
        """Take the last run away."""
        step = self._results.last
        if step is not None:
            self._results.undo()
            self.said.emit(f"{step.what} was taken away; Bring back shows it again.")

    def redo(self) -> None:
        """Bring it back."""
        self._results.redo()
        step = self._results.last
        self.said.emit(f"{step.what if step else ''} is back.")

    def recipe(self) -> dict[str, Any]:
        """What the last run of the image did; empty if there is none."""
        layer = self._parts.result_layer()
        runs = {} if layer is None else layer.metadata[KEY]["runs"]
        return dict(list(runs.values())[-1]) if runs else {}

    def copy(self) -> None:
        """Put a script that repeats the last run onto the clipboard."""
        clipboard = QApplication.clipboard()
        recipe = self.recipe()
        if clipboard is not None and recipe:
            clipboard.setText(as_python(recipe))
            self.said.emit("Copied: a script that repeats the last run.")

    def ask_and_save(self) -> None:
        """Save the recipe where the user wants it."""
        path, _ = QFileDialog.getSaveFileName(
            self._window, "Save recipe", "recipe.json", "JSON (*.json)"
        )
        if path:
            self.save(Path(path))

    def save(self, path: Path) -> None:
        """Write the last run as a recipe, which the command line repeats."""
        try:
            to_recipe(self.recipe()).save(path)
        except EngineError as error:
            self.failed.emit(error)
        else:
            self.said.emit(f"Saved {path.name}.")

    def draw_labels(self) -> None:
        """Show all objects as a labels layer, anew in the one that is there."""
        picture, _ = self._parts.look()
        layer = self._parts.result_layer()
        if picture is None or layer is None:
            return
        try:
            work = start_overview(layer, picture, self)
        except EngineError as error:
            self.failed.emit(error)
            return
        work.done.connect(lambda made: self._show_labels(layer, *made))
        work.failed.connect(self.failed)
        work.start()

    def _show_labels(self, layer: Shapes, labels: Any, options: dict[str, Any]) -> None:
        """Show the labels; polygons too many to be drawn quickly are hidden."""
        from napari.layers import Labels

        viewer, name = self._parts.viewer, options["name"]
        there = next((one for one in viewer.layers if one.name == name), None)
        if isinstance(there, Labels) and there.data.shape == labels.shape:
            there.data = labels
        else:
            name = viewer.add_labels(labels, **options).name
        text = f"The objects are in {name}."
        if layer.nshapes > MANY:
            layer.visible = False
            text += " Their polygons are hidden; the eye beside the layer shows them."
        self.said.emit(text)

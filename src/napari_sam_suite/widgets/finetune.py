"""The Fine-tune tab: which shapes to learn from, how, and a plot of how it goes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from napari.layers import Labels, Shapes
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QFormLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sam_suite.engine.errors import EngineError, ParameterError
from napari_sam_suite.engine.finetune.files import check_target
from napari_sam_suite.engine.finetune.params import FinetuneParams
from napari_sam_suite.engine.models.checkpoints import tuned_folder
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.widgets.curves import Curves
from napari_sam_suite.widgets.drawing import is_of
from napari_sam_suite.widgets.form import Form, fold, scrolled
from napari_sam_suite.widgets.layers import KEY, SHOWN
from napari_sam_suite.widgets.learning import Learning, read_truth, show_comparison
from napari_sam_suite.widgets.settings import preferences
from napari_sam_suite.widgets.tab import Tab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari.layers import Layer

    from napari_sam_suite.engine.finetune.outcome import Outcome
    from napari_sam_suite.engine.finetune.progress import Epoch
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.tab import Parts, State

_FIRST = ("epochs", "patience", "complete")
_ROWS = 4
_LAYER = Qt.ItemDataRole.UserRole
_FITS = Qt.ItemDataRole.UserRole + 1  # whether it is of the chosen image


class FinetuneTab(Tab):
    """Controls of fine-tuning; the ticked layers hold the objects to learn from."""

    title = "Fine-tune"
    draws = False

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._why = ""
        self.layers = QListWidget()
        self.layers.setToolTip("Shapes and labels drawn on the image, on any frames.")
        self.name = QLineEdit(_free_name("my-model"))
        self.name.setToolTip("The new model is listed under this name.")
        self.form = Form(FinetuneParams, _FIRST)
        others = [n for n in FinetuneParams.model_fields if n not in _FIRST]
        self.advanced = Form(FinetuneParams, others)
        self.curves = Curves()
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.button = QPushButton("Learn from these objects")
        self.button.setMinimumHeight(30)
        self._lay_out()
        self._connect()
        self.refresh()

    def disconnect_viewer(self) -> None:
        """Stop listening to the viewer and its layers."""
        for event in self._events():
            event.disconnect(self.refresh)

    def params(self) -> FinetuneParams:
        """What is set.

        Raises
        ------
        ParameterError
            If a value makes no sense.
        """
        return FinetuneParams(**self.form.values(), **self.advanced.values())

    def target(self) -> Path:
        """File of the new model.

        Raises
        ------
        ParameterError
            If its name cannot be a file's.
        """
        name = self.name.text().strip()
        if not re.fullmatch(r"[\w][\w .+-]*", name):
            raise ParameterError(
                f"A model cannot be called {name!r}.",
                "Use letters, digits, spaces, dots, minus and underscore.",
            )
        return _file_of(name)

    def chosen(self) -> list[Layer]:
        """The ticked layers."""
        return [layer for layer, _, ticked in self._rows() if ticked]

    def show_state(self, state: State) -> None:
        """Show whether a training can begin."""
        self._why = state.why
        if any(fits != self._fits(layer) for layer, fits, _ in self._rows()):
            self.refresh()
        self._show_button()

    def start(self) -> None:
        """Learn from what the ticked layers hold now."""
        parts = self.parts
        try:
            picture = parts.images.picture()
            params = self.params()
            out = check_target(self.target(), parts.models.spec)
            truth = read_truth(self.chosen(), picture, parts.images.frame()[0])
        except EngineError as error:
            self.failed.emit(error)
            return
        self.curves.forget()

        def done(outcome: Outcome) -> None:
            self._take(outcome, picture)

        def keep(path: Path) -> None:
            parts.models.add(find_model(path), choose=False)

        heard = self._draw, done, keep
        parts.runner.start(
            Learning(parts.models.spec, picture, truth, params, out, *heard)
        )

    def refresh(self, _: object = None) -> None:
        """List the layers that can be learnt from; what was ticked stays so.

        Unless another image was chosen since: its own results are ticked then.
        """
        known = {layer: (fits, ticked) for layer, fits, ticked in self._rows()}
        some = any(fits for fits, _ in known.values())
        with QSignalBlocker(self.layers):
            self.layers.clear()
            for layer in self._usable():
                item = QListWidgetItem(layer.name)
                fits = self._fits(layer)
                item.setData(_LAYER, layer)
                item.setData(_FITS, fits)
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                before, ticked = known.get(layer, (not fits, False))
                if before != fits:  # drawn first, or a result
                    ticked = fits and (not some or KEY in layer.metadata)
                item.setCheckState(
                    Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked
                )
                self.layers.addItem(item)
        self._show_button()

    def _rows(self) -> Iterator[tuple[Layer, bool, bool]]:
        """Layers of the list, whether they fit the image, and whether they are ticked.

        They fit unless they are of another image.
        """
        for row in range(self.layers.count()):
            item = self.layers.item(row)
            if item is not None:
                ticked = item.checkState() == Qt.CheckState.Checked
                yield item.data(_LAYER), bool(item.data(_FITS)), ticked

    def _fits(self, layer: Layer) -> bool:
        return is_of(layer, [image.name for image in self.parts.images.layers()])

    def _events(self) -> tuple[Any, ...]:
        """After which the list may be another one."""
        events = self.parts.viewer.layers.events
        return events.inserted, events.removed, events.reordered, events.renamed

    def _usable(self) -> list[Layer]:
        layers = self.parts.viewer.layers
        return [
            layer
            for layer in layers
            if isinstance(layer, (Shapes, Labels)) and SHOWN not in layer.metadata
        ]

    def _draw(self, epoch: Epoch) -> None:
        score = epoch.score
        self.curves.add(loss=epoch.loss, iou=score.iou, f1=score.f1, best=epoch.best)

    def _take(self, outcome: Outcome, picture: Picture) -> None:
        """Show what is better, and choose the new model if it is."""
        if self.name.text().strip() == outcome.path.stem:
            self.name.setText(_free_name(outcome.path.stem))
        if not outcome.better:
            return
        base = self.parts.models.spec
        spec = find_model(outcome.path)
        if outcome.comparison is not None:
            names = (base.title, spec.title)
            viewer = self.parts.viewer
            show_comparison(viewer, picture, outcome.comparison, names)
        self.parts.models.add(spec)

    def _lay_out(self) -> None:
        rows = QFormLayout()
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        rows.addRow("Learn from", self.layers)
        rows.addRow("New model", self.name)
        height = self.layers.fontMetrics().height() + 6
        self.layers.setFixedHeight(_ROWS * height)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(6, 10, 6, 6)
        column.addWidget(self.hint)
        column.addLayout(rows)
        column.addWidget(self.form)
        column.addWidget(fold("Advanced", self.advanced))
        column.addWidget(self.curves, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scrolled(inside), 1)
        layout.addWidget(self.button)

    def _connect(self) -> None:
        for event in self._events():
            event.connect(self.refresh)
        self.layers.itemChanged.connect(self._show_button)
        self.name.textChanged.connect(self._show_button)
        for form in (self.form, self.advanced):
            form.changed.connect(self._show_button)
        self.button.clicked.connect(self.start)

    def _show_button(self, _: object = None) -> None:
        missing = self._missing()
        why = self._why or missing
        self.button.setEnabled(not why)
        self.button.setToolTip(
            why or "Teaches the model these objects; the chosen model stays as it is."
        )
        self.hint.setText(missing)
        self.hint.setVisible(bool(missing))

    def _missing(self) -> str:
        if not self._usable():
            return (
                "Draw the outlines of some objects on two frames or more, or segment "
                "and correct them: the model learns from them."
            )
        if not self.chosen():
            return "Tick the layers to learn from."
        try:
            self.params()
            self.target()
        except EngineError as error:
            return str(error)
        return ""


def _file_of(name: str) -> Path:
    return tuned_folder(preferences().folder) / f"{name}.safetensors"


def _free_name(name: str) -> str:
    """A name of which there is no model yet: ``cells``, ``cells-2``, ``cells-3``."""
    stem = re.sub(r"-\d+$", "", name)
    names = (name, *(f"{stem}-{number}" for number in range(2, 10_000)))
    return next(free for free in names if not _file_of(free).exists())

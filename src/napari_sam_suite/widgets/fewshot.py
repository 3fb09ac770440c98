"""The Few-shot tab: which tags are examples, where to look, and how alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QSignalBlocker, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider

from napari_sam_suite.engine.errors import EngineError, ParameterError
from napari_sam_suite.engine.features import UNASSIGNED
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.widgets.batch import BatchFields
from napari_sam_suite.widgets.drawing import check_image
from napari_sam_suite.widgets.finding import Finding
from napari_sam_suite.widgets.form import Form, fold, scrolled
from napari_sam_suite.widgets.prototypes import PrototypeBox
from napari_sam_suite.widgets.repeat import record_shapes
from napari_sam_suite.widgets.similar import Similar
from napari_sam_suite.widgets.soon import Soon
from napari_sam_suite.widgets.tab import Tab
from napari_sam_suite.widgets.table import REJECTED, column

if TYPE_CHECKING:
    from napari.layers import Shapes
    from numpy.typing import NDArray

    from napari_sam_suite.engine.fewshot.examples import Examples
    from napari_sam_suite.engine.fewshot.prototypes import Prototypes
    from napari_sam_suite.engine.finder import Finder
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.runs import Mode
    from napari_sam_suite.widgets.tab import Parts, State

_IGNORE, _FIND, _NOT = "Not an example", "Find these", "Not these"
_OPEN = ("threshold",)


class FewShotTab(Tab):
    """Controls of few-shot; the active Shapes layer holds the examples.

    Signals
    -------
    threshold_moved()
        Another threshold is wanted for what was found.
    """

    title = "Few-shot"
    threshold_moved = Signal()

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._layer: Shapes | None = None
        self._soon = Soon(self.refresh, self)
        self._why = ""
        self.choices: dict[str, QComboBox] = {}
        self.batch = BatchFields(self)
        self.automatic = QCheckBox("As the examples suggest")
        self.automatic.setChecked(True)
        self.threshold = QLabeledDoubleSlider()
        self.threshold.setRange(0.0, 1.0)
        self.threshold.setValue(0.5)
        names = [n for n in FewShotParams.model_fields if n not in _OPEN]
        self.advanced = Form(FewShotParams, names)
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.button = QPushButton("Find similar objects")
        self.button.setMinimumHeight(30)
        self.prototypes = PrototypeBox()
        self.similar = Similar(parts.viewer, self, parts.results, self)
        self._lay_out()
        self._connect()
        self.refresh()

    def disconnect_viewer(self) -> None:
        """Stop listening to the viewer and its layers."""
        self.parts.viewer.layers.selection.events.active.disconnect(self._soon.ask)
        self._listen(None)

    def params(self) -> FewShotParams:
        """What is set.

        Raises
        ------
        ParameterError
            If a value makes no sense.
        """
        return FewShotParams(
            threshold="auto" if self.automatic.isChecked() else self.threshold.value(),
            **self.advanced.values(),
        )

    def examples(self, picture: Picture) -> tuple[Examples, Objects]:
        """The shapes with the chosen tags, as they are now, and what was rejected.

        That is no example, and is not found again either.

        Raises
        ------
        ParameterError
            If they cannot be used.
        """
        from napari_sam_suite.engine.fewshot.examples import choose_examples
        from napari_sam_suite.widgets.shapes import to_objects

        layer = self._layer
        if layer is None:
            raise ParameterError(
                "There is no layer with shapes.",
                "Segment first, or draw shapes and tag them.",
            )
        check_image(layer, picture)
        objects = to_objects(
            layer.data, layer.shape_type, layer.features, picture.placement
        )
        rejected = np.zeros(len(objects), bool)
        if "review" in objects.features:
            rejected = (objects.features["review"] == REJECTED).to_numpy(dtype=bool)
        examples = choose_examples(
            picture.image,
            objects.select(~rejected),
            self._with(_FIND),
            self._with(_NOT),
            picture.composite,
        )
        return examples, objects.select(rejected)

    def _known(
        self, picture: Picture, given: Prototypes
    ) -> tuple[Objects | None, Objects | None]:
        """Objects with a tag of the prototypes, and what was rejected."""
        from napari_sam_suite.widgets.drawing import read_rows

        layer = self.parts.results.layer_of(picture)
        rejected = column(layer, "review") == REJECTED
        tagged = np.isin(column(layer, "tag"), [*given.tags, *given.negatives])

        def read(chosen: NDArray[np.bool_]) -> Objects | None:
            rows = np.flatnonzero(chosen).tolist()
            if layer is None or not rows:
                return None
            return read_rows(layer, rows, picture.placement)

        return read(tagged & ~rejected), read(rejected)

    def show_state(self, state: State) -> None:
        """Show which frames there are, and whether a run can begin."""
        self.batch.show_state(state)
        self._why = state.why
        self.refresh()

    def start(self) -> None:
        """Look for what is like the examples."""
        parts = self.parts
        try:
            picture = parts.images.picture()
            frames, params = self.batch.frames(), self.params()
            given = self.prototypes.loaded
            examples: Examples | None = None
            if given is None:
                known: Objects | None
                rejected: Objects | None
                examples, rejected = self.examples(picture)
                known = examples.objects
                source = _describe_examples(examples)
            else:
                given.check(parts.models.spec.id, params.mode)
                known, rejected = self._known(picture, given)
                source = _describe_prototypes(given, self.prototypes.path)
            params.resolved(parts.models.spec)
        except EngineError as error:
            self.failed.emit(error)
            return

        def make() -> Finder:
            from napari_sam_suite.engine.fewshot.finder import FewShot

            return FewShot(params, examples, given, known, rejected, keep=True)

        recipe = parts.recipe(picture, params, frames) | source
        # the examples may be in the layer that a run would replace
        mode: Mode = "new" if parts.bar.mode == "new" else "add"
        parts.runner.start(
            Finding(
                parts.models.spec,
                picture,
                frames,
                make,
                recipe,
                mode,
                parts.results,
                settled=self.similar.follow,
                advice="lower the threshold to see what is less alike",
            )
        )

    def show_threshold(self, used: float | str) -> None:
        """Show the threshold that was used, or "auto", without asking for anything."""
        from napari_sam_suite.engine.fewshot.calibrate import SUGGESTED

        automatic = isinstance(used, str)
        with QSignalBlocker(self.automatic), QSignalBlocker(self.threshold):
            self.automatic.setChecked(automatic)
            self.threshold.setValue(SUGGESTED if automatic else float(used))

    def refresh(self, _: object = None) -> None:
        """Show the tags of the layer that is worked on now."""
        layer = self.parts.shapes_layer()
        if layer is not self._layer:
            self._listen(layer)
        tags = sorted(set(column(layer, "tag")) - {UNASSIGNED})
        if tags != list(self.choices):
            self._list_tags(tags)
        self._show_button()

    def _listen(self, layer: Shapes | None) -> None:
        if self._layer is not None:
            self._layer.events.features.disconnect(self.refresh)
        self._layer = layer
        if layer is not None:
            layer.events.features.connect(self.refresh)

    def _list_tags(self, tags: list[str]) -> None:
        before = {tag: box.currentText() for tag, box in self.choices.items()}
        while self._tags.rowCount():
            self._tags.removeRow(0)
        self.choices = {}
        for tag in tags:
            box = QComboBox()
            box.addItems([_IGNORE, _FIND, _NOT])
            box.setCurrentText(before.get(tag, _FIND if len(tags) == 1 else _IGNORE))
            box.currentTextChanged.connect(self._show_button)
            self._tags.addRow(tag, box)
            self.choices[tag] = box

    def _with(self, choice: str) -> list[str]:
        return [tag for tag, box in self.choices.items() if box.currentText() == choice]

    def _lay_out(self) -> None:
        self._choices = QWidget()
        self._tags = QFormLayout(self._choices)
        self._tags.setContentsMargins(0, 0, 0, 0)
        rows = QFormLayout()
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.batch.add_to(rows)
        rows.addRow("Threshold", self.automatic)
        rows.addRow("", self.threshold)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(6, 10, 6, 6)
        column.addWidget(self.hint)
        column.addWidget(self._choices)
        column.addWidget(self.prototypes)
        column.addLayout(rows)
        column.addWidget(fold("Advanced", self.advanced))
        column.addStretch()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scrolled(inside), 1)
        layout.addWidget(self.button)

    def _connect(self) -> None:
        self.parts.viewer.layers.selection.events.active.connect(self._soon.ask)
        self.parts.results.changed.connect(self._soon.ask)
        self.similar.said.connect(self.said)
        self.similar.failed.connect(self.failed)
        self.similar.learnt.connect(self.prototypes.keep)
        self.prototypes.said.connect(self.said)
        self.prototypes.failed.connect(self.failed)
        self.prototypes.changed.connect(self._show_button)
        self.batch.changed.connect(self._show_button)
        self.advanced.changed.connect(self._show_button)
        self.threshold.valueChanged.connect(self._move)
        self.automatic.toggled.connect(self.threshold_moved)
        self.button.clicked.connect(self.start)

    def _move(self) -> None:
        """Who moves the slider no longer wants what the examples suggest."""
        with QSignalBlocker(self.automatic):
            self.automatic.setChecked(False)
        self.threshold_moved.emit()

    def _show_button(self, _: object = None) -> None:
        why = self._why or self._missing()
        self.button.setEnabled(not why)
        loaded = self.prototypes.loaded is not None
        what = "the prototypes" if loaded else "the shapes with these tags"
        self.button.setToolTip(why or f"Finds what is like {what}.")
        self._choices.setVisible(not loaded)
        self.hint.setText(self._missing())
        self.hint.setVisible(bool(self._missing()))

    def _missing(self) -> str:
        loaded = self.prototypes.loaded is not None
        if not self.choices and not loaded:
            return "Tag 5 to 20 shapes in the Tags tab: they are the examples."
        if not self._with(_FIND) and not loaded:
            return "Choose which tag to find."
        try:
            self.batch.frames()
            self.params()
        except EngineError as error:
            return str(error)
        return ""


def _describe_examples(examples: Examples) -> dict[str, Any]:
    """What a recipe keeps of few-shot beside its parameters."""
    return {
        "capability": "few-shot",
        "tags": list(examples.tags),
        "negatives": list(examples.negatives),
        "examples": examples.objects.features["id"].tolist(),
        "shapes": record_shapes(examples.objects),
    }


def _describe_prototypes(given: Prototypes, path: str) -> dict[str, Any]:
    return {
        "capability": "few-shot",
        "tags": list(given.tags),
        "negatives": list(given.negatives),
        "prototypes": path,
    }

"""The Few-shot tab: which tags are examples, where to look, and how alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Shapes
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible, QLabeledDoubleSlider

from napari_sam_suite.engine.errors import EngineError, ParameterError
from napari_sam_suite.engine.features import UNASSIGNED
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.frames import (
    PANEL_FIELDS,
    FrameIndex,
    Sizes,
    select_frames,
)
from napari_sam_suite.widgets.auto import BatchField
from napari_sam_suite.widgets.form import Form
from napari_sam_suite.widgets.table import column

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel

    from napari_sam_suite.engine.fewshot.examples import Examples
    from napari_sam_suite.widgets.layers import Picture

_IGNORE, _FIND, _NOT = "Not an example", "Find these", "Not these"
_AXES = {
    "position": PANEL_FIELDS.positions,
    "z": PANEL_FIELDS.z,
    "time": PANEL_FIELDS.time,
}
_OPEN = ("threshold",)


class FewShotTab(QWidget):
    """Controls of few-shot.

    Parameters
    ----------
    viewer : ViewerModel
        The active Shapes layer holds the examples.
    fallback : callable
        The layer where no Shapes layer is active, or None.

    Signals
    -------
    started()
        The button was pressed.
    threshold_moved()
        Another threshold is wanted for what was found.
    """

    started = Signal()
    threshold_moved = Signal()

    def __init__(
        self, viewer: ViewerModel, fallback: Callable[[], Shapes | None]
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._fallback = fallback
        self._layer: Shapes | None = None
        self._sizes = Sizes()
        self._current = FrameIndex()
        self._why = ""
        self.choices: dict[str, QComboBox] = {}
        self.batch = {axis: BatchField(title) for axis, title in _AXES.items()}
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
        self._lay_out()
        self._connect()
        self.refresh()

    def disconnect_viewer(self) -> None:
        """Stop listening to the viewer and its layers."""
        self._viewer.layers.selection.events.active.disconnect(self.refresh)
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

    def frames(self) -> list[FrameIndex]:
        """Frames to look at.

        Raises
        ------
        FrameError
            If a text does not fit the image.
        """
        texts = {
            axis: field.text.text() if field.length > 1 else ""
            for axis, field in self.batch.items()
        }
        return select_frames(
            self._sizes,
            texts["position"],
            texts["z"],
            texts["time"],
            current=self._current,
            fields=PANEL_FIELDS,
        )

    def examples(self, picture: Picture) -> Examples:
        """The shapes with the chosen tags, as they are now.

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
        objects = to_objects(
            layer.data, layer.shape_type, layer.features, picture.placement
        )
        return choose_examples(
            picture.image,
            objects,
            self._with(_FIND),
            self._with(_NOT),
            picture.composite,
        )

    def set_image(self, sizes: Sizes, current: FrameIndex) -> None:
        """Say which frames there are and which one is shown."""
        self._sizes, self._current = sizes, current
        for axis, field in self.batch.items():
            field.set_axis(getattr(sizes, axis), getattr(current, axis))

    def block(self, why: str) -> None:
        """Disable the button and say why; an empty text enables it."""
        self._why = why
        self._show_button()

    def show_threshold(self, value: float) -> None:
        """Show the threshold that a run used, without asking for anything."""
        self.threshold.blockSignals(True)
        self.threshold.setValue(value)
        self.threshold.blockSignals(False)

    def refresh(self, _: object = None) -> None:
        """Show the tags of the layer that is worked on now."""
        active = self._viewer.layers.selection.active
        layer = active if isinstance(active, Shapes) else self._fallback()
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
        self._tags = QFormLayout()
        rows = QFormLayout()
        for field in self.batch.values():
            rows.addRow(field.title, field)
        rows.addRow("Threshold", self.automatic)
        rows.addRow("", self.threshold)
        layout = QVBoxLayout(self)
        layout.addWidget(self.hint)
        layout.addLayout(self._tags)
        layout.addLayout(rows)
        advanced = QCollapsible("Advanced")
        advanced.setDuration(0)
        advanced.addWidget(self.advanced)
        layout.addWidget(advanced)
        layout.addStretch()
        layout.addWidget(self.button)

    def _connect(self) -> None:
        self._viewer.layers.selection.events.active.connect(self.refresh)
        for field in self.batch.values():
            field.changed.connect(self._show_button)
        self.advanced.changed.connect(self._show_button)
        self.threshold.valueChanged.connect(self._move)
        self.automatic.toggled.connect(self.threshold_moved)
        self.button.clicked.connect(self.started)

    def _move(self) -> None:
        """Who moves the slider no longer wants what the examples suggest."""
        self.automatic.blockSignals(True)
        self.automatic.setChecked(False)
        self.automatic.blockSignals(False)
        self.threshold_moved.emit()

    def _show_button(self, _: object = None) -> None:
        why = self._why or self._missing()
        self.button.setEnabled(not why)
        self.button.setToolTip(why or "Finds what is like the shapes with these tags.")
        self.hint.setText(self._missing())
        self.hint.setVisible(bool(self._missing()))

    def _missing(self) -> str:
        if not self.choices:
            return "Tag 5 to 20 shapes in the Tags tab: they are the examples."
        if not self._with(_FIND):
            return "Choose which tag to find."
        try:
            self.frames()
            self.params()
        except EngineError as error:
            return str(error)
        return ""


def describe(params: FewShotParams, examples: Examples) -> dict[str, Any]:
    """What a recipe keeps of few-shot beside its parameters."""
    return {
        "capability": "few-shot",
        "params": params.model_dump(mode="json"),
        "tags": list(examples.tags),
        "negatives": list(examples.negatives),
        "examples": examples.objects.features["id"].tolist(),
    }

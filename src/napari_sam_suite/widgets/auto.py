"""The Auto tab: which frames, and how thoroughly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_sam_suite.engine.errors import EngineError, FrameError
from napari_sam_suite.engine.frames import (
    PANEL_FIELDS,
    FrameIndex,
    Sizes,
    format_selection,
    parse_selection,
    select_frames,
)
from napari_sam_suite.engine.params import PRESETS, AutoParams
from napari_sam_suite.widgets.filterbox import FilterBox
from napari_sam_suite.widgets.form import Form

if TYPE_CHECKING:
    from collections.abc import Mapping

_AXES = {
    "position": PANEL_FIELDS.positions,
    "z": PANEL_FIELDS.z,
    "time": PANEL_FIELDS.time,
}
_SLIDERS = {"points_per_side": (16, 128), "smoothing": (0, 3)}
_OWN = "Own settings"


class BatchField(QWidget):
    """Text such as "1-3, 5" for one axis, with its valid range beside it.

    Signals
    -------
    changed()
    """

    changed = Signal()

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self.length = 1
        self.current = 0
        self.text = QLineEdit()
        self.text.setMinimumWidth(60)
        self.text.textChanged.connect(self._check)
        self.range = QLabel()
        self.range.setFixedWidth(52)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text, 1)
        layout.addWidget(self.range)
        self.error: FrameError | None = None
        self.set_axis(1, 0)

    def set_axis(self, size: int, current: int) -> None:
        """Say how long the axis is and what is shown of it (0-based)."""
        self.length, self.current = size, current
        self.setEnabled(size > 1)
        self.range.setText(f"of 1-{size}" if size > 1 else "of 1")
        self.text.setPlaceholderText(f"{current + 1} (shown)" if size > 1 else "")
        self.setToolTip(
            f"Such as 1-{min(3, size)} or all; blank is the one shown now."
            if size > 1
            else "The image has only one here."
        )
        self._check()

    def chosen(self) -> list[int]:
        """What is selected, 0-based.

        Raises
        ------
        FrameError
            If the text does not fit.
        """
        if self.length == 1:
            return [0]
        return parse_selection(
            self.text.text(), self.length, field=self.title, current=self.current
        )

    def _check(self) -> None:
        try:
            self.chosen()
            self.error = None
        except FrameError as error:
            self.error = error
        self.changed.emit()


class AutoTab(QWidget):
    """Controls of automatic masks.

    Signals
    -------
    started()
        The button was pressed.
    changed()
        Frames or parameters are others.
    """

    started = Signal()
    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._sizes = Sizes()
        self._current = FrameIndex()
        self._why = ""
        self.batch = {axis: BatchField(title) for axis, title in _AXES.items()}
        self.preset = QComboBox()
        self.preset.setMinimumWidth(80)
        self.preset.addItems([*(name.capitalize() for name in PRESETS), _OWN])
        self.form = Form(AutoParams, _SLIDERS, _SLIDERS)
        hidden = [n for n in AutoParams.model_fields if n not in _SLIDERS]
        self.advanced = Form(AutoParams, hidden)
        self.filters = FilterBox()
        self.warning = QLabel()
        self.warning.setWordWrap(True)
        self.warning.setVisible(False)
        self.button = QPushButton()
        self.button.setMinimumHeight(30)
        self._lay_out()
        self._connect()
        self._show_preset()
        self._refresh()

    def params(self) -> AutoParams:
        """What is set.

        Raises
        ------
        ParameterError
            If a value makes no sense.
        """
        return AutoParams(**self.form.values(), **self.advanced.values())

    def set_params(self, params: AutoParams) -> None:
        """Show other parameters."""
        self.form.set_values(params.model_dump())
        self.advanced.set_values(params.model_dump())

    def frames(self) -> list[FrameIndex]:
        """Frames that are selected.

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

    def set_image(self, sizes: Sizes, current: FrameIndex) -> None:
        """Say which frames there are and which one is shown."""
        self._sizes, self._current = sizes, current
        for axis, field in self.batch.items():
            field.set_axis(getattr(sizes, axis), getattr(current, axis))

    def block(self, why: str) -> None:
        """Disable the button and say why; an empty text enables it."""
        self._why = why
        self._refresh()

    def _lay_out(self) -> None:
        rows = self.form.table
        for number, field in enumerate(self.batch.values()):
            rows.insertRow(number, field.title, field)
        rows.insertRow(len(self.batch), self.warning)
        rows.insertRow(len(self.batch) + 1, "Preset", self.preset)
        self.fold = _fold("Advanced", self.advanced)
        self.filter_fold = _fold("Filter the result", self.filters)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(6, 10, 6, 6)
        column.setSpacing(8)
        column.addWidget(self.form)
        column.addWidget(self.filter_fold)
        column.addWidget(self.fold)
        column.addStretch()
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll, 1)
        layout.addWidget(self.button)

    def _connect(self) -> None:
        for field in self.batch.values():
            field.changed.connect(self._refresh)
        for form in (self.form, self.advanced):
            form.changed.connect(self._show_preset)
            form.changed.connect(self._refresh)
        self.preset.textActivated.connect(lambda text: self._use_preset(text.lower()))
        self.button.clicked.connect(self.started)

    def _use_preset(self, name: str) -> None:
        if name in PRESETS:
            self.set_params(AutoParams.preset(name))

    def _show_preset(self) -> None:
        values = {**self.form.values(), **self.advanced.values()}
        self.preset.setCurrentText(_preset_of(values).capitalize())

    def _refresh(self) -> None:
        wrong = ""
        count = 0
        try:
            count = len(self.frames())
            self.params()
        except EngineError as error:
            wrong = str(error)
        self.warning.setText(wrong)
        self.warning.setVisible(bool(wrong) and not self._why)
        self.button.setText(
            "Segment this frame" if count <= 1 else f"Segment {count} frames"
        )
        why = self._why or wrong
        self.button.setEnabled(not why)
        self.button.setToolTip(why or self._describe())
        self.changed.emit()

    def _describe(self) -> str:
        chosen = [
            f"{field.title[6:]} {format_selection(field.chosen())}"
            for field in self.batch.values()
            if field.length > 1
        ]
        return f"Finds everything in {', '.join(chosen) or 'the image'}."


def _fold(title: str, content: QWidget) -> QCollapsible:
    """Content that is shown when its title is clicked."""
    fold = QCollapsible(title)
    fold.setDuration(0)
    fold.addWidget(content)
    layout = fold.layout()
    if layout is not None:
        layout.setContentsMargins(0, 0, 0, 0)
    return fold


def _preset_of(values: Mapping[str, Any]) -> str:
    """Name of the preset that gives exactly these values."""
    for name in PRESETS:
        if AutoParams.preset(name).model_dump() == dict(values):
            return name
    return _OWN

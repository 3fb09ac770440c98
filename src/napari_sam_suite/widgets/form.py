"""A form drawn from a parameter model: one row per field, with its range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from qtpy.QtCore import QObject, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QScrollArea,
    QSpinBox,
    QWidget,
)
from superqt import QCollapsible, QLabeledDoubleSlider, QLabeledSlider

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.fields import FieldInfo

    from napari_sam_suite.engine.params import Params

_LARGEST = 10_000_000
_SUITS = "auto"
_WIDTH = 100
_ARROWS = {
    False: "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}",
    True: "\N{BLACK DOWN-POINTING SMALL TRIANGLE}",
}
_FINE = 6  # decimals of numbers such as a learning rate


class Row(QObject):
    """One field of a parameter model and the control that edits it.

    Signals
    -------
    changed()
        The value is another one.
    """

    changed = Signal()

    def __init__(self, name: str, field: FieldInfo) -> None:
        super().__init__()
        self.name = name
        self.field = field
        self.control: QWidget = QWidget()

    def value(self) -> Any:
        """What the control shows, as the model wants it."""
        raise NotImplementedError

    def set_value(self, value: Any) -> None:
        """Show another value."""
        raise NotImplementedError


class _Check(Row):
    def __init__(self, name: str, field: FieldInfo) -> None:
        super().__init__(name, field)
        self.control: QCheckBox = QCheckBox()
        self.control.toggled.connect(self.changed)

    def value(self) -> bool:
        return self.control.isChecked()

    def set_value(self, value: bool) -> None:
        self.control.setChecked(value)


class _Choice(Row):
    """One of some words, and a number where the field takes one."""

    def __init__(self, name: str, field: FieldInfo, words: Iterable[str]) -> None:
        super().__init__(name, field)
        self.control: QComboBox = QComboBox()
        self.control.addItems(list(words))
        self.control.setEditable(int in _options(field.annotation))
        self.control.currentTextChanged.connect(self.changed)

    def value(self) -> Any:
        text = self.control.currentText().strip()
        return int(text) if text.isdecimal() else text

    def set_value(self, value: Any) -> None:
        self.control.setCurrentText(str(value))


class _Number(Row):
    """A number; the step below the smallest is "what suits the model"."""

    def __init__(self, name: str, field: FieldInfo, kind: type) -> None:
        super().__init__(name, field)
        low, high = bounds(field)
        self._whole = kind is int
        self._optional = type(None) in get_args(field.annotation)
        spin: Any = QSpinBox() if self._whole else QDoubleSpinBox()
        step: float = 1
        if not self._whole:
            step = 0.01 if high <= 1 else 0.1
            tiny = 0 < (low or field.default or 1) < step
            spin.setDecimals(_FINE if tiny else 2)
            step = 10.0**-_FINE if tiny else step
        spin.setSingleStep(step)
        spin.setRange(low - step if self._optional else low, high)
        if self._optional:
            spin.setSpecialValueText(_SUITS)
        elif low == 0 and high == _LARGEST:
            spin.setSpecialValueText("no limit")
        spin.setKeyboardTracking(False)
        spin.valueChanged.connect(lambda _: self.changed.emit())
        self.control: Any = spin
        self._exact: tuple[float, float] | None = None

    def value(self) -> Any:
        shown = self.control.value()
        if self._optional and shown == self.control.minimum():
            return None
        if self._exact is not None and self._exact[0] == shown:
            return self._exact[1]
        return shown

    def set_value(self, value: Any) -> None:
        self.control.setValue(self.control.minimum() if value is None else value)
        # two decimals are shown; what was given is kept
        self._exact = None if value is None else (self.control.value(), value)


class _Slider(Row):
    """A number of a short range."""

    def __init__(
        self, name: str, field: FieldInfo, limits: tuple[float, float]
    ) -> None:
        super().__init__(name, field)
        low, high = limits
        slider: Any
        if field.annotation is int:
            slider = QLabeledSlider()
        else:
            slider = QLabeledDoubleSlider()
            slider.setDecimals(2)
        slider.setOrientation(Qt.Orientation.Horizontal)
        slider.setRange(low, high)
        slider.setMinimumWidth(110)
        slider.valueChanged.connect(lambda _: self.changed.emit())
        self.control: Any = slider

    def value(self) -> Any:
        shown = self.control.value()
        return shown if isinstance(shown, int) else round(shown, 2)

    def set_value(self, value: Any) -> None:
        self.control.setValue(value)


class Form(QWidget):
    """Rows for the fields of a parameter model.

    Parameters
    ----------
    model : type of Params
        Its titles, descriptions, ranges and defaults are shown.
    names : iterable of str
        Which fields, in this order.
    sliders : mapping, optional
        Fields shown as a slider, and its ends.

    Signals
    -------
    changed()
        Any value is another one.
    """

    changed = Signal()

    def __init__(
        self,
        model: type[Params],
        names: Iterable[str],
        sliders: Mapping[str, tuple[float, float]] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        layout = self.table = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.rows: dict[str, Row] = {}
        for name in names:
            field = model.model_fields[name]
            limits = (sliders or {}).get(name)
            row = _Slider(name, field, limits) if limits else make_row(name, field)
            row.set_value(field.default)
            tip = f"{field.description or ''} {_open_value(field, model)}".strip()
            row.control.setToolTip(tip)
            if not isinstance(row, (_Slider, _Check)):
                row.control.setFixedWidth(_WIDTH)
            row.changed.connect(self.changed)
            label = QLabel(field.title or name)
            label.setToolTip(tip)
            layout.addRow(label, row.control)
            self.rows[name] = row

    def values(self) -> dict[str, Any]:
        """What is shown, by field."""
        return {name: row.value() for name, row in self.rows.items()}

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Show other values; fields that are not in this form are passed over."""
        for name, value in values.items():
            if name in self.rows:
                self.rows[name].set_value(value)


def fold(title: str, content: QWidget) -> QCollapsible:
    """Content that is shown when its title is clicked."""
    made = QCollapsible()
    made.setDuration(0)
    # arrows of text have the colour of the theme, superqt's pictures are black
    for place in (made.setCollapsedIcon, made.setExpandedIcon):
        place(QIcon())
    made.toggled.connect(lambda on: made.setText(f"{_ARROWS[on]}  {title}"))
    made.setText(f"{_ARROWS[False]}  {title}")
    made.addWidget(content)
    layout = made.layout()
    if layout is not None:
        layout.setContentsMargins(0, 0, 0, 0)
    return made


def scrolled(content: QWidget) -> QScrollArea:
    """Content that may be higher than there is room for."""
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QScrollArea.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(content)
    return area


def make_row(name: str, field: FieldInfo) -> Row:
    """Return the row that suits the type of a field."""
    options = _options(field.annotation)
    words = [w for a in options if get_origin(a) is Literal for w in get_args(a)]
    if words:
        return _Choice(name, field, words)
    if bool in options:
        return _Check(name, field)
    return _Number(name, field, float if float in options else int)


def bounds(field: FieldInfo) -> tuple[Any, Any]:
    """Smallest and largest value of a number."""
    found = {type(m).__name__.lower(): m for m in field.metadata}
    low = getattr(found.get("ge"), "ge", -_LARGEST)
    high = getattr(found.get("le"), "le", None)
    if high is None:
        below = getattr(found.get("lt"), "lt", None)
        high = _LARGEST if below is None else below - 0.01
    return low, high


def _open_value(field: FieldInfo, model: type[Params]) -> str:
    return f"Auto is what {model.left_open}." if field.default is None else ""


def _options(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return [annotation]
    options = get_args(annotation) or (annotation,)
    return [
        getattr(one, "__origin__", one) if _is_noted(one) else one for one in options
    ]


def _is_noted(annotation: Any) -> bool:
    return get_origin(annotation) is Annotated

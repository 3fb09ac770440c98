"""Sliders that filter the last run again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider, QRangeSlider
from superqt.utils import signals_blocked

if TYPE_CHECKING:
    from napari_sam_suite.engine.params import AutoParams

_STEPS = 200
_NO_RUN = "Segment first; then its objects can be filtered here."
_PARTS = {
    "pred_iou_thresh": "Quality",
    "stability_score_thresh": "Stability",
    "box_nms_thresh": "Duplicates",
}


class AreaSlider(QWidget):
    """Smallest and largest area, on a scale of ratios.

    Signals
    -------
    changed()
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._largest = 2
        self.slider: Any = QRangeSlider(Qt.Orientation.Horizontal)  # type: ignore[no-untyped-call]
        self.slider.setRange(0, _STEPS)
        self.text = QLabel()
        self.text.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.slider.valueChanged.connect(self._moved)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.slider)
        layout.addWidget(self.text)
        self.set_value((0, 0), 2)

    def value(self) -> tuple[int, int]:
        """Smallest and largest area in pixels; 0 is no limit."""
        places = self._places()
        if places == self._shown:
            return self._exact
        low, high = (round(self._largest ** (place / _STEPS)) for place in places)
        return (low if places[0] else 0, high if places[1] < _STEPS else 0)

    def set_value(self, areas: tuple[int, int], largest: int) -> None:
        """Show limits on a scale that ends at the area `largest`."""
        self._largest = max(2, largest, *areas)
        low = self._place(areas[0])
        high = self._place(areas[1]) if areas[1] else _STEPS
        with signals_blocked(self.slider):
            self.slider.setValue((low, high))
        self._exact, self._shown = areas, self._places()
        self._tell()

    def _place(self, area: int) -> int:
        return round(_STEPS * math.log(max(area, 1)) / math.log(self._largest))

    def _places(self) -> tuple[int, int]:
        low, high = self.slider.value()
        return int(low), int(high)

    def _moved(self) -> None:
        self._tell()
        self.changed.emit()

    def _tell(self) -> None:
        low, high = self.value()
        limits = [f"from {low}"] * bool(low) + [f"to {high}"] * bool(high)
        self.text.setText(" ".join([*limits, "px"]) if limits else "no limit")


class FilterBox(QWidget):
    """Thresholds, areas and overlaps of the objects of the last run.

    Signals
    -------
    changed()
        A slider was moved.
    adopted()
        The next run is wanted with what the sliders say.
    """

    changed = Signal()
    adopted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.sliders: dict[str, Any] = {name: QLabeledDoubleSlider() for name in _PARTS}
        self.area = AreaSlider()
        self.allow = QCheckBox("Objects may overlap")
        self.reset = QPushButton("Back to the run")
        self.adopt = QPushButton("Use in the next run")
        self.told = QLabel()
        self.told.setWordWrap(True)
        self._exact: dict[str, tuple[float, float]] = {}
        self._run: AutoParams | None = None
        self._largest = 2
        self._why = ""
        self._lay_out()
        self._connect()
        self.block(_NO_RUN)

    def values(self) -> dict[str, Any]:
        """Parameters as the sliders stand; what was not moved is exact."""
        found: dict[str, Any] = {}
        for name, slider in self.sliders.items():
            shown, exact = self._exact.get(name, (math.nan, 0.0))
            now = slider.value()
            found[name] = exact if now == shown else round(now, 2)
        found["min_area"], found["max_area"] = self.area.value()
        found["overlap"] = "allow" if self.allow.isChecked() else "exclusive"
        return found

    def set_run(self, params: AutoParams, lowest: AutoParams, largest: int) -> None:
        """Show the settings of a run, and let nothing go below what it kept.

        Parameters
        ----------
        params, lowest : AutoParams
            Of the run, and the lowest thresholds that can be asked for.
        largest : int
            Area of its largest mask, in pixels.
        """
        self._run = params
        for name in self.sliders:
            least = getattr(lowest, name) if name != "box_nms_thresh" else 0.0
            # what is shown has two digits and must not be below
            low = math.ceil((least or 0.0) * 100 - 1e-9) / 100
            with signals_blocked(self.sliders[name]):
                self.sliders[name].setRange(min(low, 1.0), 1.0)
        self._largest = largest
        self.show_values(params)

    def show_values(self, params: AutoParams) -> None:
        """Put the sliders where `params` are, without a signal."""
        for name, slider in self.sliders.items():
            value = getattr(params, name) or 0.0
            with signals_blocked(slider):
                slider.setValue(value)
            self._exact[name] = (slider.value(), value)
        self.area.set_value((params.min_area, params.max_area), self._largest)
        with signals_blocked(self.allow):
            self.allow.setChecked(params.overlap == "allow")

    def block(self, why: str) -> None:
        """Disable everything and say why; an empty text enables it."""
        buttons = (self.allow, self.reset, self.adopt)
        for part in (*self.sliders.values(), self.area, *buttons):
            part.setEnabled(not why)
            part.setToolTip(why)
        if why or self.told.text() == self._why:
            self.told.setText(why)
        self._why = why
        if not why:
            self._explain()

    def say(self, text: str) -> None:
        """Show what came of it."""
        self.told.setText(text)

    def _explain(self) -> None:
        tips = {
            "pred_iou_thresh": "Objects the model itself rates lower are hidden.",
            "stability_score_thresh": "Objects with unclear outlines are hidden.",
            "box_nms_thresh": "Of two boxes that overlap more, the worse is hidden.",
        }
        for name, tip in tips.items():
            low = self.sliders[name].minimum()
            below = f" Below {low:g} takes another run." if low > 0 else ""
            self.sliders[name].setToolTip(tip + below)
        self.area.setToolTip("Smaller and larger objects are hidden.")
        self.allow.setToolTip("Else every pixel belongs to the best object only.")
        self.reset.setToolTip("Show what the run had found.")
        self.adopt.setToolTip("Sets these values under Advanced.")

    def _lay_out(self) -> None:
        rows = QFormLayout()
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for name, slider in self.sliders.items():
            slider.setOrientation(Qt.Orientation.Horizontal)
            slider.setRange(0, 1)
            slider.setDecimals(2)
            slider.setSingleStep(0.01)
            rows.addRow(_PARTS[name], slider)
        rows.addRow("Area", self.area)
        rows.addRow(self.allow)
        last = QHBoxLayout()
        last.addWidget(self.reset, 1)
        last.addWidget(self.adopt, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(rows)
        layout.addLayout(last)
        layout.addWidget(self.told)

    def _connect(self) -> None:
        for slider in self.sliders.values():
            slider.valueChanged.connect(lambda _: self.changed.emit())
        self.area.changed.connect(self.changed)
        self.allow.toggled.connect(lambda _: self.changed.emit())
        self.reset.clicked.connect(self._go_back)
        self.adopt.clicked.connect(self.adopted)

    def _go_back(self) -> None:
        if self._run is not None:
            self.show_values(self._run)
            self.changed.emit()

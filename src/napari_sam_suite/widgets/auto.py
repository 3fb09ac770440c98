"""The Auto tab: which frames, and how thoroughly."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QComboBox, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_sam_suite.engine.errors import EngineError
from napari_sam_suite.engine.params import PRESETS, AutoParams
from napari_sam_suite.widgets.batch import BatchFields
from napari_sam_suite.widgets.filterbox import FilterBox
from napari_sam_suite.widgets.finding import Finding
from napari_sam_suite.widgets.form import Form, fold, scrolled
from napari_sam_suite.widgets.livefilter import LiveFilter
from napari_sam_suite.widgets.tab import Tab

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_sam_suite.engine.finder import Finder
    from napari_sam_suite.widgets.tab import Parts, State

_SLIDERS = {"points_per_side": (16, 128), "smoothing": (0, 3)}
_OWN = "Own settings"
_GUIDED = (
    "This model says itself where objects are. Set Search, under Advanced, to grid to "
    "ask a grid of points."
)


class AutoTab(Tab):
    """Controls of automatic masks, and the filters of what they found.

    Signals
    -------
    changed()
        Frames or parameters are others.
    """

    title = "Auto"
    changed = Signal()

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._why = ""
        self.batch = BatchFields(self)
        self.preset = QComboBox()
        self.preset.setMinimumWidth(80)
        self.preset.addItems([*(name.capitalize() for name in PRESETS), _OWN])
        self.form = Form(AutoParams, _SLIDERS, _SLIDERS)
        hidden = [n for n in AutoParams.model_fields if n not in _SLIDERS]
        self.advanced = Form(AutoParams, hidden)
        self.filters = FilterBox()
        self.live = LiveFilter(parts.viewer, parts.results, self.filters, self)
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

    def show_state(self, state: State) -> None:
        """Show which frames there are, and whether a run can begin."""
        self.batch.show_state(state)
        self._why = state.why
        self._refresh()
        self.live.refresh(busy=self.parts.runner.busy)

    def start(self) -> None:
        """Segment the chosen frames."""
        parts = self.parts
        try:
            picture = parts.images.picture()
            frames, params = self.batch.frames(), self.params()
        except EngineError as error:
            self.failed.emit(error)
            return

        def make() -> Finder:
            from napari_sam_suite.engine.auto import Automatic

            return Automatic(params, keep_candidates=True)

        recipe = parts.recipe(picture, params, frames)
        spec, mode = parts.models.spec, parts.bar.mode
        parts.runner.start(
            Finding(spec, picture, frames, make, recipe, mode, parts.results)
        )

    def _lay_out(self) -> None:
        rows = self.form.table
        rows.insertRow(0, self.warning)
        rows.insertRow(1, "Preset", self.preset)
        self.batch.add_to(rows)
        self.fold = fold("Advanced", self.advanced)
        self.filter_fold = fold("Filter the result", self.filters)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(6, 10, 6, 6)
        column.setSpacing(8)
        column.addWidget(self.form)
        column.addWidget(self.filter_fold)
        column.addWidget(self.fold)
        column.addStretch()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scrolled(inside), 1)
        layout.addWidget(self.button)
        # rows were put above others that had been there before
        order: list[QWidget] = [field.text for field in self.batch.fields.values()]
        order += [self.preset]
        order += [row.control for row in self.form.rows.values()]
        for one, following in itertools.pairwise(order):
            QWidget.setTabOrder(one, following)

    def _connect(self) -> None:
        self.batch.changed.connect(self._refresh)
        for form in (self.form, self.advanced):
            form.changed.connect(self._show_preset)
            form.changed.connect(self._refresh)
        self.preset.textActivated.connect(lambda text: self._use_preset(text.lower()))
        self.button.clicked.connect(self.start)
        self.live.failed.connect(self.failed)
        self.filters.adopted.connect(self._adopt)
        self.parts.results.changed.connect(
            lambda: self.live.refresh(busy=self.parts.runner.busy)
        )

    def _adopt(self) -> None:
        """Let the next run begin as the last one is filtered now."""
        self.advanced.set_values(self.filters.values())
        self.said.emit("The next run will be filtered like this.")

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
            count = len(self.batch.frames())
            self.params()
        except EngineError as error:
            wrong = str(error)
        self._show_search()
        self.warning.setText(wrong)
        self.warning.setVisible(bool(wrong) and not self._why)
        self.button.setText(
            "Segment this frame" if count <= 1 else f"Segment {count} frames"
        )
        why = self._why or wrong
        self.button.setEnabled(not why)
        self.button.setToolTip(why or f"Finds everything in {self.batch.describe()}.")
        self.changed.emit()

    def _show_search(self) -> None:
        """A guided search has no use for the points of a grid."""
        search = self.advanced.rows["search"].value()
        spec = self.parts.models.spec
        guided = search == "guided" or (search == "auto" and spec.guided)
        control = self.form.rows["points_per_side"].control
        control.setEnabled(not guided)
        described = AutoParams.model_fields["points_per_side"].description or ""
        control.setToolTip(_GUIDED if guided else described)


def _preset_of(values: Mapping[str, Any]) -> str:
    """Name of the preset that gives exactly these values."""
    for name in PRESETS:
        if AutoParams.preset(name).model_dump() == dict(values):
            return name
    return _OWN

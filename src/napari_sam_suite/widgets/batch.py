"""Which frames of an image: one text for each axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QWidget

from napari_sam_suite.engine.errors import FrameError
from napari_sam_suite.engine.frames import (
    PANEL_FIELDS,
    FrameIndex,
    Sizes,
    format_selection,
    parse_selection,
    select_frames,
)

if TYPE_CHECKING:
    from qtpy.QtWidgets import QFormLayout

    from napari_sam_suite.widgets.tab import State

_AXES = {
    "position": PANEL_FIELDS.positions,
    "z": PANEL_FIELDS.z,
    "time": PANEL_FIELDS.time,
}


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
        only = "the only one"
        self.text.setPlaceholderText(f"{current + 1} (shown)" if size > 1 else only)
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


class BatchFields(QObject):
    """The texts of all axes: rows for a form, and the frames that they select.

    Signals
    -------
    changed()
    """

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.fields = {axis: BatchField(title) for axis, title in _AXES.items()}
        self._sizes, self._frame = Sizes(), FrameIndex()
        for field in self.fields.values():
            field.changed.connect(self.changed)

    def __getitem__(self, axis: str) -> BatchField:
        """Return the field of an axis: position, z or time."""
        return self.fields[axis]

    def add_to(self, form: QFormLayout) -> None:
        """Put the rows at the top of a form."""
        for number, field in enumerate(self.fields.values()):
            form.insertRow(number, field.title, field)

    def show_state(self, state: State) -> None:
        """Show which frames there are and which one is shown."""
        self._sizes, self._frame = state.sizes, state.frame
        for axis, field in self.fields.items():
            field.set_axis(getattr(state.sizes, axis), getattr(state.frame, axis))

    def frames(self) -> list[FrameIndex]:
        """Frames that are selected.

        Raises
        ------
        FrameError
            If a text does not fit the image.
        """
        texts = {
            axis: field.text.text() if field.length > 1 else ""
            for axis, field in self.fields.items()
        }
        return select_frames(
            self._sizes,
            texts["position"],
            texts["z"],
            texts["time"],
            current=self._frame,
            fields=PANEL_FIELDS,
        )

    def describe(self) -> str:
        """What is selected, such as "Z 1-3, Time 2"."""
        chosen = [
            f"{field.title[6:]} {format_selection(field.chosen())}"
            for field in self.fields.values()
            if field.length > 1
        ]
        return ", ".join(chosen) or "the image"

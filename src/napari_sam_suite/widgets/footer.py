"""The bottom of the panel: how far it is, Cancel, and what happened last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sam_suite.engine.errors import EngineError, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Callable

_SOON = 2.0
_ENOUGH = 0.02
_STEPS = 1000


class Footer(QWidget):
    """Progress with the time left, Cancel, and a line of text.

    Signals
    -------
    cancelled()
        The button was pressed.
    """

    cancelled = Signal()

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._began = 0.0
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(14)
        self.cancel = QPushButton("Cancel")
        self.cancel.clicked.connect(self._stop)
        self.status = QLabel("Ready.")
        self.status.setWordWrap(True)
        self.status.setMinimumHeight(34)
        self.status.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
        )
        line = QHBoxLayout()
        line.addWidget(self.bar, 1)
        line.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.status)
        self.stop("Ready.")

    @property
    def busy(self) -> bool:
        """Whether something is going on."""
        return self.cancel.isEnabled()

    def start(self, text: str) -> None:
        """Something begins; how long it takes is not known yet."""
        self._began = self._clock()
        self.bar.setRange(0, 0)
        self.cancel.setEnabled(True)
        self.cancel.setToolTip("Stops, and keeps what is finished.")
        self.say(text)

    def restart_clock(self) -> None:
        """From here on the time left is measured."""
        self._began = self._clock()

    def advance(self, done: int, total: int, text: str) -> None:
        """So much of it is done."""
        if not self.busy:
            return
        if total <= 0:
            self.bar.setRange(0, 0)
            self.say(text)
            return
        part = done / total
        self.bar.setRange(0, _STEPS)
        self.bar.setValue(round(part * _STEPS))
        left = (self._clock() - self._began) * (1 - part) / part if part else 0.0
        known = part > _ENOUGH and left > _SOON
        self.say(f"{text}, {duration(left)} left" if known else text)

    def stop(self, text: str) -> None:
        """It has ended, and this is how."""
        self.bar.setRange(0, _STEPS)
        self.bar.setValue(0)
        self.cancel.setEnabled(False)
        self.cancel.setToolTip("Nothing is running.")
        self.say(text)

    def say(self, text: str) -> None:
        """Show one sentence."""
        self.status.setText(text)

    def _stop(self) -> None:
        self.cancel.setEnabled(False)
        self.say("Stopping.")
        self.cancelled.emit()


def duration(seconds: float) -> str:
    """A time as a person says it: "8 s", "3 min", "2 h 10 min"."""
    if seconds < 60:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def explain(error: BaseException) -> str:
    """One sentence on what happened and what to do."""
    if isinstance(error, EngineError):
        return str(error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return str(
            OutOfMemory(
                "The device has too little memory for this model.",
                "Choose a smaller model, or the CPU in the preferences.",
            )
        )
    return (
        f"Something unexpected went wrong: {error}. "
        "Try again; if it comes back, please report it."
    )

"""Many wishes for the same, granted once, when the event loop comes round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

if TYPE_CHECKING:
    from collections.abc import Callable


class Soon(QObject):
    """Calls something in the next turn of the event loop, however often it is asked.

    One new layer changes the selection three times, and everything that looks at the
    selection would look three times within one turn.
    """

    def __init__(self, call: Callable[[], object], parent: QObject) -> None:
        super().__init__(parent)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(call)

    def ask(self, _: object = None) -> None:
        """Have it called soon."""
        self._timer.start(0)

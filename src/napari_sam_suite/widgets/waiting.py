"""What a quick hand does before the answer is there, done in its order."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Action = Callable[[], None]


class Waiting:
    """Actions that need an answer, and all that come after them.

    Parameters
    ----------
    pending : callable
        Whether an answer is on its way.
    """

    def __init__(self, pending: Callable[[], bool]) -> None:
        self._pending = pending
        self._actions: list[Action] = []

    def do(self, action: Action, *, needs_answer: bool = False) -> None:
        """Do it now, or after what waits already or the answer that it needs."""
        if self._actions or (needs_answer and self._pending()):
            self._actions.append(action)
        else:
            action()

    def go_on(self) -> None:
        """An answer is there: do what waited for it."""
        while self._actions and not self._pending():
            self._actions.pop(0)()

    def drop(self) -> bool:
        """Take the newest action back that still waits, if there is one."""
        if self._actions:
            self._actions.pop()
            return True
        return False

    def clear(self) -> None:
        """Do nothing of it."""
        self._actions.clear()

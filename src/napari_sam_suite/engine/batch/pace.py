"""Whether frames are done so soon that threads only stand in each other's way."""

from __future__ import annotations

_QUICK = 0.002
"""Seconds of the model in which handing a frame to another thread does not pay."""
_SURE = 4
_MOST = 8


class Pace:
    """How long the model takes for a frame, about; told from several threads.

    Python runs one thread at a time. While one waits for the model, others read,
    outline and write; if it does not wait, they take turns with it instead, and every
    turn costs more than what it is for.
    """

    def __init__(self) -> None:
        self._quick = 0

    @property
    def quick(self) -> bool:
        """Whether one thread may as well do it all."""
        return self._quick >= _SURE

    def heard(self, seconds: float) -> None:
        """The model took so long for a frame."""
        if seconds < _QUICK:
            self._quick = min(self._quick + 1, _MOST)
        else:
            # Where every other one is quick, the rest is worth a thread.
            self._quick = max(self._quick - 2, 0)

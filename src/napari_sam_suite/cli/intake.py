"""Finished frames on their way from the engine to the files of a command."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sam_suite.engine.jobs import Job
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.run import FrameResult


class Intake:
    """Finished frames on their way from the engine's thread, in their order.

    The engine waits while `most` of them have not been asked for, so that a slow disk
    or many overlays leave neither a backlog in memory nor work after Ctrl-C.
    """

    def __init__(self, job: Job[Objects], most: int = 3) -> None:
        self._job = job
        self._most = most
        self._taken = 0
        self._change = threading.Condition()
        job.found.connect(self._hold)

    def next(self, timeout: float) -> FrameResult | None:
        """The next frame, or None if none came in `timeout` seconds."""
        parts = self._job.parts
        with self._change:
            if self._taken == len(parts):
                self._change.wait(timeout)
            if self._taken == len(parts):
                return None
            self._taken += 1
            self._change.notify_all()
            part: FrameResult = parts[self._taken - 1]
            return part

    def _hold(self, _part: object) -> None:
        with self._change:
            self._change.notify_all()
            while self._waiting() > self._most and not self._job.stopping():
                self._change.wait(0.1)

    def _waiting(self) -> int:
        return len(self._job.parts) - self._taken

"""What a run did, skipped and could not do."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import reworded

if TYPE_CHECKING:
    from napari_sam_suite.engine.batch.pipeline import Told
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.jobs import Job

_MOST = 1000
"""Failures and notices that are listed; all are counted, and in the store."""


@dataclass
class Summary:
    """What became of a run.

    Attributes
    ----------
    images : int
        How many there are.
    done, skipped, failed : int
        Frames that were finished now, that were finished before, and that could not
        be done.
    failed_images : int
        Images that could not be opened, or that the recipe does not fit.
    objects : int
        Found now.
    seconds : float
        How long it took.
    stopped : bool
        Whether somebody stopped it.
    failures : list of dict
        Image, frame, message and hint; frame is empty for an image as a whole.
    notices : dict of str
        How often each sentence was told.
    """

    images: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    failed_images: int = 0
    objects: int = 0
    seconds: float = 0.0
    stopped: bool = False
    failures: list[dict[str, str]] = field(default_factory=list)
    notices: Counter[str] = field(default_factory=Counter)

    @property
    def complete(self) -> bool:
        """Whether every frame of every image is finished."""
        return not (self.stopped or self.failed or self.failed_images)

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return vars(self) | {"notices": dict(self.notices), "complete": self.complete}


class Tally:
    """Counts what happens during a run, and tells the job how far it is.

    Told from several threads at once.
    """

    def __init__(self, job: Job[Summary], images: int) -> None:
        self.summary = Summary(images=images)
        self._job = job
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._unopened = images
        self._frames = 0
        self._under_way: dict[tuple[str, FrameIndex], float] = {}

    # -- as a `Listener` of single frames -----------------------------------------

    def stopping(self) -> bool:
        """Whether somebody wants to stop."""
        return self._job.stopping()

    def report(self, done: int, total: int, text: str = "") -> None:
        """How far the work is that comes before the first frame."""
        with self._lock:
            self._report(done / max(total, 1), text)

    def notice(self, text: str) -> None:
        """Tell the user something, once."""
        with self._lock:
            self._notice(text)

    def give(self, part: object) -> None:
        """Results go to the store, not to the job, which would keep them all."""

    # -- as the audience of a pipeline --------------------------------------------

    def open(self, frames: int, left: int) -> None:
        """An image was opened: so many frames, so many of them left to do."""
        with self._lock:
            self._unopened -= 1
            self._frames += frames
            self.summary.skipped += frames - left
            self._report()

    def fail_image(self, name: str, failure: dict[str, str]) -> None:
        """An image cannot be worked on."""
        with self._lock:
            self._unopened -= 1
            self.summary.failed_images += 1
            self._fail(name, "", failure)

    def follow(self, image: str, frame: FrameIndex, part: float, text: str) -> None:
        """A frame is under way: `part` of it is done, from 0 to 1."""
        with self._lock:
            self._under_way[image, frame] = part
            self._report(text=text)

    def tell(self, told: Told) -> None:
        """A frame is finished, or has failed."""
        with self._lock:
            self._under_way.pop((told.image, told.frame), None)
            if told.again:
                return
            if told.failure is None:
                self.summary.done += 1
                self.summary.objects += told.objects
                for text in told.notices:
                    self._notice(text)
            else:
                self.summary.failed += 1
                self._fail(told.image, told.label, told.failure)
            self._report(text=told.image)

    def close(self, *, stopped: bool = False) -> Summary:
        """The end."""
        self.summary.stopped = stopped
        self.summary.seconds = round(time.monotonic() - self._start, 2)
        return self.summary

    def _report(self, part: float = 0.0, text: str = "") -> None:
        summary = self.summary
        part += sum(self._under_way.values())
        done = summary.done + summary.skipped + summary.failed
        # An image that was not opened yet counts as one frame.
        total = self._frames + self._unopened
        self._job.report(round(100 * (done + part)), 100 * max(total, done, 1), text)

    def _fail(self, image: str, frame: str, failure: dict[str, str]) -> None:
        if len(self.summary.failures) < _MOST:
            where = {"image": image, "frame": frame}
            self.summary.failures.append(where | failure)

    def _notice(self, text: str) -> None:
        text = reworded(text, str)
        new = text not in self.summary.notices
        if new and len(self.summary.notices) >= _MOST:
            return
        self.summary.notices[text] += 1
        if new:
            self._job.notice(text)

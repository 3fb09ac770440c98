"""A piece of work: how far it is, what it has found, and how it can be stopped.

A door submits a job and goes on; what happens to it arrives as signals, emitted on the
thread that works on it.
"""

from __future__ import annotations

import logging
import threading
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from psygnal import Signal, SignalInstance

from napari_sam_suite.engine.errors import Cancelled, EngineError, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sam_suite.engine.models.protocol import SamModel

logger = logging.getLogger(__name__)

T = TypeVar("T")


class JobState(StrEnum):
    """What a job is doing."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Progress(NamedTuple):
    """How far a job is: `done` of `total`, and a word on what it does now."""

    done: int = 0
    total: int = 0
    text: str = ""


class Job(Generic[T]):
    """Work handed to an engine.

    Attributes
    ----------
    expected : int
        How many parts there will be, where that is known; 0 before.

    Signals
    -------
    progressed(Progress), found(object), noticed(str), finished()
        Emitted on the engine's thread: how far it is, one part of the result, a
        sentence the user should see, and the end, however it came. A job that is
        cancelled before its turn ends on the thread that cancels it.
    """

    progressed = Signal(object)
    found = Signal(object)
    noticed = Signal(str)
    finished = Signal()

    def __init__(self, task: Callable[[SamModel, Job[T]], T], name: str) -> None:
        self.name = name
        self.state = JobState.QUEUED
        self.progress = Progress()
        self.parts: list[Any] = []
        self.expected = 0
        self.notices: list[str] = []
        self.error: BaseException | None = None
        self._task = task
        self._value: T | None = None
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._turn = threading.Lock()

    # -- for whoever submitted it ------------------------------------------------

    def cancel(self) -> None:
        """Stop at the next chance, or at once while it waits for its turn.

        Parts already found are kept.
        """
        self._stop.set()
        with self._turn:
            if self.state is not JobState.QUEUED:
                return
            self.error, self.state = Cancelled(), JobState.CANCELLED
        self._end("before its turn")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; whether it came. Ctrl-C gets through."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._ended.is_set():
            left = 0.2 if end is None else min(0.2, end - time.monotonic())
            if left <= 0:
                return False
            self._ended.wait(left)
        return True

    def result(self, timeout: float | None = None) -> T:
        """The value, once the job has ended.

        Raises
        ------
        Cancelled
            If it was stopped.
        TimeoutError
            If it has not ended in `timeout` seconds.
        EngineError
            What the job raised.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"{self.name} has not ended after {timeout} s.")
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]

    # -- for the task itself -----------------------------------------------------

    def stopping(self) -> bool:
        """Whether somebody wants this job to stop."""
        return self._stop.is_set()

    def report(self, done: int, total: int, text: str = "") -> None:
        """Say how far it is."""
        self.progress = Progress(done, total, text)
        self._tell(self.progressed, self.progress)

    def give(self, part: object) -> None:
        """Hand out one finished part of the result."""
        self.parts.append(part)
        self._tell(self.found, part)

    def notice(self, text: str) -> None:
        """Tell the user something that is not an error."""
        logger.info(text)
        self.notices.append(text)
        self._tell(self.noticed, text)

    def _run(self, model: Callable[[], SamModel]) -> None:
        with self._turn:
            if self.state is not JobState.QUEUED:
                return
            self.state = JobState.RUNNING
        start = time.perf_counter()
        try:
            self._value = self._task(model(), self)
            self.state = JobState.DONE
        except Cancelled as error:
            self.error, self.state = error, JobState.CANCELLED
        except EngineError as error:
            self.error, self.state = error, JobState.FAILED
        except MemoryError as error:
            self.error, self.state = _too_little_memory(), JobState.FAILED
            self.error.__cause__ = error
        except BaseException as error:
            # Whatever it is, it belongs to the one who waits, not to this thread.
            self.error, self.state = error, JobState.FAILED
            logger.exception("%s failed", self.name)
        finally:
            self._end(f"after {time.perf_counter() - start:.2f} s")

    def _end(self, when: str) -> None:
        logger.info("%s: %s %s", self.name, self.state, when)
        self._ended.set()
        self._tell(self.finished)

    def _tell(self, signal: SignalInstance, *news: object) -> None:
        try:
            signal.emit(*news)
        except Exception:
            # A listener's mistake must stop neither the work nor the thread.
            logger.exception("a listener to %s failed", self.name)


def start_job(task: Callable[[Any, Job[T]], T], name: str) -> Job[T]:
    """Work that needs no model here, on a thread of its own: it is called with None."""
    job = Job(task, name)
    thread = threading.Thread(
        target=job._run, args=(lambda: cast("Any", None),), name=name, daemon=True
    )
    thread.start()
    return job


def _too_little_memory() -> OutOfMemory:
    return OutOfMemory(
        "There is too little memory for this image.",
        "Close other programs, or cut the image into smaller ones.",
    )

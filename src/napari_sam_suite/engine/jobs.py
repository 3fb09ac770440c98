"""The one thread that owns the device, and the jobs that wait for it.

Models are loaded, run and moved on this thread and nowhere else, so no model needs a
lock and no other thread ever holds a device context. A door submits a job and goes on;
what happens to it arrives as signals, emitted on the engine's thread.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar

from psygnal import Signal, SignalInstance

from napari_sam_suite.engine.errors import Cancelled, EngineError, OutOfMemory
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL, find_model
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.run import segment_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.models.protocol import Precision, SamModel
    from napari_sam_suite.engine.objects import Objects

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

    Signals
    -------
    progressed(Progress), found(object), noticed(str), finished()
        Emitted on the engine's thread: how far it is, one part of the result, a
        sentence the user should see, and the end, however it came.
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
        self.notices: list[str] = []
        self.error: BaseException | None = None
        self._task = task
        self._value: T | None = None
        self._stop = threading.Event()
        self._ended = threading.Event()

    # -- for whoever submitted it ------------------------------------------------

    def cancel(self) -> None:
        """Stop at the next chance; parts already found are kept."""
        self._stop.set()

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
        start = time.perf_counter()
        self.state = JobState.RUNNING
        try:
            if self.stopping():
                raise Cancelled
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
            took = time.perf_counter() - start
            logger.info("%s: %s after %.2f s", self.name, self.state, took)
            self._ended.set()
            self._tell(self.finished)

    def _tell(self, signal: SignalInstance, *news: object) -> None:
        try:
            signal.emit(*news)
        except Exception:
            # A listener's mistake must stop neither the work nor the thread.
            logger.exception("a listener to %s failed", self.name)


def _too_little_memory() -> OutOfMemory:
    return OutOfMemory(
        "There is too little memory for this image.",
        "Close other programs, or cut the image into smaller ones.",
    )


class Engine:
    """A model on a device, behind one thread.

    Parameters
    ----------
    model : str
        An id such as ``"sam2-nano"``, or the path of a checkpoint.
    device : str
        ``"auto"``, ``"cuda"``, ``"mps"`` or ``"cpu"``.
    precision : str
        ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    folder : Path, optional
        Where checkpoints are kept.
    random_weights : bool
        The real network with random weights, for tests and timing.

    Raises
    ------
    ModelError
        If the model is unknown. Whether its checkpoint is here is seen by the first
        job.

    Examples
    --------
    >>> with Engine(model="sam2-nano") as engine:  # doctest: +SKIP
    ...     objects = engine.segment(open_image("cells.tif"))
    ...     objects.save("cells.geojson")
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        folder: Path | str | None = None,
        random_weights: bool = False,
    ) -> None:
        self.spec = find_model(model)
        self._options: dict[str, Any] = {
            "device": device,
            "precision": precision,
            "folder": folder,
            "random_weights": random_weights,
        }
        self._model: SamModel | None = None
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._current: Job[Any] | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self._work, name="sam-engine", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, task: Callable[[SamModel, Job[T]], T], name: str) -> Job[T]:
        """Queue `task`, called with the model and its job on the engine's thread.

        Raises
        ------
        EngineError
            If the engine is closed.
        """
        job = Job(task, name)
        with self._lock:
            if self._closed:
                raise EngineError("This engine is closed.", "Start a new one.")
            self._jobs.put(job)
        return job

    def start_segment(
        self,
        image: ImageSource,
        params: AutoParams | None = None,
        *,
        frames: str | FrameIndex | Sequence[FrameIndex] = "all",
        composite: Composite | None = None,
    ) -> Job[Objects]:
        """Queue automatic segmentation; every finished frame is a part of the job."""

        def task(model: SamModel, job: Job[Objects]) -> Objects:
            with ThreadPoolExecutor(1, "sam-polygons") as pool:
                return segment_frames(
                    model,
                    image,
                    params or AutoParams(),
                    frames=frames,
                    composite=composite,
                    job=job,
                    pool=pool,
                )

        return self.submit(task, f"segment {image.name}")

    def segment(
        self,
        image: ImageSource,
        params: AutoParams | None = None,
        *,
        frames: str | FrameIndex | Sequence[FrameIndex] = "all",
        composite: Composite | None = None,
    ) -> Objects:
        """Find everything in an image and wait for it.

        Parameters
        ----------
        image : ImageSource
            What `open_image` gave.
        params : AutoParams, optional
            Defaults suit the model.
        frames : str or FrameIndex or sequence of FrameIndex
            ``"all"`` or which ones.
        composite : Composite, optional
            How channels become RGB.

        Returns
        -------
        Objects
            Frame by frame, each frame's best first.
        """
        job = self.start_segment(image, params, frames=frames, composite=composite)
        try:
            return job.result()
        except KeyboardInterrupt:
            job.cancel()
            job.wait()
            raise

    def close(self, timeout: float = 30) -> None:
        """Stop what runs, drop what waits, and give the memory back."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
            if self._current is not None:
                self._current.cancel()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._lock:
                self._current = job
                if self._closed:
                    job.cancel()
            job._run(self._load)
            self._current = None
        self._model = None

    def _load(self) -> SamModel:
        from napari_sam_suite.engine.models.load import load_model

        if self._model is None:
            self._model = load_model(self.spec, **self._options)
        return self._model

"""The one thread that owns the device, and the jobs that wait for it.

Models are loaded, run and moved on this thread and nowhere else, so no model needs a
lock and no other thread ever holds a device context. A door submits a job and goes on;
what happens to it arrives as signals, emitted on the engine's thread.
"""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar, cast

from psygnal import Signal, SignalInstance

from napari_sam_suite.engine.auto import Automatic
from napari_sam_suite.engine.errors import Cancelled, EngineError, OutOfMemory
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL, find_model
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.run import run_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.finder import Finder
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
    embeddings : Path, optional
        Keep what the image encoder says in this folder, for the next time.
    embedding_bytes : int, optional
        Memory that it may take; 512 MB by default.

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
        embeddings: Path | str | None = None,
        embedding_bytes: int | None = None,
    ) -> None:
        self.spec = find_model(model, folder=folder)
        self._embeddings = embeddings
        self._embedding_bytes = embedding_bytes
        self._options: dict[str, Any] = {
            "device": device,
            "precision": precision,
            "folder": folder,
            "random_weights": random_weights,
        }
        self._model: SamModel | None = None
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._current: Job[Any] | None = None
        self._spare: list[Job[Any]] = []
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self._work, name="sam-engine", daemon=True
        )
        self._thread.start()
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def device(self) -> str:
        """Where the model runs, such as ``"cuda"``; before it is loaded, as asked."""
        model = self._model
        return str(self._options["device"] if model is None else model.device)

    def submit(
        self,
        task: Callable[[SamModel, Job[T]], T],
        name: str,
        *,
        background: bool = False,
    ) -> Job[T]:
        """Queue `task`, called with the model and its job on the engine's thread.

        Parameters
        ----------
        task : callable
            The work.
        name : str
            What messages call it.
        background : bool
            Nobody waits for it: it is cancelled as soon as there is other work.

        Raises
        ------
        EngineError
            If the engine is closed.
        """
        job = Job(task, name)
        with self._lock:
            if self._closed:
                raise EngineError("This engine is closed.", "Start a new one.")
            spares = [s for s in self._spare if not (s.stopping() or s.wait(0))]
            self._spare = [*spares, job] if background else []
            self._jobs.put(job)
        # Not under the lock: whoever hears of the end may want the engine.
        for spare in () if background else spares:
            spare.cancel()
        return job

    def start(
        self,
        finder: Finder,
        image: ImageSource,
        *,
        frames: str | FrameIndex | Sequence[FrameIndex] = "all",
        composite: Composite | None = None,
        run: str = "",
    ) -> Job[Objects]:
        """Queue a capability; every finished frame is a part of the job.

        Parameters
        ----------
        finder : Finder
            What to find, and how.
        image, frames, composite
            See `segment`.
        run : str
            Written into the features of every object.
        """

        def task(model: SamModel, job: Job[Objects]) -> Objects:
            with ThreadPoolExecutor(1, "sam-polygons") as pool:
                return run_frames(
                    model,
                    image,
                    finder,
                    frames=frames,
                    composite=composite,
                    run=run,
                    job=job,
                    pool=pool,
                )

        return self.submit(task, f"{finder.name} {image.name}")

    def start_segment(
        self,
        image: ImageSource,
        params: AutoParams | None = None,
        *,
        frames: str | FrameIndex | Sequence[FrameIndex] = "all",
        composite: Composite | None = None,
    ) -> Job[Objects]:
        """Queue automatic segmentation: `start` with automatic masks."""
        finder = Automatic(params or AutoParams())
        return self.start(finder, image, frames=frames, composite=composite)

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
        """Stop what runs, drop what waits, and give the memory back.

        Called again, it waits again. Python itself calls it at its end: a thread that
        is inside torch then brings the process down.
        """
        with self._lock:
            if not self._closed:
                self._jobs.put(None)
            self._closed = True
            current = self._current
        if current is not None:
            current.cancel()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._lock:
                self._current, closed = job, self._closed
            if closed:
                job.cancel()
            job._run(self._load)
            # Until the next one comes, nothing here holds on to what it found.
            self._current = job = None
        self._model = None
        atexit.unregister(self.close)

    def _load(self) -> SamModel:
        from napari_sam_suite.engine.embed import MEMORY, EmbeddingCache, Remembering
        from napari_sam_suite.engine.models.load import load_model

        if self._model is None:
            loaded = load_model(self.spec, **self._options)
            wanted = self._embedding_bytes
            memory = MEMORY if wanted is None else wanted
            cache = EmbeddingCache(memory, folder=self._embeddings)
            self._model = Remembering(loaded, cache)
        return self._model

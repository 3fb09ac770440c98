"""The one thread that owns the device, and the jobs that wait for it.

Models are loaded, run and moved on this thread and nowhere else, so no model needs a
lock and no other thread ever holds a device context. On a CPU, which has none, a job
may lend its model to `lanes`, and waits for them. A door submits a job and goes on;
what happens to it arrives as signals, emitted on the engine's thread.
"""

from __future__ import annotations

import atexit
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TypeVar

from napari_sam_suite.engine.auto import Automatic
from napari_sam_suite.engine.errors import EngineError
from napari_sam_suite.engine.frames import resolve_frames
from napari_sam_suite.engine.job import Job, JobState, Progress, start_job
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

__all__ = ["Engine", "Job", "JobState", "Progress", "start_job"]

T = TypeVar("T")


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
            chosen = resolve_frames(image.sizes, frames)
            job.expected = len(chosen)
            with ThreadPoolExecutor(1, "sam-polygons") as pool:
                return run_frames(
                    model,
                    image,
                    finder,
                    frames=chosen,
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

        Raises
        ------
        UnreadFrames
            If some of several frames could not be read; its `objects` are those of
            the others.
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

"""The same run on Dask: frames are tasks, and every worker loads the model once.

Results do not travel: workers write them into the store, and say so in one line. Images
and store must have the same names for all of them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from napari_sam_suite.engine.batch.bench import (
    learn_there,
    make_plugin,
    open_there,
    search_there,
    weigh_there,
)
from napari_sam_suite.engine.batch.pipeline import Told
from napari_sam_suite.engine.batch.run import check_learnt, fail_image, saved_prototypes
from napari_sam_suite.engine.batch.summary import Summary, Tally
from napari_sam_suite.engine.batch.work import list_images, remaining
from napari_sam_suite.engine.errors import (
    Cancelled,
    EngineError,
    ImageError,
)
from napari_sam_suite.engine.formats.extras import load_extra
from napari_sam_suite.engine.jobs import start_job
from napari_sam_suite.engine.lanes import MOST
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.recipe import FewShot, Recipe
from napari_sam_suite.engine.store.images import told
from napari_sam_suite.engine.store.store import Store

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.jobs import Job
    from napari_sam_suite.engine.models.protocol import SamModel

_GPU_THREADS = 3
"""Tasks of one worker with a GPU: one is on it, one is read, one is written."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""All of them: Dask sets each to 1, and the smallest counts."""
_TALKATIVE = ("distributed", "distributed.client")
"""Loggers of Dask with a level of their own, which tell of every connection."""
_PATIENCE = "15s"
_ALONE = "no worker is connected to the scheduler; waiting for one"
_LOOK = 0.2
"""Seconds after which a run looks whether it shall stop."""


@contextmanager
def open_cluster(
    address: str | None = None, workers: int | None = None, device: str = "auto"
) -> Iterator[Any]:
    """A client of a Dask scheduler: of one that is there, or of one on this machine.

    Parameters
    ----------
    address : str, optional
        Such as ``"tcp://host:8786"``.
    workers : int, optional
        Without an address: so many processes. Each has a GPU of its own as long as
        there are enough, and else its share of the cores, with a frame on each.
    device : str
        Of the model: ``"cpu"`` leaves the GPUs alone.

    Yields
    ------
    distributed.Client

    Raises
    ------
    EngineError
        If the scheduler does not answer.
    MissingExtra
        If Dask is not installed.
    """
    distributed = load_extra("distributed", "scale")
    if address is None:
        with (
            _quiet(),
            _local(distributed, workers or 2, device) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            client.wait_for_workers(workers or 2)
            yield client
        return
    with _quiet():
        try:
            client = distributed.Client(
                address, timeout=_PATIENCE, set_as_default=False
            )
        except (OSError, ValueError) as error:
            raise EngineError(
                f"No Dask scheduler answers at {address}.",
                "Check the address, and that the scheduler is running.",
            ) from error
        with client:
            yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Dask tell of errors only, here and in workers, unless more is wanted."""
    import dask

    if logging.getLogger().isEnabledFor(logging.INFO):
        yield
        return
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    environ = "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED"
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with dask.config.set({environ: "error"}):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _local(distributed: Any, workers: int, device: str) -> Any:
    """A scheduler and workers on this machine, which are started again when lost."""
    gpus = 0
    if device in ("auto", "cuda"):
        import torch

        gpus = torch.cuda.device_count()
    share = max(1, (os.cpu_count() or 1) // workers)
    specification = {}
    for number in range(workers):
        env = dict.fromkeys(_THREADS, str(share))
        if gpus:
            env["CUDA_VISIBLE_DEVICES"] = pick_gpu(number, gpus)
        tasks = _GPU_THREADS if gpus else min(share, MOST)
        options = {"nthreads": tasks, "env": env}
        specification[number] = {"cls": distributed.Nanny, "options": options}
    scheduler = {
        "cls": distributed.Scheduler,
        "options": {"dashboard": False, "host": "127.0.0.1"},
    }
    return distributed.SpecCluster(
        workers=specification, scheduler=scheduler, silence_logs="ERROR"
    )


def pick_gpu(number: int, gpus: int) -> str:
    """The GPU of a worker, as ``CUDA_VISIBLE_DEVICES`` names it.

    Parameters
    ----------
    number : int
        Of the worker, counted from 0.
    gpus : int
        How many this process may see; workers take turns.
    """
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in seen.split(",") if name.strip()]
    if not names:
        names = [str(gpu) for gpu in range(gpus)]
    return names[number % min(gpus, len(names))]


def start_cluster_run(client: Any, recipe: Recipe) -> Job[Summary]:
    """Run a recipe on a cluster; the job is that of `batch.run.start_run`.

    Parameters
    ----------
    client : distributed.Client
        As `open_cluster` gives it.
    recipe : Recipe
        Its images and its store must be reachable from every worker.

    Raises
    ------
    EngineError
        If the recipe names no image, or its store cannot be used.
    """
    recipe = recipe.placed(Path.cwd())  # workers are in folders of their own
    spec = find_model(recipe.model.id, folder=recipe.model.folder)
    store = Store.create(recipe)
    images = list_images(recipe, store)
    check_learnt(recipe, spec)

    def task(_: SamModel, job: Job[Summary]) -> Summary:
        with store.alone():
            tally = Tally(job, len(images))
            run = _Run(client, recipe, store, tally)
            stopped = False
            try:
                run.go(images)
            except Cancelled:
                stopped = True
            finally:
                run.close()
            summary = tally.close(stopped=stopped)
            store.list_images({}, summary.as_dict())
            return summary

    return start_job(task, f"run {recipe.capability.name} on a cluster")


class _Run:
    """One run as its client sees it: what waits, what is under way, what came back."""

    def __init__(self, client: Any, recipe: Recipe, store: Store, tally: Tally) -> None:
        self._distributed = load_extra("distributed", "scale")
        self._client = client
        self._recipe, self._store, self._tally = recipe, store, tally
        self._name = f"napari-sam-suite-{uuid4().hex[:12]}"
        self._news = threading.Event()
        self._lonely = False
        self._waiting: deque[tuple[str, FrameIndex | None]] = deque()
        self._under_way: dict[Any, tuple[Any, ...]] = {}
        plugin = make_plugin(self._name, recipe.text())
        client.register_plugin(plugin, name=self._name)

    def go(self, images: dict[str, str]) -> None:
        """Until nothing is left; few tasks at a time, however many frames there are."""
        self._store.begin(images, self._ask_one(weigh_there))
        learnt = saved_prototypes(self._recipe, self._store)
        if isinstance(self._recipe.capability, FewShot) and learnt is None:
            self._ask_one(learn_there)
        unopened = deque(images)
        while unopened or self._waiting or self._under_way:
            if self._tally.stopping():
                raise Cancelled
            if self._client.status not in ("running", "connecting"):
                raise EngineError(
                    "The Dask scheduler is gone.",
                    "Start it again, and run the same command to go on.",
                )
            most = 2 * max(1, self._count_threads()) + 2
            while len(self._under_way) < most and (self._waiting or unopened):
                if self._waiting:
                    name, frame = self._waiting.popleft()
                    self._submit(search_there, name, frame)
                else:
                    self._open(unopened.popleft())
            self._take()

    def close(self) -> None:
        """Drop what has not begun; workers finish the frames that they are at."""
        if self._client.status != "running":
            return
        for future in self._under_way:
            future.cancel()
        self._client.unregister_worker_plugin(self._name)

    def _ask_one(self, function: Any) -> Any:
        """What one worker says, for all of them."""
        future = self._client.submit(function, self._name, pure=False)
        while not future.done():
            if self._tally.stopping():
                future.cancel()
                raise Cancelled
            self._count_threads()
            time.sleep(0.05)
        return future.result()

    def _count_threads(self) -> int:
        """Of all workers; that there are none is told, because it may stay so."""
        count: int = sum(self._client.nthreads().values())
        if not count and not self._lonely:
            logger.warning("%s", _ALONE)
        self._lonely = not count
        if self._lonely:
            self._tally.report(0, 1, _ALONE)
        return count

    def _open(self, name: str) -> None:
        try:
            frames, left = remaining(self._store.image(name), self._store.images[name])
        except ImageError as error:
            self._tally.fail_image(name, fail_image(self._store, name, error))
            return
        if frames and not left:
            self._tally.open(frames, 0)
            return
        self._submit(open_there, name)

    def _submit(self, function: Any, *what: Any) -> None:
        """Hand out a task: an image to open, or an image and a frame."""
        key = f"{function.__name__}-{'-'.join(map(str, what))}-{uuid4().hex[:8]}"
        future = self._client.submit(function, self._name, *what, key=key, pure=False)
        self._under_way[future] = (function, *what)
        future.add_done_callback(lambda _: self._news.set())

    def _take(self) -> None:
        """What came back meanwhile."""
        self._news.wait(_LOOK)
        self._news.clear()
        for future in [f for f in self._under_way if f.done()]:
            function, name, *frame = self._under_way.pop(future)
            if future.status == "finished":
                self._answer(name, future.result())
            elif future.status == "error":
                self._lost(name, frame[0] if frame else None, future.exception())
            else:
                self._submit(function, name, *frame)
            future.release()

    def _answer(self, name: str, answer: Any) -> None:
        if isinstance(answer, list):
            for one in answer:
                self._tally.tell(one)
        elif "failure" in answer:
            self._tally.fail_image(name, answer["failure"])
        else:
            for text in answer["notices"]:
                self._tally.notice(text)
            self._tally.open(answer["frames"], answer["left"])
            self._waiting.extend((name, frame) for frame in answer["todo"])

    def _lost(self, name: str, frame: FrameIndex | None, error: Exception) -> None:
        """A task that came to nothing: workers died of it, or nothing can go on."""
        if not isinstance(error, self._distributed.KilledWorker):
            raise error
        reason = EngineError(
            "Several workers were lost over this, one after the other.",
            "They may have too little memory: use fewer workers, or larger machines.",
        )
        place = self._store.image(name)
        place.fail(frame, told(reason))
        record = place.record
        if frame is None or record is None:
            self._tally.fail_image(name, told(reason))
        else:
            label = frame.label(record.sizes)
            self._tally.tell(Told(name, frame, label, failure=told(reason)))

"""What a worker of a cluster has at hand, and the tasks that it is given."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.batch.pipeline import (
    Finding,
    Told,
    do_frame,
    find,
    finish,
    lanes_of,
    process,
    read_frame,
    read_frames,
)
from napari_sam_suite.engine.batch.run import (
    fail_image,
    learn,
    open_engine,
    saved_prototypes,
)
from napari_sam_suite.engine.batch.work import begin_image
from napari_sam_suite.engine.errors import ImageError, ModelError, OutputError
from napari_sam_suite.engine.formats.extras import load_extra
from napari_sam_suite.engine.lanes import keep_memory, start_lanes
from napari_sam_suite.engine.models.protocol import weights_of
from napari_sam_suite.engine.recipe import Propagate, Recipe
from napari_sam_suite.engine.store.store import Store

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from napari_sam_suite.engine.batch.work import ImageWork
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.protocol import SamModel

_OPEN = 4
"""Images that a worker keeps open."""
_HERE = "napari_sam_suite"
"""Attribute of a worker that has its benches by run."""


class Bench:
    """What a worker has at hand: the model, the store, and a few open images.

    Parameters
    ----------
    recipe : Recipe
        What is to be done.
    tasks : int
        How many the worker has at once.
    """

    def __init__(self, recipe: Recipe, tasks: int = 1) -> None:
        self.recipe = recipe
        self.tasks = tasks
        self._lanes: dict[int, Executor] = {}
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._checked = False
        self._works: OrderedDict[str, ImageWork] = OrderedDict()

    @property
    def engine(self) -> Engine:
        """Made by the first task: what it imports would stop the worker's heartbeat."""
        with self._lock:
            if self._engine is None:
                self._engine = open_engine(self.recipe)
            return self._engine

    @cached_property
    def store(self) -> Store:
        """Opened by the first task."""
        return Store.open(self.recipe.outputs.store)

    def check(self, model: SamModel) -> None:
        """Make sure that this worker has the weights of all the others.

        Raises
        ------
        OutputError
            If its file is another one.
        """
        if not self._checked:
            self.store.check_weights(weights_of(model))
            self._checked = True

    def lanes(self, model: SamModel, work: ImageWork) -> Executor | None:
        """Where its tasks go side by side; None if the device takes one at a time.

        Called on the engine's thread. Each task has a core at least, whatever Dask has
        told torch.
        """
        count = min(self.tasks, lanes_of(model, work, self.tasks))
        if count > 1 and count not in self._lanes:
            self._lanes[count] = start_lanes(count, self.tasks)
        return self._lanes.get(count)

    def close(self) -> None:
        """Give the model's memory back."""
        for lanes in self._lanes.values():
            lanes.shutdown(wait=False)
        if self._engine is not None:
            self._engine.close(timeout=5)

    def open(self, name: str) -> ImageWork:
        """An image, planned; the few used last stay open."""
        with self._lock:
            if name not in self._works:
                learnt = saved_prototypes(self.recipe, self.store)
                self._works[name] = begin_image(self.recipe, self.store, name, learnt)
            self._works.move_to_end(name)
            while len(self._works) > _OPEN:
                self._works.popitem(last=False)
            return self._works[name]


class Heard:
    """Collects what is told of frames; nobody stops it."""

    def __init__(self) -> None:
        self.all: list[Told] = []
        self._said: list[str] = []

    def tell(self, one: Told) -> None:
        """Keep it, with what was said of the worker until then."""
        said, self._said = self._said, []
        self.all.append(replace(one, notices=(*said, *one.notices)))

    def stopping(self) -> bool:
        """Never: a frame that was begun is finished."""
        return False

    def report(self, done: int, total: int, text: str = "") -> None:
        """Nobody listens to the parts of a frame."""

    def follow(self, image: str, frame: FrameIndex, part: float, text: str) -> None:
        """Nobody listens to the parts of a frame."""

    def notice(self, text: str) -> None:
        """Told with the next frame."""
        self._said.append(text)

    def give(self, part: object) -> None:
        """Results go to the store."""


def make_plugin(name: str, recipe: str) -> Any:
    """What makes a worker ready for a run, and tidies up after it."""
    distributed = load_extra("distributed", "scale")

    class Ready(distributed.WorkerPlugin):  # type: ignore[misc, name-defined]
        def setup(self, worker: Any) -> None:
            keep_memory()
            benches = vars(worker).setdefault(_HERE, {})
            benches[name] = Bench(Recipe.parse(recipe), worker.state.nthreads)

        def teardown(self, worker: Any) -> None:
            bench = vars(worker).get(_HERE, {}).pop(name, None)
            if bench is not None:
                bench.close()

    return Ready()


def _bench(run: str) -> Bench:
    worker = load_extra("distributed", "scale").get_worker()
    bench: Bench = vars(worker)[_HERE][run]
    return bench


def weigh_there(run: str) -> str:
    """Which weights this worker has."""

    def task(model: SamModel, _: Job[str]) -> str:
        return weights_of(model)

    return _bench(run).engine.submit(task, "load the model").result()


def learn_there(run: str) -> None:
    """Learn from the examples, and keep it in the store."""
    bench = _bench(run)

    def task(model: SamModel, _: Job[None]) -> None:
        learn(bench.recipe, bench.store, model, Heard())

    bench.engine.submit(task, "learn").result()


def open_there(run: str, name: str) -> dict[str, Any]:
    """Open an image and plan it; a failure is its own."""
    bench = _bench(run)
    try:
        bench.store.image(name).tidy()
        work = bench.open(name)
    except (OutputError, ModelError):
        raise
    except Exception as error:  # noqa: BLE001 - recorded, and logged there
        return {"failure": fail_image(bench.store, name, error)}
    todo = [f for f in work.todo if f not in work.finished]
    chain = isinstance(bench.recipe.capability, Propagate)
    return {
        "frames": len(work.record.frames),
        "left": len(todo),
        "notices": work.notices,
        "todo": [None] if chain and todo else todo,
    }


def search_there(
    run: str, name: str, frame: FrameIndex | None
) -> list[Told] | dict[str, Any]:
    """Do one frame, or all of an image whose frames follow from each other.

    An image that cannot be opened here is the frame's own failure, or the image's.
    """
    bench, heard = _bench(run), Heard()
    try:
        work = bench.open(name)
    except (OutputError, ModelError):
        raise
    except Exception as error:  # noqa: BLE001 - recorded, and logged there
        failure = fail_image(bench.store, name, error, frame)
        if frame is None:
            return {"failure": failure}
        label = _label(bench.store, name, frame)
        return [Told(name, frame, label, failure=failure)]
    if frame is None:

        def chain(model: SamModel, _: Job[None]) -> None:
            bench.check(model)
            process(model, read_frames(work), heard, heard)

        bench.engine.submit(chain, f"carry on in {name}").result()
        return heard.all
    look = read_frame(work, frame)

    def ask(model: SamModel, _: Job[Any]) -> tuple[SamModel, Any]:
        bench.check(model)
        lanes = bench.lanes(model, work)
        return model, lanes or find(model, look, heard, heard)

    model, answer = bench.engine.submit(ask, f"frame of {name}").result()
    if isinstance(answer, Finding):
        finish(model, look, answer, heard)
    else:
        answer.submit(do_frame, model, look, heard, heard).result()
    return heard.all


def _label(store: Store, name: str, frame: FrameIndex) -> str:
    """A frame as a person calls it, as far as the store knows its image."""
    try:
        record = store.image(name).record
    except ImageError:
        return ""
    return "" if record is None else frame.label(record.sizes)

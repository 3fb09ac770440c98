"""A recipe run on this machine, from where it was left."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sam_suite.engine.batch.pipeline import Look, process, read_frames
from napari_sam_suite.engine.batch.summary import Summary, Tally
from napari_sam_suite.engine.batch.work import (
    begin_image,
    list_images,
    read_examples,
    remaining,
)
from napari_sam_suite.engine.errors import (
    Cancelled,
    EngineError,
    ModelError,
    OutputError,
)
from napari_sam_suite.engine.models.protocol import weights_of
from napari_sam_suite.engine.recipe import FewShot, first_difference
from napari_sam_suite.engine.store.images import told
from napari_sam_suite.engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sam_suite.engine.fewshot.prototypes import Prototypes
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.recipe import Recipe
    from napari_sam_suite.engine.run import Listener

logger = logging.getLogger(__name__)


def run_recipe(recipe: Recipe) -> Summary:
    """Run a recipe and wait for it; what is in its store already is not done again.

    Parameters
    ----------
    recipe : Recipe
        Its outputs name the store.

    Returns
    -------
    Summary
        A frame or an image that fails is in there, and does not stop the others.

    Raises
    ------
    EngineError
        If nothing can be done at all: no image, no model, no room.

    Examples
    --------
    >>> recipe = Recipe.load("plate.json")  # doctest: +SKIP
    >>> run_recipe(recipe).done  # doctest: +SKIP
    384
    """
    summary = all_done(recipe)
    if summary is not None:
        return summary
    with open_engine(recipe) as engine:
        job = start_run(engine, recipe)
        try:
            return job.result()
        except KeyboardInterrupt:
            job.cancel()
            job.wait()
            raise


def all_done(recipe: Recipe) -> Summary | None:
    """The summary of a run that has nothing to do; None if there may be something.

    No model is loaded for it: its weights are known by the file's size and date.
    """
    recipe = recipe.placed(Path.cwd())
    address, stamp = recipe.outputs.store, _stamp(recipe)
    if not address or not stamp:
        return None
    try:
        store = Store.open(address)
        images = list_images(recipe, store)
        frames = [remaining(store.image(name), path) for name, path in images.items()]
    except EngineError:
        return None  # the run itself says what is wrong
    other = first_difference(store.recipe, recipe)
    if other or store.made_with.get("file") != stamp or set(images) - {*store.images}:
        return None
    if any(left or not there for there, left in frames):
        return None
    return Summary(images=len(images), skipped=sum(there for there, _ in frames))


def _stamp(recipe: Recipe) -> str:
    """Size and date of the weights, or nothing if that does not tell them."""
    from napari_sam_suite.engine.models.checkpoints import checkpoint_path
    from napari_sam_suite.engine.models.registry import find_model

    capability, model = recipe.capability, recipe.model
    learnt = isinstance(capability, FewShot) and capability.prototypes
    if learnt or model.random_weights:
        return ""
    try:
        spec = find_model(model.id, folder=model.folder)
        status = checkpoint_path(spec, model.folder).stat()
    except (EngineError, OSError):
        return ""
    known = spec.runtime == "torch"  # an exported model is several files
    return f"{status.st_size} {status.st_mtime_ns}" if known else ""


def open_engine(recipe: Recipe) -> Engine:
    """An engine with the recipe's model.

    Raises
    ------
    ModelError
        If it is unknown, or its checkpoint is not here.
    """
    from napari_sam_suite.engine.jobs import Engine
    from napari_sam_suite.engine.models.checkpoints import require_checkpoint
    from napari_sam_suite.engine.models.registry import find_model

    model = recipe.model
    if not model.random_weights:
        spec = find_model(model.id, folder=model.folder)
        require_checkpoint(spec, model.folder)
    return Engine(
        model.id,
        device=model.device,
        precision=model.precision,
        folder=model.folder,
        random_weights=model.random_weights,
    )


def start_run(engine: Engine, recipe: Recipe) -> Job[Summary]:
    """Queue a recipe on an engine; `run_recipe` waits for it.

    A job that is cancelled gives its summary all the same, with `stopped` set. While it
    works its only part is the summary so far.

    Raises
    ------
    EngineError
        If the recipe names no image, or its store cannot be used.
    """
    recipe = recipe.placed(Path.cwd())
    store = Store.create(recipe)
    images = list_images(recipe, store)
    check_learnt(recipe, engine.spec)

    def task(model: SamModel, job: Job[Summary]) -> Summary:
        with store.alone():
            store.begin(images, weights_of(model), _stamp(recipe))
            tally = Tally(job, len(images))
            job.give(tally.summary)
            stopped = False
            try:
                prototypes = learn(recipe, store, model, tally)
                looks = read_images(recipe, store, list(images), prototypes, tally)
                process(model, looks, tally, tally)
            except Cancelled:
                stopped = True
            summary = tally.close(stopped=stopped)
            store.list_images({}, summary.as_dict())
            return summary

    return engine.submit(task, f"run {recipe.capability.name}")


def check_learnt(recipe: Recipe, spec: ModelSpec) -> None:
    """Make sure that few-shot fits its model and its image, before anything is done."""
    capability = recipe.capability
    if not isinstance(capability, FewShot):
        return
    from napari_sam_suite.engine.fewshot.finder import FewShot as Search
    from napari_sam_suite.engine.fewshot.prototypes import Prototypes

    saved = capability.prototypes
    learnt = None if saved is None else Prototypes.load(saved)
    Search(capability.params, read_examples(recipe), learnt).check(spec)


def learn(
    recipe: Recipe, store: Store, model: SamModel, job: Listener
) -> Prototypes | None:
    """What few-shot searches with: learnt once, and kept in the store."""
    found = saved_prototypes(recipe, store)
    if found is None and isinstance(recipe.capability, FewShot):
        from napari_sam_suite.engine.fewshot.finder import FewShot as Search

        search = Search(recipe.capability.params, read_examples(recipe))
        found = search.learn(model, job.report, job.stopping)
        store.keep_prototypes(found)
    return found


def read_images(
    recipe: Recipe,
    store: Store,
    names: list[str],
    prototypes: Prototypes | None,
    tally: Tally,
) -> Iterator[Look]:
    """Read what is left to do of all images; one that fails does not stop the rest."""
    for name in names:
        place = store.image(name)
        try:
            frames, left = remaining(place, store.images[name])
            if frames and not left:
                tally.open(frames, 0)
                continue
            place.tidy()
            work = begin_image(recipe, store, name, prototypes)
        except (OutputError, ModelError):
            raise
        except Exception as error:  # noqa: BLE001 - recorded, and logged there
            tally.fail_image(name, fail_image(store, name, error))
            continue
        for text in work.notices:
            tally.notice(text)
        tally.open(len(work.record.frames), len(set(work.todo) - work.finished))
        yield from read_frames(work)


def fail_image(
    store: Store, name: str, error: Exception, frame: FrameIndex | None = None
) -> dict[str, str]:
    """Keep why an image, or a frame of it, cannot be worked on: message and hint."""
    if not isinstance(error, EngineError | MemoryError):
        logger.error("%s cannot be opened", name, exc_info=error)
    failure = told(error)
    store.image(name).fail(frame, failure)
    return failure


def saved_prototypes(recipe: Recipe, store: Store) -> Prototypes | None:
    """What few-shot searches with, if it was learnt already."""
    capability = recipe.capability
    if not isinstance(capability, FewShot):
        return None
    if capability.prototypes is not None:
        from napari_sam_suite.engine.fewshot.prototypes import Prototypes

        return Prototypes.load(capability.prototypes)
    return store.prototypes()

"""What there is to do for one image of a recipe, and with which finder."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from napari_sam_suite.engine.composite import Composite
from napari_sam_suite.engine.errors import FrameError, ImageError, ParameterError
from napari_sam_suite.engine.frames import FrameIndex, select_frames
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.recipe import (
    Auto,
    FewShot,
    Nested,
    Prompted,
    Propagate,
)
from napari_sam_suite.engine.recorded import to_objects
from napari_sam_suite.engine.run import describe
from napari_sam_suite.engine.sources import find_images, name_images
from napari_sam_suite.engine.store.images import ImageRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam_suite.engine.fewshot.examples import Examples
    from napari_sam_suite.engine.fewshot.prototypes import Prototypes
    from napari_sam_suite.engine.finder import Finder
    from napari_sam_suite.engine.hierarchy.params import HierarchyParams
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.prompts.prompt import Prompt
    from napari_sam_suite.engine.propagation.finder import Propagated
    from napari_sam_suite.engine.recipe import Recipe
    from napari_sam_suite.engine.store.images import ImageStore
    from napari_sam_suite.engine.store.store import Store


@dataclass(frozen=True)
class ImageWork:
    """One image, opened and planned.

    Attributes
    ----------
    name : str
        Its name in the store.
    todo : tuple of FrameIndex
        Frames to look at, in their order.
    finished : frozenset of FrameIndex
        Those of them whose results are there already. They are looked at again only
        because others follow from them.
    failed : frozenset of FrameIndex
        Those that an earlier run could not do.
    naming : str
        Text that the ids of objects follow from.
    levels : HierarchyParams, optional
        Objects get levels by these.
    independent : int
        Frames of the whole run that may be worked on at once, about: as many as this
        image has, or as there are images; 1 where frames follow from each other.
    """

    name: str
    image: ImageSource
    store: ImageStore
    record: ImageRecord
    finder: Finder
    todo: tuple[FrameIndex, ...]
    finished: frozenset[FrameIndex]
    failed: frozenset[FrameIndex]
    naming: str
    levels: HierarchyParams | None = None
    independent: int = 1
    _sources: dict[str, dict[str, object]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def notices(self) -> list[str]:
        """What is to be told of it before it is looked at."""
        count = len(self.finished)
        if not count:
            return [*self.record.notices]
        frames = "1 finished frame is" if count == 1 else f"{count} finished frames are"
        again = f"{frames} looked at again, because the next ones follow from there."
        return [*self.record.notices, again]

    def source(self, model: SamModel) -> dict[str, object]:
        """Where its objects come from; the same for all frames."""
        if model.spec.id not in self._sources:
            self._sources[model.spec.id] = describe(
                self.image, model, self.finder, self.record.composite
            )
        return self._sources[model.spec.id]

    def sort(self, objects: Objects) -> Objects:
        """Objects of a frame with their levels, if these are asked for.

        Raises
        ------
        ParameterError
            If the way to find levels does not suit them.
        """
        if self.levels is None:
            return objects
        from napari_sam_suite.engine.hierarchy.hierarchy import build_hierarchy

        return build_hierarchy(objects, self.levels).tagged()


def list_images(recipe: Recipe, store: Store) -> dict[str, str]:
    """Paths of all images by their names in the store.

    Raises
    ------
    ImageError
        If the source stands for no image.
    ParameterError
        If the capability is of one image, and there are several.
    """
    if not recipe.source.images:
        layers = ", ".join(recipe.source.layers)
        raise ImageError(
            f"The recipe is of layers without a file: {layers}."
            if layers
            else "The recipe names no image.",
            "Name the images after the recipe, or under 'source.images' in it.",
        )
    paths = find_images(recipe.source.images)
    if isinstance(recipe.capability, Propagate) and len(paths) > 1:
        raise ParameterError(
            f"The objects to carry on are of one image, and there are {len(paths)}.",
            "Name one image.",
        )
    return name_images(paths, store.images)


def remaining(store: ImageStore, path: str) -> tuple[int, int]:
    """Frames of an image, and how many of them are left; (0, 0) if it is not known.

    Raises
    ------
    ImageError
        If the file at `path` is not the one that the results are of.
    """
    record = store.record
    if record is None:
        return 0, 0
    record.check(path)
    return len(record.frames), len(set(record.frames) - store.done())


def begin_image(
    recipe: Recipe, store: Store, name: str, prototypes: Prototypes | None = None
) -> ImageWork:
    """Open an image and find out what is left to do.

    The first time, its frames and intensity limits are recorded, so that they are the
    same for every process and every later run.

    Raises
    ------
    EngineError
        If it cannot be read, or the recipe does not fit it.
    """
    place = store.image(name)
    image = open_image(store.images[name], axes=recipe.source.axes)
    naming = f"{recipe.digest}/{name}"
    finder, frames, notices = plan_image(recipe, image, prototypes, naming)
    record = place.record
    if record is None:
        chosen = choose_frames(recipe, image)
        composite = (recipe.composite or Composite.default(image)).resolve(
            image, chosen
        )
        told = (*image.notices, *notices)
        record = ImageRecord.of(image, composite, frames, told)
        place.begin(record)
    else:
        record.check(store.images[name], image.sizes)
    done = frozenset(place.done() & set(record.frames))
    if isinstance(recipe.capability, Propagate):
        todo = _way(cast("Propagated", finder), place, record.frames, done)
        independent = 1
    else:
        todo = tuple(frame for frame in record.frames if frame not in done)
        independent = max(len(record.frames), len(store.images))
    failures = place.failures()
    if None in failures:
        place.forgive(None)
    failed = frozenset(frame for frame in failures if frame is not None)
    finished = done & set(todo)
    capability = recipe.capability
    levels = capability.params if isinstance(capability, Nested) else None
    return ImageWork(
        name,
        image,
        place,
        record,
        finder,
        todo,
        finished,
        failed,
        naming,
        levels,
        independent,
    )


def _way(
    finder: Propagated,
    place: ImageStore,
    route: tuple[FrameIndex, ...],
    done: frozenset[FrameIndex],
) -> tuple[FrameIndex, ...]:
    """What is left of the way up to the last frame that is missing.

    It begins where an earlier run was broken off, with the frames that the next one
    follows from; or at the beginning, if that run left nothing to go on with.
    """
    from napari_sam_suite.engine.propagation.stage import Stage

    missing = [i for i, frame in enumerate(route) if frame not in done]
    if not missing:
        return ()
    for last in range(missing[0] - 1, -1, -1):
        data = place.state(route[last])
        stage = None if data is None else Stage.unpack(data)
        if stage is not None:
            axis = finder.params.axis
            again = [route[0]._replace(**{axis: n}) for n in finder.resume(stage)]
            return (*again, *route[last + 1 : missing[-1] + 1])
    return route[: missing[-1] + 1]


def choose_frames(recipe: Recipe, image: ImageSource) -> list[FrameIndex]:
    """Frames that the recipe selects in an image."""
    asked = recipe.frames
    return select_frames(image.sizes, asked.positions, asked.z, asked.time)


def plan_image(
    recipe: Recipe,
    image: ImageSource,
    prototypes: Prototypes | None = None,
    naming: str = "",
) -> tuple[Finder, list[FrameIndex], Sequence[str]]:
    """The finder for an image, the frames it has to see, and what is to be told."""
    capability, chosen = recipe.capability, choose_frames(recipe, image)
    if isinstance(capability, Auto | Nested):
        from napari_sam_suite.engine.auto import Automatic

        if isinstance(capability, Nested):
            return Automatic(capability.masks), chosen, ()
        return Automatic(capability.params), chosen, ()
    if isinstance(capability, Prompted):
        return _plan_prompts(capability, image, chosen)
    if isinstance(capability, Propagate):
        from napari_sam_suite.engine.propagation.finder import plan_propagation

        finder, route = plan_propagation(
            image.sizes,
            to_objects(capability.objects),
            capability.params,
            naming=naming,
        )
        return finder, route, ()
    from napari_sam_suite.engine.fewshot.finder import FewShot as Search

    here = _has_examples(recipe, image)
    drawn = read_examples(recipe) if here or prototypes is None else None
    known = drawn.objects if here and drawn is not None else None
    examples = drawn if prototypes is None else None
    search = Search(capability.params, examples, prototypes, known=known)
    if not here or drawn is None:
        return search, chosen, ()
    return search, chosen, (*drawn.notices, *drawn.left_out(chosen))


def _plan_prompts(
    capability: Prompted, image: ImageSource, chosen: list[FrameIndex]
) -> tuple[Finder, list[FrameIndex], Sequence[str]]:
    from napari_sam_suite.engine.prompts.finder import Prompted as Answers
    from napari_sam_suite.engine.prompts.prompt import check

    said: list[Prompt] = [
        one.prompt(number) for number, one in enumerate(capability.prompts, start=1)
    ]
    checked = check(said, image.sizes)
    checked.insist()
    own = {prompt.frame for prompt in checked.prompts}
    asked = [frame for frame in chosen if None in own or frame in own]
    finder = Answers(checked.prompts, capability.params)
    notices = list(checked.notices)
    if not asked:
        notices.append(
            "No prompt is on a frame that the recipe chooses, so there are no objects."
        )
    return finder, asked or chosen[:1], notices


def _example_image(recipe: Recipe) -> Path | None:
    """The image that the examples of a recipe were drawn on, if it has some."""
    capability = recipe.capability
    if not isinstance(capability, FewShot) or not capability.examples:
        return None
    path = capability.image or find_images(recipe.source.images)[0]
    return Path(path).expanduser()


def _has_examples(recipe: Recipe, image: ImageSource) -> bool:
    """Whether the examples were drawn on this image, whatever it is called here."""
    drawn = _example_image(recipe)
    if drawn is None or image.path is None:
        return False
    return drawn.resolve() == image.path.resolve()


def read_examples(recipe: Recipe) -> Examples | None:
    """The examples of a recipe on their image, if it has some.

    Raises
    ------
    EngineError
        If they do not fit the image, or that cannot be read.
    """
    from napari_sam_suite.engine.fewshot.examples import choose_examples

    capability, path = recipe.capability, _example_image(recipe)
    if path is None or not isinstance(capability, FewShot):
        return None
    image = open_image(path, axes=recipe.source.axes)
    composite = recipe.composite or Composite.default(image)
    # Frames that only other images have say nothing of this one's intensities.
    with suppress(FrameError):
        composite = composite.resolve(image, choose_frames(recipe, image))
    shapes = to_objects(capability.examples)
    return choose_examples(
        image, shapes, capability.tags, capability.negatives, composite
    )

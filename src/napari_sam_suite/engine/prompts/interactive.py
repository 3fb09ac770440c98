"""One person, one frame, one prompt after the other, each answered at once."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.composite import Composite, compose
from napari_sam_suite.engine.embed import Remembering
from napari_sam_suite.engine.errors import Cancelled, ParameterError
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.polygons import polygonise
from napari_sam_suite.engine.prompts.answers import Answer, answer
from napari_sam_suite.engine.prompts.finder import add_answer
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.engine.prompts.prompt import Prompt, check
from napari_sam_suite.engine.prompts.ranking import ANSWERS
from napari_sam_suite.engine.prompts.views import Views

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from shapely import MultiPolygon, Polygon

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.prompts.prompt import Point

_FRAMES = 5
"""Composed frames kept: the present one and its neighbours in z and time."""
_PREPARED = 64
"""Views of a large image that are prepared at most, the nearest first."""
_SHARE = 0.5
"""Part of the remembered embeddings that those of the present frame may take; its
neighbours share the rest, so that they do not push it out."""


@dataclass(frozen=True)
class Suggestion:
    """One answer to what was pointed at, as it can be shown.

    Attributes
    ----------
    answer : Answer
        The mask, and what the next prompt needs of it.
    polygon : Polygon or MultiPolygon, optional
        Its outline in (y, x) pixel centres; None if there is nothing.
    """

    answer: Answer
    polygon: Polygon | MultiPolygon | None


class Interactive:
    """Prompts on the frames of an image, answered one by one on an engine's thread.

    Every method returns at once. What is no longer wanted is not done: a new prompt
    takes the place of one that still waits, and preparations give way to any work.

    Parameters
    ----------
    engine : Engine
        Whose model answers.
    image : ImageSource
        The image.
    params : PromptParams, optional
        How prompts are answered; three answers are always given.
    composite : Composite, optional
        How channels become RGB.
    """

    def __init__(
        self,
        engine: Engine,
        image: ImageSource,
        params: PromptParams | None = None,
        *,
        composite: Composite | None = None,
    ) -> None:
        self.engine = engine
        self.image = image
        self.params = (params or PromptParams()).with_(answers="all")
        self._composite = composite
        self._frames: OrderedDict[FrameIndex, NDArray[np.uint8]] = OrderedDict()
        self._asking: Job[Any] | None = None

    def prepare(
        self, frame: FrameIndex, near: Point | None = None, *, background: bool = False
    ) -> Job[int]:
        """Read a frame and encode its views, so that a click in it finds them done.

        Parameters
        ----------
        frame : FrameIndex
            The frame.
        near : (y, x), optional
            Where clicks are expected; the middle without it.
        background : bool
            For neighbours of the present frame: give way to any other work.

        Returns
        -------
        Job of int
            How many views are ready. In the foreground it is one, the view that a
            click at `near` needs first; the others follow in the background.
        """
        if background:
            return self._prepare(frame, near, _SHARE)
        job = self._prepare(frame, near)
        self._prepare(frame, near, _SHARE)
        return job

    def prefetch(
        self, frames: Iterable[FrameIndex], near: Point | None = None
    ) -> list[Job[int]]:
        """Prepare frames that may come next, when there is nothing else to do."""
        frames = list(frames)
        share = (1 - _SHARE) / max(len(frames), _FRAMES - 1)
        return [self._prepare(frame, near, share) for frame in frames]

    def _prepare(
        self, frame: FrameIndex, near: Point | None, share: float = 0.0
    ) -> Job[int]:
        """Encode a frame's views in the background; without a share, the first now."""

        def task(model: SamModel, job: Job[int]) -> int:
            rgb = self._rgb(frame)
            views = self._ordered(rgb, model, near)[: None if share else 1]
            room = share * model.cache.memory if isinstance(model, Remembering) else 0
            done = 0
            for done, view in enumerate(views, start=1):
                if job.stopping():
                    raise Cancelled
                pixels = rgb[view.y0 : view.y1, view.x0 : view.x1]
                (embedding,) = model.encode([np.ascontiguousarray(pixels)])
                job.report(done, len(views), "Encoding")
                room -= embedding.nbytes
                if room < embedding.nbytes:
                    break
            return done

        name = f"prepare {frame.label(self.image.sizes)}"
        return self.engine.submit(task, name, background=bool(share))

    def ask(
        self, prompt: Prompt, frame: FrameIndex, *, after: Answer | None = None
    ) -> Job[list[Suggestion]]:
        """Answer a prompt.

        Parameters
        ----------
        prompt : Prompt
            All that is said about one object up to now.
        frame : FrameIndex
            Where it is.
        after : Answer, optional
            The answer that the newest point corrects.

        Returns
        -------
        Job of list of Suggestion
            Up to three, the best first. It fails with `ParameterError` if the prompt
            makes no sense, and is cancelled by the next one.
        """

        def task(model: SamModel, job: Job[list[Suggestion]]) -> list[Suggestion]:
            rgb = self._rgb(frame)
            sizes = self.image.sizes
            checked = check([prompt], sizes)
            for error in checked.refused.values():
                said = error.message[0].upper() + error.message[1:]
                raise ParameterError(said, error.hint) from error
            (found,) = answer(
                model,
                rgb,
                checked.prompts,
                self.params,
                earlier={} if after is None else {0: after},
                keep_logits=True,
                stop=job.stopping,
            )
            return [self._suggest(one) for one in found[:ANSWERS]]

        if self._asking is not None:
            self._asking.cancel()
        self._asking = self.engine.submit(task, "answer a prompt")
        return self._asking

    def objects(self, prompt: Prompt, chosen: Answer, frame: FrameIndex) -> Objects:
        """An answer as an object, with the tag of its prompt."""
        sizes = self.image.sizes
        builder = MaskBuilder((sizes.y, sizes.x))
        add_answer(builder, chosen, prompt)
        objects, _ = Objects.from_masks(
            builder.build(),
            frame,
            tag=prompt.tag,
            model=self.engine.spec.id,
            smoothing=self.params.smoothing,
            padding=self.params.padding,
            parts=self.params.parts,
            source={"image": self.image.name, "capability": "prompt"},
        )
        return objects

    def _suggest(self, one: Answer) -> Suggestion:
        sizes = self.image.sizes
        traced = polygonise(
            one.crop,
            one.origin,
            smoothing=self.params.smoothing,
            padding=self.params.padding,
            parts=self.params.parts,
            shape=(sizes.y, sizes.x),
        )
        return Suggestion(one, traced.polygon)

    def _rgb(self, frame: FrameIndex) -> NDArray[np.uint8]:
        """A composed frame; on the engine's thread."""
        if frame not in self._frames:
            if self._composite is None:
                self._composite = Composite.default(self.image)
            self._composite = self._composite.resolve(self.image)
            self._frames[frame] = compose(self.image.frame(frame), self._composite)
            while len(self._frames) > _FRAMES:
                self._frames.popitem(last=False)
        self._frames.move_to_end(frame)
        return self._frames[frame]

    def _ordered(
        self, rgb: NDArray[np.uint8], model: SamModel, near: Point | None
    ) -> list[Any]:
        """Views to prepare: those that clicks begin with, then the whole image."""
        height, width = rgb.shape[:2]
        views = Views.of((height, width), model, self.params.tile)
        middle = near or ((height - 1) / 2, (width - 1) / 2)
        first = views.at(views.first, (*middle, *middle))
        rest = [view for view in views.finest() if view != first]
        rest.sort(key=lambda v: np.hypot(v.y0 - first.y0, v.x0 - first.x0))
        whole = views.at(views.last, None)
        ordered = [first, whole, *rest[: _PREPARED - 2]]
        return list(dict.fromkeys(ordered))

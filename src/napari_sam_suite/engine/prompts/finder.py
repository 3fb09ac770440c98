"""Prompts as a capability: the prompts of each frame in, their objects out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.finder import Found
from napari_sam_suite.engine.frames import Sizes
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.prompts.answers import answer
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.engine.prompts.prompt import apart, check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.prompts.answers import Answer
    from napari_sam_suite.engine.prompts.prompt import Prompt


@dataclass(frozen=True)
class Prompted:
    """Answers to prompts, as a `Finder`.

    The objects come in the order of their prompts and bring columns of their own:
    `tag` and `parent` from the prompt, its number as `prompt`, and the `rank` of the
    answer, 1 for the best.

    Attributes
    ----------
    prompts : sequence of Prompt
        Those of other frames are passed over.
    params : PromptParams
        How they are answered.
    """

    prompts: Sequence[Prompt]
    params: PromptParams = field(default_factory=PromptParams)
    name = "prompt"

    def __call__(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        frame: FrameIndex,
        *,
        report: Report,
        stop: Stop,
    ) -> Found:
        """Answer the prompts of one frame."""
        height, width = rgb.shape[:2]
        until = {axis: index + 1 for axis, index in frame._asdict().items()}
        sizes = Sizes(**until, y=height, x=width)
        mine = [p for p in self.prompts if p.frame in (None, frame)]
        checked = check(mine, sizes)
        found = answer(
            model, rgb, checked.prompts, self.params, report=report, stop=stop
        )
        notices = checked.notices
        builder = MaskBuilder((height, width))
        rows: list[tuple[str, int, int, str]] = []
        for prompt, answers in zip(checked.prompts, found, strict=True):
            kept = [a for a in answers if a.crop.size]
            if not kept:
                notices.append(f"Prompt {prompt.number} found nothing.")
            for rank, one in enumerate(kept, start=1):
                add_answer(builder, one, prompt)
                rows.append((prompt.tag, prompt.number, rank, prompt.parent))
        names = ("tag", "prompt", "rank", "parent")
        columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
        return Found(builder.build(), columns, notices=tuple(notices))


def start_prompts(
    engine: Engine,
    image: ImageSource,
    prompts: Sequence[Prompt],
    params: PromptParams | None = None,
    *,
    frames: str | FrameIndex | Sequence[FrameIndex] | None = None,
    composite: Composite | None = None,
) -> Job[Objects]:
    """Queue the prompts of an image on an engine.

    Parameters
    ----------
    engine : Engine
        Answers them.
    image, composite
        See `Engine.segment`.
    prompts : sequence of Prompt
        One object each. What is wrong with one is a notice of the job.
    params : PromptParams, optional
        How they are answered.
    frames : str, FrameIndex or sequence of FrameIndex, optional
        Without it the frames that the prompts name; all, if one names none.

    Raises
    ------
    ParameterError
        If none of the prompts makes sense.
    """
    checked = check(apart(prompts), image.sizes)
    checked.insist()
    if frames is None:
        named = {p.frame for p in checked.prompts}
        frames = "all" if None in named else sorted(f for f in named if f is not None)
    finder = Prompted(checked.prompts, params or PromptParams())
    job = engine.start(finder, image, frames=frames, composite=composite)
    for notice in checked.notices:
        job.notice(notice)
    return job


def add_answer(builder: MaskBuilder, one: Answer, prompt: Prompt) -> None:
    """Add an answer to a collection of masks of its frame."""
    builder.add(
        one.crop,
        one.origin,
        score=one.score,
        stability=one.stability,
        level=one.level,
        point=prompt.inside[0] if prompt.inside else (np.nan, np.nan),
        region=one.view.box,
    )

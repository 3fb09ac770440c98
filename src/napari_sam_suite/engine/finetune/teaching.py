"""One view of one step: prompts are drawn, answered, judged, and gradients added."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from napari_sam_suite.engine.finetune.drawing import (
    Asked,
    draw_boxes,
    draw_clicks,
    draw_corrections,
    draw_seed_points,
)
from napari_sam_suite.engine.finetune.guiding import guide_loss, guide_targets
from napari_sam_suite.engine.finetune.losses import instance_loss, seed_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from torch import Tensor

    from napari_sam_suite.engine.finetune.lessons import Lesson
    from napari_sam_suite.engine.finetune.params import FinetuneParams
    from napari_sam_suite.engine.finetune.trainee import Trainee
    from napari_sam_suite.engine.models.protocol import Embedding

_BOXES, _CORRECTIONS = 0.5, 0.5
"""Weights of these beside single clicks."""
_CORRECTED = 0.4
"""Part of the views on which answers are corrected."""
_INCOMPLETE = 0.1
"""Weight of the background where not every object is drawn."""
_STEEPEST = 32.0


class Teacher:
    """Adds the gradients of one view after the other.

    Parameters
    ----------
    trainee : Trainee
        Who learns.
    params : FinetuneParams
        Which loss, how many prompts.
    most : int
        Prompts in one decoder call; the gradients do not depend on it.
    """

    def __init__(self, trainee: Trainee, params: FinetuneParams, most: int) -> None:
        self.trainee = trainee
        self.params = params
        self.most = most

    def teach(self, lesson: Lesson, rng: np.random.Generator, share: float) -> float:
        """Add `share` times the gradients of a view; returns its loss."""
        seen = self.trainee.embed(lesson.embedding)
        # What the prompts teach the encoder is gathered, and handed to it once.
        embedding = _cut_off(seen)
        loss = self._teach(replace(lesson, embedding=embedding), rng, share)
        _hand_on(seen, embedding)
        return loss

    def _teach(self, lesson: Lesson, rng: np.random.Generator, share: float) -> float:
        if self.params.loss == "seed":
            return self._teach_seed(lesson, rng, share)
        guided = self._guide(lesson, share)
        return guided + self._prompt(lesson, rng, share)

    def _guide(self, lesson: Lesson, share: float) -> float:
        """Gradients of what the guide says, where the model has one."""
        said = lesson.embedding.features.get("guide")
        if said is None:
            return 0.0
        height, width = said.shape[-2:]
        background = 1.0 if self.params.complete else _INCOMPLETE
        loss = guide_loss(
            said.float(), *guide_targets(lesson.scene, (height, width)), background
        )
        (loss * share).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _prompt(self, lesson: Lesson, rng: np.random.Generator, share: float) -> float:
        scene = lesson.scene
        clicks = draw_clicks(scene, self.params.prompts, rng)
        drawn: list[Tensor] = []
        total = self._pass(lesson, clicks, share, single=False, keep=drawn)
        objects = list(dict.fromkeys(k for k in clicks.objects if k >= 0))
        if not objects:
            return total
        some = objects[: max(1, self.params.prompts // 2)]
        boxes = draw_boxes(scene, some, rng)
        total += self._pass(lesson, boxes, _BOXES * share, single=True) * _BOXES
        if rng.random() < _CORRECTED:
            again = self._corrections(lesson, clicks, torch.cat(drawn), rng)
            total += _CORRECTIONS * self._pass(
                lesson, again, _CORRECTIONS * share, single=True
            )
        return total

    def _corrections(
        self, lesson: Lesson, clicks: Asked, drawn: Tensor, rng: np.random.Generator
    ) -> Asked:
        rows = [i for i, k in enumerate(clicks.objects) if k >= 0]
        rows = rows[: max(1, self.params.prompts // 3)]
        few = clicks.select(rows)
        logits = drawn[rows].clamp(-_STEEPEST, _STEEPEST)
        wrong = lesson.find_errors(few.objects, logits, self.trainee.input_size)
        return draw_corrections(lesson.scene, few, logits[:, None], wrong, rng)

    def _pass(
        self,
        lesson: Lesson,
        asked: Asked,
        share: float,
        *,
        single: bool,
        keep: list[Tensor] | None = None,
    ) -> float:
        """Gradients of the mean loss of some prompts, a few prompts at a time."""

        def judge(embedding: Embedding, part: Asked) -> Tensor:
            logits, iou = self.trainee.answer(embedding, part.prompts)
            if keep is not None:
                best = iou[:, 1:].argmax(1) + 1
                keep.append(logits.detach()[torch.arange(len(part)), best])
            there = self._shares(lesson, part, logits.shape[-1]).to(iou)
            weight = torch.ones(len(part)).to(iou)
            if not self.params.complete:
                weight[torch.tensor([k < 0 for k in part.objects])] = _INCOMPLETE
            return instance_loss(logits, iou, there, weight, single=single)

        return self._add(lesson, asked, share, judge)

    def _shares(self, lesson: Lesson, asked: Asked, low: int) -> Tensor:
        return lesson.shares(asked.objects, low, self.trainee.input_size)

    def _teach_seed(
        self, lesson: Lesson, rng: np.random.Generator, share: float
    ) -> float:
        scene = lesson.scene
        if not len(scene):
            return 0.0
        chosen = rng.permutation(len(scene))[: self.params.prompts].tolist()
        asked = Asked.join([draw_seed_points(scene, k, rng) for k in chosen])
        side = self.trainee.input_size

        def judge(embedding: Embedding, part: Asked) -> Tensor:
            logits, iou = self.trainee.answer(embedding, part.prompts)
            losses = []
            # One at a time, for such large masks are slow outside of a CPU's cache.
            for k in range(len(part)):
                # As in inference, the single answer; the adapter trains another one.
                one = logits[k : k + 1, :1]
                large = F.interpolate(one, (side, side), mode="bilinear")[:, 0]
                mask = self._shares(lesson, part.select([k]), side).to(iou) > 0.5
                losses.append(seed_loss(large, iou[k : k + 1, 0], mask.to(iou)))
            return torch.cat(losses)

        return self._add(lesson, asked, share, judge)

    def _add(
        self,
        lesson: Lesson,
        asked: Asked,
        share: float,
        judge: Callable[[Embedding, Asked], Tensor],
    ) -> float:
        total = 0.0
        for part in _parts(asked, self.most):
            self.trainee.refresh()
            loss = judge(lesson.embedding, part).sum() / len(asked)
            (loss * share).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total


def _cut_off(seen: Embedding) -> Embedding:
    """The same numbers, at which gradients stop and are added up."""
    features = {
        name: value.detach().requires_grad_(value.requires_grad)
        for name, value in seen.features.items()
    }
    return replace(seen, features=features)


def _hand_on(seen: Embedding, gathered: Embedding) -> None:
    """Send gradients that were added up to what the numbers came from."""
    pairs = [
        (value, gathered.features[name].grad)
        for name, value in seen.features.items()
        if gathered.features[name].grad is not None
    ]
    if pairs:
        torch.autograd.backward(*zip(*pairs, strict=True))  # type: ignore[arg-type]


def _parts(asked: Asked, most: int) -> Iterator[Asked]:
    for start in range(0, len(asked), most):
        yield asked.select(list(range(start, min(start + most, len(asked)))))

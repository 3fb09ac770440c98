"""The views of a step side by side on a CPU, each on cores of its own.

Torch splits every operation over all cores, which for the small ones of a decoder and
of narrow encoders gains next to nothing: two cores teach two views in little more than
the time that both take for one. Every lane has gradients of its own, which are added up
in the order of the lanes, so that two runs are alike to the last bit.
"""

from __future__ import annotations

from concurrent.futures import wait
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.finetune.teaching import Teacher
from napari_sam_suite.engine.lanes import count_lanes, start_lanes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import ThreadPoolExecutor

    from napari_sam_suite.engine.finetune.lessons import Lessons
    from napari_sam_suite.engine.finetune.params import FinetuneParams
    from napari_sam_suite.engine.finetune.trainee import Trainee

_LEARNING = 5.0
"""Memory of a lane in which the whole encoder learns, over that of a model that only
answers: 1.4 GB with the embedded model."""


class Teachers:
    """Adds up the gradients of several views.

    Parameters
    ----------
    trainee : Trainee
        Who learns.
    params : FinetuneParams
        Which loss, how many prompts and views of a step.
    lessons : Lessons
        The views.
    """

    def __init__(
        self, trainee: Trainee, params: FinetuneParams, lessons: Lessons
    ) -> None:
        side = trainee.input_size
        # All that the encoder computes is needed again on the way back.
        more = 1.0 if trainee.frozen else _LEARNING
        count = count_lanes(trainee, params.batch_size, (side, side), memory=more)
        most = min(trainee.batch, params.prompts)
        trainees = [trainee, *(trainee.twin() for _ in range(count - 1))]
        self._all = [Teacher(one, params, most) for one in trainees]
        self._lessons = lessons
        self._lanes: ThreadPoolExecutor | None = None

    @property
    def most(self) -> int:
        """Prompts in one decoder call; the gradients do not depend on it."""
        return self._all[0].most

    @most.setter
    def most(self, count: int) -> None:
        for teacher in self._all:
            teacher.most = count

    @contextmanager
    def ready(self) -> Iterator[None]:
        """While some steps are made."""
        if len(self._all) == 1:
            yield
            return
        try:
            with start_lanes(len(self._all)) as self._lanes:
                yield
        finally:
            self._lanes = None

    def teach(self, numbers: Sequence[int], seed: Sequence[int]) -> float:
        """Fill the trainee's gradients with the mean of some views; their mean loss."""
        count = len(self._all) if self._lanes else 1
        own = list(range(len(numbers)))
        parts = [own[lane::count] for lane in range(min(count, len(own)))]

        def go(teacher: Teacher, places: Sequence[int]) -> float:
            teacher.trainee.forget_gradients()
            losses = [
                teacher.teach(
                    self._lessons[numbers[k]],
                    np.random.default_rng([*seed, k]),
                    1 / len(numbers),
                )
                for k in places
            ]
            return sum(losses) / len(numbers)

        if self._lanes is None:
            return go(self._all[0], own)
        under_way = [
            self._lanes.submit(go, teacher, places)
            for teacher, places in zip(self._all, parts, strict=False)
        ]
        wait(under_way)
        try:
            loss = sum(lane.result() for lane in under_way)
        finally:
            # An error would keep what it failed with, and the next try needs the room.
            under_way.clear()
        self._gather(len(parts))
        return loss

    def _gather(self, count: int) -> None:
        """Add the gradients of the first lanes to those of the trainee."""
        first, *others = [one.trainee.parameters for one in self._all[:count]]
        for name, parameter in first.items():
            for other in others:
                more = other[name].grad
                if more is None:
                    continue
                mine = parameter.grad
                parameter.grad = more if mine is None else mine.add_(more)
                other[name].grad = None

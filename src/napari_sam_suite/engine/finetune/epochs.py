"""One epoch: all views in an order drawn by lot, and what a step does that fails."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_sam_suite.engine.asking import is_out_of_memory, release_memory
from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.engine.finetune.optimiser import rate_at
from napari_sam_suite.engine.finetune.together import Teachers

if TYPE_CHECKING:
    from napari_sam_suite.engine.finetune.lessons import Lessons
    from napari_sam_suite.engine.finetune.optimiser import Optimiser
    from napari_sam_suite.engine.finetune.params import FinetuneParams
    from napari_sam_suite.engine.finetune.trainee import Trainee
    from napari_sam_suite.engine.run import Listener

logger = logging.getLogger(__name__)

_CLIP = 1.0
_UNSTABLE = 20
"""Steps in a row without a finite gradient after which training ends."""


class Epochs:
    """Teaches a model, epoch by epoch; the same seed and number give the same epoch.

    Parameters
    ----------
    trainee : Trainee
        Who learns.
    optimiser : Optimiser
        Of its parameters.
    params : FinetuneParams
        With nothing left open.
    lessons : Lessons
        The views as inference looks at them, then the variants of each.
    slots : int
        How many views there are without the variants.
    job : Listener
        Told of progress, and asked whether to stop.

    Attributes
    ----------
    unstable : bool
        Whether the loss is no number any more.
    """

    def __init__(
        self,
        trainee: Trainee,
        optimiser: Optimiser,
        params: FinetuneParams,
        lessons: Lessons,
        slots: int,
        job: Listener,
    ) -> None:
        self.unstable = False
        self._trainee = trainee
        self._optimiser = optimiser
        self._params = params
        self._slots = slots
        self._job = job
        self._teachers = Teachers(trainee, params, lessons)

    def run(self, number: int) -> float:
        """Go through all views, each as it is or as one of its variants.

        Parameters
        ----------
        number : int
            Of the epoch, from 1.

        Returns
        -------
        float
            Mean loss; NaN where none was a number.

        Raises
        ------
        Cancelled
            If the job was stopped.
        OutOfMemory
            If not even one prompt at a time fits.
        """
        with self._teachers.ready():
            return self._run(number)

    def _run(self, number: int) -> float:
        p, total = self._params, self._params.epochs or 1
        steps = self._steps(number)
        losses, lost = [], 0
        for k, views in enumerate(steps):
            if self._job.stopping():
                raise Cancelled
            done, left = (number - 1) * len(steps) + k, total * len(steps)
            self._job.report(done, left, f"Epoch {number} of {total}")
            loss = self._step(views, [p.seed, 4, number, k], done / left)
            lost = 0 if math.isfinite(loss) else lost + 1
            if lost >= _UNSTABLE:
                self.unstable = True
                break
            if math.isfinite(loss):
                losses.append(loss)
        return float(np.mean(losses)) if losses else math.nan

    def _steps(self, number: int) -> list[list[int]]:
        """Numbers of the lessons of each step."""
        p = self._params
        rng = np.random.default_rng([p.seed, 3, number])
        rounds = math.ceil(p.views / self._slots)
        order = np.concatenate([rng.permutation(self._slots) for _ in range(rounds)])
        which = rng.integers(p.variants + 1, size=len(order))
        drawn = [
            slot if variant == 0 else self._slots + slot * p.variants + variant - 1
            for slot, variant in zip(order.tolist(), which.tolist(), strict=True)
        ]
        size = p.batch_size
        return [drawn[i : i + size] for i in range(0, len(drawn), size)]

    def _step(self, numbers: list[int], seed: list[int], done: float) -> float:
        """One step; the mean loss, or NaN where it or its gradients are no numbers."""
        loss = self._gradients_that_fit(numbers, seed)
        values = list(self._trainee.parameters.values())
        norm = torch.nn.utils.clip_grad_norm_(values, _CLIP)
        if not (math.isfinite(loss) and bool(torch.isfinite(norm))):
            return math.nan
        self._optimiser.step(rate_at(done, self._params.learning_rate or 0.0))
        self._trainee.refresh()
        return loss

    def _gradients_that_fit(self, numbers: list[int], seed: list[int]) -> float:
        """Fewer prompts at a time where memory runs out; the sum is the same."""
        while True:
            try:
                return self._teachers.teach(numbers, seed)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self._teachers.most == 1:
                    raise self._trainee.too_little_memory() from error
            self._teachers.most = max(1, self._teachers.most // 2)
            logger.warning("out of memory: %d prompts at a time", self._teachers.most)
            release_memory()

"""Training, from frames with objects to a model that is better, or word that it is not.

Everything drawn by lot in an epoch follows from the seed and the epoch's number, and
the state is saved whole after each epoch, so a run that was killed goes on to the same
result as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_sam_suite.engine.asking import is_out_of_memory, release_memory
from napari_sam_suite.engine.errors import Cancelled, OutputError
from napari_sam_suite.engine.finetune.calibrate import suit_tile
from napari_sam_suite.engine.finetune.data import hash_samples, split_samples
from napari_sam_suite.engine.finetune.files import (
    check_own,
    check_target,
    read_state,
    run_folder,
    write_model,
    write_state,
)
from napari_sam_suite.engine.finetune.lessons import Lessons
from napari_sam_suite.engine.finetune.optimiser import Optimiser, rate_at
from napari_sam_suite.engine.finetune.outcome import (
    Comparison,
    Outcome,
    calibrated,
    compare,
    keep_base,
    make_card,
)
from napari_sam_suite.engine.finetune.params import FinetuneParams
from napari_sam_suite.engine.finetune.progress import Epoch, Progress
from napari_sam_suite.engine.finetune.scoring import Exam
from napari_sam_suite.engine.finetune.teaching import Teacher
from napari_sam_suite.engine.finetune.trainee import Trainee
from napari_sam_suite.engine.finetune.views import View, inference_views, vary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from napari_sam_suite.engine.finetune.data import Sample
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.run import Listener

logger = logging.getLogger(__name__)

_LAST = "last.safetensors"
_EXAM_VIEWS = 16
_CLIP = 1.0
_UNSTABLE = 20
"""Steps in a row without a finite gradient after which training ends."""


def finetune(
    model: SamModel,
    samples: Sequence[Sample],
    params: FinetuneParams,
    out: Path | str,
    job: Listener,
    *,
    overwrite: bool = False,
) -> Outcome:
    """Teach a model the objects of some frames, and write it where it is better.

    Runs on the engine's thread; see `start_finetune`. Epochs are parts of the job.

    Parameters
    ----------
    model : SamModel
        The model to begin from; it is not changed.
    samples : sequence of Sample
        Frames with their objects, for training and validation.
    params : FinetuneParams
        Settings.
    out : Path
        ``NAME.safetensors``; the card is written beside it, and checkpoints into the
        folder ``NAME.training``. What an interrupted run of the same data and
        settings left there is gone on with.
    job : Listener
        Told of progress, and asked whether to stop.
    overwrite : bool
        Whether `out` may be a model that was made from other data or settings.

    Returns
    -------
    Outcome
        The model that was written: the best, or the base where none was better.

    Raises
    ------
    Cancelled
        If `job` was stopped. The best model so far is written before.
    OutOfMemory
        If not even one prompt at a time fits.
    OutputError
        If the model cannot be written, or would overwrite another; before any work.
    ParameterError
        If there are no frames.
    """
    return _Training(model, samples, params, out, job, overwrite).run()


class _Training:
    def __init__(
        self,
        model: SamModel,
        samples: Sequence[Sample],
        params: FinetuneParams,
        out: Path | str,
        job: Listener,
        overwrite: bool,
    ) -> None:
        self.params = params.resolved()
        self.out = check_target(out, model.spec)
        self.folder = run_folder(self.out)
        self.job = job
        self.train, self.held = split_samples(samples, params.validation, params.seed)
        self.trainee = Trainee(model, neck=self.params.train == "neck")
        self.tile = suit_tile(self.train, model.input_size, params.tile)
        self.data = hash_samples(samples)
        self.key = self._key()
        if not overwrite:
            check_own(self.out, self.key)
        most = min(model.batch, self.params.prompts)
        self.teacher = Teacher(self.trainee, self.params, most)
        self.optimiser = Optimiser(
            self.trainee.parameters,
            self.params.weight_decay,
            muon=self.params.loss != "seed",
        )
        self.progress = Progress()
        self.start = self.best = self.trainee.weights()

    def run(self) -> Outcome:
        self._resume()
        try:
            self._encode()
            if not self.progress.scores:
                self._examine(math.nan)
            while not self.progress.is_over(self.params):
                self._examine(self._epoch(self.progress.epoch + 1))
                self._save()
            return self._finish()
        except Cancelled:
            self._keep_best()
            raise
        finally:
            shutil.rmtree(self.folder / "embeddings", ignore_errors=True)

    # -- before ------------------------------------------------------------------

    def _key(self) -> str:
        """Tells this run from others: data, settings and base model."""
        told = [self.params.model_dump(mode="json"), self.data, self.trainee.identity]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def _resume(self) -> None:
        found = read_state(self.folder / _LAST)
        if found is None or found[1].get("key") != self.key or found[1].get("done"):
            return
        tensors, told = found
        self.trainee.load(_under("now", tensors))
        self.best = _under("best", tensors)
        self.optimiser.load_state(_under("optimiser", tensors))
        self.progress = Progress.of(told)
        self.job.notice(
            f"Going on after epoch {self.progress.epoch} of an interrupted training."
        )

    def _encode(self) -> None:
        def report(done: int, total: int, text: str) -> None:
            self.job.report(done, total, text)

        def encode(
            name: str, samples: Sequence[Sample], views: Sequence[View]
        ) -> Lessons:
            return Lessons(
                self.trainee,
                samples,
                views,
                self.folder / "embeddings" / name,
                report=report,
                stop=self.job.stopping,
            )

        spec, p = self.trainee.spec, self.params
        own = inference_views(self.train, spec, self.tile)
        self.slots = len(own)
        varied = vary(own, self.train, p.variants, p.seed)
        self.lessons = encode("training", self.train, own + varied)
        judged = self.held or self.train
        if not self.held:
            self.job.notice(
                "There is nothing to validate on, so the model is judged by the frames "
                "that it learns from. Give two frames or more."
            )
        views = inference_views(judged, spec, self.tile)
        chosen = np.random.default_rng([p.seed, 2]).permutation(len(views))
        some = [views[i] for i in sorted(chosen[:_EXAM_VIEWS].tolist())]
        self.exam = Exam(encode("validation", judged, some))

    # -- an epoch ----------------------------------------------------------------

    def _epoch(self, number: int) -> float:
        """Go through all views, each as it is or as one of its variants."""
        p = self.params
        rng = np.random.default_rng([p.seed, 3, number])
        rounds = math.ceil(p.views / self.slots)
        order = np.concatenate([rng.permutation(self.slots) for _ in range(rounds)])
        which = rng.integers(p.variants + 1, size=len(order))
        drawn = [self._lesson_of(*pair) for pair in zip(order, which, strict=True)]
        size = p.batch_size
        steps = [drawn[i : i + size] for i in range(0, len(drawn), size)]
        losses, lost = [], 0
        for k, lessons in enumerate(steps):
            if self.job.stopping():
                raise Cancelled
            done = (number - 1) * len(steps) + k
            left = p.epochs * len(steps)
            self.job.report(done, left, f"Epoch {number} of {p.epochs}")
            loss = self._step(lessons, [p.seed, 4, number, k], done / left)
            lost = 0 if math.isfinite(loss) else lost + 1
            if lost >= _UNSTABLE:
                self.progress.ended = "the loss is no number any more"
                self.job.notice(
                    "Training became unstable; a lower learning rate may help."
                )
                break
            if math.isfinite(loss):
                losses.append(loss)
        return float(np.mean(losses)) if losses else math.nan

    def _lesson_of(self, slot: int, which: int) -> int:
        if which == 0:
            return int(slot)
        return self.slots + int(slot) * self.params.variants + int(which) - 1

    def _step(self, numbers: list[int], seed: list[int], done: float) -> float:
        """One step; the mean loss, or NaN where it or its gradients are no numbers."""
        while True:
            try:
                loss = self._gradients(numbers, seed)
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self.teacher.most == 1:
                    raise self.trainee.too_little_memory() from error
            self.teacher.most = max(1, self.teacher.most // 2)
            logger.warning("out of memory: %d prompts at a time", self.teacher.most)
            release_memory()
        values = list(self.trainee.parameters.values())
        norm = torch.nn.utils.clip_grad_norm_(values, _CLIP)
        if not (math.isfinite(loss) and bool(torch.isfinite(norm))):
            return math.nan
        self.optimiser.step(rate_at(done, self.params.learning_rate or 0.0))
        self.trainee.refresh()
        return loss

    def _gradients(self, numbers: list[int], seed: list[int]) -> float:
        self.optimiser.forget_gradients()
        share, total = 1 / len(numbers), 0.0
        for k, number in enumerate(numbers):
            rng = np.random.default_rng([*seed, k])
            total += share * self.teacher.teach(self.lessons[number], rng, share)
        return total

    def _examine(self, loss: float) -> None:
        p = self.progress
        self.job.report(p.epoch, self.params.epochs, "Validating")
        score = self.exam.score(self.trainee, self.job.stopping)
        best = p.add(loss, score)
        if best:
            self.best = self.trainee.weights()
        self.job.give(Epoch(p.epoch, self.params.epochs, loss, score, best))

    # -- files -------------------------------------------------------------------

    def _save(self, last: dict[str, Tensor] | None = None) -> None:
        """Write the state, and now and then a checkpoint; a full disk stops nothing.

        `last` are the weights of the last epoch, once there is no further one.
        """
        p, done = self.progress, last is not None
        tensors = {
            **_over("now", last or self.trainee.weights()),
            **_over("best", self.best),
            **_over("optimiser", self.optimiser.state()),
        }
        told = {"key": self.key, "done": done, **p.as_dict()}
        try:
            write_state(self.folder / _LAST, tensors, told)
            if not done and p.epoch % self.params.save_interval == 0:
                name = f"epoch_{p.epoch:04d}.safetensors"
                write_model(self.folder / name, self.trainee, self._card())
        except OutputError as error:
            self.job.notice(f"No checkpoint of epoch {p.epoch}: {error}")

    def _keep_best(self) -> None:
        """Write the best so far, where there is one, for a run that was stopped."""
        if self.progress.best_epoch == 0:
            return
        self.trainee.load(self.best)
        write_model(self.out, self.trainee, calibrated(self._card(), None))
        self.job.notice(f"The best model so far is {self.out}.")

    def _card(self) -> dict[str, Any]:
        return make_card(
            self.trainee.spec,
            self.params,
            self.progress,
            run=self.key,
            data=self.data,
            frames=(len(self.train), len(self.held)),
            objects=sum(len(s.masks) for s in (*self.train, *self.held)),
            tile=self.tile,
        )

    def _finish(self) -> Outcome:
        p = self.progress
        better, last = p.best_epoch > 0, self.trainee.weights()
        comparison: Comparison | None = None
        self.trainee.load(self.best)
        if better and self.params.calibrate:
            comparison = compare(
                self.trainee,
                self.held or self.train,
                self.tile,
                (p.base.threshold, p.best.threshold),
                report=self.job.report,
                stop=self.job.stopping,
            )
            better = comparison.better
        if better:
            card = calibrated(self._card(), comparison)
        else:
            self.trainee.load(self.start)
            card = keep_base(self._card(), self.trainee.spec)
            self.job.notice(
                "The model did not become better than the one it began with, so the "
                "file has the weights of that one."
            )
        write_model(self.out, self.trainee, card)
        ended = p.is_over(self.params)
        self._save(last)
        return Outcome(
            self.out,
            better,
            p.base,
            p.best,
            p.epoch,
            p.best_epoch,
            ended,
            card,
            comparison,
        )


def start_finetune(
    engine: Engine,
    samples: Sequence[Sample],
    params: FinetuneParams | None = None,
    *,
    out: Path | str,
    overwrite: bool = False,
) -> Job[Outcome]:
    """Queue a training; every epoch is a part of the job.

    Parameters
    ----------
    engine : Engine
        Whose model is trained; it goes on with its own weights afterwards.
    samples, params, out, overwrite
        See `finetune`.

    Raises
    ------
    OutputError
        If `out` is not the name of a model file, or cannot be written.
    ParameterError
        If there are no frames.
    """
    settings = params or FinetuneParams()
    path = check_target(out, engine.spec)
    split_samples(samples, settings.validation, settings.seed)

    def task(model: SamModel, job: Job[Outcome]) -> Outcome:
        return finetune(model, samples, settings, path, job, overwrite=overwrite)

    return engine.submit(task, f"fine-tune {engine.spec.id}")


def _over(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}/{key}": value for key, value in tensors.items()}


def _under(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    lead = f"{name}/"
    return {k.removeprefix(lead): v for k, v in tensors.items() if k.startswith(lead)}

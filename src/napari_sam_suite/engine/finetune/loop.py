"""Training, from frames with objects to a model that is better, or word that it is not.

Everything drawn by lot in an epoch follows from the seed and the epoch's number, and
the state is saved whole after each epoch, so a run that was killed goes on to the same
result as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.errors import Cancelled, OutputError
from napari_sam_suite.engine.finetune.calibrate import suit_tile
from napari_sam_suite.engine.finetune.comparing import Comparison, compare, suit
from napari_sam_suite.engine.finetune.data import hash_samples, split_samples
from napari_sam_suite.engine.finetune.epochs import Epochs
from napari_sam_suite.engine.finetune.files import (
    check_own,
    check_target,
    check_unfinished,
    own_card,
    read_state,
    run_folder,
    write_model,
    write_state,
)
from napari_sam_suite.engine.finetune.lessons import Lessons
from napari_sam_suite.engine.finetune.optimiser import Optimiser
from napari_sam_suite.engine.finetune.outcome import (
    Outcome,
    calibrated,
    keep_base,
    make_card,
)
from napari_sam_suite.engine.finetune.params import FinetuneParams
from napari_sam_suite.engine.finetune.progress import Epoch, Progress
from napari_sam_suite.engine.finetune.scoring import Exam
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

_LAST = "last.safetensors"
_EXAM_VIEWS = 16


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

    Runs on the engine's thread; see `start_finetune`. Epochs are parts of the job,
    those before an interruption included.

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
        settings left there is gone on with; where such a run was finished, what
        came of it is told again.
    job : Listener
        Told of progress, and asked whether to stop.
    overwrite : bool
        Whether a model or an unfinished training of other data or settings may be
        replaced.

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
        If the model cannot be written, or would overwrite another one or a training
        that is not finished; before any work.
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
        self.total = self.params.epochs or 1
        self.out = check_target(out, model.spec)
        self.folder = run_folder(self.out)
        self.job = job
        self.train, self.held = split_samples(samples, params.validation, params.seed)
        self.trainee = Trainee(model, train=self.params.train)
        self.tile = suit_tile(self.train, model.input_size, params.tile)
        self.about: dict[str, Any] = {
            "settings": self.params.model_dump(mode="json"),
            "data": hash_samples(samples),
            "base": self.trainee.identity,
        }
        self.key = self._key()
        if not overwrite:
            check_own(self.out, self.key)
            check_unfinished(self.folder / _LAST, self.key, self.about)
        self.optimiser = Optimiser(
            self.trainee.parameters,
            self.params.weight_decay,
            muon=self.params.loss != "seed",
        )
        self.progress = Progress()
        self.start = self.best = self.trainee.weights()

    def run(self) -> Outcome:
        finished = self._resume()
        if finished is not None:
            return finished
        try:
            epochs = self._encode()
            if not self.progress.scores:
                self._examine(math.nan)
            while not self.progress.is_over(self.params):
                self._teach(epochs)
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
        told = [self.about[name] for name in ("settings", "data", "base")]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def _resume(self) -> Outcome | None:
        """Go on where this run was interrupted; what came of it, if it was finished."""
        found = read_state(self.folder / _LAST)
        if found is None or found[1].get("key") != self.key:
            return None
        tensors, told = found
        card = own_card(self.out, self.key)
        if told.get("done") and not card:
            return None
        self.progress = Progress.of(told)
        for epoch in self.progress.epochs(self.total):
            self.job.give(epoch)
        if told.get("done"):
            self.job.notice(
                f"This training is finished already, and nothing was done. Delete "
                f"{self.out} to train anew."
            )
            return self._outcome(card)
        self.trainee.load(_under("now", tensors))
        self.best = _under("best", tensors)
        self.optimiser.load_state(_under("optimiser", tensors))
        self.job.notice(
            f"Going on after epoch {self.progress.epoch} of an interrupted training."
        )
        return None

    def _encode(self) -> Epochs:
        """Look at all views once: those to learn from, and those to judge by."""

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
        varied = vary(own, self.train, p.variants, p.seed)
        lessons = encode("training", self.train, own + varied)
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
        return Epochs(self.trainee, self.optimiser, p, lessons, len(own), self.job)

    # -- an epoch ----------------------------------------------------------------

    def _teach(self, epochs: Epochs) -> None:
        loss = epochs.run(self.progress.epoch + 1)
        if epochs.unstable or math.isnan(loss):
            self.progress.ended = "the loss is no number any more"
            self.job.notice("Training became unstable; a lower learning rate may help.")
        self._examine(loss)

    def _examine(self, loss: float) -> None:
        p = self.progress
        self.job.report(p.epoch, self.total, "Validating")
        score = self.exam.score(self.trainee, self.job.stopping)
        best = p.add(loss, score)
        if best:
            self.best = self.trainee.weights()
        self.job.give(Epoch(p.epoch, self.total, loss, score, best))

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
        told = {"key": self.key, "done": done, **self.about, **p.as_dict()}
        try:
            write_state(self.folder / _LAST, tensors, told)
            if not done and p.epoch % self.params.save_interval == 0:
                name = f"epoch_{p.epoch:04d}.safetensors"
                write_model(self.folder / name, self.trainee, self._card())
        except OutputError as error:
            self.job.notice(f"No checkpoint of epoch {p.epoch}: {error}")

    def _keep_best(self) -> None:
        """Write the best so far, where there is one, for a run that was stopped.

        What the same run has left there before stays, unless this is better.
        """
        p, kept = self.progress, own_card(self.out, self.key)
        if p.best_epoch == 0:
            return
        if not kept or kept["scores"]["best"]["value"] < p.best.value:
            self.trainee.load(self.best)
            write_model(self.out, self.trainee, calibrated(self._card(), None))
        self.job.notice(f"The best model so far is {self.out}.")

    def _card(self) -> dict[str, Any]:
        return make_card(
            self.trainee.spec,
            self.params,
            self.progress,
            run=self.key,
            data=self.about["data"],
            frames=(len(self.train), len(self.held)),
            objects=sum(len(s.masks) for s in (*self.train, *self.held)),
            tile=self.tile,
        )

    def _finish(self) -> Outcome:
        p = self.progress
        last = self.trainee.weights()
        self.trainee.load(self.best)
        comparison = self._compare() if self.params.calibrate else None
        better = p.best_epoch > 0 if comparison is None else comparison.better
        if better:
            card = calibrated(self._card(), comparison)
        else:
            card = keep_base(self._card(), self.trainee.spec)
        write_model(self.out, self.trainee, card)
        self._save(last)
        return self._outcome(card, comparison)

    def _outcome(
        self, card: dict[str, Any], comparison: Comparison | None = None
    ) -> Outcome:
        p = self.progress
        return Outcome(
            self.out,
            card["better_than_base"],
            p.base,
            p.best,
            p.epoch,
            p.best_epoch,
            p.is_over(self.params),
            card,
            comparison,
        )

    def _compare(self) -> Comparison | None:
        """Automatic masks before and after; loads the weights that are to be kept."""
        p, model, told = self.progress, self.trainee, self.job.report
        comparison: Comparison | None = None
        stop = self.job.stopping
        if p.best_epoch > 0:
            guesses = p.base.threshold, p.best.threshold
            frames = (self.held, self.train) if self.held else (self.train, [])
            comparison = compare(
                model, self.start, *frames, self.tile, guesses, report=told, stop=stop
            )
            if comparison.better:
                return comparison
        model.load(self.start)
        every = [*self.train, *self.held]
        try:
            suited = suit(model.base, every, self.tile, report=told, stop=stop)
        except Cancelled:
            # That training did not help is known; nothing is left to be stopped.
            if comparison is None:
                raise
            return comparison
        return suited or comparison


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

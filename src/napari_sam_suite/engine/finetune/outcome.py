"""What a training came to: before and after on a validation frame, card and files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_sam_suite.engine.filters import refilter
from napari_sam_suite.engine.finetune.calibrate import (
    THRESHOLDS,
    auto_params,
    auto_scores,
    draw_candidates,
    find_thresholds,
    lowest_thresholds,
    margin,
)
from napari_sam_suite.engine.versions import package_versions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Literal

    from torch import Tensor

    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.finetune.data import Sample
    from napari_sam_suite.engine.finetune.params import FinetuneParams
    from napari_sam_suite.engine.finetune.progress import Progress
    from napari_sam_suite.engine.finetune.scoring import Score
    from napari_sam_suite.engine.finetune.trainee import Trainee
    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.metrics import Scores
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.models.registry import ModelSpec, Search

    Weights = dict[str, Tensor]
    Tile = int | Literal["auto", "off"]


_ALIKE = 1.25
"""Sides of tiles over each other that make no difference."""
_MOST = 6
"""Frames that tiles are tried on."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Automatic masks of validation frames by the base model and by the tuned one.

    Attributes
    ----------
    sample : Sample
        The first of the frames.
    before, after : Masks
        What each found in it.
    base, tuned : Scores
        Over all frames that were looked at, each with its own best settings.
    suits : dict
        Thresholds and search with which the tuned model is best, as a card has them.
    share : float
        How far the tuned model is from the base: 1 as it was taught, 0.5 halfway, 0
        with the base's weights and other tiles; see `suit`.
    """

    sample: Sample
    before: Masks
    after: Masks
    base: Scores
    tuned: Scores
    suits: dict[str, float | str]
    share: float = 1.0

    @property
    def better(self) -> bool:
        """Whether the tuned model finds more than the base model."""
        base, tuned = np.nan_to_num([self.base.f1, self.tuned.f1])
        return bool(tuned > base)


def compare(
    trainee: Trainee,
    start: Weights,
    samples: Sequence[Sample],
    tile: int | Literal["off"],
    guesses: tuple[float, float],
    *,
    report: Report,
    stop: Stop,
) -> Comparison:
    """Segment validation frames with the base model and with the tuned one.

    Both may use the best thresholds and the best search that are found on these frames,
    so that what is gained is the training's and not the search's; the base model is
    asked with its own tiles too. The tuned model is judged as it is and halfway between
    it and the base (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022),
    which is better for objects that the base knows a little. The trainee is left with
    the better weights.

    Parameters
    ----------
    trainee : Trainee
        With its best weights.
    start : Weights
        Those it began with.
    samples : sequence of Sample
        Frames to judge by.
    tile : int or "off"
        Side of the tiles.
    guesses : (float, float)
        Ratings at which the search begins, for the base model and for the tuned one.
    report, stop : callable
        Progress, and the wish to stop.

    Raises
    ------
    Cancelled
        If `stop` said so.
    """

    def told(done: int, total: int, _: str) -> None:
        report(done, total, "Comparing with the base model")

    def judge(
        model: SamModel, guess: float, search: Search, tile: Tile = tile
    ) -> _Judged:
        params = auto_params(tile, search=search).resolved(trainee.spec)
        lowest = lowest_thresholds(params)
        frames = draw_candidates(model, samples, lowest, report=told, stop=stop)
        thresholds, scores = find_thresholds(frames, params, guess)
        shown = refilter(frames[0][0], params.with_(**thresholds))
        return _Judged(shown, scores, {**thresholds, "search": search})

    def judge_best(model: SamModel, guess: float) -> _Judged:
        """With the search that suits: the guide does not know what was learnt."""
        grid = judge(model, guess, "grid")
        if not trainee.guided:
            return grid
        guided = judge(model, guess, "guided")
        enough = guided.f1 + margin(guided.scores)
        return grid if grid.f1 > enough else guided

    own: Search = "guided" if trainee.guided else "grid"
    before = _better(
        judge_best(trainee.base, guesses[0]),
        judge(trainee.base, guesses[0], own, "auto"),
    )
    taught = trainee.weights()
    halfway = {name: (start[name] + value) / 2 for name, value in taught.items()}
    trainee.load(halfway)
    half = judge_best(trainee, sum(guesses) / 2)
    trainee.load(taught)
    after = _better(half, judge_best(trainee, guesses[1]))
    if after is half:
        trainee.load(halfway)
    return Comparison(
        samples[0],
        before.shown,
        after.shown,
        before.scores,
        after.scores,
        after.suits,
        0.5 if after is half else 1.0,
    )


def suit(
    model: SamModel,
    samples: Sequence[Sample],
    tile: int | Literal["off"],
    *,
    report: Report,
    stop: Stop,
) -> Comparison | None:
    """Segment frames with a model's own tiles and with those that suit the objects.

    For a model that has not learnt from the frames, and that training did not better:
    where its objects are smaller or larger than it expects, tiles alone may help.

    Returns
    -------
    Comparison or None
        With the share 0; none where the tiles hardly differ or do not clearly help.
    """
    spec = model.spec
    usual = spec.auto.tile * model.input_size
    if tile == "off" or 1 / _ALIKE < tile / usual < _ALIKE:
        return None

    def told(done: int, total: int, _: str) -> None:
        report(done, total, "Looking for tiles that suit the objects")

    def judge(tile: Tile) -> _Judged:
        params = auto_params(tile, search="auto").resolved(spec)
        frames = draw_candidates(
            model, samples, params, report=told, stop=stop, most=_MOST
        )
        scores = auto_scores(frames, params)
        own = {name: float(getattr(params, name)) for name in THRESHOLDS}
        return _Judged(
            refilter(frames[0][0], params), scores, {**own, "search": spec.auto.search}
        )

    own, suited = judge("auto"), judge(tile)
    if suited.f1 <= own.f1 + margin(own.scores):
        return None
    return Comparison(
        samples[0],
        own.shown,
        suited.shown,
        own.scores,
        suited.scores,
        suited.suits,
        0.0,
    )


class _Judged(NamedTuple):
    """Masks of the first frame, agreement of all, and the settings it was with."""

    shown: Masks
    scores: Scores
    suits: dict[str, float | str]

    @property
    def f1(self) -> float:
        return float(np.nan_to_num(self.scores.f1))


def _better(one: _Judged, other: _Judged) -> _Judged:
    return other if other.f1 > one.f1 else one


@dataclass(frozen=True, eq=False)
class Outcome:
    """The end of a training.

    Attributes
    ----------
    path : Path
        The model that was written; its card is beside it.
    better : bool
        Whether it is better than the base model, whose weights it has otherwise.
    base, best : Score
        Of the base model and of the best epoch, with the same prompts.
    epochs, best_epoch : int
        How many there were, and which was the best.
    ended : str
        Why there was no further one.
    card : dict
        As written.
    comparison : Comparison or None
        Automatic masks before and after, if they were asked for.
    """

    path: Path
    better: bool
    base: Score
    best: Score
    epochs: int
    best_epoch: int
    ended: str
    card: dict[str, Any]
    comparison: Comparison | None

    def summary(self) -> str:
        """One sentence for the user."""
        if not self.better:
            return (
                "The model did not become better than the one it began with, so the "
                "file has the weights of that one."
            )
        if self.comparison is not None:
            base, tuned = np.nan_to_num(
                [self.comparison.base.f1, self.comparison.tuned.f1]
            )
            if self.comparison.share == 0:
                return (
                    f"Better with tiles that suit the objects: F1 of automatic masks "
                    f"{base:.2f} before, {tuned:.2f} now. What was learnt did not "
                    "help, so the weights are those of the base model."
                )
            return (
                f"Better: F1 of automatic masks on validation frames {base:.2f} "
                f"before, {tuned:.2f} now."
            )
        return f"Better: score {self.base.value:.2f} before, {self.best.value:.2f} now."


def make_card(
    spec: ModelSpec,
    params: FinetuneParams,
    progress: Progress,
    *,
    run: str,
    data: str,
    frames: tuple[int, int],
    objects: int,
    tile: int | Literal["off"],
) -> dict[str, Any]:
    """What is known of a model: where it comes from, and how good it is.

    Parameters
    ----------
    spec : ModelSpec
        The base model.
    params : FinetuneParams
        As used.
    progress : Progress
        With the scores of all epochs.
    run : str
        Tells this run from others: hash of data, settings and base model.
    data : str
        Hash of frames and objects.
    frames : (int, int)
        How many for training and for validation.
    objects : int
        In all of them.
    tile : int or "off"
        Side of the tiles.
    """
    recommended: dict[str, float] = {
        "pred_iou_thresh": progress.best.threshold,
        "stability_score_thresh": spec.auto.stability_score_thresh,
        "box_nms_thresh": spec.auto.box_nms_thresh,
    }
    if tile != "off":
        recommended["tile"] = tile / spec.input_size
    return {
        "base": spec.id,
        "licence": spec.licence,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "run": run,
        "data": {
            "sha256": data,
            "training_frames": frames[0],
            "validation_frames": frames[1],
            "objects": objects,
        },
        "settings": params.model_dump(mode="json"),
        "recommended": recommended,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "scores": {
            "base": progress.base.as_dict(),
            "best": progress.best.as_dict(),
        },
        "history": progress.history,
    }


def keep_base(card: dict[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """The card of a model that has the base model's weights, and so its settings."""
    auto = spec.auto
    recommended: dict[str, float | str] = {
        "pred_iou_thresh": auto.pred_iou_thresh,
        "stability_score_thresh": auto.stability_score_thresh,
        "box_nms_thresh": auto.box_nms_thresh,
        "tile": auto.tile,
        "search": auto.search,
    }
    return card | {"better_than_base": False, "recommended": recommended}


def calibrated(card: dict[str, Any], comparison: Comparison | None) -> dict[str, Any]:
    """The card of a better model, with thresholds and scores of automatic masks."""
    if comparison is None:
        return card | {"better_than_base": True}
    return card | {
        "better_than_base": True,
        "recommended": card["recommended"] | comparison.suits,
        "automatic": {
            "base": comparison.base.as_dict(),
            "tuned": comparison.tuned.as_dict(),
            "share": comparison.share,
        },
    }

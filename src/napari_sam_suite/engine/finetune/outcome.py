"""What a training came to: before and after on a validation frame, card and files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.filters import refilter
from napari_sam_suite.engine.finetune.calibrate import (
    auto_params,
    auto_scores,
    draw_candidates,
    find_thresholds,
    lowest_thresholds,
)
from napari_sam_suite.engine.finetune.files import versions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Literal

    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.finetune.data import Sample
    from napari_sam_suite.engine.finetune.params import FinetuneParams
    from napari_sam_suite.engine.finetune.progress import Progress
    from napari_sam_suite.engine.finetune.scoring import Score
    from napari_sam_suite.engine.finetune.trainee import Trainee
    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.metrics import Scores
    from napari_sam_suite.engine.models.registry import ModelSpec


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
        Over all frames that were looked at.
    thresholds : dict
        With which the tuned model is best.
    """

    sample: Sample
    before: Masks
    after: Masks
    base: Scores
    tuned: Scores
    thresholds: dict[str, float]

    @property
    def better(self) -> bool:
        """Whether the tuned model is at least as good."""
        base, tuned = np.nan_to_num([self.base.f1, self.tuned.f1])
        return bool(tuned >= base)


def compare(
    trainee: Trainee,
    samples: Sequence[Sample],
    tile: int | Literal["off"],
    guess: float,
    *,
    report: Report,
    stop: Stop,
) -> Comparison:
    """Segment validation frames with the base model and with the tuned one.

    The base model has its own thresholds and tiles; for the tuned one the best
    thresholds are looked for, beginning at the rating `guess`.

    Raises
    ------
    Cancelled
        If `stop` said so.
    """
    base_params = auto_params("auto").resolved(trainee.spec)

    def told(done: int, total: int, _: str) -> None:
        report(done, total, "Comparing with the base model")

    before = draw_candidates(trainee.base, samples, base_params, report=told, stop=stop)
    params = auto_params(tile).resolved(trainee.spec)
    lowest = lowest_thresholds(params)
    trainee.refresh()
    after = draw_candidates(trainee, samples, lowest, report=told, stop=stop)
    thresholds, tuned = find_thresholds(after, params, guess)
    return Comparison(
        samples[0],
        refilter(before[0][0], base_params),
        refilter(after[0][0], params.with_(**thresholds)),
        auto_scores(before, base_params),
        tuned,
        thresholds,
    )


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
            return "The model did not become better; the base model is kept."
        if self.comparison is not None:
            base, tuned = np.nan_to_num(
                [self.comparison.base.f1, self.comparison.tuned.f1]
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
        "versions": versions(),
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
    recommended = {
        "pred_iou_thresh": auto.pred_iou_thresh,
        "stability_score_thresh": auto.stability_score_thresh,
        "box_nms_thresh": auto.box_nms_thresh,
        "tile": auto.tile,
    }
    return card | {"better_than_base": False, "recommended": recommended}


def calibrated(card: dict[str, Any], comparison: Comparison | None) -> dict[str, Any]:
    """The card of a better model, with thresholds and scores of automatic masks."""
    if comparison is None:
        return card | {"better_than_base": True}
    return card | {
        "better_than_base": True,
        "recommended": card["recommended"] | comparison.thresholds,
        "automatic": {
            "base": comparison.base.as_dict(),
            "tuned": comparison.tuned.as_dict(),
        },
    }

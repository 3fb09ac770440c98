"""What a training came to, and the card of the model that it made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.versions import package_versions

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from napari_sam_suite.engine.finetune.comparing import Comparison
    from napari_sam_suite.engine.finetune.params import FinetuneParams
    from napari_sam_suite.engine.finetune.progress import Progress
    from napari_sam_suite.engine.finetune.scoring import Score
    from napari_sam_suite.engine.models.registry import ModelSpec


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
        Automatic masks before and after, if they were asked for; not of a training
        that was finished before.
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
        automatic = self.card.get("automatic")
        if automatic is not None:
            base, tuned = (automatic[name]["f1"] or 0.0 for name in ("base", "tuned"))
            if automatic["share"] == 0:
                return (
                    f"Better with tiles that suit the objects: F1 of automatic masks "
                    f"{base:.2f} before, {tuned:.2f} now. What was learnt did not "
                    "help, so the weights are those of the base model."
                )
            text = (
                f"F1 of automatic masks on validation frames {base:.2f} before, "
                f"{tuned:.2f} now"
            )
            learnt = automatic.get("learnt")
            if learnt is None:
                return f"Better: {text}."
            verdict = "Better" if tuned > base else "Better on the whole"
            base, tuned = (learnt[name]["f1"] or 0.0 for name in ("base", "tuned"))
            again = f"on frames it learnt from {base:.2f} and {tuned:.2f}"
            return f"{verdict}: {text}; {again}."
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
    automatic: dict[str, Any] = {
        "base": comparison.base.as_dict(),
        "tuned": comparison.tuned.as_dict(),
        "share": comparison.share,
    }
    if comparison.learnt is not None:
        base, tuned = (scores.as_dict() for scores in comparison.learnt)
        automatic["learnt"] = {"base": base, "tuned": tuned}
    return card | {
        "better_than_base": True,
        "recommended": card["recommended"] | comparison.suits,
        "automatic": automatic,
    }

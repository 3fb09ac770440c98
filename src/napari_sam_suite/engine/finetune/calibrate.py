"""Automatic masks on frames whose truth is known: how good, with which thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.auto import Automatic
from napari_sam_suite.engine.filters import Candidates, refilter
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.metrics import Scores, evaluate_labels
from napari_sam_suite.engine.params import AutoParams

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from numpy.typing import NDArray

    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.finetune.data import Sample
    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.protocol import SamModel

Frames = list[tuple[Candidates, "NDArray[np.int32]"]]
"""Candidates of each frame, and its true label image."""

_LOWEST = {"pred_iou_thresh": 0.2, "stability_score_thresh": 0.4}
_TRIES = {
    "pred_iou_thresh": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    "box_nms_thresh": (0.2, 0.45, 0.7),
    "stability_score_thresh": (0.4, 0.6, 0.75, 0.85, 0.92),
}
_FRAMES = 2
_POINTS = 24
_BETTER = 0.005
"""A threshold that helps less stays where it is."""


def suit_tile(
    samples: Sequence[Sample], side: int, tile: int | Literal["auto", "off"]
) -> int | Literal["off"]:
    """Side of the tiles that suits the objects: eight times their median diameter.

    A diameter is the side of a square of the object's area. Between a quarter of the
    model's input and one and a quarter of it.

    Parameters
    ----------
    samples : sequence of Sample
        Frames with their objects.
    side : int
        Of the model's input.
    tile : int, "auto" or "off"
        What was asked for; other than ``"auto"`` it is returned as it is.
    """
    if tile != "auto":
        return tile
    areas = np.concatenate([sample.masks.area for sample in samples])
    wanted = 8 * float(np.median(np.sqrt(areas)))
    return int(np.clip(16 * round(wanted / 16), side // 4, side * 5 // 4))


def draw_candidates(
    model: SamModel,
    samples: Sequence[Sample],
    params: AutoParams,
    *,
    report: Report,
    stop: Stop,
) -> Frames:
    """All that a model draws on the first frames, with their truth.

    Raises
    ------
    Cancelled
        If `stop` said so.
    """
    finder = Automatic(params, keep_candidates=True)
    frames: Frames = []
    for sample in samples[:_FRAMES]:
        found = finder(model, sample.rgb, FrameIndex(), report=report, stop=stop)
        if isinstance(found.candidates, Candidates):
            frames.append((found.candidates, to_labels(sample.masks)))
    return frames


def auto_scores(frames: Frames, params: AutoParams) -> Scores:
    """Agreement of the filtered candidates with the truth at IoU 0.5."""
    total = Scores()
    for candidates, truth in frames:
        total += evaluate_labels(to_labels(refilter(candidates, params)), truth)
    return total


def find_thresholds(
    frames: Frames, params: AutoParams, guess: float
) -> tuple[dict[str, float], Scores]:
    """The thresholds with the best F1, one after the other, beginning at `guess`.

    Parameters
    ----------
    frames : Frames
        From `draw_candidates` with `lowest_thresholds`.
    params : AutoParams
        Everything else.
    guess : float
        Predicted IoU that divides objects from background.

    Returns
    -------
    thresholds : dict
        As a model's card recommends them.
    Scores
        Reached with them.
    """
    lowest = _LOWEST["pred_iou_thresh"]
    now: dict[str, float] = {
        "pred_iou_thresh": float(max(guess, lowest)),
        "box_nms_thresh": 0.45,
        "stability_score_thresh": 0.6,
    }
    best = auto_scores(frames, params.with_(**now))
    for name, values in _TRIES.items():
        for value in values:
            tried = auto_scores(frames, params.with_(**{**now, name: value}))
            if _f1(tried) > _f1(best) + _BETTER:
                now, best = {**now, name: value}, tried
    return now, best


def lowest_thresholds(params: AutoParams) -> AutoParams:
    """The same settings, keeping all that `find_thresholds` may want."""
    return params.with_(**_LOWEST)


def auto_params(tile: int | Literal["auto", "off"], **values: Any) -> AutoParams:
    """Automatic masks as they are used to judge a model: somewhat coarser."""
    return AutoParams(points_per_side=_POINTS, tile=tile, **values)


def to_labels(masks: Masks) -> NDArray[np.int32]:
    """Label image of masks, smaller ones on top."""
    labels = np.zeros(masks.shape, np.int32)
    for number in np.argsort(-masks.area, kind="stable").tolist():
        crop, (y0, x0) = masks.crop(number)
        labels[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]][crop] = number + 1
    return labels


def _f1(scores: Scores) -> float:
    return float(np.nan_to_num(scores.f1))

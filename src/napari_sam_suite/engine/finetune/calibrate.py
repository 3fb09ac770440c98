"""Automatic masks on frames whose truth is known: how good, with which thresholds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.auto import Automatic
from napari_sam_suite.engine.filters import Candidates, refilter
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.lanes import count_lanes, start_lanes
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
THRESHOLDS = tuple(_TRIES)
"""What a card recommends of a model."""
_POINTS = 16
"""Points per side of a grid: two for each diameter, in tiles that suit the objects."""
_ALIKE = 0.01
"""Difference of F1 at which two thresholds are about as good."""


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
    """All that a model draws on some frames, with their truth.

    On a CPU several frames are looked at side by side; see `lanes`.

    Raises
    ------
    Cancelled
        If `stop` said so.
    """
    finder = Automatic(params, keep_candidates=True)

    def draw(sample: Sample, report: Report) -> Candidates | None:
        found = finder(model, sample.rgb, FrameIndex(), report=report, stop=stop)
        return found.candidates if isinstance(found.candidates, Candidates) else None

    largest = max((s.shape for s in samples), key=math.prod, default=(1, 1))
    count = count_lanes(model, len(samples), largest)
    if count == 1:
        drawn = [draw(sample, report) for sample in samples]
    else:
        drawn = []
        with start_lanes(count) as lanes:
            under_way = [lanes.submit(draw, sample, _silent) for sample in samples]
            try:
                for one in under_way:
                    report(len(drawn), len(samples), "")
                    drawn.append(one.result())
            finally:
                for one in under_way:
                    one.cancel()
    return [
        (candidates, to_labels(sample.masks))
        for candidates, sample in zip(drawn, samples, strict=True)
        if candidates is not None
    ]


def _silent(done: int, total: int, text: str) -> None:
    """The progress of one of several frames."""


def auto_scores(frames: Frames, params: AutoParams) -> Scores:
    """Agreement of the filtered candidates with the truth at IoU 0.5."""
    total = Scores()
    for candidates, truth in frames:
        total += evaluate_labels(to_labels(refilter(candidates, params)), truth)
    return total


def find_thresholds(
    frames: Frames, params: AutoParams, guess: float
) -> tuple[dict[str, float], Scores]:
    """Thresholds with a better F1 than those of `params`, if there clearly are some.

    A few frames tell little: of many thresholds one is always better on them, and
    hardly ever on the next frame. So a value stays if it is about as good as the best,
    or becomes the middle one of these, and all stay unless F1 gains `margin`.

    Parameters
    ----------
    frames : Frames
        From `draw_candidates` with `lowest_thresholds`.
    params : AutoParams
        The model's own thresholds, and everything else.
    guess : float
        Predicted IoU that divides objects from background; tried as well.

    Returns
    -------
    thresholds : dict
        As a model's card recommends them.
    Scores
        Reached with them.
    """
    own = {name: float(getattr(params, name)) for name in THRESHOLDS}
    now = own
    for name, values in _TRIES.items():
        more = {own[name], guess} if name == "pred_iou_thresh" else {own[name]}
        tried = sorted({*values, *more})
        f1 = [
            f1_of(auto_scores(frames, params.with_(**{**now, name: v}))) for v in tried
        ]
        good = [v for v, one in zip(tried, f1, strict=True) if one >= max(f1) - _ALIKE]
        if own[name] not in good:
            now = {**now, name: float(good[len(good) // 2])}
    before, after = (auto_scores(frames, params.with_(**t)) for t in (own, now))
    if f1_of(after) > f1_of(before) + margin(before):
        return now, after
    return own, before


def margin(scores: Scores) -> float:
    """What F1 must gain on some objects before another setting is believed better.

    The standard error of a share of n objects, which is at most 0.5 / sqrt(n).
    """
    return 0.5 / math.sqrt(max(1, scores.truth))


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


def f1_of(scores: Scores) -> float:
    """F1, 0 where there is neither truth nor anything found."""
    return float(np.nan_to_num(scores.f1))

"""How good an outline is, whatever it is the outline of.

Alike is not enough: half of a nucleus is as much like a nucleus as all of it. What
tells them apart is how the model rates its mask, whether it would have found it by
itself, and a little whether its size is usual. Each is worth so much log-odds; the
weights are, rounded, those that `training/judging.py` fits to candidates on training
images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.registry import AutoDefaults

    Array = NDArray[np.float64]

_SCORE, _STABILITY, _SIZE = 1.1, 1.65, 0.04
"""Log-odds of each kind of evidence, in the units of the functions below."""
CHOSEN = 0.17
"""Log-odds of what is among the model's own automatic masks."""
_BEFORE = -0.85
"""Log-odds of a candidate of which nothing is known: more are wrong than right."""
_SPREAD = 0.1
"""Variance of logarithms of areas that few examples may not show."""


def rating_odds(masks: Masks, usual: AutoDefaults) -> Array:
    """Log-odds that masks outline something as a whole, by the model's own ratings.

    Parameters
    ----------
    masks : Masks
        N of them, with predicted IoU and stability.
    usual : AutoDefaults
        Thresholds that suit the model: at these its ratings count nothing, at a
        perfect rating they count 1.
    """
    score = _margin(masks.scores, usual.pred_iou_thresh)
    stability = _margin(masks.stability, usual.stability_score_thresh)
    return _BEFORE + _SCORE * score + _STABILITY * stability


def _margin(rating: NDArray[np.floating], threshold: float) -> Array:
    return (np.asarray(rating, np.float64) - threshold) / max(1 - threshold, 1e-3)


def size_odds(
    areas: NDArray[np.number], examples: NDArray[np.number], weight: float = _SIZE
) -> Array:
    """Log-odds that areas (N,) are of the size of the examples (n,); 0 at best."""
    usual = np.log(np.asarray(examples, np.float64))
    away = np.log(np.maximum(np.asarray(areas, np.float64), 1.0)) - usual.mean()
    odds: Array = -weight * away**2 / (usual.var() + _SPREAD)
    return odds

"""How good an outline is, whatever it is the outline of.

Alike is not enough: half of a nucleus is as much like a nucleus as all of it. What
tells them apart is how the model rates its mask, and a little whether there is an edge
all around it and whether its size is usual. Each is worth so much log-odds; the weights
are, rounded, those that `training/judging.py` fits to candidates on training images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.registry import AutoDefaults
    from napari_sam_suite.engine.tiles import Region

    Array = NDArray[np.float64]

_SCORE, _STABILITY, _EDGE, _SIZE = 1.05, 1.65, 0.1, 0.04
"""Log-odds of each kind of evidence, in the units of the functions below."""
_BEFORE = -1.0
"""Log-odds of a candidate of which nothing is known: more are wrong than right."""
_BLUR = 0.7
"""Pixels by which the image is smoothed before its edges are looked at."""
_BAND = 0.12
"""Width of the bands inside and outside an outline over that of the examples."""
_FAINT = 0.01
"""Step of colour, of 1, that is hardly one."""
_SECTORS, _WORST = 8, 3
"""Parts of an outline, and how many of them the worst one stands for."""
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


def edge_odds(
    edges: NDArray[np.floating],
    examples: NDArray[np.floating],
    weight: float = _EDGE,
) -> Array:
    """Log-odds by the edges below outlines; none where the examples have none.

    Phase contrast, for one, draws halos: there an outline that follows the object
    follows no edge.

    Parameters
    ----------
    edges, examples : ndarray, shape (N,) and (n,)
        See `edge_shares`, of the masks and of the examples as drawn.
    """
    trust = float(np.clip(examples.mean(), 0, 1)) if len(examples) else 1.0
    odds: Array = weight * trust * np.asarray(edges, np.float64)
    return odds


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


def edge_shares(
    rgb: NDArray[np.uint8], masks: Masks, region: Region, width: float
) -> NDArray[np.float32]:
    """How much of the outline of each mask is an edge of the image.

    The outline is parted into eight, as seen from the middle of the mask. In each part
    the colour just inside is compared with the colour just outside.

    Parameters
    ----------
    rgb : ndarray, shape (H, W, 3), uint8
        The whole frame.
    masks : Masks
        Inside `region`.
    region : Region
        The tile.
    width : float
        Of the examples, in pixels.

    Returns
    -------
    ndarray, shape (N,), float32
        Step of colour in the worst third of the parts over the mean step: near 1 where
        there is the same step all around, 0 or less where there is none, or where it
        goes the other way, as where an object is cut in two.
    """
    from scipy.ndimage import gaussian_filter

    pixels = rgb[region.y0 : region.y1, region.x0 : region.x1].astype(np.float32) / 255
    pixels = gaussian_filter(pixels, (_BLUR, _BLUR, 0))
    reach = max(2, round(_BAND * width) + 1)
    shares = np.zeros(len(masks), np.float32)
    for i in range(len(masks)):
        crop, (y0, x0) = masks.crop(i)
        if crop.any():
            origin = (y0 - region.y0, x0 - region.x0)
            shares[i] = _edge_share(pixels, crop, origin, reach)
    return shares


def _edge_share(
    pixels: NDArray[np.float32],
    crop: NDArray[np.bool_],
    origin: tuple[int, int],
    reach: int,
) -> float:
    from scipy.ndimage import binary_dilation, binary_erosion

    (top, bottom), (left, right) = (
        (max(0, first - reach), min(first + side + reach, length))
        for first, side, length in zip(
            origin, crop.shape, pixels.shape[:2], strict=True
        )
    )
    mask = np.zeros((bottom - top, right - left), bool)
    y, x = origin[0] - top, origin[1] - left
    mask[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    outside = binary_dilation(mask, iterations=reach) & ~mask
    inside = mask & ~binary_erosion(mask, iterations=reach, border_value=1)
    box, middle = pixels[top:bottom, left:right], np.argwhere(mask).mean(0)
    within, counts = _sectors(box, inside, middle)
    around, others = _sectors(box, outside, middle)
    steps = (within - around)[(counts > 0) & (others > 0)]
    if not len(steps):
        return 0.0
    mean = steps.mean(0)
    length = float(np.linalg.norm(mean)) + _FAINT
    along = np.sort(steps @ mean) / length
    return float(along[: max(1, len(along) // _WORST)].mean() / length)


def _sectors(
    box: NDArray[np.float32], band: NDArray[np.bool_], middle: NDArray[np.floating]
) -> tuple[Array, NDArray[np.intp]]:
    """Mean colour of a band in every sector around the middle, and its pixels there."""
    y, x = np.nonzero(band)
    angle = np.arctan2(y - middle[0], x - middle[1]) / (2 * np.pi) + 0.5
    sector = (angle * _SECTORS).astype(np.intp) % _SECTORS
    counts = np.bincount(sector, minlength=_SECTORS)
    colours = box[y, x]
    sums = [
        np.bincount(sector, colours[:, channel], _SECTORS)
        for channel in range(colours.shape[1])
    ]
    means: Array = np.stack(sums, 1) / np.maximum(counts, 1)[:, None]
    return means, counts

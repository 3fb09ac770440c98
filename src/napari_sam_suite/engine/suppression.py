"""Which of several masks of the same thing is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.nearby import Nearby

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAME = 0.5
"""Part of the smaller of two masks from which they are the same object."""
_CHUNK = 128
"""Boxes that are compared at a time."""


def drop_duplicates(
    masks: Masks,
    scores: NDArray[np.float32],
    threshold: float,
    origin: tuple[int, int] = (0, 0),
) -> Masks:
    """Greedy non-maximum suppression of bounding boxes, the best score first.

    Boxes are measured as upstream does, between the centres of their outer pixels,
    and in the frame of `origin`, so that rounding is the same as there; equally good
    ones keep their order, as in ``torchvision.ops.nms``.
    """
    boxes = masks.boxes.astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:] - 1, 0)
    filled = masks.area > 0
    boxes[filled] -= np.array([*origin, *origin], np.float32)
    order = np.argsort(-np.asarray(scores, np.float32), kind="stable")
    return masks.select(order[_distinct(boxes[order], threshold)])


def _distinct(boxes: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Indices of boxes that overlap no kept box before them by more."""
    kept = np.zeros(0, np.intp)
    for start in range(0, len(boxes), _CHUNK):
        here = np.arange(start, min(start + _CHUNK, len(boxes)))
        if len(kept):
            here = here[~_alike(boxes[here], boxes[kept], threshold).any(1)]
        alike = _alike(boxes[here], boxes[here], threshold)
        alive = np.ones(len(here), bool)
        for i in range(len(here)):
            if alive[i]:
                alive[i + 1 :] &= ~alike[i, i + 1 :]
        kept = np.concatenate([kept, here[alive]])
    return kept


def _alike(
    some: NDArray[np.float32], others: NDArray[np.float32], threshold: float
) -> NDArray[np.bool_]:
    """Whether the IoU of each of `some` boxes with each of `others` is above."""
    y0, x0, y1, x1 = some.T[:, :, None]
    v0, u0, v1, u1 = others.T[:, None, :]
    height = np.minimum(y1, v1) - np.maximum(y0, v0)
    width = np.minimum(x1, u1) - np.maximum(x0, u0)
    shared = np.maximum(height, 0) * np.maximum(width, 0)
    either = (y1 - y0) * (x1 - x0) + (v1 - v0) * (u1 - u0) - shared
    with np.errstate(invalid="ignore"):  # two empty boxes, 0 / 0, are not alike
        # in float64 as torchvision compares
        above: NDArray[np.bool_] = (shared / either).astype(np.float64) > threshold
    return above


def within_area(masks: Masks, smallest: int, largest: int) -> Masks:
    """Masks of `smallest` to `largest` pixels; 0 is no limit."""
    fits = masks.area >= smallest
    if largest:
        fits &= masks.area <= largest
    return masks if fits.all() else masks.select(np.flatnonzero(fits))


def best_first(masks: Masks) -> NDArray[np.intp]:
    """Order of masks by their predicted IoU, best first, earlier ones before later."""
    return np.argsort(-masks.scores, kind="stable")


def suppress_overlaps(masks: Masks, order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Indices of masks kept when those that share most of their pixels are one.

    Goes through `order`; a mask is dropped when its IoU with a kept one is above one
    half.
    """
    nearby = Nearby(masks.boxes)
    kept: list[int] = []
    for i in order.tolist():
        if masks.area[i] == 0:
            continue
        for j in nearby.to(masks.boxes[i]):
            shared = masks.intersection(i, j)
            if shared > _SAME * (masks.area[i] + masks.area[j] - shared):
                break
        else:
            kept.append(i)
            nearby.add(i)
    return np.array(kept, np.intp)


def make_exclusive(masks: Masks) -> Masks:
    """Give every pixel to one mask only: the best of those that claim it.

    A mask most of which belongs to better ones is a duplicate and is dropped; the
    others lose the shared pixels.
    """
    best = masks.select(best_first(masks))
    return share_out(best, Masks.empty(masks.shape))[0]


def share_out(
    masks: Masks, known: Masks, least: int = 1
) -> tuple[Masks, NDArray[np.intp]]:
    """Give every pixel to the first mask that claims it, if nothing known has it.

    A mask that loses more than half of itself to several others is dropped.

    Parameters
    ----------
    masks : Masks
        The best first.
    known : Masks
        Objects that are there already, in the same frame.
    least : int
        Pixels that must be left of a mask.

    Returns
    -------
    masks : Masks
        What is left of them.
    left : ndarray
        Their indices.
    """
    taken = np.zeros(masks.shape, bool)
    for i in range(len(known)):
        crop, _, where = _place(known, i)
        taken[where] |= crop
    builder, left = MaskBuilder(masks.shape), []
    for i in range(len(masks)):
        crop, origin, where = _place(masks, i)
        free = crop & ~taken[where]
        if np.count_nonzero(free) < max(least, (1 - _SAME) * masks.area[i], 1):
            continue
        taken[where] |= crop
        builder.add_like(masks, i, free, origin)
        left.append(i)
    return builder.build(), np.array(left, np.intp)


def _place(
    masks: Masks, i: int
) -> tuple[NDArray[np.bool_], tuple[int, int], tuple[slice, slice]]:
    """Mask `i` inside its box, the box's (y0, x0), and where it is in the frame."""
    crop, (y0, x0) = masks.crop(i)
    where = slice(y0, y0 + crop.shape[0]), slice(x0, x0 + crop.shape[1])
    return crop, (y0, x0), where

"""Which of several masks of the same thing is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, label

from napari_sam_suite.engine.masks import MaskBuilder, Masks

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAME = 0.5
"""Part of the smaller of two masks from which they are the same object."""
_SEVERAL = 2
"""Masks that claim a pixel which is contested."""
_REACH = 2
"""Pixels around contested ones in which the nearest others are looked for."""
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
    index = _Grid(masks)
    kept: list[int] = []
    for i in order.tolist():
        if masks.area[i] == 0:
            continue
        for j in index.near(i):
            shared = masks.intersection(i, j)
            if shared > _SAME * (masks.area[i] + masks.area[j] - shared):
                break
        else:
            kept.append(i)
            index.add(i)
    return np.array(kept, np.intp)


def make_exclusive(masks: Masks) -> Masks:
    """Give every pixel to one mask only.

    A mask most of which belongs to better ones is a duplicate and is dropped. What
    several of the others claim goes to the one whose own pixels are nearest, so that a
    mask that runs into its neighbour bites nothing out of it; but to the best, where a
    mask has half of its pixels or less for itself.
    """
    taken = np.zeros(masks.shape, bool)
    claims = np.zeros(masks.shape, np.uint8)
    kept: list[int] = []
    for i in best_first(masks).tolist():
        crop, where = _window(masks, i)
        left = int(np.count_nonzero(crop & ~taken[where]))
        if left == 0 or left < (1 - _SAME) * masks.area[i]:
            continue
        taken[where] |= crop
        claims[where] += crop & (claims[where] < _SEVERAL)
        kept.append(i)
    owner = _owners(masks, kept, claims)
    builder = MaskBuilder(masks.shape)
    for rank, i in enumerate(kept):
        crop, where = _window(masks, i)
        builder.add_like(masks, i, crop & (owner[where] == rank), masks.crop(i)[1])
    return builder.build()


def _window(masks: Masks, i: int) -> tuple[NDArray[np.bool_], tuple[slice, slice]]:
    """A mask's pixels, and where in the frame they are."""
    crop, (y0, x0) = masks.crop(i)
    return crop, np.s_[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]]


def _owners(
    masks: Masks, kept: list[int], claims: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """Rank in `kept`, the best first, of the mask that each pixel belongs to, or -1."""
    owner = np.full(masks.shape, -1, np.int32)
    cored = np.zeros(len(kept), bool)
    near: dict[int, list[int]] = {}
    parts, _ = label(claims >= _SEVERAL)
    for rank in reversed(range(len(kept))):
        crop, where = _window(masks, kept[rank])
        owner[where][crop] = rank  # better ones come later
        own = np.count_nonzero(crop & (claims[where] == 1))
        cored[rank] = own > _SAME * masks.area[kept[rank]]
        for part in np.unique(parts[where][crop]).tolist():
            near.setdefault(part, []).append(rank)
    near.pop(0, None)
    for part, box in enumerate(find_objects(parts), start=1):
        ranks = sorted(near[part])
        if cored[ranks].all():
            around = tuple(
                slice(max(0, side.start - _REACH), side.stop + _REACH) for side in box
            )
            wanted = parts[around] == part
            far = np.full((len(ranks), *wanted.shape), np.inf)
            for k, rank in enumerate(ranks):
                claimed = _seen(masks, kept[rank], around, wanted.shape)
                own = claimed & (claims[around] == 1)
                if own.any():
                    far[k] = np.where(claimed, distance_transform_edt(~own), np.inf)
            nearest = far.argmin(0)
            known = wanted & np.isfinite(far.min(0))
            owner[around][known] = np.array(ranks, np.int32)[nearest[known]]
    return owner


def _seen(
    masks: Masks, i: int, around: tuple[slice, ...], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """The pixels of a mask in a part of the frame."""
    crop, (y0, x0) = masks.crop(i)
    found = np.zeros(shape, bool)
    top, left = around[0].start - y0, around[1].start - x0
    part = crop[
        max(0, top) : max(0, top + shape[0]), max(0, left) : max(0, left + shape[1])
    ]
    y, x = max(0, -top), max(0, -left)
    found[y : y + part.shape[0], x : x + part.shape[1]] = part
    return found


class _Grid:
    """Which kept masks have boxes near a mask's box, by cells of the frame."""

    _cell = 64

    def __init__(self, masks: Masks) -> None:
        self._boxes = masks.boxes.tolist()
        self._cells: dict[tuple[int, int], list[int]] = {}

    def _covered(self, i: int) -> list[tuple[int, int]]:
        y0, x0, y1, x1 = self._boxes[i]
        c = self._cell
        return [
            (y, x)
            for y in range(y0 // c, (y1 - 1) // c + 1)
            for x in range(x0 // c, (x1 - 1) // c + 1)
        ]

    def add(self, i: int) -> None:
        for cell in self._covered(i):
            self._cells.setdefault(cell, []).append(i)

    def near(self, i: int) -> set[int]:
        return {j for cell in self._covered(i) for j in self._cells.get(cell, ())}

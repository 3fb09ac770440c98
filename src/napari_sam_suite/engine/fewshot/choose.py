"""From scored candidates to objects: nothing twice, nothing nested."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.nearby import Nearby

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAME = 0.5
"""Part of the smaller of two masks that they share when they are one object."""


def not_known(masks: Masks, known: Masks) -> NDArray[np.intp]:
    """Indices of masks that are none of the `known` ones, nor parts or wholes of them.

    Parameters
    ----------
    masks, known : Masks
        Of the same frame.
    """
    nearby = Nearby.of(known.boxes)
    new = [
        i
        for i in range(len(masks))
        if not _is_one_of(masks, i, known, nearby.to(masks.boxes[i]))
    ]
    return np.array(new, np.intp)


def resolve(masks: Masks, rank: NDArray[np.floating]) -> NDArray[np.intp]:
    """Indices of the best of every group of nested or repeated masks, the best first.

    Parameters
    ----------
    masks : Masks
        Candidates of one frame.
    rank : ndarray, shape (N,)
        The higher, the better.
    """
    kept: list[int] = []
    nearby = Nearby(masks.boxes)
    for i in np.argsort(-np.asarray(rank), kind="stable").tolist():
        if masks.area[i] == 0:
            continue
        if not _is_one_of(masks, i, masks, nearby.to(masks.boxes[i])):
            kept.append(i)
            nearby.add(i)
    return np.array(kept, np.intp)


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


def _is_one_of(masks: Masks, i: int, others: Masks, near: list[int]) -> bool:
    """Whether mask `i` shares most of itself, or of another, with one `near` it."""
    return any(
        masks.intersection(i, j, others) > _SAME * min(masks.area[i], others.area[j])
        for j in near
    )


def _place(
    masks: Masks, i: int
) -> tuple[NDArray[np.bool_], tuple[int, int], tuple[slice, slice]]:
    """Mask `i` inside its box, the box's (y0, x0), and where it is in the frame."""
    crop, (y0, x0) = masks.crop(i)
    where = slice(y0, y0 + crop.shape[0]), slice(x0, x0 + crop.shape[1])
    return crop, (y0, x0), where

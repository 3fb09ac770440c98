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


def resolve(
    masks: Masks,
    rank: NDArray[np.floating],
    *,
    exclusive: bool = True,
    known: Masks | None = None,
) -> tuple[Masks, NDArray[np.intp]]:
    """Keep the best of every group of nested or repeated masks.

    Parameters
    ----------
    masks : Masks
        Candidates of one frame.
    rank : ndarray, shape (N,)
        The higher, the better.
    exclusive : bool
        Give pixels that two kept masks still share to the better one, and those of
        the `known` to none.
    known : Masks, optional
        Objects that are there already. A mask is dropped when they leave nothing of it.

    Returns
    -------
    masks : Masks
        The best first.
    kept : ndarray, shape (K,)
        Their indices.
    """
    kept: list[int] = []
    nearby = Nearby(masks.boxes)
    for i in np.argsort(-np.asarray(rank), kind="stable").tolist():
        if masks.area[i] == 0:
            continue
        if not _is_one_of(masks, i, masks, nearby.to(masks.boxes[i])):
            kept.append(i)
            nearby.add(i)
    order = np.array(kept, np.intp)
    best = masks.select(order)
    if exclusive:
        best = _share_out(best, Masks.empty(masks.shape) if known is None else known)
        left = np.flatnonzero(best.area)
        best, order = best.select(left), order[left]
    return best, order


def _is_one_of(masks: Masks, i: int, others: Masks, near: list[int]) -> bool:
    """Whether mask `i` shares most of itself, or of another, with one `near` it."""
    return any(
        masks.intersection(i, j, others) > _SAME * min(masks.area[i], others.area[j])
        for j in near
    )


def _share_out(masks: Masks, known: Masks) -> Masks:
    """Every free pixel to the first mask that claims it; `masks` are best first."""
    taken = np.zeros(masks.shape, bool)
    for i in range(len(known)):
        crop, _, where = _place(known, i)
        taken[where] |= crop
    builder = MaskBuilder(masks.shape)
    for i in range(len(masks)):
        crop, origin, where = _place(masks, i)
        builder.add_like(masks, i, crop & ~taken[where], origin)
        taken[where] |= crop
    return builder.build()


def _place(
    masks: Masks, i: int
) -> tuple[NDArray[np.bool_], tuple[int, int], tuple[slice, slice]]:
    """Mask `i` inside its box, the box's (y0, x0), and where it is in the frame."""
    crop, (y0, x0) = masks.crop(i)
    where = slice(y0, y0 + crop.shape[0]), slice(x0, x0 + crop.shape[1])
    return crop, (y0, x0), where

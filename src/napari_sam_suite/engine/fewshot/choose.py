"""From scored candidates to objects: nothing twice, nothing nested."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.masks import MaskBuilder, Masks

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAME = 0.5
"""Part of the smaller of two masks that they share when they are one object."""


def same_object(masks: Masks, i: int, others: Masks) -> bool:
    """Whether mask `i` shares most of itself, or of the other, with one of `others`."""
    for j in _near(masks.boxes[i], others.boxes):
        shared = masks.intersection(i, int(j), others)
        if shared > _SAME * min(masks.area[i], others.area[j]):
            return True
    return False


def not_known(masks: Masks, known: Masks) -> NDArray[np.intp]:
    """Indices of masks that are none of the `known` ones, nor parts or wholes of them.

    Parameters
    ----------
    masks, known : Masks
        Of the same frame.
    """
    new = [i for i in range(len(masks)) if not same_object(masks, i, known)]
    return np.array(new, np.intp)


def resolve(
    masks: Masks, rank: NDArray[np.floating], *, exclusive: bool = True
) -> tuple[Masks, NDArray[np.intp]]:
    """Keep the best of every group of nested or repeated masks.

    Parameters
    ----------
    masks : Masks
        Candidates of one frame.
    rank : ndarray, shape (N,)
        The higher, the better.
    exclusive : bool
        Give pixels that two kept masks still share to the better one.

    Returns
    -------
    masks : Masks
        The best first.
    kept : ndarray, shape (K,)
        Their indices.
    """
    kept: list[int] = []
    for i in np.argsort(-np.asarray(rank), kind="stable").tolist():
        if masks.area[i] == 0:
            continue
        near = _near(masks.boxes[i], masks.boxes[kept])
        shared = ((masks.intersection(i, kept[n]), kept[n]) for n in near)
        if all(s <= _SAME * min(masks.area[i], masks.area[j]) for s, j in shared):
            kept.append(i)
    order = np.array(kept, np.intp)
    best = masks.select(order)
    return (_share_out(best) if exclusive else best), order


def _near(box: NDArray[np.int32], boxes: NDArray[np.int32]) -> NDArray[np.intp]:
    """Which `boxes` overlap `box`."""
    apart = (boxes[:, :2] >= box[2:]).any(1) | (boxes[:, 2:] <= box[:2]).any(1)
    return np.flatnonzero(~apart)


def _share_out(masks: Masks) -> Masks:
    """Every pixel to the first mask that claims it; `masks` are the best ones first."""
    taken = np.zeros(masks.shape, bool)
    builder = MaskBuilder(masks.shape)
    for i in range(len(masks)):
        crop, (y0, x0) = masks.crop(i)
        where = np.s_[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]]
        free = crop & ~taken[where]
        taken[where] |= crop
        builder.add_like(masks, i, free, (y0, x0))
    return builder.build()

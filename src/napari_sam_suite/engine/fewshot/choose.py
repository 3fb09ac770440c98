"""From scored candidates to objects: nothing twice, nothing nested."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.nearby import Nearby

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.masks import Masks

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


def _is_one_of(masks: Masks, i: int, others: Masks, near: list[int]) -> bool:
    """Whether mask `i` shares most of itself, or of another, with one `near` it."""
    return any(
        masks.intersection(i, j, others) > _SAME * min(masks.area[i], others.area[j])
        for j in near
    )

"""From scored candidates to objects: nothing twice, nothing nested."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.masks import MaskBuilder, Masks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_SAME = 0.5
"""Part of the smaller of two masks that they share when they are one object."""
_CELLS = 100
"""Most cells of a grid along a side of the frame."""


class Nearby:
    """Finds which of some boxes overlap another, by cells of a grid.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4)
        As those of `Masks`; those are found that were added.
    """

    def __init__(self, boxes: NDArray[np.int32]) -> None:
        self._boxes: list[list[int]] = boxes.tolist()
        self._cells: dict[tuple[int, int], list[int]] = {}
        sides = boxes[:, 2:] - boxes[:, :2]
        usual = np.median(sides.max(1, initial=0)) if len(boxes) else 0
        # A box as large as the frame shall not lie in countless cells.
        least = boxes.max(initial=0) // _CELLS
        self._side = max(int(usual), int(least), 1)

    @classmethod
    def of(cls, boxes: NDArray[np.int32]) -> Nearby:
        """With all the boxes added."""
        nearby = cls(boxes)
        for j in range(len(boxes)):
            nearby.add(j)
        return nearby

    def add(self, j: int) -> None:
        """Let the box `j` be found from now on."""
        for cell in self._covered(self._boxes[j]):
            self._cells.setdefault(cell, []).append(j)

    def to(self, box: NDArray[np.int32]) -> list[int]:
        """Indices of the boxes that share a pixel with `box`, in order."""
        y0, x0, y1, x1 = sides = box.tolist()
        found = set()
        for cell in self._covered(sides):
            for j in self._cells.get(cell, ()):
                v0, u0, v1, u1 = self._boxes[j]
                if v0 < y1 and y0 < v1 and u0 < x1 and x0 < u1:
                    found.add(j)
        return sorted(found)

    def _covered(self, box: list[int]) -> Iterator[tuple[int, int]]:
        rows, columns = (
            range(box[k] // self._side, (box[k + 2] - 1) // self._side + 1)
            for k in (0, 1)
        )
        return product(rows, columns)


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
    nearby = Nearby(masks.boxes)
    for i in np.argsort(-np.asarray(rank), kind="stable").tolist():
        if masks.area[i] == 0:
            continue
        if not _is_one_of(masks, i, masks, nearby.to(masks.boxes[i])):
            kept.append(i)
            nearby.add(i)
    order = np.array(kept, np.intp)
    best = masks.select(order)
    return (_share_out(best) if exclusive else best), order


def _is_one_of(masks: Masks, i: int, others: Masks, near: list[int]) -> bool:
    """Whether mask `i` shares most of itself, or of another, with one `near` it."""
    return any(
        masks.intersection(i, j, others) > _SAME * min(masks.area[i], others.area[j])
        for j in near
    )


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

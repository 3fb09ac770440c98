"""Which boxes of a frame are near each other."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

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
        end = int(boxes.max(initial=0))
        self._side = max(int(usual), end // _CELLS, 1)
        self._count = -(-end // self._side)

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
        side, count = self._side, self._count
        rows, columns = (
            range(box[k] // side, min((box[k + 2] - 1) // side + 1, count))
            for k in (0, 1)
        )
        return product(rows, columns)

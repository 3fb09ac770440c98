"""Which of several masks of the same thing is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.masks import MaskBuilder, Masks

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAME = 0.5
"""Part of the smaller of two masks from which they are the same object."""


def drop_duplicates(
    masks: Masks,
    scores: NDArray[np.float32],
    threshold: float,
    origin: tuple[int, int] = (0, 0),
) -> Masks:
    """Greedy non-maximum suppression of bounding boxes, the best score first.

    Boxes are measured as upstream does, between the centres of their outer pixels,
    and in the frame of `origin`, so that rounding is the same as there.
    """
    import torch
    from torchvision.ops import batched_nms

    boxes = masks.boxes.astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:] - 1, 0)
    filled = masks.area > 0
    boxes[filled] -= np.array([*origin, *origin], np.float32)
    kept = batched_nms(
        torch.from_numpy(boxes[:, [1, 0, 3, 2]]),
        torch.from_numpy(np.ascontiguousarray(scores, np.float32)),
        torch.zeros(len(boxes), dtype=torch.int64),
        threshold,
    )
    return masks.select(kept.numpy())


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
    """Give every pixel to one mask only: the best of those that claim it.

    A mask most of which belongs to better ones is a duplicate and is dropped; the
    others lose the shared pixels.
    """
    owner = np.zeros(masks.shape, bool)
    builder = MaskBuilder(masks.shape)
    for i in best_first(masks).tolist():
        crop, (y0, x0) = masks.crop(i)
        where = np.s_[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]]
        free = crop & ~owner[where]
        left = int(np.count_nonzero(free))
        if left == 0 or left < (1 - _SAME) * masks.area[i]:
            continue
        owner[where] |= free
        builder.add_like(masks, i, free, (y0, x0))
    return builder.build()


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

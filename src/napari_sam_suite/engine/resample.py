"""Full-resolution masks from low-resolution logits, only where there is something.

SAM's masks are made at a quarter of its input size and enlarged bilinearly to the
image. Enlarging all of them fully costs most of the time and memory of automatic
segmentation. Bilinear interpolation never exceeds its neighbours, so a pixel above a
threshold can only lie within one low-resolution pixel of a logit above it: everything
needed is found inside that window, with the arithmetic of
``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Window = tuple[int, int, int, int]
"""First and last-plus-one row, then column: (y0, y1, x0, x1)."""


@dataclass(frozen=True)
class Enlargement:
    """The steps from low-resolution logits to image pixels.

    Parameters
    ----------
    low : int
        Side of the square logits.
    steps : tuple of ((height, width), (height, width))
        For each bilinear step the size it gives and the part of it that is kept
        (SAM 1 cuts off its padding between two steps; SAM 2 has one step).
    """

    low: int
    steps: tuple[tuple[tuple[int, int], tuple[int, int]], ...]

    @classmethod
    def of(
        cls,
        low: int,
        square: int,
        scaled: tuple[int, int],
        shape: tuple[int, int],
        *,
        padded: bool = False,
    ) -> Enlargement:
        """The enlargement of an image of `shape` that fills `scaled` of the input.

        With `padded`, as of SAM 1, the logits go to the input's side first, also where
        a square image leaves nothing to cut off.
        """
        whole = scaled == (square, square)
        if whole and (not padded or shape == scaled):
            return cls(low, ((shape, shape),))
        return cls(low, (((square, square), scaled), (shape, shape)))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.steps[-1][1]

    def window(self, logits: NDArray[np.float32], above: float) -> Window | None:
        """The part of the image in which `logits` (low, low) may exceed `above`."""
        found = logits > above
        rows = np.flatnonzero(found.any(1))
        if not len(rows):
            return None
        columns = np.flatnonzero(found.any(0))
        y0, y1 = int(rows[0]), int(rows[-1]) + 1
        x0, x1 = int(columns[0]), int(columns[-1]) + 1
        size = (self.low, self.low)
        for full, kept in self.steps:
            y0, y1 = _reach(y0, y1, size[0], full[0], kept[0])
            x0, x1 = _reach(x0, x1, size[1], full[1], kept[1])
            size = kept
        return (y0, y1, x0, x1) if y0 < y1 and x0 < x1 else None

    def enlarge(
        self, logits: NDArray[np.float32], window: Window | None = None
    ) -> NDArray[np.float32]:
        """Values of `logits` (low, low) at the image pixels of `window`.

        Returns (y1 - y0, x1 - x0) float32; the whole image without a window.
        """
        y0, y1, x0, x1 = window or (0, self.shape[0], 0, self.shape[1])
        sizes = [(self.low, self.low), *(kept for _, kept in self.steps)]
        plans = []
        # Backwards: which part of every intermediate image the window needs.
        for (full, _), size in zip(
            reversed(self.steps), reversed(sizes[:-1]), strict=True
        ):
            rows = _Line.plan(y0, y1, size[0], full[0])
            columns = _Line.plan(x0, x1, size[1], full[1])
            plans.append((rows, columns))
            y0, y1, x0, x1 = rows.start, rows.stop, columns.start, columns.stop
        values = logits[y0:y1, x0:x1]
        for rows, columns in reversed(plans):
            values = rows.blend(columns.blend(values, 1), 0)
        return values


@dataclass(frozen=True)
class _Line:
    """One axis of a bilinear step: outputs as blends of inputs start..stop."""

    start: int
    stop: int
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    weight: NDArray[np.float32]

    @classmethod
    def plan(cls, first: int, last: int, size: int, full: int) -> _Line:
        left, right, weight = _axis(size, full)
        left, right = left[first:last], right[first:last]
        start, stop = int(left[0]), int(right[-1]) + 1
        return cls(start, stop, left - start, right - start, weight[first:last])

    def blend(self, values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        weight = self.weight[None, :] if axis else self.weight[:, None]
        low = np.take(values, self.left, axis)
        high = np.take(values, self.right, axis)
        high *= weight
        low *= np.float32(1) - weight
        low += high
        return low


@lru_cache(maxsize=64)
def _axis(
    size: int, full: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Left and right neighbour and right weight of each of `full` outputs.

    PyTorch's rule, in its float32: pixel centres at half-integers, clamped below.
    """
    scale = np.float32(size) / np.float32(full)
    where = (np.arange(full, dtype=np.float32) + np.float32(0.5)) * scale
    where = np.maximum(where - np.float32(0.5), np.float32(0))
    left = np.minimum(where.astype(np.intp), size - 1)
    right = np.minimum(left + 1, size - 1)
    weight = np.clip(where - left.astype(np.float32), 0, 1).astype(np.float32)
    return left, right, weight


def _reach(first: int, last: int, size: int, full: int, kept: int) -> tuple[int, int]:
    """Outputs, cut to `kept`, that inputs first..last of `size` have a part in."""
    scale = full / size
    start = int(np.floor((first - 1) * scale)) - 1
    stop = int(np.ceil((last + 1) * scale)) + 1
    return max(0, start), min(kept, stop)

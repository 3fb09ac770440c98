"""Small holes filled and small islands removed, without a compiled extension."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import label

from napari_sam_suite.engine.masks import MaskBuilder, Masks

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOUCHING = np.ones((3, 3), bool)
"""Pixels that meet at a corner belong together, as upstream counts them."""


def remove_small_regions(
    masks: Masks, min_area: int
) -> tuple[Masks, NDArray[np.bool_]]:
    """Fill holes and remove islands smaller than `min_area` pixels.

    If all of a mask is smaller, its largest island stays.

    Returns
    -------
    Masks
        The same masks in the same order, cleaned.
    ndarray, shape (N,), bool
        Which of them are as they were.
    """
    builder = MaskBuilder(masks.shape)
    unchanged = np.ones(len(masks), bool)
    for i in range(len(masks)):
        crop, origin = masks.crop(i)
        if crop.size:
            filled = _fill(crop, origin, masks.shape, min_area)
            if filled is None:
                crop, origin = masks.full(i), (0, 0)
                filled = _fill(crop, origin, masks.shape, min_area)
            cleaned = _drop_islands(crop if filled is None else filled, min_area)
            unchanged[i] = np.array_equal(cleaned, crop)
            crop = cleaned
        builder.add_like(masks, i, crop, origin)
    return builder.build(), unchanged


def _fill(
    crop: NDArray[np.bool_],
    origin: tuple[int, int],
    shape: tuple[int, int],
    min_area: int,
) -> NDArray[np.bool_] | None:
    """Fill small background regions; None if one of them lies outside the crop."""
    y0, x0 = origin
    bottom, right = shape[0] - y0 - crop.shape[0], shape[1] - x0 - crop.shape[1]
    # One row of the outside stands for all of it, and weighs as much.
    sides = [(int(y0 > 0), int(bottom > 0)), (int(x0 > 0), int(right > 0))]
    around = np.pad(~crop, sides, constant_values=True)
    regions, count = label(around, _TOUCHING)
    rows = np.ones(around.shape[0])
    columns = np.ones(around.shape[1])
    if y0:
        rows[0] = y0
    if bottom:
        rows[-1] = bottom
    if x0:
        columns[0] = x0
    if right:
        columns[-1] = right
    sizes = np.bincount(
        regions.ravel(), weights=np.outer(rows, columns).ravel(), minlength=count + 1
    )
    small = sizes < min_area
    small[0] = False
    inside = np.s_[
        sides[0][0] : around.shape[0] - sides[0][1],
        sides[1][0] : around.shape[1] - sides[1][1],
    ]
    fill: NDArray[np.bool_] = small[regions]
    if np.count_nonzero(fill) != np.count_nonzero(fill[inside]):
        return None
    return crop | fill[inside]


def _drop_islands(crop: NDArray[np.bool_], min_area: int) -> NDArray[np.bool_]:
    regions, _ = label(crop, _TOUCHING)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    keep = sizes >= min_area
    keep[0] = False
    if not keep.any() and len(sizes) > 1:
        keep[np.argmax(sizes)] = True
    return keep[regions]  # type: ignore[no-any-return]

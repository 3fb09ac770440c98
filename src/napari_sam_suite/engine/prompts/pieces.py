"""Which pieces of an answer a prompt means, where the answer is in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import label

from napari_sam_suite.engine.masks import tighten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.prompts.prompt import Prompt

_TOUCHING = np.ones((3, 3), bool)
"""Pixels that meet at a corner belong together, as in polygons."""


def keep_meant(
    crop: NDArray[np.bool_], origin: tuple[int, int], prompt: Prompt
) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The islands that a prompt means; all of them if it means none.

    They are those that a mask prompt lies on, that are in its box, or else that its
    inside points lie on.
    """
    islands, count = label(crop, _TOUCHING)
    if count < 2:
        return crop, origin
    wanted = np.setdiff1d(_touched(islands, origin, prompt), [0])
    if not len(wanted):
        return crop, origin
    return tighten(np.isin(islands, wanted), origin)


def _touched(
    islands: NDArray[np.int32], origin: tuple[int, int], prompt: Prompt
) -> NDArray[np.int32]:
    """Numbers in a label image that a prompt touches, and perhaps 0."""
    found: NDArray[np.int32]
    start, end = np.array(origin), np.array(origin) + islands.shape
    if prompt.mask is not None:
        corner = np.array(prompt.mask.origin)
        low = np.maximum(start, corner)
        high = np.maximum(np.minimum(end, corner + prompt.mask.crop.shape), low)
        here, there = (
            tuple(map(slice, low - first, high - first)) for first in (start, corner)
        )
        found = islands[here][prompt.mask.crop[there]]
    elif prompt.box is not None:
        low = np.maximum(np.floor(prompt.box[:2]).astype(int) - start, 0)
        high = np.maximum(np.ceil(prompt.box[2:]).astype(int) + 1 - start, 0)
        found = islands[low[0] : high[0], low[1] : high[1]]
    else:
        places = np.round(np.array(prompt.inside).reshape(-1, 2) - start).astype(int)
        places = places[((places >= 0) & (places < islands.shape)).all(1)]
        found = islands[places[:, 0], places[:, 1]]
    return found

"""The tile that suits the objects of an image, as the model's guide tells their sizes.

A model sees objects best that are as large in its input as those it was taught with.
Smaller ones are enlarged: the image is looked at in smaller tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.guidance import Guidance
from napari_sam_suite.engine.proposals import propose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.models.protocol import Embedding
    from napari_sam_suite.engine.tiles import Region

_LOOKS = 4
"""Regions at most that are looked at to learn the sizes."""
_FEW = 5
"""Objects at least that are believed."""
_SUITED = 0.08
"""Side of an object's square over that of the model's input that small ones get."""
_ENOUGH = 0.75
"""Tiles become smaller only by more than this factor."""
_SMALLEST = 0.25
"""Side of the smallest tile over that of the model's input."""


def looked_at(regions: Sequence[Region]) -> list[Region]:
    """A few regions, evenly spread."""
    count = min(_LOOKS, len(regions))
    return [regions[(2 * i + 1) * len(regions) // (2 * count)] for i in range(count)]


def told_sizes(embedding: Embedding) -> NDArray[np.float64]:
    """Sides of the squares of expected objects, in pixels of the image, shape (n,).

    Nothing if the model has no guide.
    """
    guidance = Guidance.of(embedding)
    if guidance is None:
        return np.zeros(0)
    points = propose(embedding.maps()["guide"], embedding.shape)
    y, x = (points * guidance.scale).astype(np.intp).T
    sizes: NDArray[np.float64] = guidance.size[y, x] / np.sqrt(guidance.scale.prod())
    return sizes


def suited(sizes: NDArray[np.floating], usual: float) -> float:
    """Side of the tiles over that of the model's input.

    Parameters
    ----------
    sizes : ndarray, shape (n,)
        Of expected objects in pixels of the image, over the side of the model's input.
    usual : float
        The tile that is right for objects that are not small.

    Returns
    -------
    float
        `usual`, or less if half of the objects would be seen too small.
    """
    if len(sizes) < _FEW:
        return usual
    wanted = float(np.median(sizes)) / _SUITED
    return max(wanted, _SMALLEST) if wanted < _ENOUGH * usual else usual

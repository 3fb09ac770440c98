"""What a model's guide says of a mask: whether it is one object, and all of it.

In a mask of one whole object all places name the middle of the mask and its size; see
`guidance`. Half an object, or two, disagree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.guidance import Guidance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.protocol import Embedding
    from napari_sam_suite.engine.tiles import Region

_BEFORE, _CENTRE, _SIZE = 0.43, 0.34, 0.47
"""Log-odds of a mask that the guide agrees with, and what is lost where the centres
lie a diameter off, or the sizes by a factor of e."""


def guide_odds(
    embedding: Embedding, masks: Masks, region: Region
) -> NDArray[np.float64]:
    """Log-odds (N,) that masks are one object each; 0 for a model without a guide.

    Parameters
    ----------
    embedding : Embedding
        Of the region.
    masks : Masks
        In the coordinates of the frame.
    region : Region
        Where the embedding lies in the frame.
    """
    odds = np.zeros(len(masks))
    guidance = Guidance.of(embedding)
    if guidance is None:
        return odds
    places = [
        (np.arange(n) + 0.5) / scale - 0.5 + first
        for n, scale, first in zip(
            guidance.size.shape, guidance.scale, region.origin, strict=True
        )
    ]
    for i in range(len(masks)):
        inside = _inside(masks, i, places)
        if len(inside):
            off, other = guidance.doubts(*inside.T)
            odds[i] = _BEFORE - _CENTRE * off - _SIZE * other
    return odds


def _inside(
    masks: Masks, i: int, places: list[NDArray[np.float64]]
) -> NDArray[np.intp]:
    """Rows and columns (n, 2) of the guide whose places lie in mask `i`."""
    crop, origin = masks.crop(i)
    pixels = [
        np.rint(along - first).astype(np.intp)
        for along, first in zip(places, origin, strict=True)
    ]
    near = [
        np.flatnonzero((along >= 0) & (along < side))
        for along, side in zip(pixels, crop.shape, strict=True)
    ]
    covered = crop[np.ix_(pixels[0][near[0]], pixels[1][near[1]])]
    row, column = np.nonzero(covered)
    return np.stack([near[0][row], near[1][column]], 1)

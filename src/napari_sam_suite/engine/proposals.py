"""Where a model's guide expects objects: one prompt each, in place of a grid of points.

Every place inside an object votes for the object's centre, and where votes gather there
is one (Neven et al. 2019, "Instance segmentation by jointly optimizing spatial
embeddings and clustering bandwidth"). Touching objects vote for different centres.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.special import expit

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNIT = 8.0
"""Places of the guide's maps in the unit of its ways and sizes: 32 pixels, stride 4."""
_INSIDE = 0.3
"""Probability of an object from which a place has a vote."""
_BLUR = 1.0
"""Standard deviation of the votes' scatter, in places."""
_LEAST = 0.004
"""Height of a peak of votes; all votes of one object add up to about 1."""


def propose(guide: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float64]:
    """The expected centres of objects.

    Parameters
    ----------
    guide : ndarray, shape (5, h, w)
        What `models.nano.guide.Guide` says of an image.
    shape : (int, int)
        Height and width of the image in pixels.

    Returns
    -------
    ndarray, shape (n, 2)
        (y, x) in the image, pixel centres at whole numbers, the surest first.
    """
    height, width = guide.shape[1:]
    inside = expit(guide[0])
    places = np.argwhere(inside > _INSIDE)
    if not len(places):
        return np.zeros((0, 2))
    y, x = places.T
    towards = places + guide[2:4, y, x].T * UNIT
    towards = np.clip(np.rint(towards), 0, (height - 1, width - 1)).astype(np.intp)
    size = np.exp(guide[4, y, x]) * UNIT
    votes = np.zeros((height, width))
    np.add.at(votes, tuple(towards.T), inside[y, x] / np.maximum(size**2, 1))
    votes = ndimage.gaussian_filter(votes, _BLUR)
    peaks = np.argwhere((votes == ndimage.maximum_filter(votes, 3)) & (votes > _LEAST))
    order = np.argsort(-votes[tuple(peaks.T)], kind="stable")
    scale = np.array(shape) / (height, width)
    points: NDArray[np.float64] = (peaks[order] + 0.5) * scale - 0.5
    return points.clip(min=0)

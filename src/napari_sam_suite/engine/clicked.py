"""What several clicks on one object say of its logits.

A click that corrects a mask says two things: this place and what is around it belong to
the object, or do not; and, where the place was not far from the outline, that the whole
outline lies further out or further in. The first is a bump, the second a level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLICK = 5.0
"""Logit that is added at a click, or taken away."""
AROUND = 0.15
"""Its standard deviation in sizes of the object."""
LIKELY = 1.0
"""Standard deviation of the level, in logits, before anything is clicked."""
_LEVELS = np.arange(-3, 3.25, 0.25)


def bumps(
    points: NDArray[np.float64],
    inside: NDArray[np.bool_],
    size: float,
    shape: tuple[int, ...],
) -> NDArray[np.float32]:
    """Logits that are high around clicks inside, low around others.

    Parameters
    ----------
    points : ndarray, shape (N, 2)
        (y, x) of clicks, in places.
    inside : ndarray of bool, shape (N,)
        Whether they are on the object.
    size : float
        Of the object, in places.
    shape : (int, int)
        Places in y and x.

    Returns
    -------
    ndarray, shape `shape`
    """
    y, x = np.indices(shape, np.float32)
    added = np.zeros(shape, np.float32)
    for (py, px), sign in zip(points, np.where(inside, 1, -1), strict=True):
        squares = (y - py) ** 2 + (x - px) ** 2
        added += sign * CLICK * np.exp(-squares / (2 * (AROUND * size) ** 2))
    return added


def siding(values: NDArray[np.floating], inside: NDArray[np.bool_]) -> float:
    """The level that has clicks on their right sides, the likeliest one.

    Every click is an observation, right with the chance that its logit above the level
    stands for; levels are normally distributed around 0.

    Parameters
    ----------
    values : ndarray, shape (N,)
        Logits at the clicks.
    inside : ndarray of bool, shape (N,)
        Whether they are on the object.

    Returns
    -------
    float
        From -3 to 3.
    """
    wrong = np.where(inside, -1, 1)[:, None] * (values[:, None] - _LEVELS)
    cost = np.logaddexp(0, wrong).sum(0) + _LEVELS**2 / (2 * LIKELY**2)
    return float(_LEVELS[cost.argmin()])

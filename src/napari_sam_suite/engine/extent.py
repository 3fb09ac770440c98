"""The logit at which a mask fills the box that was drawn around its object.

A box says where an object ends on four sides. A mask that stays within them, or is only
held back by the fence around the box, is cut at another logit than 0. An object with
thin arms reaches its sides with these alone: a mask that is to fill the box is then too
fat, so the size that is expected counts as well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEVELS = np.arange(-3, 4.25, 0.5)
_COST = 0.02
"""IoU with the box that a level must gain for each logit that it is away from 0."""
_SIZE = 0.2
"""The same for an area e times the expected one, or an e-th of it; no more beyond."""


def filling(
    logits: NDArray[np.floating],
    low: NDArray[np.floating],
    end: NDArray[np.floating],
    area: float,
) -> float:
    """The level above which logits fill a box best.

    Parameters
    ----------
    logits : ndarray, shape (h, w)
        Of one mask.
    low, end : ndarray, shape (2,)
        (y, x) of the box's first and last edge, in places: the centre of the first
        place is 0, its edges are -0.5 and 0.5.
    area : float
        Places that the object is expected to have.

    Returns
    -------
    float
        From -3 to 4; 0 if no level gives a mask.
    """
    profiles = logits.max(1), logits.max(0)
    best, found = -np.inf, 0.0
    wanted = float(np.prod(end - low))
    for level in _LEVELS.tolist():
        sides = [_ends(profile, level) for profile in profiles]
        reached = np.array([side for side in sides if side is not None])
        if len(reached) < len(sides):
            continue
        common = np.minimum(reached[:, 1], end) - np.maximum(reached[:, 0], low)
        shared = float(np.prod(common.clip(0)))
        union = float(np.prod(reached[:, 1] - reached[:, 0])) + wanted - shared
        places = max(1, int(np.count_nonzero(logits > level)))
        off = abs(math.log(places) - math.log(max(area, 1.0)))
        value = shared / max(union, 1e-9) - _COST * abs(level) - _SIZE * min(off, 1.0)
        if value > best:
            best, found = value, level
    return found


def _ends(profile: NDArray[np.floating], level: float) -> tuple[float, float] | None:
    """Where a line of logits rises above a level and where it falls below, if ever."""
    above = np.flatnonzero(profile > level)
    if not len(above):
        return None
    first, last = int(above[0]), int(above[-1])
    start, stop = -0.5, len(profile) - 0.5
    if first > 0:
        step = profile[first] - profile[first - 1]
        start = first - float((profile[first] - level) / step)
    if last < len(profile) - 1:
        step = profile[last] - profile[last + 1]
        stop = last + float((profile[last] - level) / step)
    return start, stop

"""Which object lies in which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.hierarchy.levels import LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.objects import Objects

ROOT = -1
"""Instead of a row, where an object lies in no other."""


def find_parents(
    objects: Objects, ranks: NDArray[np.integer], containment: float = 0.5
) -> NDArray[np.int64]:
    """Row of the object that each object lies in.

    A small object lies in a part, or else in a whole one, and a part in a whole one. Of
    several that cover enough of it, the one that covers most is its parent, and of
    equals the smallest: every object has one place, and those without a parent are
    roots. Only outlines that touch are compared: a spatial index finds them.

    Parameters
    ----------
    objects : Objects
        Of any number of frames; only those of one frame are compared.
    ranks : (n,) array of int
        0 small, 1 part, 2 whole.
    containment : float
        How much of an object another has to cover, 0 to 1.

    Returns
    -------
    (n,) array of int64
        `ROOT` where there is none.
    """
    parents = np.full(len(objects), ROOT, dtype=np.int64)
    shapes = np.array(objects.polygons, dtype=object)
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken])
    frames = objects.features[list(FrameIndex._fields)].to_numpy()
    for frame in objects.frames():
        here = (frames == frame).all(axis=1)
        for rank in range(len(LEVELS) - 1):
            for above in range(rank + 1, len(LEVELS)):
                orphans = np.flatnonzero(here & (ranks == rank) & (parents == ROOT))
                hosts = np.flatnonzero(here & (ranks == above))
                found = _best_hosts(shapes[orphans], shapes[hosts], containment)
                parents[orphans[found[0]]] = hosts[found[1]]
    return parents


def _best_hosts(
    children: NDArray[np.object_], hosts: NDArray[np.object_], containment: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Children that lie in a host, and which."""
    child, host = shapely.STRtree(hosts).query(children, predicate="intersects")
    shared = shapely.area(shapely.intersection(children[child], hosts[host]))
    share = shared / np.maximum(shapely.area(children[child]), np.finfo(float).tiny)
    # Rounding must not make a difference between hosts that hold all of a child.
    share = np.round(share, 9)
    enough = share >= containment
    child, host, share = child[enough], host[enough], share[enough]
    order = np.lexsort((shapely.area(hosts[host]), -share, child))
    child, host = child[order], host[order]
    first = np.flatnonzero(np.diff(child, prepend=-1))
    return child[first], host[first]

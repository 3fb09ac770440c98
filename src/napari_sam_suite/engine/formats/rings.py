"""Closed rings, as many file formats store areas, to polygons and back.

Rings are ``(n, 2)`` arrays of ``(y, x)`` pixel centres.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon
from shapely.geometry.polygon import orient

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Ring = NDArray[np.float64]


def join_rings(rings: Iterable[Ring]) -> Polygon | MultiPolygon | None:
    """Everything within any of the rings; None if that is no area."""
    parts = [part for ring in rings if (part := _part(ring)) is not None]
    return keep_areas(parts[0] if len(parts) == 1 else shapely.union_all(parts))


def cross_rings(rings: Sequence[Ring]) -> Polygon | MultiPolygon | None:
    """Everything within an odd number of the rings; None if that is no area."""
    if len(rings) > 1 and all(len(np.unique(ring, axis=0)) > 2 for ring in rings):
        holed = Polygon(rings[0], rings[1:])
        if holed.is_valid:
            return keep_areas(holed)
    parts = [part for ring in rings if (part := _part(ring)) is not None]
    if not parts:
        return None
    return keep_areas(functools.reduce(shapely.symmetric_difference, parts))


def build_polygon(parts: Sequence[Sequence[Ring]]) -> Polygon | MultiPolygon | None:
    """What `split_rings` took apart; None if that is no area."""
    if any(len(np.unique(ring, axis=0)) < 3 for part in parts for ring in part):
        return cross_rings([ring for part in parts for ring in part])
    polygons = [Polygon(outside, holes) for outside, *holes in parts]
    return keep_areas(polygons[0] if len(polygons) == 1 else MultiPolygon(polygons))


def keep_areas(shape: Polygon | MultiPolygon) -> Polygon | MultiPolygon | None:
    """The same area as a valid polygon; None if there is none."""
    if shape.is_valid and isinstance(shape, Polygon | MultiPolygon):
        return shape if shape.area > 0 else None
    areas = [
        part
        for part in shapely.get_parts(shapely.get_parts(shapely.make_valid(shape)))
        if isinstance(part, Polygon) and part.area > 0
    ]
    return areas[0] if len(areas) == 1 else MultiPolygon(areas) if areas else None


def split_rings(polygon: Polygon | MultiPolygon) -> list[list[Ring]]:
    """Rings of every part, the outer one first and in the other sense than holes."""
    return [
        [shapely.get_coordinates(ring) for ring in shapely.get_rings(part)]
        for part in map(orient, shapely.get_parts(polygon))
    ]


def pixel_edges(
    mask: NDArray[np.bool_], origin: tuple[int, int] = (0, 0)
) -> list[Ring] | None:
    """Outlines of a mask along the edges of its pixels.

    Whatever fills polygons by pixel centres fills exactly the mask with them.

    Parameters
    ----------
    mask : (h, w) array of bool
    origin : tuple of int
        ``(y, x)`` of its first pixel.

    Returns
    -------
    list of (n, 2) arrays, or None
        One closed ring per island, corners only; islands that touch at a corner are
        two. None where the mask has holes, which separate rings cannot say.
    """
    lines = [*_runs(mask), *(line[:, ::-1] for line in _runs(mask.T))]
    faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(lines)))
    inside = np.round(shapely.get_coordinates(shapely.point_on_surface(faces)) - 0.5)
    rows, columns = inside.astype(np.int64).T
    if not mask[rows, columns].all() or shapely.get_num_interior_rings(faces).any():
        return None
    corners = shapely.get_exterior_ring(faces)
    return [shapely.get_coordinates(ring) - 0.5 + origin for ring in corners]


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Longest edges between a row and the next, (n, 2, 2), from the corner on.

    An edge changes sides where four pixels meet in a checkerboard, and so it ends.
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), np.int8)
    padded[1:-1, 1:-1] = mask
    side = padded[1:] - padded[:-1]
    change = side[:, 1:] != side[:, :-1]
    row, first = np.nonzero(change & (side[:, 1:] != 0))
    _, last = np.nonzero(change & (side[:, :-1] != 0))
    ends = np.empty((len(row), 2, 2))
    ends[..., 0], ends[:, 0, 1], ends[:, 1, 1] = row[:, None], first, last
    return ends


def _part(ring: Ring) -> Polygon | MultiPolygon | None:
    if len(np.unique(ring, axis=0)) < 3:
        return None
    return keep_areas(Polygon(ring))

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
    from typing import Any

    from numpy.typing import NDArray

    Ring = NDArray[np.float64]

_DECIMALS = 4
_ROUNDED = 0.01
"""Pixels by which a program may round a coordinate, as QuPath does."""


def join_rings(rings: Iterable[Ring]) -> Polygon | MultiPolygon | None:
    """Everything within any of the rings; None if that is no area."""
    parts = [part for ring in rings if (part := _part(ring)) is not None]
    return keep_areas(parts[0] if len(parts) == 1 else shapely.union_all(parts))


def cross_rings(rings: Sequence[Ring]) -> Polygon | MultiPolygon | None:
    """Everything within an odd number of the rings; None if that is no area."""
    if len(rings) > 1 and all(map(_has_corners, rings)):
        holed = Polygon(rings[0], rings[1:])
        if holed.is_valid:
            return keep_areas(holed)
    parts = [part for ring in rings if (part := _part(ring)) is not None]
    if not parts:
        return None
    return keep_areas(functools.reduce(shapely.symmetric_difference, parts))


def build_polygon(parts: Sequence[Sequence[Ring]]) -> Polygon | MultiPolygon | None:
    """What `split_rings` took apart; None if that is no area."""
    polygons = [
        Polygon(outside, [hole for hole in holes if _has_corners(hole)])
        for outside, *holes in parts
        if _has_corners(outside)
    ]
    return keep_areas(polygons[0] if len(polygons) == 1 else MultiPolygon(polygons))


def keep_areas(shape: Polygon | MultiPolygon) -> Polygon | MultiPolygon | None:
    """The same area as a valid polygon; None if there is none.

    What lies in several parts counts once, and a hole takes away what it covers.
    """
    if shape.is_valid and isinstance(shape, Polygon | MultiPolygon):
        return shape if shape.area > 0 else None
    parts = [_mend(part) for part in _polygons(shape)]
    whole = parts[0] if len(parts) == 1 else shapely.union_all(parts)
    areas = [part for part in _polygons(whole) if part.area > 0]
    return areas[0] if len(areas) == 1 else MultiPolygon(areas) if areas else None


def split_rings(polygon: Polygon | MultiPolygon) -> list[list[Ring]]:
    """Rings of every part, the outer one first and in the other sense than holes."""
    return [
        [shapely.get_coordinates(ring) for ring in shapely.get_rings(part)]
        for part in map(orient, shapely.get_parts(polygon))
    ]


def outline_areas(polygons: Sequence[Polygon | MultiPolygon]) -> list[float]:
    """Area of each, as files keep it for `is_resized`."""
    rounded = shapely.transform(
        np.array(polygons, dtype=object), lambda points: np.round(points, _DECIMALS)
    )
    areas: list[float] = np.round(shapely.area(rounded), 2).tolist()
    return areas


def is_resized(polygon: Polygon | MultiPolygon, before: Any) -> bool:
    """Whether the area is another than `outline_areas` said when it was written."""
    try:
        change = abs(polygon.area - float(before))
    except (TypeError, ValueError):
        return False
    return bool(change > _ROUNDED * polygon.length)


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
    return keep_areas(Polygon(ring)) if _has_corners(ring) else None


def _has_corners(ring: Ring) -> bool:
    return len(np.unique(ring, axis=0)) > 2


def _mend(part: Polygon) -> Polygon | MultiPolygon:
    """The outline without its holes, wherever they are, as a valid shape."""
    if part.is_valid:
        return part
    outside, *holes = (
        MultiPolygon(_polygons(shapely.make_valid(Polygon(ring))))
        for ring in shapely.get_rings(part)
    )
    return outside - shapely.union_all(holes) if holes else outside


def _polygons(shape: Any) -> list[Polygon]:
    parts = shapely.get_parts(shapely.get_parts(shape))
    return [part for part in parts if isinstance(part, Polygon)]

"""Mask to polygon and back, exactly, with everything that is lost counted.

Coordinates are ``(y, x)`` pixel centres: pixel ``i`` is centred on ``i`` and reaches
from ``i - 0.5`` to ``i + 0.5``. An outline runs half-way between the pixel centres
inside and those outside (marching squares at 0.5), so it never passes through a
centre and a single pixel is a diamond of area 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import shapely
from scipy import ndimage
from shapely import MultiPolygon, Polygon

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.outlines import signed_area, trace_outlines
from napari_sam_suite.engine.raster import rasterise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Parts", "Traced", "limit_tolerance", "polygonise", "rasterise"]

Parts = Literal["largest", "main", "all"]

_SPECKS = 0.005
"""Part of a mask that islands too small to matter may make up together."""
_TOUCHING = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, slots=True)
class Traced:
    """One mask as a polygon, and what had to go.

    Attributes
    ----------
    polygon : Polygon, MultiPolygon or None
        Outline with holes in ``(y, x)`` pixel centres; `None` when nothing is left.
    pixels : int
        Of the mask.
    dropped_parts, dropped_pixels : int
        Islands that were left out, and how many pixels they had.
    filled_holes, filled_pixels : int
        Holes that were closed, and how many pixels they had.
    reason : {"", "empty", "padding"}
        Why nothing is left: the mask had no pixel, or shrinking removed it all.
    """

    polygon: Polygon | MultiPolygon | None
    pixels: int = 0
    dropped_parts: int = 0
    dropped_pixels: int = 0
    filled_holes: int = 0
    filled_pixels: int = 0
    reason: Literal["", "empty", "padding"] = ""


def polygonise(
    crop: NDArray[Any],
    origin: tuple[int, int] = (0, 0),
    *,
    smoothing: float = 0.3,
    padding: float = 0.0,
    parts: Parts = "largest",
    min_hole: float = 0,
    shape: tuple[int, int] | None = None,
) -> Traced:
    """Trace a mask into a valid polygon with holes.

    Parameters
    ----------
    crop : (h, w) array of bool
        The mask, or the part of a larger mask that holds all its pixels.
    origin : tuple of int
        ``(y, x)`` of the crop's first pixel in the image.
    smoothing : float
        Douglas-Peucker tolerance in px, limited by `limit_tolerance` so that small
        objects keep their form. At 0 the polygon gives back the mask exactly.
    padding : float
        Grow (positive) or shrink (negative) the outline by this many px.
    parts : {"largest", "main", "all"}
        Keep the island with most pixels, or all of them as one MultiPolygon, or all
        but the smallest, which together are no more than a 200th of the mask. Pixels
        that touch at a corner belong to the same island.
    min_hole : float
        Fill holes with fewer pixels than this; ``math.inf`` fills every hole.
    shape : tuple of int, optional
        ``(H, W)`` of the image: a grown outline is cut at its border.

    Returns
    -------
    Traced
        The polygon and the count of all that is not in it.

    Raises
    ------
    ParameterError
        If the mask is not 2-D or a parameter makes no sense.
    """
    mask = np.asarray(crop, dtype=bool)
    _check(mask, smoothing, padding, parts)
    pixels = int(np.count_nonzero(mask))
    if not pixels:
        return Traced(None, reason="empty")
    polygons, lost = _trace(mask, parts, min_hole)
    if any(origin):
        polygons = [_shift(polygon, origin) for polygon in polygons]
    if padding:
        # A staircase has five times the vertices, and growing it takes as much longer.
        polygons = [_simplify_island(p, min(smoothing, 0.3)) for p in polygons]
        polygons, lost = _pad(polygons, padding, parts, shape, lost)
    if not polygons:
        return Traced(None, pixels, reason="padding")
    return replace(lost, polygon=_simplify(polygons, smoothing), pixels=pixels)


def limit_tolerance(polygon: Polygon, smoothing: float) -> float:
    """Largest simplification tolerance that leaves an object its form, in px.

    ``min(smoothing, max(0.3, 0.08 * 2 * area / perimeter))``. The last factor is the
    radius of a disc and about the width of a rod. It keeps 12 or more vertices and an
    IoU of at least 0.95 on discs of radius 1 to 40 and on rods, where a tolerance of
    3 px leaves a disc of radius 10 five vertices and an IoU of 0.70. Up to 0.3 px
    nothing is limited.
    """
    if smoothing <= 0.3:
        return smoothing
    width: float = 2 * polygon.area / polygon.length
    return min(smoothing, max(0.3, 0.08 * width))


def _check(
    mask: NDArray[np.bool_], smoothing: float, padding: float, parts: str
) -> None:
    if mask.ndim != 2:
        raise ParameterError(
            f"A mask must have two dimensions, this one has {mask.ndim}.",
            "Pass one object of one frame at a time.",
        )
    if not (math.isfinite(smoothing) and smoothing >= 0):
        raise ParameterError(
            f"Smoothing must be 0 or more pixels, not {smoothing}.", "Try 0.3."
        )
    if not math.isfinite(padding):
        raise ParameterError(f"Padding must be a number of pixels, not {padding}.")
    if parts not in get_args(Parts):
        raise ParameterError(
            f"Parts must be 'largest', 'main' or 'all', not {parts!r}.",
            "Use 'all' to keep every island of a mask.",
        )


def _trace(
    mask: NDArray[np.bool_], parts: Parts, min_hole: float
) -> tuple[list[Polygon], Traced]:
    """Polygons of the islands to keep, and what else there was."""
    rings = trace_outlines(mask)
    if len(rings) == 1:
        return [Polygon(rings[0])], Traced(None)
    lost = Traced(None)
    islands = sum(signed_area(ring) < 0 for ring in rings)
    if islands > 1 and parts != "all":
        mask, kept, pixels = _keep_islands(mask, parts)
        lost = Traced(None, dropped_parts=islands - kept, dropped_pixels=pixels)
        islands = kept
        rings = trace_outlines(mask)
    if min_hole > 0:
        mask, holes, pixels = _fill_holes(mask, min_hole)
        lost = replace(lost, filled_holes=holes, filled_pixels=pixels)
        rings = trace_outlines(mask)
    if islands == 1:
        return [_assemble(rings)], lost
    labels, _ = ndimage.label(mask, _TOUCHING)
    return [
        _shift(
            _assemble(trace_outlines(labels[window] == index)),
            (window[0].start, window[1].start),
        )
        for index, window in enumerate(ndimage.find_objects(labels), start=1)
    ], lost


def _assemble(rings: list[NDArray[np.float64]]) -> Polygon:
    """Polygon of the rings of a single island."""
    outside = [ring for ring in rings if signed_area(ring) < 0]
    return Polygon(outside[0], [ring for ring in rings if signed_area(ring) > 0])


def _keep_islands(
    mask: NDArray[np.bool_], parts: Parts
) -> tuple[NDArray[np.bool_], int, int]:
    """The islands to keep, how many they are, and the number of pixels elsewhere."""
    labels, _ = ndimage.label(mask, _TOUCHING)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if parts == "largest":
        kept = np.arange(len(sizes)) == sizes.argmax()
    else:
        order = np.argsort(sizes)  # the background first, with nothing
        specks = np.cumsum(sizes[order]) <= _SPECKS * sizes.sum()
        kept = np.ones(len(sizes), bool)
        kept[order[specks]] = False
    return kept[labels], int(kept.sum()), int(sizes[~kept].sum())


def _fill_holes(
    mask: NDArray[np.bool_], min_hole: float
) -> tuple[NDArray[np.bool_], int, int]:
    background, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    sizes = np.bincount(background.ravel())
    small = sizes < min_hole
    small[[0, background[0, 0]]] = False
    filled = mask | small[background[1:-1, 1:-1]]
    return filled, int(small.sum()), int(sizes[small].sum())


def _pad(
    polygons: list[Polygon],
    padding: float,
    parts: Parts,
    shape: tuple[int, int] | None,
    lost: Traced,
) -> tuple[list[Polygon], Traced]:
    grown = _merge(polygons).buffer(padding)
    if shape is not None and padding > 0:
        frame = shapely.box(-0.5, -0.5, shape[0] - 0.5, shape[1] - 0.5)
        grown = grown if frame.contains(grown) else grown.intersection(frame)
    kept = _polygons(grown)
    gone = [polygon for polygon in polygons if not polygon.intersects(grown)]
    if parts == "largest" and len(kept) > 1:
        kept.sort(key=lambda polygon: -polygon.area)
        kept, small = kept[:1], kept[1:]
        gone += small
    voids = [Polygon(ring) for polygon in polygons for ring in polygon.interiors]
    closed = [void for void in voids if grown.contains(void)]
    return kept, replace(
        lost,
        dropped_parts=lost.dropped_parts + len(gone),
        dropped_pixels=lost.dropped_pixels + _area(gone),
        filled_holes=lost.filled_holes + len(closed),
        filled_pixels=lost.filled_pixels + _area(closed),
    )


def _area(polygons: list[Polygon]) -> int:
    return round(sum(float(polygon.area) for polygon in polygons))


def _simplify(polygons: list[Polygon], smoothing: float) -> Polygon | MultiPolygon:
    # Islands are 1 px apart or more, so at 0.3 px they cannot run into each other.
    for tolerance in (smoothing, min(smoothing, 0.3)):
        merged = _merge([_simplify_island(p, tolerance) for p in polygons])
        if len(polygons) == 1 or merged.is_valid:
            return merged
    return _merge(polygons)


def _simplify_island(polygon: Polygon, smoothing: float) -> Polygon:
    if not smoothing:
        return polygon
    tolerance = limit_tolerance(polygon, smoothing)
    # The plain algorithm is 20 times faster and right in nearly all cases.
    plain = polygon.simplify(tolerance, preserve_topology=False)
    if (
        isinstance(plain, Polygon)
        and not plain.is_empty
        and len(plain.interiors) == len(polygon.interiors)
        and plain.is_valid
    ):
        return plain
    careful = polygon.simplify(tolerance, preserve_topology=True)
    return careful if careful.is_valid and not careful.is_empty else polygon


def _shift(
    polygon: Polygon | MultiPolygon, by: tuple[int, int]
) -> Polygon | MultiPolygon:
    return shapely.transform(polygon, lambda points: points + by)


def _merge(polygons: Sequence[Polygon]) -> Polygon | MultiPolygon:
    return polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)


def _polygons(geometry: Any) -> list[Polygon]:
    """Polygons with an area in what GEOS gave back."""
    return [
        part
        for part in shapely.get_parts(geometry)
        if isinstance(part, Polygon) and part.area > 0
    ]

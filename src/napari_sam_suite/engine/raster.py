"""Polygons as pixels, by scanline filling.

A pixel is inside when its centre is within the polygon or on its edge, and a centre on
the edge of a hole belongs to the object. For polygons without holes the result is that
of `skimage.draw.polygon`, but the time grows with outline plus area instead of with
their product: 0.04 s instead of 50 s for an object of 1800 px.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from shapely import MultiPolygon, Polygon

Window = tuple[slice, slice]

# Far below a pixel and far above the rounding of a coordinate of 1e6.
_ON_EDGE = 1e-9
# Pixels to draw at a time: bounds the memory, not the result.
_BATCH = 2**23


class _Spans(NamedTuple):
    """Runs of pixels inside: whose, in which row, from where to before where."""

    owner: NDArray[np.int64]
    row: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]


def rasterise(
    polygon: Polygon | MultiPolygon | None,
    shape: tuple[int, int],
    offset: tuple[int, int] = (0, 0),
) -> NDArray[np.bool_]:
    """Draw a polygon as a mask.

    Parameters
    ----------
    polygon : Polygon, MultiPolygon or None
        In ``(y, x)`` pixel centres.
    shape : tuple of int
        ``(h, w)`` of the mask.
    offset : tuple of int
        ``(y, x)`` of the mask's first pixel in the polygon's coordinates.

    Returns
    -------
    (h, w) array of bool
    """
    mask = np.zeros(shape, dtype=bool)
    if polygon is not None and not polygon.is_empty:
        spans = _find_spans([polygon], shape, offset)
        mask.ravel()[_pixels(spans, shape[1])] = True
    return mask


def draw_labels(
    polygons: Sequence[Polygon | MultiPolygon],
    numbers: NDArray[np.integer],
    shape: tuple[int, int],
) -> NDArray[np.uint16] | NDArray[np.uint32]:
    """Draw polygons as a label image, later ones on top of earlier ones.

    Parameters
    ----------
    polygons : sequence of Polygon or MultiPolygon
        In ``(y, x)`` pixel centres.
    numbers : (n,) array of int
        What to draw each with, 1 or more.
    shape : tuple of int
        ``(H, W)``.

    Returns
    -------
    (H, W) array
        uint16, or uint32 where numbers exceed 65535; 0 where there is no polygon.
    """
    wide = int(numbers.max(initial=0)) >= 2**16
    labels = np.zeros(shape, dtype=np.uint32 if wide else np.uint16)
    flat = labels.ravel()
    for batch in _batches(polygons, shape):
        spans = _find_spans(polygons[batch], shape)
        pixels = _pixels(spans, shape[1])
        ends = np.cumsum(np.bincount(spans.owner, spans.stop - spans.start)).astype(int)
        # One after the other: numpy does not say which of two values it keeps.
        begin = 0
        for number, end in zip(numbers[batch].tolist(), ends.tolist(), strict=False):
            flat[pixels[begin:end]] = number
            begin = end
    return labels


def rasterise_each(
    polygons: Sequence[Polygon | MultiPolygon], shape: tuple[int, int]
) -> Iterator[tuple[NDArray[np.bool_], tuple[int, int]]]:
    """Draw many polygons, each as the smallest crop that holds all its pixels.

    Parameters
    ----------
    polygons : sequence of Polygon or MultiPolygon
        In ``(y, x)`` pixel centres.
    shape : tuple of int
        ``(H, W)`` of the image.

    Yields
    ------
    (h, w) array of bool
        The mask; ``(0, 0)`` for a polygon without pixels.
    tuple of int
        ``(y, x)`` of its first pixel.
    """
    for batch in _batches(polygons, shape):
        spans = _find_spans(polygons[batch], shape)
        ends = np.searchsorted(spans.owner, np.arange(batch.stop - batch.start + 1))
        for begin, end in itertools.pairwise(ends.tolist()):
            own = _Spans(*(column[begin:end] for column in spans))
            if begin == end:
                yield np.zeros((0, 0), dtype=bool), (0, 0)
                continue
            top, left = int(own.row.min()), int(own.start.min())
            size = (int(own.row.max()) + 1 - top, int(own.stop.max()) - left)
            moved = own._replace(
                row=own.row - top, start=own.start - left, stop=own.stop - left
            )
            mask = np.zeros(size, dtype=bool)
            mask.ravel()[_pixels(moved, size[1])] = True
            yield mask, (top, left)


def pixel_window(
    polygon: Polygon | MultiPolygon, shape: tuple[int, int]
) -> Window | None:
    """Smallest window of an image that holds all pixel centres of a polygon.

    Parameters
    ----------
    polygon : Polygon or MultiPolygon
        In ``(y, x)`` pixel centres.
    shape : tuple of int
        ``(H, W)`` of the image.

    Returns
    -------
    tuple of slice, or None
        Rows and columns; `None` when the polygon covers no pixel of the image.
    """
    if polygon.is_empty:
        return None
    top, left, bottom, right = polygon.bounds
    y0, x0 = (max(0, math.ceil(v - _ON_EDGE)) for v in (top, left))
    y1 = min(shape[0], math.floor(bottom + _ON_EDGE) + 1)
    x1 = min(shape[1], math.floor(right + _ON_EDGE) + 1)
    return (slice(y0, y1), slice(x0, x1)) if y0 < y1 and x0 < x1 else None


def count_pixels(polygon: Polygon | MultiPolygon, shape: tuple[int, int]) -> int:
    """Number of pixels of an image that `rasterise` draws.

    Parameters
    ----------
    polygon : Polygon or MultiPolygon
        In ``(y, x)`` pixel centres.
    shape : tuple of int
        ``(H, W)`` of the image.

    Returns
    -------
    int
    """
    window = pixel_window(polygon, shape)
    if window is None:
        return 0
    rows, columns = window
    size = (rows.stop - rows.start, columns.stop - columns.start)
    return int(rasterise(polygon, size, (rows.start, columns.start)).sum())


def _batches(
    polygons: Sequence[Polygon | MultiPolygon], shape: tuple[int, int]
) -> Iterator[slice]:
    """Slices of the sequence whose bounding boxes together have few pixels."""
    if not len(polygons):
        return
    if len(polygons) * shape[0] * shape[1] <= _BATCH:
        yield slice(0, len(polygons))
        return
    low, high = np.split(shapely.bounds(np.asarray(polygons)), 2, axis=1)
    sides = np.minimum(high, shape) - np.maximum(low, 0) + 1
    sizes = np.nan_to_num(np.prod(np.maximum(sides, 0), axis=1))
    batch = np.cumsum(sizes) // _BATCH
    starts = [0, *(np.flatnonzero(np.diff(batch)) + 1).tolist(), len(polygons)]
    for start, stop in itertools.pairwise(starts):
        yield slice(start, stop)


def _pixels(spans: _Spans, width: int) -> NDArray[np.int64]:
    """Flat indices of all pixels of all spans, in their order."""
    length = spans.stop - spans.start
    first = spans.row * width + spans.start - (np.cumsum(length) - length)
    pixels: NDArray[np.int64] = np.repeat(first, length) + np.arange(length.sum())
    return pixels


def _find_spans(
    polygons: Sequence[Polygon | MultiPolygon],
    shape: tuple[int, int],
    offset: tuple[int, int] = (0, 0),
) -> _Spans:
    """Spans of all polygons, sorted by polygon; some pixels come twice.

    A row crosses closed rings an even number of times if each edge owns just one of
    its ends. Doing it once with the upper and once with the lower ends includes every
    centre that lies on an edge. What is within an odd number of rings is inside.
    """
    (y0, x0), (y1, x1), owner = _edges(polygons, offset)
    upper = _crossings(np.ceil(y0), np.ceil(y1) - 1, shape[0])
    lower = _crossings(np.floor(y0) + 1, np.floor(y1), shape[0])
    found = []
    for edge, row in (upper, lower):
        x = x0[edge] + (row - y0[edge]) * ((x1 - x0)[edge] / (y1 - y0)[edge])
        whose = owner[edge]
        order = np.lexsort((x, row, whose))
        x, first = x[order], order[::2]
        start = np.maximum(np.ceil(x[::2] - _ON_EDGE), 0).astype(np.int64)
        stop = np.minimum(np.floor(x[1::2] + _ON_EDGE) + 1, shape[1]).astype(np.int64)
        inside = stop > start
        part = (whose[first], row[first].astype(np.int64), start, stop)
        found.append([column[inside] for column in part])
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return _Spans(*(column[order] for column in columns))


def _edges(
    polygons: Sequence[Polygon | MultiPolygon], offset: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Upper and lower ends of all edges, each (2, n), and whose they are."""
    parts, of_part = shapely.get_parts(np.asarray(polygons), return_index=True)
    rings, of_ring = shapely.get_rings(parts, return_index=True)
    points, of_point = shapely.get_coordinates(rings, return_index=True)
    joined = of_point[:-1] == of_point[1:]
    points = points - offset
    start, end = points[:-1][joined], points[1:][joined]
    downward = start[:, :1] <= end[:, :1]
    upper, lower = np.where(downward, start, end), np.where(downward, end, start)
    return upper.T, lower.T, of_part[of_ring[of_point[:-1][joined]]]


def _crossings(
    first: NDArray[np.float64], last: NDArray[np.float64], height: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Edge and row of each row from first to last that an edge crosses."""
    first, last = np.maximum(first, 0), np.minimum(last, height - 1)
    count = np.maximum(last - first + 1, 0).astype(np.int64)
    edge = np.repeat(np.arange(len(count)), count)
    begin = np.repeat(np.cumsum(count) - count, count)
    return edge, first[edge] + (np.arange(len(edge)) - begin)

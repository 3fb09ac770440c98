"""Objects as the data of a Shapes layer, and back.

A hole, or a second part, is one more closed ring in the vertices of the same shape,
which is how napari draws them. From the second such ring on, the first vertex comes
again before each, so that every way from ring to ring is there twice and cancels out.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

from napari_sam_suite.engine.features import COLUMNS, UNASSIGNED
from napari_sam_suite.engine.formats.colours import tag_colour
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.widgets.layers import KEY, guess_axes
from napari_sam_suite.widgets.placement import Placement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Vertices = NDArray[np.float32]

EDGE = 1.5
_UNTAGGED = (64, 224, 208)
_CLEAR = [0.0, 0.0, 0.0, 0.0]
_ELLIPSE = 64
_BLANK = {"b": False, "i": 0, "u": 0, "f": np.nan}
_ROUGH = 1.0
"""Pixels along its outline by which an area differs that is counted in pixels."""


def to_vertices(objects: Objects, placement: Placement) -> list[Vertices]:
    """Vertices of every object, (N, ndim) float32, in data coordinates."""
    table = objects.features
    frames = np.stack([table[axis] for axis in FrameIndex._fields], 1)
    return polygon_vertices(objects.polygons, frames, placement)


def polygon_vertices(
    polygons: Sequence[Polygon | MultiPolygon] | NDArray[np.object_],
    frames: NDArray[np.int64],
    placement: Placement,
) -> list[Vertices]:
    """Vertices of polygons (y, x), each in its frame, a row of (N, 3) `frames`."""
    parts, of_object = shapely.get_parts(
        np.asarray(polygons, object), return_index=True
    )
    rings, of_part = shapely.get_rings(parts, return_index=True)
    points, of_ring = shapely.get_coordinates(rings, return_index=True)
    of_object = of_object[of_part]
    places, which = np.unique(frames, axis=0, return_inverse=True)
    leading = [placement.at(FrameIndex(*place)) for place in places.tolist()]
    vertices = np.empty((len(points), len(placement.axes)), np.float32)
    of_point = which.reshape(-1)[of_object[of_ring]]
    vertices[:, :-2] = np.array(leading, np.float32).reshape(
        len(places), len(placement.axes) - 2
    )[of_point]
    vertices[:, -2:] = points
    ends = np.cumsum(np.bincount(of_ring, minlength=len(rings)))
    closed = np.split(vertices, ends[:-1])
    firsts = np.searchsorted(of_object, np.arange(len(polygons) + 1)).tolist()
    return [_join(closed[start:stop]) for start, stop in itertools.pairwise(firsts)]


def is_as_drawn(vertices: Vertices, now: NDArray[Any]) -> bool:
    """Whether a shape still has the vertices that it was drawn with."""
    same = vertices.shape == now.shape
    return same and bool(np.allclose(vertices, now, atol=1e-3))


def layer_options(
    objects: Objects, placement: Placement, name: str, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Keyword arguments of a Shapes layer that shows objects.

    Parameters
    ----------
    objects : Objects
        Also those of no polygon.
    placement : Placement
        Of the image they are from.
    name : str
        Of the layer.
    about : mapping
        Kept in the layer's metadata under `KEY`.
    """
    tags = objects.features["tag"].tolist()
    return {
        "name": name,
        "ndim": len(placement.axes),
        "shape_type": "polygon",
        "features": objects.features,
        "feature_defaults": defaults(objects.features),
        "edge_width": EDGE,
        "edge_color": colours(tags) if tags else [c / 255 for c in _UNTAGGED],
        "face_color": _CLEAR,
        "opacity": 1.0,
        "metadata": {KEY: {"axes": placement.axes, **about}},
        **placement.options,
    }


def colours(
    tags: Iterable[str], chosen: Mapping[str, str] | None = None
) -> NDArray[np.float32]:
    """RGBA of every object, by its tag.

    Parameters
    ----------
    tags : iterable of str
        One per object.
    chosen : mapping, optional
        Tags that have a colour of the user's, ``#rrggbb``.
    """
    known: dict[str, list[float]] = {}
    for tag, colour in (chosen or {}).items():
        known[tag] = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] + [1.0]
    rows = []
    for tag in tags:
        if tag not in known:
            rgb = _UNTAGGED if tag == UNASSIGNED else tag_colour(tag)
            known[tag] = [c / 255 for c in rgb] + [1.0]
        rows.append(known[tag])
    return np.array(rows, np.float32).reshape(-1, 4)


def defaults(features: pd.DataFrame) -> dict[str, Any]:
    """Features of a shape that is drawn by hand: one value for each column."""
    known = {name: unknown for name, (_, unknown) in COLUMNS.items()}
    return {
        name: [known.get(name, _BLANK.get(values.dtype.kind, ""))]
        for name, values in features.items()
    }


def to_objects(
    data: Sequence[NDArray[Any]],
    kinds: Sequence[str],
    features: pd.DataFrame,
    placement: Placement,
    source: Mapping[str, Any] | None = None,
) -> Objects:
    """Objects of the shapes of a layer.

    Parameters
    ----------
    data : sequence of ndarray, shape (N, ndim)
        Vertices in data coordinates.
    kinds : sequence of str
        Of each shape; lines and paths have no area and are left out.
    features : DataFrame
        One row per shape, or none. Its `area` does not count where a person has drawn
        the outline larger or smaller meanwhile.
    placement : Placement
        Meaning of the axes.
    source : mapping, optional
        Kept with the objects.
    """
    polygons, rows, frames = [], [], []
    for row, (vertices, kind) in enumerate(zip(data, kinds, strict=True)):
        polygon = _polygon(np.asarray(vertices, np.float64), kind)
        if polygon is not None:
            polygons.append(polygon)
            rows.append(row)
            frames.append(placement.frame(vertices[0][:-2]))
    table = features.iloc[rows] if len(features) == len(data) else features.iloc[:0]
    table = _without_stale_areas(table.reset_index(drop=True), polygons)
    if not len(table.columns):
        objects = Objects(polygons, source=dict(source or {}))
    else:
        objects = Objects(polygons, table, dict(source or {}))
    columns = zip(*frames, strict=True) if frames else ((), (), ())
    return objects.with_features(
        **{
            axis: np.array(values, np.int64)
            for axis, values in zip(FrameIndex._fields, columns, strict=True)
        }
    )


def _without_stale_areas(table: pd.DataFrame, polygons: Sequence[Any]) -> pd.DataFrame:
    """Areas are not known where the outline is another than it was found with."""
    if "area" not in table.columns:
        return table
    areas, lengths = shapely.area(polygons), shapely.length(polygons)
    changed = np.abs(table["area"].to_numpy() - areas) > _ROUGH * lengths + 1
    return table.assign(area=table["area"].where(~changed, COLUMNS["area"][1]))


def placement_of(meta: Mapping[str, Any]) -> Placement:
    """Placement of a layer from its own options, or from its metadata.

    Parameters
    ----------
    meta : mapping
        As napari gives it to a writer: ``metadata``, ``axis_labels``, ``scale``...
    """
    about = (meta.get("metadata") or {}).get(KEY) or {}
    names = ("scale", "translate", "units", "axis_labels")
    options = {name: meta[name] for name in names if name in meta}
    axes = about.get("axes") or guess_axes(list(meta.get("axis_labels") or "yx"))
    return Placement(str(axes), options)


def _join(rings: Sequence[Vertices]) -> Vertices:
    """One shape of the closed rings of one object."""
    if len(rings) == 1:
        # napari closes a single ring itself
        return rings[0][:-1]
    back = rings[0][:1]
    joined = [rings[0]]
    for number, ring in enumerate(rings[1:]):
        # a ring that touches there begins elsewhere, or it would look like the way back
        if (ring[0] == back).all():
            ring = np.concatenate([ring[1:], ring[1:2]])
        joined += [back, ring] if number else [ring]
    return np.concatenate(joined)


def _polygon(vertices: NDArray[np.float64], kind: str) -> Any:
    """Polygon of one shape in (y, x), or None where it has no area."""
    points = vertices[:, -2:]
    if kind in ("line", "path") or not np.isfinite(points).all():
        return None
    if kind == "ellipse":
        points = _ellipse(points)
    rings = [ring for ring in _rings(points) if len(np.unique(ring, axis=0)) > 2]
    if not rings:
        return None
    whole = Polygon(rings[0], rings[1:])
    if not whole.is_valid:
        parts = [shapely.make_valid(Polygon(ring)) for ring in rings]
        whole = _areas(functools.reduce(shapely.symmetric_difference, parts))
    return whole if whole.area > 0 else None


def _rings(points: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    rings: list[NDArray[np.float64]] = []
    start = 0
    while start < len(points):
        if rings and (points[start] == points[0]).all():
            start += 1  # the way back between two rings
            continue
        again = np.flatnonzero((points[start + 1 :] == points[start]).all(1))
        end = start + 1 + int(again[0]) if len(again) else len(points) - 1
        rings.append(points[start : end + 1])
        start = end + 1
    return rings


def _areas(shape: Any) -> Polygon | MultiPolygon:
    parts = [
        part
        for part in shapely.get_parts(shapely.get_parts(shape))
        if isinstance(part, Polygon) and part.area > 0
    ]
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def _ellipse(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Outline of the ellipse in a rectangle of four corners."""
    centre = corners.mean(0)
    one, other = (corners[1] - corners[0]) / 2, (corners[2] - corners[1]) / 2
    angle = np.linspace(0, 2 * np.pi, _ELLIPSE, endpoint=False)[:, None]
    points: NDArray[np.float64] = centre + np.cos(angle) * one + np.sin(angle) * other
    return points

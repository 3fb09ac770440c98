"""GeoJSON as QuPath reads and writes it.

Each object is a Feature: the tag is its classification, numbers are measurements,
texts are metadata, time and z are the plane of the geometry, and the id is the one
QuPath shows, so all of it outlives a visit to QuPath (0.4 or later). Other programs
read the outlines.

QuPath counts from the top left corner of the image, so pixel `i` reaches from `i` to
``i + 1``, while the engine counts from pixel centres: 0.5 is added on writing and
taken off on reading, and the order of the axes changes from ``(y, x)`` to ``(x, y)``.
The key ``napari_sam_suite`` of the collection says so, and holds what GeoJSON has no
place for: column types, and the source of the objects.

One of the texts is the area of the outline as it was written. Where it is another when
the file is read, somebody has changed the outline, and `area` is what it is now.
"""

from __future__ import annotations

import json
import logging
import math
import mmap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
from shapely import MultiPolygon, Polygon

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.features import COLUMNS, UNASSIGNED
from napari_sam_suite.engine.formats.atomic import replacing
from napari_sam_suite.engine.formats.colours import tag_colour
from napari_sam_suite.engine.formats.jsonfile import parse_json
from napari_sam_suite.engine.formats.rings import (
    is_resized,
    keep_areas,
    outline_areas,
)
from napari_sam_suite.engine.formats.tables import column_types, plain, to_table
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Literal

log = logging.getLogger(__name__)

_KEY = "napari_sam_suite"
_VERSION = 1
_HEADER = 2**20
"""Bytes that hold all that a file says of itself."""
_CORNER = 0.5
_CONVENTION = (
    "x, y in pixels from the top left corner of the image: "
    "pixel i reaches from i to i + 1"
)
# QuPath itself keeps 2 decimals; 4 keep a float32 of up to 1000 px exactly enough.
_DECIMALS = 4
# Not features of the object, but how it is shown or handled in QuPath.
_RESERVED = {
    "objectType", "object_type", "type", "classification", "measurements", "metadata",
    "color", "isLocked", "isMissing", "childObjects", "children",
}  # fmt: skip
_KINDS = ("FeatureCollection", "Feature", "Polygon", "MultiPolygon")
_PLACED = {"id", "tag", "time", "z"}
_AREA = f"{_KEY}_area"


def write(
    objects: Objects,
    path: Path,
    *,
    object_type: Literal["annotation", "detection"] = "detection",
) -> None:
    """Write objects as a FeatureCollection, whole or not at all.

    Parameters
    ----------
    objects : Objects
        Of any number of frames. GeoJSON has no place for the position of a frame, so
        it becomes a measurement.
    path : Path
        Where the file shall be.
    object_type : {"annotation", "detection"}
        What QuPath makes of them. Detections are what its own cell detection makes:
        it shows and measures tens of thousands of them, and trains classifiers on
        their measurements. Annotations can be edited by hand there, but become slow
        beyond some hundreds.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    ours = {
        "version": _VERSION,
        "coordinates": _CONVENTION,
        "offset": _CORNER,
        "columns": column_types(objects.features),
        "source": objects.source,
    }
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection",\n')
        file.write(f'"{_KEY}": {json.dumps(ours, default=plain)},\n"features": [')
        comma = "\n"
        for feature in _features(objects, object_type):
            file.write(comma + json.dumps(feature, allow_nan=False))
            comma = ",\n"
        file.write("\n]}\n")


def read(path: Path) -> Objects:
    """Read objects from GeoJSON, from here, from QuPath or from elsewhere.

    Files of others are taken as QuPath writes them, with pixel corners. Geometries
    without an area are left out; the log and ``source["skipped"]`` say how many.

    Parameters
    ----------
    path : Path
        A FeatureCollection, a Feature, or a list of Features.

    Raises
    ------
    ParameterError
        If the file is missing or is no GeoJSON.
    """
    return from_document(parse_json(path), path.name)


def from_document(document: Any, name: str) -> Objects:
    """Objects of a parsed file that is called `name`; see `read`."""
    ours = document.get(_KEY) if isinstance(document, dict) else None
    ours = ours if isinstance(ours, dict) else {}
    offset = float(ours.get("offset", _CORNER))
    polygons, rows, skipped = [], [], 0
    for feature in _unpack(document, name):
        polygon = _to_polygon(feature.get("geometry"), offset, name)
        if polygon is None:
            skipped += 1
        else:
            polygons.append(polygon)
            rows.append(_to_row(feature, polygon))
    source = dict(ours.get("source") or {})
    if skipped:
        log.warning("%s: %d features without an area left out", name, skipped)
        source["skipped"] = skipped
    return Objects(polygons, to_table(rows, ours.get("columns") or {}), source)


def origin(path: Path) -> dict[str, Any] | None:
    """The source that a file names, without reading its objects.

    Returns
    -------
    dict or None
        None if the file was not written here; empty if it names no source.
    """
    key = f'"{_KEY}"'.encode()
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            # Another program may have put it after the objects.
            start = data.find(key)
            header = data[start + len(key) : start + _HEADER].decode(errors="replace")
    except OSError:
        return None
    if start < 0:
        return None
    try:
        ours, _ = json.JSONDecoder().raw_decode(header.lstrip(" :\r\n\t"))
    except ValueError:
        return {}
    source = ours.get("source") if isinstance(ours, dict) else None
    return source if isinstance(source, dict) else {}


def is_geojson(document: Any) -> bool:
    """Tell whether a parsed file is GeoJSON, or a list of its Features."""
    if isinstance(document, dict):
        return document.get("type") in _KINDS
    return (
        isinstance(document, list)
        and bool(document)
        and all(isinstance(f, dict) and f.get("type") == "Feature" for f in document)
    )


def _features(objects: Objects, object_type: str) -> Iterator[dict[str, Any]]:
    records = objects.features.to_dict("records")
    areas = outline_areas(objects.polygons)
    for polygon, row, area in zip(objects.polygons, records, areas, strict=True):
        geometry = _to_geometry(polygon)
        if row["time"] or row["z"]:
            # -1 means all channels.
            geometry["plane"] = {"c": -1, "z": int(row["z"]), "t": int(row["time"])}
        properties: dict[str, Any] = {"objectType": object_type}
        if row["tag"] != UNASSIGNED:
            colour = list(tag_colour(row["tag"]))
            properties["classification"] = {"name": row["tag"], "color": colour}
        numbers, texts = _split(row)
        if numbers:
            properties["measurements"] = numbers
        properties["metadata"] = texts | {_AREA: str(area)}
        yield {
            "type": "Feature",
            "id": row["id"],
            "geometry": geometry,
            "properties": properties,
        }


def _split(row: dict[Any, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Numbers and texts of a row, without what is not known."""
    numbers: dict[str, float] = {}
    texts: dict[str, str] = {}
    for name, value in row.items():
        if name in _PLACED or (name in COLUMNS and value == COLUMNS[name][1]):
            continue
        if isinstance(value, (bool, np.bool_, int, np.integer)):
            numbers[str(name)] = int(value)
        elif isinstance(value, (float, np.floating)):
            if math.isfinite(value):
                numbers[str(name)] = float(value)
            elif math.isinf(value):
                texts[str(name)] = str(float(value))
        elif value is not None and value is not pd.NA and value != "":
            texts[str(name)] = str(value)
    return numbers, texts


def _to_geometry(polygon: Polygon | MultiPolygon) -> dict[str, Any]:
    parts = [
        [
            np.round(
                shapely.get_coordinates(ring)[:, ::-1] + _CORNER, _DECIMALS
            ).tolist()
            for ring in shapely.get_rings(part)
        ]
        for part in shapely.get_parts(polygon)
    ]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _unpack(document: Any, name: str) -> list[dict[str, Any]]:
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection":
        found = document.get("features")
    elif kind == "Feature":
        found = [document]
    elif kind in ("Polygon", "MultiPolygon"):
        found = [{"geometry": document}]
    else:
        found = document
    if not isinstance(found, list) or not all(isinstance(f, dict) for f in found):
        raise ParameterError(
            f"{name} is JSON, but not GeoJSON: it has no list of features.",
            "Use a FeatureCollection, as QuPath exports it.",
        )
    return found


def _to_polygon(
    geometry: Any, offset: float, name: str
) -> Polygon | MultiPolygon | None:
    if not isinstance(geometry, dict):
        return None
    kind: Any = geometry.get("type")
    coordinates: Any = geometry.get("coordinates")
    try:
        if kind == "Polygon":
            shape: Any = _to_part(coordinates, offset)
        elif kind == "MultiPolygon":
            parts = [_to_part(part, offset) for part in coordinates]
            shape = MultiPolygon([p for p in parts if p is not None])
        else:
            return None
    except (TypeError, ValueError, IndexError, shapely.GEOSException) as error:
        raise ParameterError(
            f"{name} has a {kind} whose coordinates make no sense: {error}.",
            "Coordinates must be rings of [x, y] numbers.",
        ) from error
    return None if shape is None else keep_areas(shape)


def _to_part(rings: list[Any], offset: float) -> Polygon | None:
    """Polygon from its rings; `None` where the outer one has no area."""
    points = [np.array(ring, dtype=np.float64)[:, 1::-1] - offset for ring in rings]
    if not all(np.isfinite(ring).all() for ring in points):
        raise ValueError("a coordinate is not a finite number")
    outside, *inside = points or [np.empty((0, 2))]
    if shapely.MultiPoint(outside).convex_hull.area == 0:
        return None
    return Polygon(
        outside, [hole for hole in inside if len(np.unique(hole, axis=0)) > 2]
    )


def _to_row(feature: dict[str, Any], polygon: Polygon | MultiPolygon) -> dict[str, Any]:
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    row = {
        name: value
        for name, value in properties.items()
        if name not in _RESERVED and isinstance(value, (str, int, float, bool))
    }
    for group in ("measurements", "metadata"):
        values = properties.get(group)
        if isinstance(values, list):  # as QuPath wrote them before 0.4
            values = {v.get("name"): v.get("value") for v in values}
        row |= values if isinstance(values, dict) else {}
    if is_resized(polygon, row.pop(_AREA, None)):
        row.pop("area", None)
    plane = feature["geometry"].get("plane")
    if isinstance(plane, dict):
        row |= {"time": plane.get("t", 0), "z": plane.get("z", 0)}
    row["id"] = str(feature.get("id", ""))
    tag = _find_tag(properties)
    if tag:
        row["tag"] = tag
    return row


def _find_tag(properties: dict[str, Any]) -> str:
    group = properties.get("classification")
    if isinstance(group, dict):
        names = group.get("names")
        group = ": ".join(names) if isinstance(names, list) else group.get("name")
    for value in (group, *(properties.get(k) for k in ("tag", "label", "class"))):
        if isinstance(value, str) and value:
            return value
    return ""

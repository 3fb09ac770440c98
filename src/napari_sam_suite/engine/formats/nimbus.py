"""JSON as NimbusImage exports and imports it.

Each outline is an annotation: tags, channel, location (XY, Z and Time counted from 0)
and coordinates without the closing vertex. Objects of one track are connected from
frame to frame, the earlier one as parent.

NimbusImage counts from the top left corner of the image, so pixel `i` reaches from `i`
to ``i + 1``: 0.5 is added on writing and taken off on reading. Its own workers write
pixel centres without that shift, so what they made lies half a pixel up and left.

NimbusImage has neither holes nor parts. There, holes are filled, and each part is an
annotation of its own with the same tags. The key ``napari_sam_suite`` of an annotation
keeps its holes, which part of which object it is, and all other features, so that
this module reads back what it wrote, also with outlines that were changed meanwhile:
holes as far as they are inside, and without the old `area` where it is another now.
"""

from __future__ import annotations

import itertools
import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely import Polygon

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.features import UNASSIGNED
from napari_sam_suite.engine.formats.atomic import replacing
from napari_sam_suite.engine.formats.jsonfile import parse_json
from napari_sam_suite.engine.formats.rings import (
    build_polygon,
    is_resized,
    outline_areas,
    split_rings,
)
from napari_sam_suite.engine.formats.tables import (
    column_types,
    known_values,
    plain,
    to_table,
)
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shapely import MultiPolygon

    from napari_sam_suite.engine.formats.rings import Ring

log = logging.getLogger(__name__)

_KEY = "napari_sam_suite"
_VERSION = 1
_CORNER = 0.5
_DECIMALS = 4
_LOCATION = {"position": "XY", "z": "Z", "time": "Time"}
_PLACED = {"tag", *FrameIndex._fields}
_FURTHER = "further tags"
_TRACK = "track"


class _Piece(NamedTuple):
    """One annotation: rings of one part of an object, and its row of the table.

    `area` is that of all outlines of the object when it was written.
    """

    owner: Any
    rings: list[Ring]
    row: dict[str, Any]
    id: str
    area: Any = None


def write(objects: Objects, path: Path) -> None:
    """Write objects as NimbusImage imports them, whole or not at all.

    Parameters
    ----------
    objects : Objects
        Of any number of frames. Columns `channel` and `further tags` are used.
    path : Path
        Where the file shall be.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    ours = {
        "version": _VERSION,
        "offset": _CORNER,
        "columns": column_types(objects.features),
        "source": objects.source,
    }
    dataset = str(objects.source.get("dataset", ""))
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        file.write(f'{{"{_KEY}": {json.dumps(ours, default=plain)},\n"annotations": [')
        comma = "\n"
        for annotation in _annotations(objects, dataset):
            file.write(comma + json.dumps(annotation, allow_nan=False))
            comma = ",\n"
        file.write('\n],\n"annotationConnections": ')
        file.write(json.dumps(_connections(objects, dataset)))
        file.write(
            ',\n"annotationProperties": [],\n"annotationPropertyValues": {}\n}\n'
        )


def read(path: Path) -> Objects:
    """Read objects from NimbusImage's JSON, from here or from there.

    Points and lines are left out; the log and ``source["skipped"]`` say how many. The
    first tag of an annotation is its tag, the others are in the column `further tags`;
    annotations that are connected have the same number in the column `track`.

    Parameters
    ----------
    path : Path
        An export of annotations, or a list of them.

    Raises
    ------
    ParameterError
        If the file is missing, is of another kind or has coordinates that make no
        sense.
    """
    return from_document(parse_json(path), path.name)


def from_document(document: Any, name: str) -> Objects:
    """Objects of a parsed file that is called `name`; see `read`."""
    if not is_nimbus(document):
        raise ParameterError(
            f"{name} is JSON, but not NimbusImage's: it has no annotations with "
            "coordinates.",
            "Export it with Object, Import/Export, Export to JSON.",
        )
    listed = document if isinstance(document, list) else document["annotations"]
    about = document if isinstance(document, dict) else {}
    ours = about.get(_KEY)
    ours = ours if isinstance(ours, dict) else {}
    offset = float(ours.get("offset", _CORNER))
    try:
        pieces = [
            piece
            for number, one in enumerate(listed)
            if (piece := _to_piece(one, number, offset)) is not None
        ]
        if not ours:
            pieces = _follow(pieces, about.get("annotationConnections") or [])
        polygons, rows = _join(pieces)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, LookupError) else str(error)
        raise ParameterError(
            f"{name} has annotations that make no sense: {reason}.",
            "Export it again from NimbusImage.",
        ) from error
    source = dict(ours.get("source") or {})
    datasets = {str(one.get("datasetId") or "") for one in listed} - {""}
    if len(datasets) == 1:
        source["dataset"] = datasets.pop()
    if len(pieces) < len(listed):
        skipped = len(listed) - len(pieces)
        log.warning("%s: %d annotations without an area left out", name, skipped)
        source["skipped"] = skipped
    return Objects(polygons, to_table(rows, ours.get("columns") or {}), source)


def is_nimbus(document: Any) -> bool:
    """Tell whether a parsed file is an export of NimbusImage, or a list of its kind."""
    listed = document
    if isinstance(document, dict):
        if "images" in document:
            return False
        listed = document.get("annotations")
        if listed == [] and "annotationConnections" in document:
            return True
    return (
        isinstance(listed, list)
        and bool(listed)
        and all(
            isinstance(one, dict) and {"coordinates", "location"} <= one.keys()
            for one in listed
        )
    )


# -- writing ---------------------------------------------------------------------


def _annotations(objects: Objects, dataset: str) -> Iterator[dict[str, Any]]:
    records = objects.features.to_dict("records")
    areas = outline_areas(objects.polygons)
    for polygon, row, area in zip(objects.polygons, records, areas, strict=True):
        tags = [] if row["tag"] == UNASSIGNED else [str(row["tag"])]
        further = row.get(_FURTHER)
        tags += further.split("; ") if isinstance(further, str) and further else []
        values = known_values({k: v for k, v in row.items() if k not in _PLACED})
        for number, (outside, *holes) in enumerate(split_rings(polygon)):
            more = {} if number else {"values": values, "area": area}
            yield {
                "id": _part_id(row["id"], number),
                "tags": tags,
                "shape": "polygon",
                "channel": int(row["channel"]) if _is_number(row, "channel") else 0,
                "location": {_LOCATION[axis]: int(row[axis]) for axis in _LOCATION},
                "datasetId": dataset,
                "coordinates": _to_points(outside),
                _KEY: {
                    "object": row["id"],
                    "part": number,
                    "holes": [_to_points(hole) for hole in holes],
                    **more,
                },
            }


def _connections(objects: Objects, dataset: str) -> list[dict[str, Any]]:
    """From each object to the next of its track."""
    if _TRACK not in objects.features:
        return []
    table = objects.features
    tracked = table[table[_TRACK].notna()]
    tracked = tracked.sort_values([_TRACK, *FrameIndex._fields], kind="stable")
    rows = tracked[["id", _TRACK]].itertuples(index=False, name=None)
    return [
        {
            "id": f"{parent}-{child}",
            "parentId": _part_id(parent, 0),
            "childId": _part_id(child, 0),
            "label": f"Track {track}",
            "tags": ["track"],
            "datasetId": dataset,
        }
        for (parent, track), (child, other) in itertools.pairwise(rows)
        if track == other
    ]


def _part_id(owner: str, number: int) -> str:
    return owner if not number else f"{owner}-part{number + 1}"


def _is_number(row: dict[Any, Any], name: str) -> bool:
    value = row.get(name)
    return isinstance(value, (int, float, np.number)) and bool(np.isfinite(value))


def _to_points(ring: Ring) -> list[dict[str, float]]:
    corners = np.round(ring[:-1, ::-1] + _CORNER, _DECIMALS).tolist()
    return [{"x": x, "y": y} for x, y in corners]


# -- reading ---------------------------------------------------------------------


def _to_piece(annotation: dict[str, Any], number: int, offset: float) -> _Piece | None:
    if annotation.get("shape", "polygon") not in ("polygon", "rectangle"):
        return None
    outside = _to_ring(annotation["coordinates"], offset)
    if len(outside) == 2:  # opposite corners
        (top, left), (bottom, right) = outside
        outside = np.array([[top, left], [top, right], [bottom, right], [bottom, left]])
    if len(outside) < 3 or Polygon(outside).convex_hull.area == 0:
        return None
    ours = annotation.get(_KEY) or {}
    holes = [_to_ring(hole, offset) for hole in ours.get("holes") or []]
    location = annotation["location"]
    row: dict[str, Any] = {
        axis: int(location.get(name) or 0) for axis, name in _LOCATION.items()
    }
    tags = [str(tag) for tag in annotation.get("tags") or []]
    row |= {"tag": tags[0] if tags else UNASSIGNED}
    one = str(annotation.get("id") or annotation.get("_id") or "")
    if not ours:
        row |= {"id": one, "channel": int(annotation.get("channel") or 0)}
        row |= {_FURTHER: "; ".join(tags[1:])} if tags[1:] else {}
    row |= ours.get("values") or {}
    owner = ours.get("object", number)
    return _Piece(owner, [outside, *holes], row, one, ours.get("area"))


def _to_ring(points: list[dict[str, float]], offset: float) -> Ring:
    ring = np.array([[p["y"], p["x"]] for p in points], dtype=np.float64) - offset
    if not np.isfinite(ring).all():
        raise ValueError("a coordinate is not a finite number")
    return ring


def _join(
    pieces: list[_Piece],
) -> tuple[list[Polygon | MultiPolygon], list[dict[str, Any]]]:
    """Objects of their parts, at the place of the first."""
    owned: dict[Any, list[_Piece]] = {}
    for piece in pieces:
        # A copy that was made in NimbusImage is an object of its own.
        owner = (piece.owner, tuple(piece.row[axis] for axis in FrameIndex._fields))
        owned.setdefault(owner, []).append(piece)
    polygons, rows = [], []
    for parts in owned.values():
        polygon = build_polygon([part.rings for part in parts])
        if polygon is not None:
            row = dict(parts[0].row)
            if is_resized(polygon, parts[0].area):
                row.pop("area", None)
            polygons.append(polygon)
            rows.append(row)
    return polygons, rows


def _follow(pieces: list[_Piece], connections: list[dict[str, Any]]) -> list[_Piece]:
    """The same with a number for each group of annotations that are connected."""
    places = {piece.id: place for place, piece in enumerate(pieces)}
    pairs = [(places.get(c["parentId"]), places.get(c["childId"])) for c in connections]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not known:
        return pieces
    ends = np.array(known).T
    size = (len(pieces), len(pieces))
    graph = coo_array((np.ones(len(known)), (ends[0], ends[1])), shape=size)
    _, groups = connected_components(graph, directed=False)
    return [
        piece._replace(row=piece.row | {_TRACK: int(group) + 1})
        for piece, group in zip(pieces, groups, strict=True)
    ]

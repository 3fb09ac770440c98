"""JSON of one image as Dataloop exports it; read only.

Annotations are polygons (``segment``: the outline, then holes) or masks (``binary``: a
PNG of the image's size in base64). Coordinates are taken as pixel centres, as
Dataloop's own SAM 2 adapter draws them.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.features import UNASSIGNED
from napari_sam_suite.engine.formats.rings import cross_rings
from napari_sam_suite.engine.formats.tables import to_table
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely import MultiPolygon, Polygon

    from napari_sam_suite.engine.formats.rings import Ring

log = logging.getLogger(__name__)

_LEAST = 3
"""Corners of an area."""


def is_dataloop(document: Any) -> bool:
    """Tell whether a parsed file is Dataloop's JSON of one image."""
    if not isinstance(document, dict) or "images" in document:
        return False
    listed = document.get("annotations")
    if listed == []:
        return "annotationsCount" in document or "filename" in document
    return isinstance(listed, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("type"), str)
        and "coordinates" in one
        and "location" not in one
        for one in listed
    )


def from_document(document: Any, name: str) -> Objects:
    """Objects of a parsed file that is called `name`.

    Points, boxes and whatever else has no outline are left out; the log and
    ``source["skipped"]`` say how many. ``source["masks"]`` is how many objects were
    masks, and ``source["sizes"]`` the size of these.

    Raises
    ------
    ParameterError
        If an annotation makes no sense.
    """
    polygons: list[Polygon | MultiPolygon] = []
    rows: list[dict[str, Any]] = []
    source: dict[str, Any] = {}
    listed = document["annotations"]
    try:
        for one in listed:
            area = _area(one, source)
            if area is not None:
                polygons.append(area)
                rows.append({"tag": str(one.get("label") or UNASSIGNED)})
    except (TypeError, ValueError, LookupError, AttributeError, OSError) as error:
        reason = f"it has no {error}" if isinstance(error, LookupError) else str(error)
        raise ParameterError(
            f"{name} has annotations that make no sense: {reason}.",
            "Export it again from Dataloop.",
        ) from error
    if len(polygons) < len(listed):
        skipped = len(listed) - len(polygons)
        log.warning("%s: %d annotations without an outline left out", name, skipped)
        source["skipped"] = skipped
    return Objects(polygons, to_table(rows, {}), source)


def _area(
    annotation: dict[str, Any], source: dict[str, Any]
) -> Polygon | MultiPolygon | None:
    coordinates = annotation["coordinates"]
    if annotation["type"] == "binary":
        mask = _to_mask(coordinates)
        sizes = {"y": mask.shape[0], "x": mask.shape[1]}
        if source.setdefault("sizes", sizes) != sizes:
            raise ValueError("its masks have several sizes")
        source["masks"] = source.get("masks", 0) + 1
        drawn = Objects.from_labels(mask.astype(np.int32))
        return drawn.polygons[0] if len(drawn) else None
    if annotation["type"] != "segment":
        return None
    flat = bool(coordinates) and isinstance(coordinates[0], dict)
    rings = [_to_ring(points) for points in ([coordinates] if flat else coordinates)]
    rings = [ring for ring in rings if len(ring) >= _LEAST]
    return cross_rings(rings) if rings else None


def _to_ring(points: list[dict[str, float]]) -> Ring:
    ring = np.array([[p["y"], p["x"]] for p in points], np.float64).reshape(-1, 2)
    if not np.isfinite(ring).all():
        raise ValueError("a coordinate is not a finite number")
    return ring


def _to_mask(coordinates: str | dict[str, str]) -> NDArray[np.bool_]:
    """Pixels of a mask that are not black, (H, W)."""
    from PIL import Image

    said = coordinates["data"] if isinstance(coordinates, dict) else coordinates
    try:
        content = base64.b64decode(said.rpartition(",")[2], validate=True)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            return np.asarray(picture.convert("L")) > 0
    except (binascii.Error, OSError) as error:
        raise ValueError("a mask is no PNG in base64") from error

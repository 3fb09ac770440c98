"""COCO JSON for instance segmentation, with everything else that is known kept beside.

Frames are images, tags are categories. COCO counts from the top left corner of the
image, so pixel `i` reaches from `i` to ``i + 1``, and an area is the pixels whose
centres are inside. Each segmentation follows the edges of exactly the pixels that the
object has here: as polygons, or run-length encoded where there are holes, which
COCO's polygons cannot have. What COCO has no place for, the smooth outline above all,
is under the key ``napari_sam_suite`` of images and annotations.
"""

from __future__ import annotations

import json
import logging
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.features import UNASSIGNED
from napari_sam_suite.engine.formats import rle
from napari_sam_suite.engine.formats.atomic import replacing
from napari_sam_suite.engine.formats.colours import tag_colour
from napari_sam_suite.engine.formats.jsonfile import parse_json
from napari_sam_suite.engine.formats.rings import (
    build_polygon,
    join_rings,
    pixel_edges,
    split_rings,
)
from napari_sam_suite.engine.formats.tables import (
    column_types,
    known_values,
    plain,
    to_table,
)
from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.polygons import polygonise
from napari_sam_suite.engine.provenance import mark_searched, sizes_in
from napari_sam_suite.engine.raster import rasterise_each

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from shapely import MultiPolygon, Polygon

log = logging.getLogger(__name__)

_KEY = "napari_sam_suite"
_VERSION = 1
_CORNER = 0.5
_DECIMALS = 4
_PLACED = {"tag", *FrameIndex._fields}
# COCO's own, or a shape in another form.
_RESERVED = {
    "id", "image_id", "category_id", "segmentation", "area", "bbox", "keypoints",
    "num_keypoints", "iscrowd", _KEY,
}  # fmt: skip


class _Image(NamedTuple):
    """What an annotation needs to know of its image."""

    frame: FrameIndex
    shape: tuple[int, int]


def write(objects: Objects, path: Path, *, masks: bool = False) -> None:
    """Write objects as COCO JSON, whole or not at all.

    Parameters
    ----------
    objects : Objects
        Of any number of frames; each that was searched becomes an image, with or
        without objects. ``source["sizes"]`` says how large they are; without it the
        smallest size that holds all objects is taken.
    path : Path
        Where the file shall be.
    masks : bool
        Run-length encode every object, not only those with holes.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    shape = _shape_of(objects)
    frames = objects.searched() or [FrameIndex()]
    numbers = {frame: number for number, frame in enumerate(frames, 1)}
    tags = {tag: n for n, tag in enumerate(dict.fromkeys(objects.features["tag"]), 1)}
    head = {
        "info": {"description": str(objects.source.get("image", "")), "version": "1.0"},
        "licenses": [],
        _KEY: {
            "version": _VERSION,
            "columns": column_types(objects.features),
            "source": objects.source,
        },
        "images": [
            {
                "id": number,
                "file_name": _file_name(objects, frame, len(frames)),
                "width": shape[1],
                "height": shape[0],
                _KEY: frame._asdict(),
            }
            for frame, number in numbers.items()
        ],
        "categories": [
            {"id": n, "name": tag, "supercategory": "", "color": list(tag_colour(tag))}
            for tag, n in tags.items()
        ],
    }
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, default=plain)[:-1] + ',\n"annotations": [')
        comma = "\n"
        for annotation in _annotations(objects, numbers, tags, shape, masks):
            file.write(comma + json.dumps(annotation, allow_nan=False))
            comma = ",\n"
        file.write("\n]}\n")


def read(path: Path) -> Objects:
    """Read objects from COCO JSON, from here or from elsewhere.

    Each image of a file of others becomes a position, in the order of the file.
    Run-length encoded masks are traced with all islands and holes. Annotations
    without a segmentation are left out; the log and ``source["skipped"]`` say how
    many.

    Parameters
    ----------
    path : Path
        A JSON file with images, categories and annotations.

    Raises
    ------
    ParameterError
        If the file is missing, is no COCO file or has segmentations that make no
        sense.
    """
    return from_document(parse_json(path), path.name)


def from_document(document: Any, name: str) -> Objects:
    """Objects of a parsed file that is called `name`; see `read`."""
    _check(document, name)
    ours = document.get(_KEY)
    ours = ours if isinstance(ours, dict) else {}
    try:
        images = _read_images(document["images"])
        tags = {c["id"]: str(c["name"]) for c in document.get("categories") or []}
        polygons: list[Polygon | MultiPolygon] = []
        rows: list[dict[str, Any]] = []
        skipped = 0
        for annotation in document["annotations"]:
            image = images[annotation["image_id"]]
            changed = _is_changed(annotation)
            polygon = _to_polygon(annotation, image, changed)
            if polygon is None:
                skipped += 1
                continue
            polygons.append(polygon)
            rows.append(_to_row(annotation, image, tags, changed))
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, LookupError) else str(error)
        raise ParameterError(
            f"{name} is not a COCO file that makes sense: {reason}.",
            "Export it again from where it comes from.",
        ) from error
    source = dict(ours.get("source") or {}) or _describe(document, images)
    if skipped:
        log.warning("%s: %d annotations without an area left out", name, skipped)
        source["skipped"] = skipped
    return Objects(polygons, to_table(rows, ours.get("columns") or {}), source)


def is_coco(document: Any) -> bool:
    """Tell whether a parsed file is COCO with outlines or masks, or without objects."""
    try:
        _check(document, "")
        found = document["annotations"]
        return not found or any(one.get("segmentation") for one in found)
    except (ParameterError, TypeError, LookupError, AttributeError):
        return False


# -- writing ---------------------------------------------------------------------


def _shape_of(objects: Objects) -> tuple[int, int]:
    sizes = sizes_in(objects.source)
    if sizes is not None:
        return sizes.y, sizes.x
    bounds = shapely.bounds(np.array(objects.polygons, dtype=object)).reshape(-1, 4)
    y, x = np.floor(bounds[:, 2:].max(axis=0, initial=0) + _CORNER).astype(int) + 1
    return int(y), int(x)


def _file_name(objects: Objects, frame: FrameIndex, count: int) -> str:
    source = objects.source
    name = Path(str(source.get("path") or source.get("image") or "image"))
    if count == 1:
        return name.name
    place = f"_p{frame.position + 1}_t{frame.time + 1}_z{frame.z + 1}"
    return f"{name.stem}{place}{name.suffix}"


def _annotations(
    objects: Objects,
    images: dict[FrameIndex, int],
    tags: dict[str, int],
    shape: tuple[int, int],
    masks: bool,
) -> Iterator[dict[str, Any]]:
    records = objects.features.to_dict("records")
    drawn = rasterise_each(objects.polygons, shape)
    for number, (polygon, row, (mask, origin)) in enumerate(
        zip(objects.polygons, records, drawn, strict=True), 1
    ):
        segmentation, area, box = _segment(mask, origin, shape, masks)
        frame = FrameIndex(*(int(row[axis]) for axis in FrameIndex._fields))
        values = known_values({k: v for k, v in row.items() if k not in _PLACED})
        annotation = {
            "id": number,
            "image_id": images[frame],
            "category_id": tags[row["tag"]],
            "segmentation": segmentation,
            "area": area,
            "bbox": box,
            "iscrowd": 0,
        }
        if "score" in values:
            annotation["score"] = values["score"]
        outline = [[_to_xy(r).tolist() for r in part] for part in split_rings(polygon)]
        ours = {"values": values, "outline": outline, "of": _sign(segmentation)}
        yield annotation | {_KEY: ours}


def _segment(
    mask: NDArray[np.bool_],
    origin: tuple[int, int],
    shape: tuple[int, int],
    encoded: bool,
) -> tuple[Any, int, list[int]]:
    """Segmentation, area and box of the pixels that an object has."""
    if not mask.size:
        return rle.encode(mask, origin, shape), 0, [0] * 4
    rings = None if encoded else pixel_edges(mask, origin)
    if rings is None:
        segmentation: Any = rle.encode(mask, origin, shape)
    else:
        segmentation = [_to_xy(r)[:-1].astype(int).ravel().tolist() for r in rings]
    box = [origin[1], origin[0], mask.shape[1], mask.shape[0]]
    return segmentation, int(mask.sum()), box


def _to_xy(ring: Any) -> Any:
    return np.round(ring[:, ::-1] + _CORNER, _DECIMALS)


def _sign(segmentation: Any) -> int:
    """Tells whether another program has changed the shape."""
    if not isinstance(segmentation, dict):
        segmentation = [[float(value) for value in ring] for ring in segmentation]
    return zlib.crc32(json.dumps(segmentation, sort_keys=True).encode())


# -- reading ---------------------------------------------------------------------


def _check(document: Any, name: str) -> None:
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), list) for key in ("images", "annotations")
    ):
        raise ParameterError(
            f"{name} is JSON, but not COCO: it has no images and annotations.",
            "Results alone, a list of detections, need the file of their images.",
        )


def _read_images(listed: list[dict[str, Any]]) -> dict[Any, _Image]:
    images = {}
    for position, image in enumerate(listed):
        place = image.get(_KEY)
        frame = FrameIndex(**place) if place else FrameIndex(position)
        images[image["id"]] = _Image(frame, (int(image["height"]), int(image["width"])))
    return images


def _describe(document: dict[str, Any], images: dict[Any, _Image]) -> dict[str, Any]:
    """Source of the objects of a file of others."""
    names = [str(image.get("file_name", "")) for image in document["images"]]
    if not images:
        return {}
    y, x = (max(side) for side in zip(*(i.shape for i in images.values()), strict=True))
    sizes = Sizes(position=len(images), y=y, x=x)._asdict()
    shapes = [[int(i["height"]), int(i["width"])] for i in document["images"]]
    source = {"image": names[0], "images": names, "shapes": shapes, "sizes": sizes}
    return mark_searched(source, [image.frame for image in images.values()])


def _is_changed(annotation: dict[str, Any]) -> bool:
    """Whether another program has changed a shape that was written here."""
    ours, segmentation = annotation.get(_KEY) or {}, annotation.get("segmentation")
    return "of" in ours and (not segmentation or ours["of"] != _sign(segmentation))


def _to_polygon(
    annotation: dict[str, Any], image: _Image, changed: bool
) -> Polygon | MultiPolygon | None:
    segmentation = annotation.get("segmentation")
    ours = annotation.get(_KEY) or {}
    if ours.get("outline") and "of" in ours and not changed:
        return build_polygon([[_from_xy(r) for r in part] for part in ours["outline"]])
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        crop, origin = rle.decode(segmentation, image.shape)
        if not crop.any():
            return None
        return polygonise(crop, origin, smoothing=0, parts="all").polygon
    return join_rings([_from_xy(ring) for ring in segmentation])


def _from_xy(ring: Any) -> Any:
    points = np.array(ring, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a coordinate is not a finite number")
    return points[:, ::-1] - _CORNER


def _to_row(
    annotation: dict[str, Any], image: _Image, tags: dict[Any, str], changed: bool
) -> dict[str, Any]:
    row: dict[str, Any] = {"id": str(annotation.get("id", ""))}
    for group in (annotation, annotation.get("attributes")):
        for name, value in (group if isinstance(group, dict) else {}).items():
            if name not in _RESERVED and isinstance(value, (str, int, float)):
                row[name] = value
    if annotation.get("iscrowd"):
        row["iscrowd"] = 1
    row |= (annotation.get(_KEY) or {}).get("values") or {}
    area = annotation.get("area", math.nan)
    if changed:
        # It may be that of before, too, so the outline says it.
        row.pop("area", None)
    elif "area" not in row and isinstance(area, (int, float)) and area >= 0:
        row["area"] = round(area) if math.isfinite(area) else -1
    tag = tags.get(annotation.get("category_id"), "")
    return row | {"tag": tag or UNASSIGNED, **image.frame._asdict()}

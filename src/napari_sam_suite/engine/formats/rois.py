"""ImageJ ROIs in a zip file, as the ROI Manager of ImageJ and Fiji opens it.

An object of one ring is a polygon, one with holes or several parts a composite.
Its name is the tag and a number, its colour that of the tag, and all features are
properties of the ROI; one more says how large the outline is, so that `area` is not
that of before where somebody has changed it. ImageJ counts from the top left corner of
the image, so pixel `i` reaches from `i` to ``i + 1``, and keeps single precision.

A stack with only z or only time has plain stack positions. One with both, or with
channels, has hyperstack positions: there a plain one would count all of these. What
ImageJ has no place for, column types and the source of the objects, is in the comment
of the zip file.
"""

from __future__ import annotations

import json
import logging
import re
import struct
import zipfile
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.features import COLUMNS
from napari_sam_suite.engine.formats.atomic import replacing
from napari_sam_suite.engine.formats.colours import tag_colour
from napari_sam_suite.engine.formats.extras import load_extra
from napari_sam_suite.engine.formats.rings import (
    cross_rings,
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
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path

    from shapely import MultiPolygon, Polygon

log = logging.getLogger(__name__)

_KEY = "napari_sam_suite"
_AREA = f"{_KEY}_area"
_CORNER = 0.5
_LIMIT = 2**16 - 1  # bytes of a zip file's comment
_LARGEST = 2**28  # bytes of one ROI
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0
_ESCAPED = re.compile(r"[^ -~]|[\\:=#!]")
_CODE = re.compile(r"\\u([0-9a-fA-F]{4})")
_DAMAGE = (
    ValueError, TypeError, RuntimeError, LookupError, AssertionError, struct.error,
    zlib.error, zipfile.BadZipFile, EOFError,
)  # fmt: skip


def write(objects: Objects, path: Path) -> None:
    """Write objects as ImageJ ROIs, whole or not at all.

    Parameters
    ----------
    objects : Objects
        Of any number of frames. ImageJ has no positions: they are properties.
    path : Path
        A ``.zip`` file, or ``.roi`` for a single object.

    Raises
    ------
    MissingExtra
        If the package roifile is not installed.
    ParameterError
        If more than one object shall go into a ``.roi`` file.
    OutputError
        If the file cannot be written.
    """
    roifile = load_extra("roifile")
    axes = _stack_axes(objects)
    records = objects.features.to_dict("records")
    areas = outline_areas(objects.polygons)
    rois = [
        _to_roi(roifile, polygon, row | {_AREA: area}, number, axes)
        for number, (polygon, row, area) in enumerate(
            zip(objects.polygons, records, areas, strict=True), 1
        )
    ]
    if path.suffix.lower() == ".roi":
        if len(rois) != 1:
            raise ParameterError(
                f"A .roi file holds one object, not {len(rois)}.",
                "Give the file the ending .zip.",
            )
        with replacing(path) as part:
            part.write_bytes(rois[0].tobytes())
        return
    with (
        replacing(path) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        for roi in rois:
            file.writestr(f"{roi.name}.roi", roi.tobytes())
        file.comment = _comment(objects, axes)


def read(path: Path) -> Objects:
    """Read objects from ImageJ ROIs, from here or from elsewhere.

    Lines, points, texts and curves have no area or no outline: they are left out; the
    log and ``source["skipped"]`` say how many. Of a ROI of others the group
    becomes its tag, unless it has a property `tag`.

    Parameters
    ----------
    path : Path
        A ``.zip`` file of ROIs, or a single ``.roi``.

    Raises
    ------
    MissingExtra
        If the package roifile is not installed.
    ParameterError
        If the file is missing or holds no ROIs.
    """
    roifile = load_extra("roifile")
    polygons, rows, skipped = [], [], 0
    try:
        members, ours = _unpack(path)
        columns = ours.get("columns") or {}
        for name, data in members:
            roi = roifile.ImagejRoi.frombytes(data)
            polygon = _to_polygon(roifile, roi)
            if polygon is None:
                skipped += 1
            else:
                row = _to_row(roi, name, columns, ours.get("stack", "z"))
                if is_resized(polygon, row.pop(_AREA, None)):
                    row.pop("area", None)
                polygons.append(polygon)
                rows.append(row)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ParameterError(
            f"{path} cannot be read: {reason}.", "Check the name of the file."
        ) from error
    except _DAMAGE as error:
        raise ParameterError(
            f"{path.name} cannot be read as ImageJ ROIs: {error}.",
            "Save it again with More, Save in the ROI Manager.",
        ) from error
    source = dict(ours.get("source") or {})
    if skipped:
        log.warning("%s: %d ROIs without an area left out", path, skipped)
        source["skipped"] = skipped
    return Objects(polygons, to_table(rows, columns), source)


# -- writing ---------------------------------------------------------------------


def _stack_axes(objects: Objects) -> str:
    """Which of z and t positions have: ``""``, ``"z"``, ``"t"`` or ``"zt"``."""
    source = objects.source
    sizes = source.get("sizes")
    sizes = sizes if isinstance(sizes, dict) else {}
    axes = ""
    for letter, axis in (("z", "z"), ("t", "time")):
        if int(sizes.get(axis, 1)) > 1 or objects.features[axis].any():
            axes += letter
    hyper = int(sizes.get("channel", 1)) > 1 and not source.get("rgb")
    return "zt" if axes and hyper else axes


def _to_roi(
    roifile: Any,
    polygon: Polygon | MultiPolygon,
    row: dict[str, Any],
    number: int,
    axes: str,
) -> Any:
    rings = [ring for part in split_rings(polygon) for ring in part]
    points = [np.asarray(ring[:, ::-1] + _CORNER, dtype=np.float32) for ring in rings]
    name = re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", f"{row['tag']}-{number:04}")
    # A single ring is closed by ImageJ.
    roi = roifile.ImagejRoi.frompoints(points[0][:-1], name=name)
    roi.roitype = roifile.ROI_TYPE.POLYGON
    if len(points) > 1:
        _make_composite(roifile, roi, points)
    roi.stroke_color = bytes((255, *tag_colour(row["tag"])))
    if axes == "zt":
        roi.z_position, roi.t_position = int(row["z"]) + 1, int(row["time"]) + 1
    elif axes:
        roi.position = int(row["z" if axes == "z" else "time"]) + 1
    placed = {"z", "time"}
    values = known_values({k: v for k, v in row.items() if k not in placed})
    roi.props = "".join(
        f"{_escape(name)}: {_escape(_to_text(value))}\n"
        for name, value in values.items()
    )
    return roi


def _make_composite(roifile: Any, roi: Any, rings: list[Any]) -> None:
    """Turn a ROI into one of several rings."""
    path: list[float] = []
    for ring in rings:
        for place, (x, y) in enumerate(ring[:-1].tolist()):
            path += [_LINE if place else _MOVE, x, y]
        path.append(_CLOSE)
    corners = np.concatenate(rings)
    roi.left, roi.top = np.floor(corners.min(axis=0)).astype(int).tolist()
    roi.right, roi.bottom = np.ceil(corners.max(axis=0)).astype(int).tolist()
    roi.roitype = roifile.ROI_TYPE.RECT
    roi.integer_coordinates = roi.subpixel_coordinates = None
    roi.n_coordinates = 0
    roi.multi_coordinates = np.array(path, dtype=np.float32)
    roi.shape_roi_size = len(path)


def _comment(objects: Objects, axes: str) -> bytes:
    ours = {"stack": axes, "columns": column_types(objects.features)}
    full = {_KEY: ours | {"source": objects.source}}
    for document in (full, {_KEY: ours}, {}):
        text = json.dumps(document, default=plain).encode()
        if len(text) <= _LIMIT:
            break
        log.warning("The source of the objects is too long for a zip file's comment.")
    return text


def _to_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _escape(text: str) -> str:
    """As Java's properties want it: plain ASCII, other characters by number."""

    def code(match: re.Match[str]) -> str:
        units = match[0].encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))

    return _ESCAPED.sub(code, text)


# -- reading ---------------------------------------------------------------------


def _unpack(path: Path) -> tuple[list[tuple[str, bytes]], dict[str, Any]]:
    """Names and bytes of all ROIs, and what we wrote beside them."""
    if path.suffix.lower() == ".roi":
        return [(path.stem, path.read_bytes())], {}
    with zipfile.ZipFile(path) as file:
        listed = [i for i in file.infolist() if i.filename.lower().endswith(".roi")]
        if not listed and file.infolist():
            raise ValueError("it holds other files")
        if any(info.file_size > _LARGEST for info in listed):
            raise ValueError("a ROI is larger than 256 MB")
        members = [(info.filename[:-4], file.read(info)) for info in listed]
        ours = None
        with suppress(ValueError, AttributeError):
            ours = json.loads(file.comment).get(_KEY)
    return members, ours if isinstance(ours, dict) else {}


def _to_polygon(roifile: Any, roi: Any) -> Polygon | MultiPolygon | None:
    kinds, subtypes = roifile.ROI_TYPE, roifile.ROI_SUBTYPE
    if roi.subtype in (subtypes.TEXT, subtypes.IMAGE, subtypes.ARROW):
        return None
    if roi.roitype == kinds.RECT and roi.subpixelrect and not roi.composite:
        x, y, w, h = roi.xd, roi.yd, roi.widthd, roi.heightd
        rings = [np.array([[x, y], [x, y + h], [x + w, y + h], [x + w, y]])]
    elif roi.roitype in (
        kinds.POLYGON, kinds.FREEHAND, kinds.TRACED, kinds.RECT, kinds.OVAL
    ):  # fmt: skip
        try:
            rings = roi.coordinates(multi=True)
        except NotImplementedError:  # curves
            return None
    else:
        return None
    points = [np.asarray(ring, dtype=np.float64)[:, ::-1] - _CORNER for ring in rings]
    if not all(np.isfinite(ring).all() for ring in points):
        raise ValueError("a coordinate is not a finite number")
    return cross_rings([ring for ring in points if len(ring) > 2])


def _to_row(
    roi: Any, name: str, columns: dict[str, str], position: str
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for line in roi.props.splitlines():
        key, colon, text = line.partition(":")
        if colon and (key := _unescape(key.strip())):
            row[key] = _to_value(_unescape(text.strip()), columns.get(key, ""), key)
    if "id" not in row:
        row["name"] = roi.name or name
        if roi.group and "tag" not in row:
            row["tag"] = f"group {roi.group}"
    frame = {"z": roi.z_position, "time": roi.t_position}
    if roi.position and not any(frame.values()):
        frame["time" if position == "t" else "z"] = roi.position
    return row | {axis: max(index - 1, 0) for axis, index in frame.items()}


def _to_value(text: str, dtype: str, name: str) -> Any:
    dtype = dtype or (COLUMNS[name][0] if name in COLUMNS else "")
    if dtype in ("str", "object", "string"):
        return text
    if dtype.startswith("bool"):
        return text == "true"
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    return text


def _unescape(text: str) -> str:
    whole = _CODE.sub(lambda match: chr(int(match[1], 16)), text)
    return whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

"""GeoParquet 1.0: one row per object, every column in its own type.

geopandas, QGIS, GDAL and DuckDB open it, and spatialdata takes it for shapes.
Geometries are well-known binary in ``(x, y)`` with pixel corners, as in the other
formats here: pixel `i` reaches from `i` to ``i + 1``. They have no coordinate
reference system, because pixels are no places on the globe. The source of the objects
is in the schema's metadata under ``napari_sam_suite``.
"""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.features import COLUMNS, UNASSIGNED
from napari_sam_suite.engine.formats.atomic import replacing
from napari_sam_suite.engine.formats.extras import load_extra
from napari_sam_suite.engine.formats.rings import keep_areas
from napari_sam_suite.engine.formats.tables import plain
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from shapely import MultiPolygon, Polygon

log = logging.getLogger(__name__)

_KEY = b"napari_sam_suite"
_GEO = b"geo"
_VERSION = 1
_CORNER = 0.5
_FEW = 50
_MANY = 1000
"""Objects from which dictionaries and statistics are worth the time they take."""


def write(objects: Objects, path: Path) -> None:
    """Write objects as GeoParquet, whole or not at all.

    Parameters
    ----------
    objects : Objects
        Of any number of frames.
    path : Path
        Where the file shall be.

    Raises
    ------
    MissingExtra
        If the package pyarrow is not installed.
    OutputError
        If the file cannot be written.
    """
    content = pack(objects)
    with replacing(path) as part:
        part.write_bytes(content)


def read(path: Path) -> Objects:
    """Read objects from GeoParquet, from here or from elsewhere.

    Rows whose geometry has no area are left out; the log and ``source["skipped"]`` say
    how many.

    Parameters
    ----------
    path : Path
        A GeoParquet file in the encoding WKB, which is what geopandas writes.

    Raises
    ------
    MissingExtra
        If the package pyarrow is not installed.
    ParameterError
        If the file is missing, damaged or no GeoParquet.
    """
    load_extra("pyarrow")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ParameterError(
            f"{path} cannot be read: {error.strerror}.", "Check the name of the file."
        ) from error
    return unpack(content, path.name)


def pack(objects: Objects, more: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a GeoParquet file, for stores that are no folders.

    Parameters
    ----------
    objects : Objects
        Of any number of frames.
    more : mapping, optional
        What the file shall say in its source besides.

    Raises
    ------
    MissingExtra
        If the package pyarrow is not installed.
    """
    arrow, parquet = load_extra("pyarrow"), load_extra("pyarrow.parquet")
    columns = objects.columns()
    geometry = _geometry_name(columns)
    shapes = shapely.transform(np.array(objects.polygons, dtype=object), _to_xy)
    table = _to_arrow(arrow, columns)
    plainly = table is not None
    if table is None:
        table = arrow.Table.from_pandas(_storable(arrow, objects.features), None, False)
    table = table.append_column(
        geometry, arrow.array(shapely.to_wkb(shapes).tolist(), arrow.binary())
    )
    ours = {
        "version": _VERSION,
        "coordinates": "x, y in pixels from the top left corner of the image",
        "offset": _CORNER,
        "source": {**objects.source, **(more or {})},
    }
    about = {
        "version": "1.0.0",
        "primary_column": geometry,
        "columns": {
            geometry: {
                "encoding": "WKB",
                "geometry_types": sorted({shape.geom_type for shape in shapes}),
                "crs": None,
            }
        },
    }
    metadata = {
        _GEO: json.dumps(about).encode(),
        _KEY: json.dumps(ours, default=plain).encode(),
    }
    if not plainly:
        table = table.replace_schema_metadata({**table.schema.metadata, **metadata})
    sink = arrow.BufferOutputStream()
    many = len(objects) > _MANY
    with parquet.ParquetWriter(
        sink,
        table.schema,
        # Beginning with zstd takes longer than writing a few rows.
        compression="zstd" if len(objects) > _FEW else "snappy",
        use_dictionary=many,
        write_statistics=many,
        # Arrow's own schema says the types and the metadata a second time.
        store_schema=not plainly,
    ) as writer:
        writer.write_table(table)
        if plainly:
            writer.add_key_value_metadata(metadata)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def unpack(content: bytes, name: str = "The file") -> Objects:
    """Objects from the bytes of a GeoParquet file.

    Parameters
    ----------
    content : bytes
        A whole file.
    name : str
        What to call it in errors.

    Raises
    ------
    MissingExtra
        If the package pyarrow is not installed.
    ParameterError
        If it is damaged or no GeoParquet.
    """
    arrow, parquet = load_extra("pyarrow"), load_extra("pyarrow.parquet")
    try:
        table = parquet.read_table(io.BytesIO(content))
        metadata = table.schema.metadata or {}
        ours = json.loads(metadata.get(_KEY, b"{}"))
        geometry = _find_geometry(metadata, name)
        encoded = np.array(table.column(geometry).to_pylist(), dtype=object)
        shapes = shapely.from_wkb(encoded)
        features = table.drop_columns([geometry]).to_pandas()
    except (arrow.ArrowException, shapely.GEOSException, LookupError) as error:
        raise ParameterError(
            f"{name} cannot be read as GeoParquet: {error}.",
            "Write it again from where it comes from.",
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ParameterError(
            f"{name} is damaged: {error}.", "Write it again from where it comes from."
        ) from error
    offset = float(ours.get("offset", _CORNER))
    polygons, kept = _to_polygons(shapes, offset, trusted=bool(ours))
    source = dict(ours.get("source") or {})
    if len(kept) < len(shapes):
        skipped = len(shapes) - len(kept)
        log.warning("%s: %d rows without an area left out", name, skipped)
        source["skipped"] = skipped
    features = features.iloc[kept].reset_index(drop=True)
    return Objects(polygons, features if ours else _adopt(features), source)


# -- writing ---------------------------------------------------------------------


def _geometry_name(columns: Mapping[str, Any]) -> str:
    name = "geometry"
    while name in columns:
        name += "_"
    return name


def _to_arrow(arrow: Any, columns: Mapping[str, Any]) -> Any:
    """The table for Arrow, if it has only numbers and texts; else None.

    These go column by column; to ask pandas takes longer than all else for a few rows.
    """
    text = columns["id"].dtype
    for values in columns.values():
        kind = getattr(values, "dtype", None)
        number = isinstance(kind, np.dtype) and kind.kind in "iufb"
        if not (number or (isinstance(kind, pd.StringDtype) and kind == text)):
            return None
    made = [arrow.array(values, from_pandas=True) for values in columns.values()]
    return arrow.Table.from_arrays(made, names=list(columns))


def _storable(arrow: Any, features: pd.DataFrame) -> pd.DataFrame:
    """The table with texts for what Arrow has no type for, as mixed columns."""
    texts: dict[str, Any] = {}
    for name, dtype in zip(features.columns, features.dtypes, strict=True):
        if not isinstance(dtype, np.dtype) or dtype.kind != "O":
            continue
        column = features[name]
        try:
            arrow.array(column, from_pandas=True)
        except (arrow.ArrowException, TypeError, OverflowError):
            texts[name] = [None if _missing(v) else str(v) for v in column]
    if not texts and all(isinstance(name, str) for name in features.columns):
        return features
    return features.assign(**texts).rename(columns=str)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or value != value


def _to_xy(points: Any) -> Any:
    return points[:, ::-1] + _CORNER


# -- reading ---------------------------------------------------------------------


def _find_geometry(metadata: dict[bytes, bytes], name: str) -> str:
    """Name of the column that has the outlines."""
    if _GEO not in metadata:
        raise ParameterError(
            f"{name} is Parquet, but not GeoParquet: it has no geometry.",
            "Write it with geopandas, to_parquet.",
        )
    about = json.loads(metadata[_GEO])
    column = str(about["primary_column"])
    encoding = about["columns"][column]["encoding"]
    if encoding != "WKB":
        raise ParameterError(
            f"{name} has its geometry in the encoding {encoding}.",
            "Write it with geopandas, to_parquet, whose encoding is WKB.",
        )
    return column


def _to_polygons(
    shapes: Any, offset: float, *, trusted: bool
) -> tuple[list[Polygon | MultiPolygon], list[int]]:
    """Polygons in ``(y, x)`` pixel centres, and the rows that have one."""
    polygons, kept = [], []
    for row, shape in enumerate(shapes):
        if shape is None or shape.geom_type not in ("Polygon", "MultiPolygon"):
            continue
        moved = shapely.transform(shape, lambda points: points[:, ::-1] - offset)
        polygon = moved if trusted else keep_areas(moved)
        if polygon is not None:
            polygons.append(polygon)
            kept.append(row)
    return polygons, kept


def _adopt(features: pd.DataFrame) -> pd.DataFrame:
    """Table of another program, whose columns of our names may be of other types."""
    table = features.copy()
    for name, (kind, _) in COLUMNS.items():
        if name in table and kind != "str":
            table[name] = pd.to_numeric(table[name], errors="coerce")
    for name in ("classification", "label", "class"):
        if name in table and "tag" not in table:
            texts = [UNASSIGNED if _missing(v) else str(v) for v in table[name]]
            table["tag"] = texts
    return table

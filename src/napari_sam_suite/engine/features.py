"""The features table: which columns every object has, and their types."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shapely import MultiPolygon, Polygon

UNASSIGNED = "unassigned"

# Feature columns that every object has: type and what stands for "not known".
COLUMNS: dict[str, tuple[str, Any]] = {
    "id": ("str", ""),
    "tag": ("str", UNASSIGNED),
    "score": ("float64", math.nan),
    "stability": ("float64", math.nan),
    "level": ("int64", -1),
    "area": ("int64", -1),
    "position": ("int64", 0),
    "time": ("int64", 0),
    "z": ("int64", 0),
    "model": ("str", ""),
    "run": ("str", ""),
}


def complete(
    table: pd.DataFrame, polygons: Sequence[Polygon | MultiPolygon]
) -> pd.DataFrame:
    """Features with all of `COLUMNS` first, in their types and with unique ids.

    Parameters
    ----------
    table : DataFrame
        One row per polygon, or no columns at all.
    polygons : sequence of Polygon or MultiPolygon
        Give the area where it is not known.

    Returns
    -------
    DataFrame
        A new table with rows counted from 0.
    """
    if _is_complete(table):
        return table.reset_index(drop=True)
    columns: dict[str, Any] = {}
    for name, (dtype, unknown) in COLUMNS.items():
        values = table[name] if name in table else [unknown] * len(polygons)
        column = pd.Series(values)
        if not isinstance(unknown, float) and column.isna().any():
            column = pd.Series([unknown if pd.isna(v) else v for v in column])
        columns[name] = column.astype(cast("Any", dtype)).to_numpy()
    columns["area"] = [
        max(1, round(polygon.area)) if area < 0 else area
        for area, polygon in zip(columns["area"].tolist(), polygons, strict=True)
    ]
    columns["id"] = _unique(columns["id"].tolist())
    for name in table.columns:
        if name not in COLUMNS:
            columns[name] = table[name].reset_index(drop=True)
    types = {name: dtype for name, (dtype, _) in COLUMNS.items()}
    return pd.DataFrame(columns, index=range(len(polygons))).astype(types)


def _is_complete(table: pd.DataFrame) -> bool:
    if list(table.columns[: len(COLUMNS)]) != list(COLUMNS):
        return False
    wanted = (dtype for dtype, _ in COLUMNS.values())
    types = all(a == b for a, b in zip(table.dtypes, wanted, strict=False))
    known = not table["area"].lt(0).any() and not table["id"].eq("").any()
    return types and known and table["id"].is_unique


def _unique(ids: list[str]) -> list[str]:
    seen = {""}
    for place, one in enumerate(ids):
        if one in seen:
            ids[place] = str(uuid4())
        seen.add(ids[place])
    return ids

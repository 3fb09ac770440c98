"""The features table: which columns every object has, and their types."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
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
    columns = {name: table[name].array for name in table.columns}
    return to_table(build_columns(columns, polygons), len(polygons))


def to_table(columns: Mapping[str, Any], count: int) -> pd.DataFrame:
    """The table of what `build_columns` made for so many rows."""
    return pd.DataFrame(dict(columns), index=range(count))


def build_columns(
    columns: Mapping[str, Any], polygons: Sequence[Polygon | MultiPolygon]
) -> dict[str, Any]:
    """The columns of a complete table, from single ones; the table takes longer.

    Parameters
    ----------
    columns : mapping of str to any
        One value for all rows, or an array or list with one for each.
    polygons : sequence of Polygon or MultiPolygon
        One for each row.

    Returns
    -------
    dict
        Arrays of numpy and pandas; columns beyond `COLUMNS` as they were given.
    """
    count = len(polygons)
    made = {
        name: _typed(name, columns.get(name, unknown), count)
        for name, (_, unknown) in COLUMNS.items()
    }
    areas = np.asarray(made["area"])
    if (areas < 0).any():
        pairs = zip(areas.tolist(), polygons, strict=True)
        known = [max(1, round(one.area)) if area < 0 else area for area, one in pairs]
        made["area"] = np.array(known, np.int64)
    ids = made["id"].tolist()
    if "" in ids or len(set(ids)) < count:
        made["id"] = _typed("id", _unique(ids), count)
    more = {n: _bare(column) for n, column in columns.items() if n not in COLUMNS}
    return made | more


def whole_numbers(values: Any) -> NDArray[np.int64]:
    """A column as whole numbers, 0 where it has none."""
    column = pd.to_numeric(pd.Series(values), errors="coerce")
    given = column.to_numpy(np.float64, na_value=np.nan)
    whole = (np.abs(given) < 2**53) & (given == given.round())
    return np.where(whole, given, 0).astype(np.int64)


def _bare(values: Any) -> Any:
    """The array of numpy where pandas only wraps one."""
    wrapped = isinstance(values, pd.arrays.NumpyExtensionArray)
    return values.to_numpy() if wrapped else values


@cache
def _types() -> dict[str, Any]:
    """Types of `COLUMNS` as this version of pandas has them."""
    return {
        name: pd.Series([], dtype=cast("Any", dtype)).dtype
        for name, (dtype, _) in COLUMNS.items()
    }


def _holds_all(dtype: Any) -> bool:
    """Whether anything may be in a column of this type, as texts are in pandas 2."""
    return isinstance(dtype, np.dtype) and dtype.hasobject


@lru_cache(maxsize=64)
def _texts(text: str, count: int) -> Any:
    """The same text for all rows; tables take copies of it."""
    return pd.Series([text] * count, dtype=_types()["id"]).array


def _typed(name: str, values: Any, count: int) -> Any:
    """One of `COLUMNS` as an array of its type, with nothing missing."""
    wanted, unknown = _types()[name], COLUMNS[name][1]
    text = isinstance(unknown, str)
    if isinstance(values, str):
        return _texts(values, count).copy()
    if not text and isinstance(values, int | float):
        return np.full(count, values, wanted)
    if np.ndim(values) == 0:
        values = [values] * count
    values = _bare(values)
    # A list has none, and numpy takes None for the type of floats.
    dtype = getattr(values, "dtype", None)
    if dtype is not None and dtype == wanted and not _holds_all(wanted):
        if not (text and values.isna().any()):
            return values
    elif text and all(type(value) is str for value in values):
        return pd.Series(values, dtype=wanted).array
    column = pd.Series(values)
    if not isinstance(unknown, float) and column.isna().any():
        column = pd.Series([unknown if pd.isna(v) else v for v in column])
    return _bare(column.astype(wanted).array)


def _is_complete(table: pd.DataFrame) -> bool:
    if list(table.columns)[: len(COLUMNS)] != list(COLUMNS):
        return False
    if table.dtypes.tolist()[: len(COLUMNS)] != list(_types().values()):
        return False
    if _holds_all(_types()["id"]) or (table["area"].to_numpy() < 0).any():
        return False
    ids = table["id"].tolist()
    return "" not in ids and len(set(ids)) == len(ids)


def _unique(ids: list[str]) -> list[str]:
    seen = {""}
    for place, one in enumerate(ids):
        if one in seen:
            ids[place] = str(uuid4())
        seen.add(ids[place])
    return ids

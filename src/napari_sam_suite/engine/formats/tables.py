"""The features table as JSON can hold it, and back in its types."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from napari_sam_suite.engine.features import COLUMNS


def column_types(table: pd.DataFrame) -> dict[str, str]:
    """Name and dtype of every column, for `to_table`."""
    return {str(name): str(table[name].dtype) for name in table.columns}


def known_values(row: dict[Any, Any]) -> dict[str, Any]:
    """Values of a row as JSON can hold them, without what is not known.

    Infinities become the texts ``"inf"`` and ``"-inf"``.
    """
    values: dict[str, Any] = {}
    for name, value in row.items():
        if name in COLUMNS and value == COLUMNS[name][1]:
            continue
        if isinstance(value, (bool, np.bool_)):
            values[str(name)] = bool(value)
        elif isinstance(value, (int, np.integer)):
            values[str(name)] = int(value)
        elif isinstance(value, (float, np.floating)):
            if not math.isnan(value):
                finite = math.isfinite(value)
                values[str(name)] = float(value) if finite else str(float(value))
        elif value is not None and value is not pd.NA and value != "":
            values[str(name)] = str(value)
    return values


def to_table(rows: list[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    """Table of rows in which what is not known is missing.

    Parameters
    ----------
    rows : list of dict
        One per object.
    columns : dict
        Name and dtype of every column as it was; empty for files of others.
    """
    table = pd.DataFrame(rows, index=range(len(rows)))
    for name, (kind, _) in COLUMNS.items():
        if name in table and kind != "str":
            table[name] = pd.to_numeric(table[name], errors="coerce")
    for name, dtype in columns.items():
        if name not in table and name not in COLUMNS:
            missing: Any = math.nan if dtype.startswith("float") else None
            table[name] = pd.Series([missing] * len(rows), dtype="object")
        if name in table and name not in COLUMNS:
            table[name] = _restore(table[name], dtype)
    extra = [name for name in columns if name in table and name not in COLUMNS]
    return table[[*(c for c in table.columns if c not in extra), *extra]]


def plain(value: Any) -> Any:
    """Numpy numbers, arrays and paths as JSON can hold them."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else str(value)


def _restore(column: pd.Series[Any], dtype: str) -> pd.Series[Any]:
    if dtype in ("str", "object", "string"):
        return pd.Series(["" if pd.isna(v) else str(v) for v in column], dtype="str")
    kind: Any = dtype
    try:
        restored: pd.Series[Any] = column.astype(kind)
        return restored
    except (TypeError, ValueError):
        return column

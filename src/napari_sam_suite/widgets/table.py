"""Tags and reviews in the table of a Shapes layer, and how they look. Knows no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from napari_sam_suite.engine.features import UNASSIGNED
from napari_sam_suite.widgets.layers import KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from napari.layers import Shapes
    from numpy.typing import NDArray

    Values = NDArray[np.object_]

ACCEPTED, REJECTED = "accepted", "rejected"
"""What the column `review` says of an object that somebody has looked at."""

_UNKNOWN = {"id": "", "tag": UNASSIGNED, "review": ""}
_GREY = (0.5, 0.5, 0.5, 0.45)


def about(layer: Shapes | None) -> dict[str, Any]:
    """What the plugin keeps with a layer."""
    return {} if layer is None else layer.metadata.setdefault(KEY, {})


def column(layer: Shapes | None, name: str) -> Values:
    """Texts of one column of a layer's features, one per shape."""
    if layer is None:
        return np.empty(0, dtype=object)
    if name not in layer.features:
        return np.full(len(layer.data), _UNKNOWN[name], dtype=object)
    values = layer.features[name].fillna(_UNKNOWN[name]).astype(str)
    return np.array(values, dtype=object)


def set_features(layer: Shapes, table: pd.DataFrame) -> None:
    """Give a layer other features, and shapes drawn from now on those of no object.

    napari would give them those of the last row: its id, its tag, its scores.
    """
    from napari_sam_suite.widgets.shapes import defaults

    layer.features = table
    layer.feature_defaults = defaults(layer.features)


def name_rows(layer: Shapes, rows: Sequence[int]) -> None:
    """Give ids to those shapes that have none, or that of another: drawn, or copied."""
    table = layer.features.copy()
    ids = column(layer, "id")
    others = set(np.delete(ids, list(rows))) | {""}
    for row in rows:
        if ids[row] in others:
            ids[row] = str(uuid4())
        others.add(ids[row])
    if "id" not in table or (ids != column(layer, "id")).any():
        table["id"] = ids.astype(str)
        set_features(layer, table)


def paint(layer: Shapes) -> None:
    """Colour the outlines by tag; what is rejected is grey, or not seen at all."""
    from napari_sam_suite.widgets.shapes import colours

    colour = colours(column(layer, "tag"), about(layer).get("colours"))
    hidden = about(layer).get("rejected") == "hidden"
    colour[column(layer, "review") == REJECTED] = (0, 0, 0, 0) if hidden else _GREY
    selected = set(layer.selected_data)
    layer.edge_color = colour
    layer.selected_data = selected

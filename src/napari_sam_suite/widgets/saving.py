"""A layer's objects to a file, as they are in the layer."""

from __future__ import annotations

from typing import Any

import pandas as pd

from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.shapes import placement_of, to_objects
from napari_sam_suite.widgets.snapshots import mark_saved
from napari_sam_suite.widgets.table import REJECTED


def save_layer(path: str, data: Any, meta: dict[str, Any], name: str) -> int:
    """Save the objects of a Shapes layer, by choice without what is rejected.

    Parameters
    ----------
    path : str
        The file.
    data, meta
        As ``layer.as_layer_data_tuple`` gives them, so any thread may do it.
    name : str
        Of the format.

    Returns
    -------
    int
        How many objects there are in the file.

    Raises
    ------
    EngineError
        If the file cannot be written.
    """
    shapes = list(data)
    kinds = meta.get("shape_type", "polygon")
    kinds = [kinds] * len(shapes) if isinstance(kinds, str) else list(kinds)
    about = (meta.get("metadata") or {}).get(KEY) or {}
    table = pd.DataFrame(meta.get("features", {}))
    if "review" in table and not about.get("save_rejected"):
        kept = [row for row, one in enumerate(table["review"]) if one != REJECTED]
        shapes = [shapes[row] for row in kept]
        kinds = [kinds[row] for row in kept]
        table = table.iloc[kept].reset_index(drop=True)
    objects = to_objects(shapes, kinds, table, placement_of(meta), _source(about))
    objects.save(path, name)
    mark_saved(about)
    return len(objects)


def _source(about: dict[str, Any]) -> dict[str, Any]:
    """Image of the layer's objects, as its last run knows it."""
    runs = list(about.get("runs", {}).values())
    image = runs[-1].get("image", {}) if runs else {}
    known = {"image": image.get("name"), "path": image.get("path")}
    source = {name: value for name, value in known.items() if value}
    return source | ({"sizes": image["sizes"]} if "sizes" in image else {})

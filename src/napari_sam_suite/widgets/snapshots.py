"""Result layers as snapshots in the journal, and back. Knows no Qt."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes

from napari_sam_suite.engine.errors import EngineError
from napari_sam_suite.widgets.layers import KEY

if TYPE_CHECKING:
    from napari_sam_suite.engine.journal import Lost, Snapshot

PLACE = "snapshot"
"""Where a layer's metadata keeps the path of its snapshot."""

SAVED = "saved"
"""Where it keeps as of when the layer was saved to a file, by the monotonic clock."""

TAKEN = "taken"
"""Where it keeps as of when the snapshot is, by the same clock."""

OWN = (PLACE, SAVED, TAKEN)
"""What concerns one layer in one session, and neither its copies nor later ones."""


def mark_saved(about: dict[str, Any], since: float) -> None:
    """Note that a layer was saved to a file, so that there is nothing to restore.

    Parameters
    ----------
    about : dict
        What the plugin keeps in the layer's metadata.
    since : float
        When the layer was as it was saved, by the monotonic clock.
    """
    about[SAVED] = since
    place = about.get(PLACE)
    if place and about.get(TAKEN, 0.0) <= since:
        Path(place).unlink(missing_ok=True)


def take_snapshot(layer: Shapes) -> Snapshot:
    """Copy what a layer holds; quick, because it happens on the main thread."""
    from napari_sam_suite.engine.journal import Snapshot

    data = layer.data
    about = layer.metadata.get(KEY, {})
    kept = {k: v for k, v in about.items() if k not in OWN}
    options = {
        "name": layer.name,
        "opacity": float(layer.opacity),
        "visible": bool(layer.visible),
        "scale": np.array(layer.scale).tolist(),
        "translate": np.array(layer.translate).tolist(),
        "rotate": np.array(layer.rotate).tolist(),
        "shear": np.array(layer.shear).tolist(),
        "affine": np.array(layer.affine.affine_matrix).tolist(),
        "units": [str(unit) for unit in layer.units],
        "axis_labels": list(layer.axis_labels),
    }
    return Snapshot(
        {"options": options, "metadata": kept | {"runs": dict(kept.get("runs", {}))}},
        np.concatenate(data) if len(data) else np.empty((0, layer.ndim)),
        np.cumsum([len(one) for one in data], dtype=np.int64),
        list(layer.shape_type),
        layer.features.copy(),
        {
            "edge_color": np.array(layer.edge_color),
            "face_color": np.array(layer.face_color),
            "edge_width": np.array(layer.edge_width, dtype=np.float64),
            "z_index": np.array(layer.z_index, dtype=np.int64),
        },
    )


def read_layers(lost: Lost) -> tuple[list[Shapes], str]:
    """Layers of what was lost, and what is wrong with those that are not there."""
    from napari_sam_suite.engine.journal import read_snapshot
    from napari_sam_suite.widgets.table import set_features

    layers, trouble = [], ""
    for head in lost.heads:
        try:
            snapshot = read_snapshot(head["path"])
        except EngineError as error:
            trouble = str(error)
            continue
        layer = Shapes(
            snapshot.shapes(),
            shape_type=snapshot.kinds,
            metadata={KEY: dict(snapshot.about["metadata"])},
            edge_color=snapshot.looks["edge_color"],
            face_color=snapshot.looks["face_color"],
            edge_width=snapshot.looks["edge_width"].tolist(),
            z_index=snapshot.looks["z_index"].tolist(),
            **snapshot.about["options"],
        )
        set_features(layer, snapshot.table)
        layers.append(layer)
    return layers, trouble


def describe(lost: Lost) -> tuple[str, str]:
    """What a button says that restores, and its tooltip."""
    count = sum(head["count"] for head in lost.heads)
    images = {_image(head["about"]): None for head in lost.heads}
    then = time.localtime(lost.time)
    today = then[:3] == time.localtime()[:3]
    when = time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", then)
    first, *more = images
    what = first + (f" and {len(more)} more" if more else "")
    tip = f"From a session that did not end well: {', '.join(images)}."
    return f"Restore {say_count(count)} of {what} from {when}", tip


def _image(about: dict[str, Any]) -> str:
    """Name of the image that objects are of, as the last run calls it."""
    runs = list(about["metadata"].get("runs", {}).values())
    image = runs[-1].get("image", {}) if runs else {}
    path = Path(str(image.get("path") or "")).name
    return path or str(image.get("name") or about["options"]["name"])


def say_count(objects: int) -> str:
    """Such as ``"1 object"`` or ``"2 objects"``."""
    return "1 object" if objects == 1 else f"{objects} objects"

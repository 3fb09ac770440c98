"""A layer's objects to a file, as they are in the layer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.provenance import SAVED_FROM, mark_searched, searched_in
from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.shapes import placement_of, to_objects
from napari_sam_suite.widgets.snapshots import mark_saved
from napari_sam_suite.widgets.table import REJECTED

if TYPE_CHECKING:
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.widgets.layers import Picture

_OF_RUN = ("model", "capability", "params", "composite")
"""What a run says of itself, and not of the image: kept where all runs agree."""

_NO_OUTLINES = ("csv", "labels", "zarr")
"""Formats from which objects do not come back as they were."""


def save_layer(
    path: str,
    data: Any,
    meta: dict[str, Any],
    name: str,
    image: ImageSource | None = None,
) -> int:
    """Save the objects of a Shapes layer, by choice without what is rejected.

    Parameters
    ----------
    path : str
        The file.
    data, meta
        As ``layer.as_layer_data_tuple`` gives them, so any thread may do it.
    name : str
        Of the format.
    image : ImageSource, optional
        Which the objects are of: gives the intensities of a CSV file, and is described
        in the others where no run has done so.

    Returns
    -------
    int
        How many objects there are in the file.

    Raises
    ------
    EngineError
        If the file cannot be written.
    """
    began = time.monotonic()
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
    source = _source(about, image) | {SAVED_FROM: "napari"}
    objects = to_objects(shapes, kinds, table, placement_of(meta), source)
    if name == "csv":
        from napari_sam_suite.engine.formats.measurements import write

        write(objects, Path(path), image)
    else:
        objects.save(path, name)
    if name not in _NO_OUTLINES:
        mark_saved(about, began)
    return len(objects)


def image_of(meta: dict[str, Any], picture: Picture | None) -> ImageSource | None:
    """The chosen image, if the objects of a layer are of it.

    A layer that was drawn by hand does not say what it is of: there it is enough that
    the axes are the same, but for a channel axis in front, which results do not have.
    One that was read from a file is of the image of that name.
    """
    axes = placement_of(meta).axes.removeprefix("C")
    if picture is None or axes != picture.placement.axes:
        return None
    about = (meta.get("metadata") or {}).get(KEY) or {}
    if "image" in about:
        same = about["image"] == list(picture.names)
    else:
        source = about.get("source") or {}
        named = Path(str(source.get("image", "")))
        same = not source or picture.image.name in (named.name, named.stem)
    return picture.image if same else None


def _source(about: dict[str, Any], image: ImageSource | None) -> dict[str, Any]:
    """Where the layer's objects come from, as the command line would say it.

    Of the image it is what the last run says; of the runs, what they agree in, and all
    frames that any of them has searched.
    """
    seen = {} if image is None else _describe_image(image)
    runs = list(about.get("runs", {}).values())
    sources = [about.get("source") or {}, *map(_describe_run, runs)]
    sources = [source for source in sources if source]
    if len(sources) < 2:
        return seen | (sources[0] if sources else {})
    last = seen | sources[-1]
    source = {
        name: value
        for name, value in last.items()
        if name not in _OF_RUN or all(one.get(name) == value for one in sources)
    }
    searched = {frame for one in sources for frame in searched_in(one)}
    return mark_searched(source, sorted(searched)) if searched else source


def _describe_image(image: ImageSource) -> dict[str, Any]:
    return {
        "image": image.name,
        "sizes": image.sizes._asdict(),
        **({"rgb": True} if image.rgb else {}),
        "scale": list(image.scale),
        "units": image.units,
    }


def _describe_run(run: dict[str, Any]) -> dict[str, Any]:
    """What the recipe of a run knows, under the names of the engine."""
    image = run.get("image", {})
    names = ("path", "sizes", "rgb", "scale", "units")
    source = {"image": image.get("name")}
    source |= {name: image.get(name) for name in names}
    source |= {name: run.get(name) for name in _OF_RUN}
    source = {name: value for name, value in source.items() if value}
    searched = [FrameIndex(*frame) for frame in run.get("searched", ())]
    return mark_searched(source, searched) if searched else source

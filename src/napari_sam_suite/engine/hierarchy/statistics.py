"""How many objects each level has, how large they are and how much they cover."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.hierarchy.levels import LEVELS
from napari_sam_suite.engine.provenance import shape_in
from napari_sam_suite.engine.raster import draw_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.objects import Objects

ALL = "all"


def describe_levels(objects: Objects, ranks: NDArray[np.integer]) -> pd.DataFrame:
    """Statistics of each level, over all frames.

    Parameters
    ----------
    objects : Objects
        Of any number of frames.
    ranks : (n,) array of int
        0 small, 1 part, 2 whole.

    Returns
    -------
    DataFrame
        One row for each level, the largest first, and one for all. `count`; `share`, in
        percent of all objects; `coverage_union`, the percent of the pixels that at
        least one object has, never above 100; `coverage_sum`, the sum of the areas in
        percent of the pixels, which counts overlaps again; `min_area`, `mean_area` and
        `max_area` in px. NaN where there is no object, or where the size of the image
        is not known.
    """
    rows = {
        LEVELS[rank]: _describe(objects.select(ranks == rank), objects)
        for rank in reversed(range(len(LEVELS)))
    }
    rows[ALL] = _describe(objects, objects)
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "level"
    return table


def _describe(some: Objects, everything: Objects) -> dict[str, Any]:
    areas = some.features["area"].to_numpy(np.float64)
    union = total = math.nan
    frames = everything.searched() or [FrameIndex()]
    said = {frame: shape_in(everything.source, frame.position) for frame in frames}
    shapes = {frame: shape for frame, shape in said.items() if shape is not None}
    if len(shapes) == len(frames):
        pixels = sum(math.prod(shape) for shape in shapes.values())
        total = 100 * float(areas.sum()) / pixels
        union = 100 * _covered(some, shapes) / pixels
    known = len(areas) > 0
    return {
        "count": len(some),
        "share": 100 * len(some) / len(everything) if len(everything) else math.nan,
        "coverage_union": union,
        "coverage_sum": total,
        "min_area": float(areas.min()) if known else math.nan,
        "mean_area": float(areas.mean()) if known else math.nan,
        "max_area": float(areas.max()) if known else math.nan,
    }


def _covered(objects: Objects, shapes: dict[FrameIndex, tuple[int, int]]) -> int:
    """Pixels of all frames that at least one object has."""
    covered = 0
    for frame in objects.frames():
        polygons = objects.at(frame).polygons
        drawn = draw_labels(polygons, np.ones(len(polygons), np.int64), shapes[frame])
        covered += int(np.count_nonzero(drawn))
    return covered

"""Objects of every kind that a file format has to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import shapely
from scipy import ndimage
from shapely import MultiPolygon, Polygon

from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (30, 40)


def make_objects() -> Objects:
    """Three frames, three tags, a hole, two parts, and every kind of value."""
    ring = [(0.0, 0.0), (0.0, 9.0), (12.0, 9.0), (12.0, 0.0)]
    hole = [(3.0, 3.0), (3.0, 6.0), (6.0, 6.0), (6.0, 3.0)]
    double = MultiPolygon([shapely.box(0, 0, 3, 3), shapely.box(8, 8, 9.5, 9.125)])
    square = shapely.box(-0.5, -0.5, 4.5, 4.5)
    features = pd.DataFrame(
        {
            "tag": ["cell", "unassigned", "Tumor/π: Positive"],
            "score": [0.91, np.nan, 1 / 3],
            "level": [2, -1, 0],
            "area": [99, 12, 25],
            "position": [0, 0, 3],
            "time": [0, 2, 2],
            "z": [0, 0, 7],
            "run": ["r1", "r1", "2026-01-01T10:00:00 ab"],
            "similarity": [0.5, np.inf, np.nan],
            "note": ['é, "quoted" \\u00e9 😀', "", "12"],
            "edited": [True, False, True],
            "count": np.array([1, 2, 3], dtype=np.uint16),
        }
    )
    sizes = {"position": 4, "time": 3, "z": 8, "y": SHAPE[0], "x": SHAPE[1]}
    source = {"image": "a.tif", "sizes": sizes, "scale": [1, 0.5]}
    return Objects([Polygon(ring, [hole]), double, square], features, source)


def draw_blobs(count: int, seed: int = 0) -> list[NDArray[np.bool_]]:
    """Masks with islands, holes, single pixels, corners that touch, and borders."""
    rng = np.random.default_rng(seed)
    masks = []
    while len(masks) < count:
        noise = ndimage.gaussian_filter(rng.random(SHAPE), rng.uniform(0, 3))
        mask = noise >= np.quantile(noise, rng.uniform(0.02, 0.98))
        masks.append(mask)
    return masks

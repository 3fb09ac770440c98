"""Sizes, places and intensities of objects, with the meanings of scikit-image.

What each number means is `skimage.measure.regionprops`: an object is its pixels, the
perimeter is that of Benkrid and Crookes (2000), the centroid is the mean of the pixels.
Objects may overlap here, which label images cannot say.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from skimage.measure import perimeter

from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.provenance import scale_in, sizes_in
from napari_sam_suite.engine.raster import pixel_window, rasterise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from shapely import MultiPolygon, Polygon

    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.objects import Objects

_FIRST = ["id", "label", "image", "tag", *FrameIndex._fields]
_STATISTICS = ("mean", "min", "max", "std")
_PIXEL = "pixel"
_ROUNDED = 1e-3
"""Part by which the sides of a square pixel may differ."""


def measure(objects: Objects, image: ImageSource | None = None) -> pd.DataFrame:
    """Measure objects, and what the image shows inside them.

    Parameters
    ----------
    objects : Objects
        Of any number of frames.
    image : ImageSource, optional
        Gives intensities, and the size of a pixel; without it the size is what the
        source of the objects says.

    Returns
    -------
    DataFrame
        One row per object, in their order: `id`, `label` as `Objects.to_labels` draws
        it, the name of the `image`, `tag` and the frame, counted from 0;
        `area_px`, the pixels; `area`, `perimeter`, `centroid_y` and `centroid_x` in the
        unit that the column `unit` names; for every channel ``intensity_mean_<name>``,
        and the same with min, max and std; then all other features, of which
        `label` becomes `label_read`. What cannot be said is NaN: the perimeter where
        pixels are not square, and all but the area of an object that has no pixel
        centre inside.

    Raises
    ------
    EngineError
        If a frame of the image cannot be read.
    """
    scale, unit = _scale(objects, image)
    shape = _shape(objects, image)
    names = channel_names(image) if image is not None else []
    rows: list[dict[str, Any]] = [{} for _ in range(len(objects))]
    frames = objects.features[list(FrameIndex._fields)].to_numpy()
    for frame in objects.frames():
        planes = image.frame(frame).planes if image is not None else None
        for row in np.flatnonzero((frames == frame).all(axis=1)).tolist():
            rows[row] = _describe(objects.polygons[row], shape, scale, planes, names)
    known = _describe(None, shape, scale, None, names)
    measured = pd.DataFrame(rows, columns=list(known), index=range(len(rows)))
    measured.insert(5, "unit", unit)
    features = objects.features.rename(columns={"label": "label_read"})
    source = objects.source.get("image") or ""
    features = features.assign(
        label=objects.numbers(), image=str(source) if image is None else image.name
    )
    taken = {*_FIRST, "area", *measured}
    rest = [name for name in features if name not in taken]
    return pd.concat([features[_FIRST], measured, features[rest]], axis=1)


def channel_names(image: ImageSource) -> list[str]:
    """Names of the channels, each once: their number where there is none."""
    names: list[str] = []
    for number, name in enumerate(image.channel_names, 1):
        plain = str(name).strip() or str(number)
        names.append(plain if plain not in names else f"{plain}_{number}")
    return names


def _scale(
    objects: Objects, image: ImageSource | None
) -> tuple[tuple[float, float], str]:
    """Size of a pixel in y and x, and its unit."""
    known: Sequence[float] = scale_in(objects.source) or (1.0, 1.0)
    unit = str(objects.source.get("units") or _PIXEL)
    if image is not None:
        known, unit = image.scale, image.units
    y, x = (float(size) for size in known[-2:])
    if unit == _PIXEL or not all(math.isfinite(s) and s > 0 for s in (y, x)):
        return (1.0, 1.0), _PIXEL
    return (y, x), unit


def _shape(objects: Objects, image: ImageSource | None) -> tuple[int, int]:
    sizes = image.sizes if image is not None else sizes_in(objects.source)
    if sizes is not None:
        return sizes.y, sizes.x
    far = max((max(polygon.bounds[2:]) for polygon in objects.polygons), default=0)
    return math.ceil(far) + 1, math.ceil(far) + 1


def _describe(
    polygon: Polygon | MultiPolygon | None,
    shape: tuple[int, int],
    scale: tuple[float, float],
    planes: NDArray[Any] | None,
    names: Sequence[str],
) -> dict[str, Any]:
    """Measurements of one object; those of no object where it has no pixel."""
    window = pixel_window(polygon, shape) if polygon is not None else None
    mask = np.zeros((0, 0), dtype=bool)
    if window is not None:
        rows, columns = window
        size = (rows.stop - rows.start, columns.stop - columns.start)
        mask = rasterise(polygon, size, (rows.start, columns.start))
    inside = int(mask.sum())
    y, x = (float(np.mean(i)) if inside else math.nan for i in np.nonzero(mask))
    # Two programs round the same side differently: 0.325 and 0.32499998.
    square = math.isclose(*scale, rel_tol=_ROUNDED)
    side = math.sqrt(math.prod(scale))
    around = perimeter(mask) * side if inside and square else math.nan
    found: dict[str, Any] = {
        "area_px": inside,
        "area": inside * scale[0] * scale[1],
        "perimeter": float(around),
        "centroid_y": (y + window[0].start) * scale[0] if window else math.nan,
        "centroid_x": (x + window[1].start) * scale[1] if window else math.nan,
    }
    for number, name in enumerate(names):
        values = np.full(1, np.nan)
        if planes is not None and window is not None and inside:
            values = planes[number][window][mask].astype(np.float64)
        for statistic in _STATISTICS:
            value = float(getattr(np, statistic)(values))
            found[f"intensity_{statistic}_{name}"] = value
    return found

"""Objects made of pixels: of the masks of one frame, or of a label image.

`Objects` has these functions as class methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from scipy import ndimage

from napari_sam_suite.engine.apart import cut_apart
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.features import COLUMNS, UNASSIGNED, build_columns
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.losses import Losses
from napari_sam_suite.engine.polygons import polygonise
from napari_sam_suite.engine.raster import count_pixels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.polygons import Parts, Traced


class MaskSet(Protocol):
    """What `Objects.from_masks` needs to know of a set of masks."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(H, W)`` of the image."""

    @property
    def area(self) -> NDArray[Any]:
        """(n,) pixels of each mask."""

    @property
    def scores(self) -> NDArray[Any]:
        """(n,) predicted IoU."""

    @property
    def stability(self) -> NDArray[Any]:
        """(n,) stability scores."""

    @property
    def level(self) -> NDArray[Any]:
        """(n,) which of the model's outputs a mask is."""

    def __len__(self) -> int:
        """Number of masks."""

    def crop(self, index: int, /) -> tuple[NDArray[np.bool_], tuple[int, int]]:
        """Mask and ``(y0, x0)`` of its first pixel."""


def from_masks(
    cls: type[Objects],
    masks: MaskSet,
    frame: FrameIndex,
    *,
    tag: str = UNASSIGNED,
    model: str = "",
    run: str = "",
    smoothing: float = 0.3,
    padding: float = 0.0,
    parts: Parts = "largest",
    min_hole: float = 0,
    exclusive: bool = False,
    columns: Mapping[str, Sequence[Any]] | None = None,
    source: Mapping[str, Any] | None = None,
) -> tuple[Objects, Losses]:
    """Turn the masks of one frame into objects.

    Parameters
    ----------
    masks : MaskSet
        Crops, scores, stability, level and area.
    frame : FrameIndex
        The frame they were found in.
    tag, model, run : str
        Written into every row.
    smoothing, padding, parts, min_hole
        See `polygonise`.
    exclusive : bool
        The masks share no pixel, and padding shall not make their outlines
        overlap; see `cut_apart`.
    columns : mapping of str to sequence, optional
        Further columns, or others in place of these, with one value per mask.
    source : mapping, optional
        Kept with the objects.

    Returns
    -------
    Objects
        In the order of the masks. `area` counts the pixels that an object has,
        without what was dropped and, when padded, as drawn.
    Losses
        All that is missing.

    Raises
    ------
    ParameterError
        If a column does not have one value per mask.
    """

    def trace(index: int, padding: float = 0.0) -> Traced:
        return polygonise(
            *masks.crop(index),
            smoothing=smoothing,
            padding=padding,
            parts=parts,
            min_hole=min_hole,
            shape=masks.shape,
        )

    traced = [trace(index, padding) for index in range(len(masks))]
    if exclusive and padding > 0:
        traced = cut_apart(traced, trace, parts)
    kept = [i for i, one in enumerate(traced) if one.polygon is not None]
    polygons = [one.polygon for one in traced if one.polygon is not None]
    built = build_columns(
        {
            "tag": tag,
            "score": np.asarray(masks.scores, dtype=np.float64)[kept],
            "stability": np.asarray(masks.stability, dtype=np.float64)[kept],
            "level": np.asarray(masks.level, dtype=np.int64)[kept],
            "area": _areas(masks, traced, kept, padded=bool(padding)),
            **frame._asdict(),
            "model": model,
            "run": run,
            **_pick(columns or {}, kept, len(masks)),
        },
        polygons,
    )
    objects = cls.of_columns(polygons, built, dict(source or {}))
    return objects, Losses.count(traced)


def from_labels(
    cls: type[Objects],
    labels: NDArray[Any],
    frame: FrameIndex | None = None,
    *,
    tag: str = UNASSIGNED,
    smoothing: float = 0.0,
    source: Mapping[str, Any] | None = None,
) -> Objects:
    """Turn one label image into objects, in the order of their numbers.

    The numbers are kept in the column `label`.

    Parameters
    ----------
    labels : (H, W) array of int
        0 is background. All islands and holes of an object are kept.
    frame : FrameIndex, optional
        First frame by default.
    tag : str
        Written into every row.
    smoothing : float
        See `polygonise`; 0 keeps the pixels exactly.
    source : mapping, optional
        Kept with the objects.
    """
    labels = np.maximum(labels, 0)
    numbers, compact = np.unique(labels, return_inverse=True)
    first = int(numbers[:1].sum() > 0)
    compact = compact.reshape(labels.shape) + first
    traced = [
        polygonise(
            compact[window] == index,
            (window[0].start, window[1].start),
            smoothing=smoothing,
            parts="all",
        )
        for index, window in enumerate(ndimage.find_objects(compact), start=1)
    ]
    polygons = [one.polygon for one in traced if one.polygon is not None]
    features = pd.DataFrame(
        {
            "tag": tag,
            "area": np.bincount(compact.ravel())[1:],
            **(frame or FrameIndex())._asdict(),
            "label": numbers[1 - first :],
        },
        index=range(len(polygons)),
    )
    return cls(polygons, features, dict(source or {}))


def _areas(
    masks: MaskSet, traced: Sequence[Traced], kept: Sequence[int], *, padded: bool
) -> NDArray[np.int64]:
    """Pixels of the objects that are kept; of padded ones as they are drawn."""
    areas = []
    for number in kept:
        one = traced[number]
        if padded and one.polygon is not None:
            areas.append(count_pixels(one.polygon, masks.shape))
        else:
            lost = one.dropped_pixels - one.filled_pixels
            areas.append(int(masks.area[number]) - lost)
    return np.array(areas, np.int64)


def _pick(
    columns: Mapping[str, Sequence[Any]], kept: Sequence[int], count: int
) -> dict[str, Any]:
    """Rows `kept` of columns that have `count`."""
    for name, values in columns.items():
        if len(values) != count:
            raise ParameterError(
                f"{len(values)} values of {name!r} do not fit {count} masks."
            )
    return {
        name: [values[row] for row in kept]
        if name in COLUMNS
        else pd.Series(list(values)).iloc[list(kept)].array
        for name, values in columns.items()
    }

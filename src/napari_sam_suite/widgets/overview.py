"""A labels layer of all objects: light to draw where polygons are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.errors import OutOfMemory
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.widgets.bridge import Background

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray
    from qtpy.QtCore import QObject

    from napari_sam_suite.widgets.layers import Picture

MANY = 20_000
"""From here on polygons are slow to draw."""

_LARGEST = 4e9  # bytes
_SIZES = {"P": "position", "T": "time", "Z": "z", "C": "channel", "Y": "y", "X": "x"}


def start_overview(layer: Any, picture: Picture, parent: QObject) -> Background:
    """Draw the objects of a layer as labels, on a thread of its own.

    Parameters
    ----------
    layer : Shapes
        Results of `picture`.
    picture : Picture
        The image, for the size of the labels.
    parent : QObject
        Owner of the work.

    Returns
    -------
    Background
        Its result is ``(labels, options)`` for ``viewer.add_labels``.

    Raises
    ------
    OutOfMemory
        If the image is too large for one array of labels.
    """
    axes = picture.placement.axes
    shape = tuple(getattr(picture.image.sizes, _SIZES[axis]) for axis in axes)
    if np.prod(shape, dtype=float) * 4 > _LARGEST:
        raise OutOfMemory(
            f"Labels of all {picture.image.sizes.frame_count} frames need "
            f"{np.prod(shape, dtype=float) * 4 / 1e9:.0f} GB.",
            "Save the polygons instead.",
        )
    data, kinds = list(layer.data), list(layer.shape_type)
    table = layer.features.copy()
    options = {"name": f"{layer.name} (labels)", **picture.placement.options}

    def work(*_: object) -> tuple[NDArray[np.uint32], dict[str, Any]]:
        return _draw(data, kinds, table, picture, shape), options

    return Background(work, parent)


def _draw(
    data: Sequence[Any],
    kinds: Sequence[str],
    table: pd.DataFrame,
    picture: Picture,
    shape: tuple[int, ...],
) -> NDArray[np.uint32]:
    """Number every object of all frames, starting from 1, whatever its track."""
    from napari_sam_suite.widgets.shapes import to_objects

    table = table.drop(columns="track", errors="ignore")
    objects = to_objects(data, kinds, table, picture.placement)
    labels = np.zeros(shape, np.uint32)
    places = objects.features[list(FrameIndex._fields)].to_numpy()
    for frame in objects.frames():
        rows = np.flatnonzero((places == np.array(frame)).all(1))
        drawn = objects.select(rows).to_labels((shape[-2], shape[-1]))
        numbers = np.concatenate([[0], rows + 1]).astype(np.uint32)
        labels[picture.placement.at(frame)] = numbers[drawn]
    return labels

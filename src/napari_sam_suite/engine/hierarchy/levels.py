"""Which level an object has: small, part or whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.provenance import shape_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.hierarchy.params import HierarchyParams
    from napari_sam_suite.engine.objects import Objects

LEVELS = ("small", "part", "whole")
"""From the smallest to the largest; their places are the ranks."""


def rank_objects(objects: Objects, params: HierarchyParams) -> NDArray[np.int64]:
    """Rank of every object: 0 small, 1 part, 2 whole.

    Areas are compared within a frame. By tertile there is about the same number of each
    level, and a single object is small; by fraction the numbers mean something.

    Parameters
    ----------
    objects : Objects
        Of any number of frames.
    params : HierarchyParams

    Returns
    -------
    (n,) array of int64

    Raises
    ------
    ParameterError
        If the size of the image is needed and not known, or if objects do not say
        which output of the model they are.
    """
    if params.by == "token":
        return _by_token(objects)
    areas = objects.features["area"].to_numpy(np.float64)
    if params.by == "fraction":
        shares = areas / _pixels(objects)
        return np.where(
            shares < params.small_below, 0, np.where(shares > params.whole_above, 2, 1)
        ).astype(np.int64)
    frames = objects.features[list(FrameIndex._fields)].to_numpy()
    ranks = np.zeros(len(objects), dtype=np.int64)
    for frame in objects.frames():
        here = (frames == frame).all(axis=1)
        percentiles = params.small_percentile, params.part_percentile
        limits = np.percentile(areas[here], percentiles)
        ranks[here] = np.searchsorted(limits, areas[here], side="left")
    return ranks


def _by_token(objects: Objects) -> NDArray[np.int64]:
    tokens = objects.features["level"].to_numpy(np.int64)
    unknown = int(((tokens < 1) | (tokens > len(LEVELS))).sum())
    if unknown:
        raise ParameterError(
            f"{unknown} of {len(objects)} objects do not say which of the model's "
            "three outputs they are.",
            "Set `by` to fraction or tertile, or find them with `multimask`.",
        )
    ranks: NDArray[np.int64] = tokens - 1
    return ranks


def _pixels(objects: Objects) -> NDArray[np.int64]:
    """How many the image of each object has."""
    places = objects.features["position"].to_numpy(np.int64)
    known, rows = np.unique(places, return_inverse=True)
    shapes = [shape_in(objects.source, position) for position in known.tolist()]
    if None in shapes:
        raise ParameterError(
            "The size of the image is not known, so areas are no part of it.",
            "Set `by` to tertile, or use a file that was written here.",
        )
    counts = np.array([y * x for y, x in filter(None, shapes)], np.int64)
    return counts[rows]

"""From all that a model drew to the masks that are kept, as often as one likes.

Thresholds, duplicates, tiles, areas and overlaps are decided here, after the model has
done its part. A run that kept its candidates is filtered again without the model, and
gives what a new run with the other thresholds would have given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.cleaning import remove_small_regions
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.masks import Masks, pixel_ids
from napari_sam_suite.engine.params import AutoParams, PolygonParams
from napari_sam_suite.engine.suppression import (
    drop_duplicates,
    make_exclusive,
    within_area,
)
from napari_sam_suite.engine.tiles import join_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.tiles import Region

_THRESHOLDS = ("pred_iou_thresh", "stability_score_thresh")
_AFTERWARDS = {
    *_THRESHOLDS,
    "box_nms_thresh",
    "crop_nms_thresh",
    "min_mask_region_area",
    "min_area",
    "max_area",
    "overlap",
    "points_per_batch",
    *PolygonParams.model_fields,
}
"""Parameters that do not change what the model draws."""


@dataclass(frozen=True)
class Candidates:
    """What a model drew for one frame, before it was filtered.

    Attributes
    ----------
    regions : tuple of Region
        Crops, then tiles.
    found : tuple of Masks
        Of each region, as drawn.
    params : AutoParams
        Of the run, nothing left open.
    lowest : AutoParams
        The same with the thresholds below which masks were not kept.
    name : str
        Tells the frame and the run; part of the ids of masks.
    """

    regions: tuple[Region, ...]
    found: tuple[Masks, ...]
    params: AutoParams
    lowest: AutoParams
    name: str = ""

    def __len__(self) -> int:
        return sum(map(len, self.found))

    @property
    def nbytes(self) -> int:
        """Memory of the masks, in bytes."""
        return sum(masks.nbytes for masks in self.found)

    def ids(self, masks: Masks) -> list[str]:
        """An id for each mask: the same for the same pixels of the same frame."""
        return pixel_ids(masks, [self.name] * len(masks))


def refilter(candidates: Candidates, params: AutoParams) -> Masks:
    """The masks that a run with other thresholds would have found.

    Parameters
    ----------
    candidates : Candidates
        Kept by a run.
    params : AutoParams
        As of that run, but for thresholds, areas and overlaps; what is left open is
        taken from it.

    Returns
    -------
    Masks
        The same masks in the same order as of a new run.

    Raises
    ------
    ParameterError
        If a threshold is below what was kept, or the model would have to draw again.
    """
    had = candidates.params
    left_open = {
        name: getattr(had, name)
        for name, value in params.model_dump().items()
        if value is None
    }
    p = params.with_(**left_open)
    for name in AutoParams.model_fields:
        if name not in _AFTERWARDS and getattr(p, name) != getattr(had, name):
            raise ParameterError(
                f"`{name}` was {getattr(had, name)} when the masks were drawn, and "
                f"{getattr(p, name)} needs others.",
                "Run again.",
            )
    for name in _THRESHOLDS:
        lowest = getattr(candidates.lowest, name)
        if getattr(p, name) < lowest:
            raise ParameterError(
                f"`{name}` cannot be {getattr(p, name):g} now: masks below "
                f"{lowest:g} were not kept.",
                "Run again with it.",
            )
    chosen = [
        choose(masks, region, p)
        for masks, region in zip(candidates.found, candidates.regions, strict=True)
    ]
    return merge(chosen, candidates.regions, p)


def passing(masks: Masks, params: AutoParams) -> NDArray[np.intp]:
    """Indices of the masks that are good and stable enough, compared as upstream.

    Both comparisons are made in float32, so that 19 of 20 pixels is stable enough for
    0.95. Thresholds of 0 let everything pass, also what has no stability.
    """
    keep = np.ones(len(masks), bool)
    score = np.float32(params.pred_iou_thresh or 0.0)
    stability = np.float32(params.stability_score_thresh or 0.0)
    if score > 0:
        keep &= masks.scores > score
    if stability > 0:
        keep &= masks.stability >= stability
    return np.flatnonzero(keep)


def choose(masks: Masks, region: Region, params: AutoParams) -> Masks:
    """The masks of one region that pass, without duplicates, the best first."""
    good = masks.select(passing(masks, params))
    threshold = params.box_nms_thresh or 0.0
    return drop_duplicates(good, good.scores, threshold, region.origin)


def merge(
    chosen: Sequence[Masks], regions: Sequence[Region], params: AutoParams
) -> Masks:
    """One list of masks from those of all regions, crops first."""
    p = params
    tiles = [region for region in regions if not region.is_crop]
    crops = len(regions) - len(tiles)
    masks = _merge_crops(chosen[:crops], p)
    if tiles:
        masks = join_tiles(masks, chosen[crops:], tiles)
    if p.min_mask_region_area:
        masks = _clean(masks, p)
    masks = within_area(masks, p.min_area, p.max_area)
    if p.overlap == "allow":
        return masks
    # What better masks took may leave too little.
    return within_area(make_exclusive(masks), p.min_area, 0)


def _merge_crops(found: Sequence[Masks], params: AutoParams) -> Masks:
    masks = Masks.concat(found)
    if len(found) == 1:
        return masks
    c = masks.crops.astype(np.int64)
    smaller_first = 1 / ((c[:, 2] - c[:, 0]) * (c[:, 3] - c[:, 1]))
    return drop_duplicates(
        masks, smaller_first.astype(np.float32), params.crop_nms_thresh
    )


def _clean(masks: Masks, params: AutoParams) -> Masks:
    cleaned, unchanged = remove_small_regions(masks, params.min_mask_region_area)
    threshold = max(params.box_nms_thresh or 0.0, params.crop_nms_thresh)
    return drop_duplicates(cleaned, unchanged.astype(np.float32), threshold)

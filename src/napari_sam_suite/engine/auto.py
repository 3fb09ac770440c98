"""Automatic masks: a grid of points asks the model for everything in an image.

The method and its parameters are those of the generators of SAM and SAM 2 (Kirillov
et al. 2023, Ravi et al. 2024), and in float32 so are the masks. The order of work is
ours: logits stay at low resolution, a mask the model rates too low is never drawn, and
one that is drawn is enlarged only inside the window it fills.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.cleaning import remove_small_regions
from napari_sam_suite.engine.errors import Cancelled, OutOfMemory
from napari_sam_suite.engine.masks import MaskBuilder, Masks, measure, tighten
from napari_sam_suite.engine.models.protocol import (
    MULTIMASK,
    SINGLE,
    Decoded,
    Embedding,
    Prompts,
    SamModel,
)
from napari_sam_suite.engine.resample import Enlargement
from napari_sam_suite.engine.suppression import (
    drop_duplicates,
    make_exclusive,
    within_area,
)
from napari_sam_suite.engine.tiles import (
    STANDARD_TILE,
    Region,
    crop_regions,
    join_tiles,
    tile_regions,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.params import AutoParams

logger = logging.getLogger(__name__)

Report = Callable[[int, int, str], None]
"""Called with what is done, what there is to do, and a word on it."""
Stop = Callable[[], bool]
"""Answers whether the user wants to stop."""


def automatic_masks(
    model: SamModel,
    image: NDArray[np.uint8],
    params: AutoParams,
    *,
    report: Report | None = None,
    stop: Stop | None = None,
) -> Masks:
    """Find everything in one image.

    Parameters
    ----------
    model : SamModel
        Any SAM model.
    image : ndarray, shape (H, W, 3), uint8
        RGB.
    params : AutoParams
        Thresholds left open are those recommended for the model.
    report, stop : callable, optional
        Progress in points, and the wish to stop, looked at between batches.

    Returns
    -------
    Masks
        The best first, as upstream orders them.

    Raises
    ------
    Cancelled
        If `stop` said so.
    OutOfMemory
        If not even one point at a time fits.
    """
    search = _Search(model, params.resolved(model.spec), report, stop)
    return search.run(image)


@dataclass
class _Search:
    model: SamModel
    params: AutoParams
    report: Report | None
    stop: Stop | None
    done: int = 0
    total: int = 0
    most: int = 0
    """Points at once, since memory ran out; 0 before."""

    def run(self, image: NDArray[np.uint8]) -> Masks:
        p = self.params
        shape = (image.shape[0], image.shape[1])
        crops = crop_regions(shape, p.crop_n_layers, p.crop_overlap_ratio)
        model = self.model
        tiles = tile_regions(shape, p.tile, model.input_size, model.spec.auto.tile)
        grids = {r: self._grid(r, tiled=bool(tiles)) for r in (*crops, *tiles)}
        self.total = sum(len(g) for g in grids.values())
        whole = self._merge_crops([self._look(image, r, grids[r]) for r in crops])
        found = [self._look(image, region, grids[region]) for region in tiles]
        masks = join_tiles(whole, found, tiles) if tiles else whole
        if p.min_mask_region_area:
            masks = self._clean(masks)
        masks = within_area(masks, p.min_area, p.max_area)
        if p.overlap == "allow":
            return masks
        # What better masks took may leave too little.
        return within_area(make_exclusive(masks), p.min_area, 0)

    def _grid(self, region: Region, *, tiled: bool) -> NDArray[np.float64]:
        """Points (n, 2) in a region's own (y, x), row by row as upstream.

        Tiles have as many as keeps their distance the same at every tile size, and
        beside tiles the whole image is searched for large objects only.
        """
        p = self.params
        n = p.points_per_side / p.crop_n_points_downscale_factor**region.layer
        if not region.is_crop:
            standard = STANDARD_TILE * self.model.input_size
            n = max(1, round(n * max(region.shape) / standard))
        elif tiled:
            n = max(1, n / 2)
        n = int(n)
        line = np.linspace(1 / (2 * n), 1 - 1 / (2 * n), n) if n else np.zeros(0)
        y, x = np.meshgrid(line, line, indexing="ij")
        points: NDArray[np.float64] = np.stack([y, x], -1).reshape(-1, 2)
        return points * np.array(region.shape, np.float64)

    def _look(
        self, image: NDArray[np.uint8], region: Region, grid: NDArray[np.float64]
    ) -> Masks:
        """All masks of one region, in the coordinates of the image."""
        shape = (image.shape[0], image.shape[1])
        self._pause("Encoding")
        pixels = np.ascontiguousarray(
            image[region.y0 : region.y1, region.x0 : region.x1]
        )
        embedding = self._encode(pixels)
        builder = MaskBuilder(shape)
        for decoded, points in self._decode(embedding, grid):
            self._keep(decoded, points, embedding, region, builder)
            self.done += len(points)
            self._pause("Finding objects")
        masks = builder.build()
        threshold = self.params.box_nms_thresh or 0.0
        return drop_duplicates(masks, masks.scores, threshold, region.origin)

    def _encode(self, pixels: NDArray[np.uint8]) -> Embedding:
        try:
            return self.model.encode([pixels])[0]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise self._too_little() from error

    def _too_little(self) -> OutOfMemory:
        return OutOfMemory(
            f"There is too little memory on {self.model.device} for "
            f"{self.model.spec.id}.",
            "Choose a smaller model or the CPU.",
        )

    def _decode(
        self, embedding: Embedding, grid: NDArray[np.float64]
    ) -> Iterator[tuple[Decoded, NDArray[np.float64]]]:
        """Decode a grid in batches, halved for as long as memory runs out."""
        start = 0
        while start < len(grid):
            size = self.params.points_per_batch or self.model.batch
            points = grid[start : start + min(size, self.most or size)]
            decoded = self._ask_if_it_fits(embedding, points)
            if decoded is not None:
                yield decoded, points
                start += len(points)
                continue
            self.most = half = len(points) // 2
            self.model.batch = min(self.model.batch, half)
            logger.warning("out of memory: %d points at a time from here", half)
            release_memory()

    def _ask_if_it_fits(
        self, embedding: Embedding, points: NDArray[np.float64]
    ) -> Decoded | None:
        """The answer, or None when memory ran out.

        The error ends in here: it holds on to all that the attempt had allocated.
        """
        try:
            return self._ask(embedding, points)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(points) == 1:
                raise self._too_little() from error
            return None

    def _ask(self, embedding: Embedding, points: NDArray[np.float64]) -> Decoded:
        p = self.params
        tokens = MULTIMASK if p.multimask else SINGLE
        prompts = Prompts.clicks(points)
        if not p.refine:
            return self.model.decode(
                embedding, prompts, tokens=tokens, min_iou=p.pred_iou_thresh or 0.0
            )
        first = self.model.decode(embedding, prompts, tokens=tokens)
        again = Prompts.clicks(points[first.prompt.cpu().numpy()])
        logits = first.logits[:, None].clamp(-32, 32)
        again = Prompts(again.points, again.labels, masks=logits)
        second = self.model.decode(
            embedding, again, tokens=SINGLE, min_iou=p.pred_iou_thresh or 0.0
        )
        origin = second.prompt
        return Decoded(
            second.logits, second.iou, first.prompt[origin], first.token[origin]
        )

    def _keep(
        self,
        decoded: Decoded,
        points: NDArray[np.float64],
        embedding: Embedding,
        region: Region,
        builder: MaskBuilder,
    ) -> None:
        """Measure the drawn masks at full resolution and keep the stable ones."""
        p = self.params
        enlargement = Enlargement.of(
            decoded.logits.shape[-1],
            self.model.input_size,
            embedding.scaled,
            embedding.shape,
        )
        logits = decoded.logits.cpu().numpy()
        scores = decoded.iou.cpu().numpy()
        asked = points[decoded.prompt.cpu().numpy()]
        levels = decoded.token.cpu().numpy()
        # In float32 as upstream: 19 of 20 pixels is stable enough for 0.95.
        required = float(np.float32(p.stability_score_thresh or 0.0))
        for k in range(len(scores)):
            found = measure(
                logits[k],
                enlargement,
                threshold=p.mask_threshold,
                offset=p.stability_score_offset or 0.0,
            )
            if required > 0 and not found.stability >= required:
                continue
            crop, (y0, x0) = tighten(found.crop, found.origin)
            origin = (y0 + region.y0, x0 + region.x0) if crop.size else region.origin
            box = (*origin, origin[0] + crop.shape[0], origin[1] + crop.shape[1])
            if region.is_crop and region.cuts(box, builder.shape):
                continue
            builder.add(
                crop,
                origin,
                score=float(scores[k]),
                stability=found.stability,
                level=int(levels[k]),
                point=(asked[k][0] + region.y0, asked[k][1] + region.x0),
                region=region.box,
            )

    def _merge_crops(self, found: list[Masks]) -> Masks:
        masks = Masks.concat(found)
        if len(found) == 1:
            return masks
        c = masks.crops.astype(np.int64)
        smaller_first = 1 / ((c[:, 2] - c[:, 0]) * (c[:, 3] - c[:, 1]))
        return drop_duplicates(
            masks, smaller_first.astype(np.float32), self.params.crop_nms_thresh
        )

    def _clean(self, masks: Masks) -> Masks:
        p = self.params
        cleaned, unchanged = remove_small_regions(masks, p.min_mask_region_area)
        threshold = max(p.box_nms_thresh or 0.0, p.crop_nms_thresh)
        return drop_duplicates(cleaned, unchanged.astype(np.float32), threshold)

    def _pause(self, text: str) -> None:
        if self.stop is not None and self.stop():
            raise Cancelled
        if self.report is not None:
            self.report(self.done, self.total, text)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch means that the device's memory is used up."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(
            words in str(error)
            for words in ("out of memory", "can't allocate memory", "not enough memory")
        )
    )


def release_memory() -> None:
    """Give cached device memory back before trying again."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""Automatic masks: a grid of points asks the model for everything in an image.

A model with a guide, such as the embedded one, is asked where the guide expects objects
instead: fewer prompts, and none between two objects.

The method and its parameters are those of the generators of SAM and SAM 2 (Kirillov
et al. 2023, Ravi et al. 2024), and in float32 so are the masks. The order of work is
ours: logits stay at low resolution, a mask the model rates too low is never drawn, and
one that is drawn is enlarged only inside the window it fills.
"""

from __future__ import annotations

import logging
import math
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.asking import Asker
from napari_sam_suite.engine.errors import Cancelled, ModelError
from napari_sam_suite.engine.filters import Candidates, choose, merge, passing
from napari_sam_suite.engine.finder import Found, Report, Stop
from napari_sam_suite.engine.guidance import UNDRAWN, Guidance
from napari_sam_suite.engine.masks import MaskBuilder, Masks, measure, tighten
from napari_sam_suite.engine.models.protocol import (
    MULTIMASK,
    SINGLE,
    Decoded,
    Embedding,
    Prompts,
    SamModel,
    to_numpy,
)
from napari_sam_suite.engine.proposals import propose
from napari_sam_suite.engine.resample import Enlargement
from napari_sam_suite.engine.tiles import (
    STANDARD_TILE,
    Region,
    crop_regions,
    tile_regions,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.params import AutoParams

logger = logging.getLogger(__name__)

_LOWER = 0.75
"""Kept candidates reach down to this part of the thresholds."""
_MOST = 256 * 2**20
"""Bytes that the candidates of one frame may take."""
_SMALL, _FEW = 0.05, 5
"""Diameter of objects in sides of a view, below which finer tiles are better, and how
many objects tell of it at least."""
_THRESHOLDS = ("pred_iou_thresh", "stability_score_thresh")


@dataclass(frozen=True)
class Automatic:
    """Automatic masks of every frame, as a `Finder`.

    Parameters
    ----------
    params : AutoParams
        Thresholds left open are those recommended for the model.
    keep_candidates : bool
        Also keep masks below the thresholds, for `filters.refilter`; the objects then
        have ids by which they are known again.
    """

    params: AutoParams
    keep_candidates: bool = False
    name = "auto"
    _key: str = field(default_factory=lambda: uuid.uuid4().hex, init=False, repr=False)

    def __call__(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        frame: FrameIndex,
        *,
        report: Report,
        stop: Stop,
    ) -> Found:
        """Find everything in one frame; see `automatic_masks`."""
        search = _Search(model, self.params.resolved(model.spec), report, stop)
        if not self.keep_candidates:
            return Found(search.run(rgb))
        search.keep = f"{self._key} {tuple(frame)}"
        masks = search.run(rgb)
        kept = search.candidates
        columns = {} if kept is None else {"id": kept.ids(masks)}
        return Found(masks, columns, kept)


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
        Progress in points of the grid, and the wish to stop, looked at between batches.

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
    return _Search(model, params.resolved(model.spec), report, stop).run(image)


@dataclass
class _Search:
    model: SamModel
    params: AutoParams
    report: Report | None
    stop: Stop | None
    keep: str = ""
    """Name of the candidates to keep; none if empty."""
    done: int = 0
    total: int = 0
    candidates: Candidates | None = None
    _guidance: Guidance | None = None

    def __post_init__(self) -> None:
        self.lowest = self.params
        self._asker = Asker(self.model)

    def run(self, image: NDArray[np.uint8]) -> Masks:
        p, spec, input_size = self.params, self.model.spec, self.model.input_size
        shape = (image.shape[0], image.shape[1])
        tiles = tile_regions(shape, p.tile, input_size, spec.auto.tile)
        side = round(spec.auto.tile * input_size)
        if p.tile != "auto" or max(shape) <= side:
            return self._search(image, tiles, (p,))[0]
        # What usual settings let pass tells how large objects are, whatever of them a
        # person wants to see: a filter that is moved gives what a new run would.
        usual = type(p)().resolved(spec)
        finer = tile_regions(shape, side // 2, input_size)
        maybe = p.search == "guided" or (p.search == "auto" and spec.guided)
        found, told = self._search(image, tiles, (p, usual), finer if maybe else ())
        if self._guidance is None or not _are_small(
            told, side if tiles else max(shape)
        ):
            return found
        return self._search(image, finer, (p,))[0]

    def _search(
        self,
        image: NDArray[np.uint8],
        tiles: list[Region],
        filters: Sequence[AutoParams],
        later: Sequence[Region] = (),
    ) -> list[Masks]:
        """What some filters leave of what is in the image, its crops and some tiles.

        Progress leaves room for tiles that may have to be searched `later`.
        """
        p = self.params
        shape = (image.shape[0], image.shape[1])
        crops = crop_regions(shape, p.crop_n_layers, p.crop_overlap_ratio)
        regions = [*crops, *tiles]
        grids = [self._grid(region, tiled=bool(tiles)) for region in regions]
        again = [self._grid(region, tiled=True) for region in [*crops, *later]]
        planned = [*grids, *again] if later else grids
        self.total = self.done + sum(len(grid) for grid in planned)
        self.lowest = _lowest(_lower(p) if self.keep else p, filters)
        kept: list[Masks] = []
        chosen: list[list[Masks]] = [[] for _ in filters]
        for region, grid in zip(regions, grids, strict=True):
            drawn = self._look(image, region, grid, sum(m.nbytes for m in kept))
            if self.keep:
                kept.append(drawn)
            for some, one in zip(chosen, filters, strict=True):
                some.append(choose(drawn, region, one))
        if self.keep:
            # The bar may have been raised after the first regions.
            found = tuple(m.select(passing(m, self.lowest)) for m in kept)
            self.candidates = Candidates(
                tuple(regions), found, p, self.lowest, self.keep
            )
        pairs = zip(chosen, filters, strict=True)
        return [merge(some, regions, one) for some, one in pairs]

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
        self,
        image: NDArray[np.uint8],
        region: Region,
        grid: NDArray[np.float64],
        held: int,
    ) -> Masks:
        """All masks of one region, in the coordinates of the image.

        `held` is how many bytes of candidates there are already. When they become
        too many, only those that pass are kept from here on.
        """
        shape = (image.shape[0], image.shape[1])
        if not len(grid):
            return Masks.empty(shape)
        self._pause("Encoding")
        pixels = np.ascontiguousarray(
            image[region.y0 : region.y1, region.x0 : region.x1]
        )
        embedding = self._asker.encode(pixels)
        planned, before = len(grid), self.done
        self._guidance = Guidance.of(embedding) if self._guided(embedding) else None
        if self._guidance is not None:
            grid = propose(embedding.maps()["guide"], region.shape)
        drawn = [Masks.empty(shape)]
        size, asked = self.params.points_per_batch, 0
        for decoded, points in self._asker.decode(embedding, grid, self._ask, size):
            builder = MaskBuilder(shape)
            self._keep(decoded, points, embedding, region, builder)
            drawn.append(builder.build())
            held += drawn[-1].nbytes
            if held > _MOST and self.lowest != self.params:
                self.lowest = self.params
                drawn = [m.select(passing(m, self.params)) for m in drawn]
                logger.info("too many candidates: only those that pass are kept")
            asked += len(points)
            self.done = before + planned * asked // len(grid)
            self._pause("Finding objects")
        self.done = before + planned
        return Masks.concat(drawn)

    def _guided(self, embedding: Embedding) -> bool:
        """Whether to ask where the model's guide says, and not a grid of points."""
        search = self.params.search
        able = "guide" in embedding.features
        if search == "guided" and not able:
            raise ModelError(
                f"{self.model.spec.id} has no guide that says where objects are.",
                "Set `search` to grid or auto.",
            )
        if search == "auto":
            search = self.model.spec.auto.search
        return able and search == "guided"

    def _ask(self, embedding: Embedding, points: NDArray[np.float64]) -> Decoded:
        p = self.params
        tokens = MULTIMASK if p.multimask else SINGLE
        least = self.lowest.pred_iou_thresh or 0.0
        prompts = Prompts.clicks(points)
        if not p.refine:
            return self._decode(embedding, prompts, tokens, least)
        first = self._decode(embedding, prompts, tokens)
        again = Prompts.clicks(points[to_numpy(first.prompt)])
        logits = first.logits[:, None].clip(-32, 32)
        again = Prompts(again.points, again.labels, masks=logits)
        second = self._decode(embedding, again, SINGLE, least)
        origin = second.prompt
        return Decoded(
            second.logits, second.iou, first.prompt[origin], first.token[origin]
        )

    def _decode(
        self,
        embedding: Embedding,
        prompts: Prompts,
        tokens: tuple[int, ...],
        least: float = 0.0,
    ) -> Decoded:
        """The model's answers, leaning on its guide where that chose the points."""
        ask = self.model.decode
        if self._guidance is None:
            return ask(embedding, prompts, tokens=tokens, min_iou=least)
        found = ask(embedding, prompts, tokens=tokens, min_iou=UNDRAWN * least)
        return self._guidance.lean(found, prompts)

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
            padded=embedding.padded,
        )
        decoded = decoded.numpy()
        logits, scores, levels = decoded.logits, decoded.iou, decoded.token
        asked = points[decoded.prompt]
        required = float(np.float32(self.lowest.stability_score_thresh or 0.0))
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

    def _pause(self, text: str) -> None:
        if self.stop is not None and self.stop():
            raise Cancelled
        if self.report is not None:
            self.report(self.done, self.total, text)


def _lowest(params: AutoParams, others: Sequence[AutoParams]) -> AutoParams:
    """Thresholds that let everything pass that passes any of several."""
    every = [params, *others]
    return params.with_(
        **{
            name: min(getattr(one, name) or 0.0 for one in every)
            for name in _THRESHOLDS
        }
    )


def _are_small(found: Masks, view: int) -> bool:
    """Whether objects found in views of a side would be drawn better in finer ones.

    Masks tell, and not what the guide expects: of noise it expects small objects.
    """
    if len(found) < _FEW:
        return False
    return bool(np.median(np.sqrt(found.area)) < _SMALL * view)


def _lower(params: AutoParams) -> AutoParams:
    """The thresholds down to which candidates are kept, in thousandths."""

    def lower(threshold: float | None) -> float:
        return math.floor((threshold or 0.0) * _LOWER * 1000) / 1000

    return params.with_(
        pred_iou_thresh=lower(params.pred_iou_thresh),
        stability_score_thresh=lower(params.stability_score_thresh),
    )

"""One encode per tile: candidates and their descriptors from the shared embedding."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.asking import Asker
from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.engine.fewshot.candidates import (
    Limits,
    deepest,
    draw_candidates,
    grid_points,
    peak_points,
)
from napari_sam_suite.engine.fewshot.guided import guide_odds
from napari_sam_suite.engine.fewshot.pooling import cells_per_pixel, descriptors
from napari_sam_suite.engine.fewshot.quality import CHOSEN, rating_odds
from napari_sam_suite.engine.fewshot.verifier import look_at
from napari_sam_suite.engine.filters import choose
from napari_sam_suite.engine.masks import Masks
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.proposals import propose
from napari_sam_suite.engine.suppression import drop_duplicates
from napari_sam_suite.engine.tiles import Region, tile_regions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.fewshot.params import FewShotParams
    from napari_sam_suite.engine.fewshot.scorer import Scorer
    from napari_sam_suite.engine.finder import Stop
    from napari_sam_suite.engine.models.protocol import Embedding, SamModel

_WIDTH = 24
"""Pixels of the model's input that an example shall be wide."""
_SMALLEST_TILE, _LARGEST_TILE = 0.25, 1.25
"""Sides of tiles over the side of the model's input."""
_TILE_PER_LENGTH = 5.0
"""Least side of a tile over the length of the longest example."""
_PITCH = 0.7
"""Distance of grid points over the width of the examples."""
_SMALLER, _LARGER = 0.25, 4.0
"""Areas of candidates over those of the smallest and the largest example."""
_SCORE, _STABILITY = 0.55, 0.75
"""Least ratings of candidates over those that suit the model: what is rated lower may
still be the best outline of its object, and everything is judged in the end."""
_REPEAT = 0.95
"""IoU of boxes from which two candidates are the same."""
_MAYBE = 0.4
"""Points on cells less like the examples than this part of them are not asked."""


@dataclass(frozen=True)
class Sizes:
    """How large the examples are, in pixels: areas and short sides, each (n,)."""

    areas: NDArray[np.float32]
    widths: NDArray[np.float32]

    @classmethod
    def of(cls, masks: Masks) -> Sizes:
        """Measure masks; the width is the area over the long side of the box."""
        sides = masks.boxes[:, 2:] - masks.boxes[:, :2]
        long = np.maximum(sides.max(1), 1)
        area = masks.area.astype(np.float32)
        return cls(area, (area / long).astype(np.float32))

    @classmethod
    def join(cls, parts: list[Sizes]) -> Sizes:
        """Sizes of several frames together."""
        return cls(
            np.concatenate([p.areas for p in parts]),
            np.concatenate([p.widths for p in parts]),
        )

    @property
    def width(self) -> float:
        """A width that most examples have at least."""
        return max(float(np.quantile(self.widths, 0.25)), 2.0)

    def limits(self, model: SamModel, params: FewShotParams) -> Limits:
        """What a candidate must be."""
        low = params.min_area
        high = params.max_area
        auto = model.spec.auto
        return Limits(
            auto.pred_iou_thresh,
            auto.stability_score_thresh,
            int(_SMALLER * self.areas.min()) if low is None else low,
            int(np.ceil(_LARGER * self.areas.max())) if high is None else high,
        )

    def regions(
        self, shape: tuple[int, int], model: SamModel, params: FewShotParams
    ) -> list[Region]:
        """The tiles of a frame, or the frame itself.

        Tiles follow the examples: small ones are enlarged, within bounds, so that the
        model sees them, and no tile is made for large ones that does not help.
        """
        whole = Region(0, 0, *shape, is_crop=False)
        if params.tile != "auto":
            return tile_regions(shape, params.tile, model.input_size) or [whole]
        side = np.clip(self.width / _WIDTH, _SMALLEST_TILE, _LARGEST_TILE)
        # An object as long as the overlap is seen whole in one of the tiles.
        longest = float((self.areas / np.maximum(self.widths, 1e-6)).max())
        side = max(float(side), _TILE_PER_LENGTH * longest / model.input_size)
        return tile_regions(shape, "auto", model.input_size, side) or [whole]


@dataclass(frozen=True)
class Seen:
    """Candidates of one region.

    Attributes
    ----------
    masks : Masks
        N of them.
    vectors : ndarray, shape (N, D), float32
        Their descriptors.
    odds : ndarray, shape (N,), float64
        See `quality.rating_odds` and `guided.guide_odds`; zeros in exact mode.
    chosen : ndarray of bool, shape (N,)
        What the model would have found by itself, of which the odds know; none in
        exact mode.
    looks : ndarray, shape (N, L), float32
        See `verifier.look_at`; L is 0 for models without a verifier and in exact mode.
    """

    masks: Masks
    vectors: NDArray[np.float32]
    odds: NDArray[np.float64]
    chosen: NDArray[np.bool_]
    looks: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Memory of the masks and descriptors, in bytes."""
        return self.masks.nbytes + self.vectors.nbytes + self.looks.nbytes

    @classmethod
    def join(cls, parts: list[Seen]) -> Seen:
        """Candidates of all regions of a frame."""
        filled = [p for p in parts if len(p.masks)] or parts[:1]
        return cls(
            Masks.concat([p.masks for p in parts]),
            np.concatenate([p.vectors for p in filled]),
            np.concatenate([p.odds for p in parts]),
            np.concatenate([p.chosen for p in parts]),
            np.concatenate([p.looks for p in filled]),
        )

    def select(self, rows: NDArray[np.integer]) -> Seen:
        """Some of the candidates."""
        return Seen(
            self.masks.select(rows),
            self.vectors[rows],
            self.odds[rows],
            self.chosen[rows],
            self.looks[rows],
        )


def look(
    model: SamModel,
    rgb: NDArray[np.uint8],
    region: Region,
    embedding: Embedding,
    sizes: Sizes,
    likeness: Scorer,
    params: FewShotParams,
    stop: Stop,
) -> Seen:
    """All candidates of one region and their descriptors.

    Points are asked where the model's guide expects objects, if it has one, on a grid
    whose pitch follows the examples' width, where the features could be an example's,
    and at the cells most like the examples; each in one tile only. What the model would
    have chosen by itself of the first counts more.

    Parameters
    ----------
    model : SamModel
        Only its decoder is used.
    rgb : ndarray, shape (H, W, 3), uint8
        The whole frame.
    region, embedding : Region, Embedding
        The tile and what the encoder gave for it.
    sizes : Sizes
        Of the examples.
    likeness : Scorer
        Of single cells.
    params : FewShotParams
        Points, areas.
    stop : callable
        Looked at between batches.
    """
    shape = (rgb.shape[0], rgb.shape[1])
    limits = sizes.limits(model, params).loosened(_SCORE, _STABILITY)
    regions = sizes.regions(shape, model, params)

    def draw(points: NDArray[np.float64]) -> Masks:
        mine = points[deepest(points, region, regions, shape)]
        return draw_candidates(model, embedding, mine, region, shape, limits, stop)

    expected = draw(expected_points(embedding, region))
    chosen = choose(expected, region, AutoParams().resolved(model.spec))
    others = draw(choose_points(embedding, region, sizes, likeness, params))
    masks = Masks.concat([chosen, expected, others])
    rating = masks.scores * masks.stability
    # The chosen ones come first, and stay where others are the same.
    rating[: len(chosen)] += 1
    masks = drop_duplicates(masks, rating, _REPEAT, region.origin)
    own = np.arange(len(masks)) < len(chosen)
    rated = rating_odds(masks, model.spec.auto)
    guided = guide_odds(embedding, masks, region)
    vectors = descriptors(embedding, masks, rgb, region)
    looks = look_at(embedding, masks, rgb, region, rated, guided)
    return Seen(masks, vectors, rated + guided + CHOSEN * own, own, looks)


def expected_points(embedding: Embedding, region: Region) -> NDArray[np.float64]:
    """Where the model's guide expects objects, (n, 2) in the region's own (y, x)."""
    maps = embedding.maps()
    if "guide" not in maps:
        return np.zeros((0, 2))
    return propose(maps["guide"], region.shape)


def choose_points(
    embedding: Embedding,
    region: Region,
    sizes: Sizes,
    likeness: Scorer,
    params: FewShotParams,
) -> NDArray[np.float64]:
    """Where else to ask in a region, (n, 2) in its own (y, x)."""
    cells = cell_features(embedding)
    size = (cells.shape[1], cells.shape[2])
    # Points closer than feature cells ask the same again.
    pitch = max(_PITCH * sizes.width, max(region.shape) / max(size))
    if params.points_per_side is not None:
        pitch = max(region.shape) / params.points_per_side
    grid = grid_points(region.shape, pitch)
    scale = cells_per_pixel(embedding, size)
    scores = likeness.score(cells.reshape(len(cells), -1).T).reshape(size)
    at = [
        np.minimum(((grid[:, k] + 0.5) * scale[k]).astype(int), size[k] - 1)
        for k in (0, 1)
    ]
    held_out = likeness.held_out()
    least = _MAYBE * float(held_out.min()) if len(held_out) else 0.0
    maybe = grid[scores[at[0], at[1]] >= min(least, _MAYBE)]
    peaks = peak_points(scores, 0.5, scale)
    inside = (peaks < np.array(region.shape)).all(1)
    return np.concatenate([maybe, peaks[inside]])


def cell_features(embedding: Embedding) -> NDArray[np.float32]:
    """Coarse features (C, h, w) on the CPU."""
    return embedding.maps()["image"]


def embed(
    model: SamModel, rgb: NDArray[np.uint8], region: Region, stop: Stop
) -> Embedding:
    """Encode one region of a frame."""
    if stop():
        raise Cancelled
    part = rgb[region.y0 : region.y1, region.x0 : region.x1]
    return Asker(model).encode(np.ascontiguousarray(part))


def tile_key(rgb: NDArray[np.uint8], region: Region) -> str:
    """Tells the pixels of a region, and its place, from all others."""
    pixels = rgb[region.y0 : region.y1, region.x0 : region.x1]
    digest = hashlib.sha256(repr((rgb.shape, region.box)).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()

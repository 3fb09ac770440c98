"""Regions of an image that are looked at one by one, and their masks put together.

Crops are upstream's multi-crop scheme, kept for the same results. Tiles are ours: for
images much larger than the model's input, which would lose small objects when they
are scaled down to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.suppression import best_first, suppress_overlaps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_EDGE = 20
"""Upstream's distance in pixels at which a box counts as cut by its crop."""
STANDARD_TILE = 1.25
"""Tile side over the model's input side, at which a tile gets the whole grid."""
_TILE_OVERLAP = 0.25
"""Part of a tile that it shares with its neighbour, at least."""
_AGREE = 0.5
"""IoU inside the shared strip from which two pieces are one object."""


@dataclass(frozen=True)
class Region:
    """A rectangle of the image, rows y0..y1 and columns x0..x1, half-open."""

    y0: int
    x0: int
    y1: int
    x1: int
    layer: int = 0
    is_crop: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def origin(self) -> tuple[int, int]:
        """(y, x) of the first pixel."""
        return self.y0, self.x0

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(y0, x0, y1, x1)."""
        return self.y0, self.x0, self.y1, self.x1

    def cuts(
        self, box: tuple[int, int, int, int], image: tuple[int, int], near: int = _EDGE
    ) -> bool:
        """Whether `box` comes near an edge of the region inside the image."""
        return any(self.cut_sides(box, image, near))

    def cut_sides(
        self, box: tuple[int, int, int, int], image: tuple[int, int], near: int
    ) -> tuple[bool, bool, bool, bool]:
        """Whether `box` comes within `near` pixels of top, left, bottom and right.

        Sides that are the image's own border never count. The box's last row and
        column are inclusive here, as in upstream's rule.
        """
        inclusive = (box[0], box[1], max(box[2] - 1, 0), max(box[3] - 1, 0))
        border = (0, 0, *image)
        sides = [
            abs(b - r) <= near and not abs(b - e) <= near
            for b, r, e in zip(inclusive, self.box, border, strict=True)
        ]
        return sides[0], sides[1], sides[2], sides[3]


def crop_regions(
    shape: tuple[int, int], layers: int, overlap_ratio: float
) -> list[Region]:
    """The image and, for each layer i, its 4^i overlapping crops."""
    height, width = shape
    regions = [Region(0, 0, height, width)]
    for layer in range(1, layers + 1):
        n = 2**layer
        overlap = int(overlap_ratio * min(shape) * (2 / n))
        h = math.ceil((overlap * (n - 1) + height) / n)
        w = math.ceil((overlap * (n - 1) + width) / n)
        for i, j in product(range(n), range(n)):
            x0, y0 = (w - overlap) * i, (h - overlap) * j
            y1, x1 = min(y0 + h, height), min(x0 + w, width)
            regions.append(Region(y0, x0, y1, x1, layer))
    return regions


def tile_regions(
    shape: tuple[int, int],
    tile: int | Literal["auto", "off"],
    input_size: int,
    scale: float = STANDARD_TILE,
) -> list[Region]:
    """Overlapping tiles that cover an image, or none if it needs no tiles.

    ``"auto"`` makes them `scale` times as large as the model's input.

    Raises
    ------
    ParameterError
        If the tile is too small to hold an object.
    """
    if tile == "off":
        return []
    side = round(scale * input_size) if tile == "auto" else tile
    if side < 32:
        raise ParameterError(
            f"A tile of {side} pixels is too small.", "Use at least 32, auto or off."
        )
    if max(shape) <= side * (1 + _TILE_OVERLAP if tile == "auto" else 1):
        return []
    rows, columns = (_spread(length, side) for length in shape)
    return [
        Region(y0, x0, y1, x1, 0, is_crop=False)
        for (y0, y1), (x0, x1) in product(rows, columns)
    ]


def _spread(length: int, side: int) -> list[tuple[int, int]]:
    """Evenly spread spans of `side` over `length`, overlapping by a quarter or more."""
    if length <= side:
        return [(0, length)]
    n = math.ceil((length - side) / (side * (1 - _TILE_OVERLAP))) + 1
    starts = np.linspace(0, length - side, n).round().astype(int)
    return [(int(s), int(s) + side) for s in starts]


def join_tiles(whole: Masks, found: Sequence[Masks], tiles: Sequence[Region]) -> Masks:
    """One list of objects from what was found in the whole image and in its tiles.

    Objects that a tile shows whole are taken from there, objects too large for it
    from the whole image, and objects on a seam are put together from pieces that
    agree where their tiles overlap.
    """
    complete, pieces = [], []
    for masks, tile in zip(found, tiles, strict=True):
        cut = np.array(
            [tile.cuts(tuple(b), masks.shape, near=1) for b in masks.boxes.tolist()],
            bool,
        )
        complete.append(masks.select(np.flatnonzero(~cut)))
        pieces.append(masks.select(np.flatnonzero(cut)))
    seen = Masks.concat(complete)
    seen = seen.select(suppress_overlaps(seen, best_first(seen)))
    joined = _join_pieces(pieces, tiles)
    everything = Masks.concat([seen, joined, whole])
    # Tiles show detail, so in a tie they come before pieces and the whole image.
    rank = np.repeat([0, 1, 2], [len(seen), len(joined), len(whole)])
    order = np.lexsort((-everything.scores, rank))
    return everything.select(suppress_overlaps(everything, order))


def _join_pieces(pieces: Sequence[Masks], tiles: Sequence[Region]) -> Masks:
    """Unite cut masks of neighbouring tiles; what stays cut is left out."""
    parts = [(t, k) for t, masks in enumerate(pieces) for k in range(len(masks))]
    number = {part: i for i, part in enumerate(parts)}
    group = list(range(len(parts)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    for a, b in _neighbours(tiles):
        for i, j in _agreeing(pieces[a], pieces[b], tiles[a], tiles[b]):
            group[root(number[a, i])] = root(number[b, j])
    builder = MaskBuilder(pieces[0].shape)
    members: dict[int, list[tuple[int, int]]] = {}
    for i, part in enumerate(parts):
        members.setdefault(root(i), []).append(part)
    for same in members.values():
        if _is_whole(same, pieces, tiles):
            _unite(same, pieces, builder)
    return builder.build()


def _neighbours(tiles: Sequence[Region]) -> list[tuple[int, int]]:
    return [
        (a, b)
        for a in range(len(tiles))
        for b in range(a + 1, len(tiles))
        if tiles[a].y0 < tiles[b].y1
        and tiles[b].y0 < tiles[a].y1
        and tiles[a].x0 < tiles[b].x1
        and tiles[b].x0 < tiles[a].x1
    ]


def _agreeing(
    one: Masks, two: Masks, first: Region, second: Region
) -> list[tuple[int, int]]:
    """Pairs of pieces that mark the same pixels where two tiles overlap."""
    strip = (
        max(first.y0, second.y0),
        max(first.x0, second.x0),
        min(first.y1, second.y1),
        min(first.x1, second.x1),
    )
    area_one = [_pixels_in(one, i, strip) for i in range(len(one))]
    area_two = [_pixels_in(two, j, strip) for j in range(len(two))]
    pairs = []
    for i, a in enumerate(area_one):
        for j, b in enumerate(area_two):
            if min(a, b) <= _AGREE * max(a, b):
                continue
            shared = one.intersection(i, j, two)
            if shared > _AGREE * (a + b - shared):
                pairs.append((i, j))
    return pairs


def _pixels_in(masks: Masks, i: int, box: tuple[int, int, int, int]) -> int:
    crop, (y0, x0) = masks.crop(i)
    rows = slice(max(box[0] - y0, 0), max(box[2] - y0, 0))
    columns = slice(max(box[1] - x0, 0), max(box[3] - x0, 0))
    return int(np.count_nonzero(crop[rows, columns]))


def _is_whole(
    parts: Sequence[tuple[int, int]], pieces: Sequence[Masks], tiles: Sequence[Region]
) -> bool:
    """Whether every side on which a piece is cut goes on in another piece."""
    boxes: list[NDArray[np.int32]] = [pieces[t].boxes[k] for t, k in parts]
    low = np.min([b[:2] for b in boxes], axis=0)
    high = np.max([b[2:] for b in boxes], axis=0)
    for (t, _), box in zip(parts, boxes, strict=True):
        sides = tiles[t].cut_sides(tuple(box.tolist()), pieces[t].shape, 1)
        grows = (*(low < box[:2]), *(high > box[2:]))
        if any(cut and not more for cut, more in zip(sides, grows, strict=True)):
            return False
    return True


def _unite(
    parts: Sequence[tuple[int, int]], pieces: Sequence[Masks], builder: MaskBuilder
) -> None:
    boxes = np.array([pieces[t].boxes[k] for t, k in parts])
    y0, x0 = boxes[:, :2].min(0)
    y1, x1 = boxes[:, 2:].max(0)
    canvas = np.zeros((y1 - y0, x1 - x0), bool)
    for t, k in parts:
        crop, (top, left) = pieces[t].crop(k)
        rows = slice(top - y0, top - y0 + crop.shape[0])
        columns = slice(left - x0, left - x0 + crop.shape[1])
        canvas[rows, columns] |= crop
    best = max(parts, key=lambda part: pieces[part[0]].scores[part[1]])
    masks, k = pieces[best[0]], best[1]
    builder.add(
        canvas,
        (int(y0), int(x0)),
        score=float(np.mean([pieces[t].scores[i] for t, i in parts])),
        stability=float(np.mean([pieces[t].stability[i] for t, i in parts])),
        level=int(masks.level[k]),
        point=(float(masks.points[k, 0]), float(masks.points[k, 1])),
    )

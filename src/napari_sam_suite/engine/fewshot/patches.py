"""Small pictures of masks, all in the same pose: what a verifier looks at.

Around every mask a square is cut from the finest features, from the guide, the image
and the mask itself, and each is brought to the same few places; coarser features, which
know more of what is around, to fewer. What the guide says is told from the mask's own
point of view: in a mask of one whole object all places name its middle and its size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter

from napari_sam_suite.engine.guidance import Guidance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.protocol import Embedding
    from napari_sam_suite.engine.tiles import Region

SIDE, COARSE_SIDE = 24, 6
"""Places of a picture in each direction, and of its coarse part."""
_AROUND = 1.6
"""Side of the square over the longer side of the mask's box."""
_BATCH = 64
_COARSE = ("image", "middle")
"""Levels of features of which the coarse part of a picture is."""
_SURE, _FAR, _OTHER = 6.0, 4.0, 3.0
"""Bounds of the guide's logit, of the ways and of the logarithm of sizes."""
_FLAT = 0.02
"""Contrast, of 1, below which an image counts as flat."""


def draw_patches(
    embedding: Embedding, masks: Masks, rgb: NDArray[np.uint8], region: Region
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Pictures of masks, some at a time, for they are large.

    Parameters
    ----------
    embedding : Embedding
        Of the region, by a model with a guide.
    masks : Masks
        None empty, in the coordinates of the frame.
    rgb : ndarray, shape (H, W, 3), uint8
        The whole frame.
    region : Region
        Where the embedding lies in the frame.

    Yields
    ------
    pictures : ndarray, shape (N, C + 8, 24, 24), float32
        The C finest features; from the guide the logit of being in an object, the way
        (y, x) from the mask's middle to the one that a place names, in sizes of the
        mask, and the logarithm of the size that it tells over the mask's; red, green
        and blue, less their means, over their spread; the mask.
    coarse : ndarray, shape (N, D, 6, 6), float32
        The coarsest features and those between, D channels together.
    """
    guidance = Guidance.of(embedding)
    assert guidance is not None, "only models with a guide have verifiers"
    if len(masks):
        maps = _Maps(embedding.maps(), guidance, rgb, region)
        for first in range(0, len(masks), _BATCH):
            yield maps.look(masks, range(first, min(first + _BATCH, len(masks))))


class _Pose(NamedTuple):
    """Where a mask lies: rows and columns (S,) in the region, and the mask there.

    The middle is in places of the guide, the size the side of a square of its area.
    """

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    mask: NDArray[np.float32]
    middle: NDArray[np.float64]
    size: float


class _Maps:
    """Everything of one region that pictures are cut from."""

    def __init__(
        self,
        levels: dict[str, NDArray[np.float32]],
        guidance: Guidance,
        rgb: NDArray[np.uint8],
        region: Region,
    ) -> None:
        fine = levels["fine"]
        inside, size = guidance.inside[None], np.log(guidance.size)[None]
        self.features = np.concatenate([fine, inside, guidance.named, size])
        part = rgb[region.y0 : region.y1, region.x0 : region.x1]
        self.colours = (part.transpose(2, 0, 1) / 255).astype(np.float32)
        self.scale = guidance.scale
        self.region = region
        self.first = len(fine)
        self.coarse = [levels[name] for name in _COARSE]

    def look(
        self, masks: Masks, rows: range
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Pictures of some masks, (n, C, S, S), and their coarse parts."""
        poses = [self._pose(masks, i) for i in rows]
        y, x = np.stack([p.y for p in poses]), np.stack([p.x for p in poses])
        features = self._sample(self.features, y, x)
        self._turn(features, poses)
        colours = sample(self.colours, y, x)
        spread = colours.std((1, 2, 3), keepdims=True, ddof=1)
        colours = (colours - colours.mean((2, 3), keepdims=True)) / (spread + _FLAT)
        drawn = np.stack([p.mask for p in poses])[:, None]
        means = [
            at.reshape(len(poses), COARSE_SIDE, -1).mean(2, dtype=float)
            for at in (y, x)
        ]
        coarse = [self._sample(level, *means) for level in self.coarse]
        return np.concatenate([features, colours, drawn], 1), np.concatenate(coarse, 1)

    def _sample(
        self,
        maps: NDArray[np.float32],
        y: NDArray[np.float64],
        x: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """Maps at rows and columns of pixels of the region."""
        places = [
            (at + 0.5) * side / length - 0.5
            for at, side, length in zip(
                (y, x), maps.shape[1:], self.region.shape, strict=True
            )
        ]
        return sample(maps, *places)

    def _pose(self, masks: Masks, i: int) -> _Pose:
        crop, (top, left) = masks.crop(i)
        first = np.array([top - self.region.y0, left - self.region.x0])
        sides = np.array(crop.shape)
        reach = float(max(*sides, 2)) * _AROUND
        steps = (np.arange(SIDE) + 0.5) / SIDE - 0.5
        y, x = (first + (sides - 1) / 2)[:, None] + steps * reach
        pixels = np.argwhere(crop)
        middle = (pixels.mean(0) + first + 0.5) * self.scale - 0.5
        size = float(np.sqrt(len(pixels) * self.scale.prod()))
        mask = crop.astype(np.float32)
        if reach > 2 * SIDE:
            # Where places are pixels apart, each shows the mean of those around it.
            mask = uniform_filter(mask, int(reach / SIDE) | 1, mode="constant")
        # The edge around it is empty, and so is what lies beyond.
        mask = np.pad(mask, 1)[None]
        drawn = sample(mask, (y - first[0] + 1)[None], (x - first[1] + 1)[None])
        return _Pose(y, x, drawn[0, 0], middle, size)

    def _turn(self, features: NDArray[np.float32], poses: list[_Pose]) -> None:
        """Tell the guide's part from the point of view of the masks, in place."""
        k = self.first
        size = np.array([p.size for p in poses])[:, None, None]
        middles = np.stack([p.middle for p in poses])[..., None, None]
        features[:, k] = features[:, k].clip(-_SURE, _SURE) / 3
        for axis in (0, 1):
            way = (features[:, k + 1 + axis] - middles[:, axis]) / size
            features[:, k + 1 + axis] = way.clip(-_FAR, _FAR)
        features[:, k + 3] = (features[:, k + 3] - np.log(size)).clip(-_OTHER, _OTHER)


def sample(
    maps: NDArray[np.float32], y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Maps (C, h, w) between their places, at rows and columns (n, S), (n, C, S, S).

    Beyond the first and the last place they stay as they are there.
    """
    (top, down), (left, across) = (
        _between(at, side) for at, side in zip((y, x), maps.shape[1:], strict=True)
    )
    flat = np.ascontiguousarray(maps.reshape(len(maps), -1).T)
    width = maps.shape[2]

    def at(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = flat[
            rows[:, :, None] * width + columns[:, None, :]
        ]
        return found

    bottom = np.minimum(top + 1, maps.shape[1] - 1)
    right = np.minimum(left + 1, width - 1)
    over, below = across[:, None, :, None], down[:, :, None, None]
    upper = at(top, left) * (1 - over) + at(top, right) * over
    lower = at(bottom, left) * (1 - over) + at(bottom, right) * over
    found = upper * (1 - below) + lower * below
    return found.astype(np.float32, copy=False).transpose(0, 3, 1, 2)


def _between(
    at: NDArray[np.float64], side: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The place before, and the part of the way to the next."""
    inside = at.clip(0, side - 1)
    before = np.floor(inside).astype(np.intp)
    return before, (inside - before).astype(np.float32)

"""The parts of a frame that the model is given: as in automatic masks, and variants.

A variant is another window of the same scale, turned, mirrored and lit differently.
What the encoder says about a view does not change while the encoder is frozen, so the
views are fixed before training begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.tiles import Region, crop_regions, tile_regions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from numpy.typing import NDArray

    from napari_sam_suite.engine.finetune.data import Sample
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.raster import Window

_SCALES = (0.75, 1.33)
_GAMMAS = (0.75, 1.33)
_GAINS = (0.8, 1.2)
_VISIBLE = 0.3
"""Of a cut object, the part that must be inside to be asked for."""
_SMALLEST = 4
NOTHING, HARDLY = -1, -2
"""No object, and one of which too little can be seen."""


@dataclass(frozen=True)
class View:
    """A part of a frame, and how it is shown.

    Attributes
    ----------
    sample : int
        Which frame.
    region : Region
        Which part.
    turn : int
        Quarter turns, and 4 more if mirrored.
    gamma, gain : float
        Of the intensities; 1 leaves them as they are.
    """

    sample: int
    region: Region
    turn: int = 0
    gamma: float = 1.0
    gain: float = 1.0


def inference_views(
    samples: Sequence[Sample], spec: ModelSpec, tile: int | Literal["auto", "off"]
) -> list[View]:
    """The whole frames and their tiles, as automatic masks look at them at first."""
    views = []
    for number, sample in enumerate(samples):
        regions = crop_regions(sample.shape, 0, 0.0)
        regions += tile_regions(sample.shape, tile, spec.input_size, spec.auto.tile)
        views += [View(number, region) for region in regions]
    return views


def vary(
    views: Sequence[View], samples: Sequence[Sample], count: int, seed: int
) -> list[View]:
    """Draw `count` variants of every view."""
    rng = np.random.default_rng([seed, 1])
    return [
        _variant(v, samples[v.sample].shape, rng) for v in views for _ in range(count)
    ]


def _variant(view: View, shape: tuple[int, int], rng: np.random.Generator) -> View:
    scale = np.exp(rng.uniform(*np.log(_SCALES)))
    height, width = (
        int(np.clip(round(side * scale), min(32, full), full))
        for side, full in zip(view.region.shape, shape, strict=True)
    )
    y0 = int(rng.integers(shape[0] - height + 1))
    x0 = int(rng.integers(shape[1] - width + 1))
    return View(
        view.sample,
        Region(y0, x0, y0 + height, x0 + width, is_crop=view.region.is_crop),
        int(rng.integers(8)),
        float(np.exp(rng.uniform(*np.log(_GAMMAS)))),
        float(np.exp(rng.uniform(*np.log(_GAINS)))),
    )


def show(view: View, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels of a view, (h, w, 3) uint8."""
    region = view.region
    pixels = rgb[region.y0 : region.y1, region.x0 : region.x1]
    if view.gamma != 1 or view.gain != 1:
        levels = np.linspace(0, 1, 256) ** view.gamma * view.gain
        pixels = np.clip(levels * 255 + 0.5, 0, 255).astype(np.uint8)[pixels]
    return np.ascontiguousarray(turn(pixels, view.turn))


def turn(array: NDArray[np.generic], how: int) -> NDArray[np.generic]:
    """Turn the first two axes by quarter turns, and mirror if `how` is 4 or more."""
    turned = np.rot90(array, how % 4)
    return turned[:, ::-1] if how >= 4 else turned


class Scene:
    """The objects of one view, in its own pixels.

    Parameters
    ----------
    view : View
        Which part of the frame.
    sample : Sample
        The frame.
    least : float
        Pixels below which an object is too small to be drawn at the view's scale.

    Attributes
    ----------
    shape : (int, int)
        Height and width.
    owner : ndarray, (h, w) int32
        Which object is at each pixel, -1 for none and -2 for one of which too little
        can be seen; of several the last.
    """

    def __init__(self, view: View, sample: Sample, least: float = _SMALLEST) -> None:
        self._turn = view.turn
        self._size = view.region.shape
        self._parts: list[tuple[NDArray[np.bool_], Window]] = []
        owner = np.full(self._size, NOTHING, np.int32)
        for number in _inside(view.region, sample):
            part, window = _cut(view.region, *sample.masks.crop(number))
            owner[window][part] = HARDLY
            if part.sum() >= max(least, _VISIBLE * sample.masks.area[number]):
                owner[window][part] = len(self._parts)
                self._parts.append((part, window))
        self.owner = np.ascontiguousarray(turn(owner, self._turn))
        self.shape = (owner.shape[0], owner.shape[1])
        if view.turn % 2:
            self.shape = self.shape[::-1]

    def __len__(self) -> int:
        return len(self._parts)

    def mask(self, number: int) -> NDArray[np.bool_]:
        """One of the objects that can be seen well enough, (h, w) bool."""
        part, window = self._parts[number]
        mask = np.zeros(self._size, bool)
        mask[window] = part
        return np.ascontiguousarray(turn(mask, self._turn))


def _inside(region: Region, sample: Sample) -> list[int]:
    """Objects whose box meets the region."""
    y0, x0, y1, x1 = sample.masks.boxes.T
    meets = (y0 < region.y1) & (y1 > region.y0) & (x0 < region.x1) & (x1 > region.x0)
    found: list[int] = np.flatnonzero(meets).tolist()
    return found


def _cut(
    region: Region, crop: NDArray[np.bool_], origin: tuple[int, int]
) -> tuple[NDArray[np.bool_], Window]:
    """The part of a crop inside a region, and where it lies there."""
    y, x = origin
    y0, x0 = max(y, region.y0), max(x, region.x0)
    y1 = min(y + crop.shape[0], region.y1)
    x1 = min(x + crop.shape[1], region.x1)
    window = (
        slice(y0 - region.y0, y1 - region.y0),
        slice(x0 - region.x0, x1 - region.x0),
    )
    return crop[y0 - y : y1 - y, x0 - x : x1 - x], window

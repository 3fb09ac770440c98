"""Which part of an image a prompt is looked at in.

A model sees its square input. A nucleus of 20 pixels in an image of 2048 is nearly
lost in it, and a tissue fold does not fit the tile that suits nuclei. So there is a
ladder of views: tiles, tiles of twice their side, and so on, up to the whole image.
A box says how large its object is, and with it the rung; a click begins with the
finest, and goes up while its answer is cut off by the edge of the view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_sam_suite.engine.tiles import Region, tile_regions

if TYPE_CHECKING:
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.prompts.prompt import Prompt

_CONTEXT = 4.5
"""A view is at least this many times as wide as the object: from there on the mean IoU
of the embedded model is flat (measured on nuclei and on phase contrast)."""
_SPREAD = 2.0
"""The same for a few points, which are nearer together than the object is wide."""


@dataclass(frozen=True)
class Views:
    """The ladder of views of one image.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the image.
    sides : tuple of int
        Sides of the square tiles, the finest first; the whole image comes after them.
    """

    shape: tuple[int, int]
    sides: tuple[int, ...]

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        model: SamModel,
        tile: int | Literal["auto", "off"] = "auto",
    ) -> Views:
        """The ladder that suits a model; `tile` is the side of its finest tiles."""
        scale = model.spec.auto.tile
        finest = tile_regions(shape, tile, model.input_size, scale)
        if not finest:
            return cls(shape, ())
        side = tile if isinstance(tile, int) else round(scale * model.input_size)
        count = max(1, math.ceil(math.log2(max(shape) / side / 1.25)))
        return cls(shape, tuple(side * 2**k for k in range(count)))

    @property
    def last(self) -> int:
        """The rung of the whole image."""
        return len(self.sides)

    def rung(self, prompt: Prompt) -> int:
        """Where to begin with a prompt."""
        extent = prompt.extent
        if prompt.whole or extent is None:
            return self.last
        wide = max(extent[2] - extent[0], extent[3] - extent[1])
        sized = prompt.box is not None or prompt.mask is not None
        wanted = wide * (_CONTEXT if sized else _SPREAD)
        fitting = [k for k, side in enumerate(self.sides) if side >= wanted]
        return fitting[0] if fitting else self.last

    def finest(self) -> list[Region]:
        """All views of the first rung, row by row; none if there are no tiles."""
        if not self.sides:
            return []
        rows, columns = (_spans(length, self.sides[0]) for length in self.shape)
        return [
            Region(y0, x0, y1, x1, 0, is_crop=False)
            for (y0, y1), (x0, x1) in product(rows, columns)
        ]

    def at(self, rung: int, prompt: Prompt) -> Region:
        """The view of a rung in whose middle the prompt is, as nearly as there is."""
        extent = prompt.extent
        if rung >= self.last or extent is None:
            return Region(0, 0, *self.shape, layer=self.last)
        middle = (extent[0] + extent[2]) / 2, (extent[1] + extent[3]) / 2
        (y0, y1), (x0, x1) = (
            _nearest(length, self.sides[rung], place)
            for length, place in zip(self.shape, middle, strict=True)
        )
        return Region(y0, x0, y1, x1, rung, is_crop=False)


def _nearest(length: int, side: int, place: float) -> tuple[int, int]:
    """Of the spans along an axis, the one around `place`."""
    return min(_spans(length, side), key=lambda span: abs(sum(span) / 2 - place))


def _spans(length: int, side: int) -> list[tuple[int, int]]:
    """Evenly spread spans of `side` that overlap by half or more."""
    if length <= side:
        return [(0, length)]
    count = math.ceil((length - side) / (side / 2)) + 1
    starts = np.linspace(0, length - side, count).round().astype(int).tolist()
    return [(start, start + side) for start in starts]

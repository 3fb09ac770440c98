"""Which part of an image a prompt is looked at in.

A model sees its square input. A nucleus of 20 pixels in an image of 2048 is nearly
lost in it, and a tissue fold does not fit the tile that suits nuclei. So there is a
ladder of views: tiles, tiles of twice their side, and so on, up to the whole image.
A box says how large its object is, and with it the rung; a click begins with the
tiles, and goes up while its answer is cut off by the edge of the view. For small boxes,
and for clicks whose answer is small, a model that is used to enlarged images has a rung
below the tiles.

The views of a rung lie in a fixed grid, so that prompts one after the other meet
embeddings that are there. Many boxes at once are looked at in views that are laid
around them, if these are fewer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_sam_suite.engine.tiles import Region, tile_regions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.prompts.prompt import Box, Prompt

_CONTEXT, _BOXED = 4.5, 3.0
"""A view is at least this many times as wide as the object, and the second for a box
that no finer view than the model's usual tiles suits. With 1.6 to 3 for that, boxes of
cells in phase contrast reach a mean IoU of 0.717 on training images, with 4.5 one of
0.704, as cells are then seen smaller than the model knows them; nuclei stay as they
are. Masks were not measured and keep the first."""
_MARGIN = 0.25
"""In a view that is laid around many, a box is at least this part of its width from the
edge. From there to the middle the mean IoU does not change by more than 0.003 (87
training objects, each in six views)."""
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
    first : int
        The rung for prompts that do not say how large their object is.
    """

    shape: tuple[int, int]
    sides: tuple[int, ...]
    first: int = 0

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        model: SamModel,
        tile: int | Literal["auto", "off"] = "auto",
    ) -> Views:
        """The ladder that suits a model; `tile` is the side of its finest tiles."""
        scale = model.spec.auto.tile
        side = tile if isinstance(tile, int) else round(scale * model.input_size)
        sides: tuple[int, ...] = ()
        if tile_regions(shape, tile, model.input_size, scale):
            count = max(1, math.ceil(math.log2(max(shape) / side / 1.25)))
            sides = tuple(side * 2**k for k in range(count))
        if tile == "auto" and scale < 1 and max(shape) > side // 2:
            return cls(shape, (side // 2, *sides), 1)
        return cls(shape, sides)

    @property
    def last(self) -> int:
        """The rung of the whole image."""
        return len(self.sides)

    def rung(self, prompt: Prompt) -> int:
        """Where to begin with a prompt."""
        extent = prompt.extent
        if prompt.whole or extent is None:
            return self.last
        boxed = prompt.box is not None and prompt.mask is None
        # a mask is only looked at again, and there are many of them in every frame
        for k in range(0 if boxed else self.first, self.last):
            if boxed and k >= self.first:
                context = _BOXED
            else:
                context = _CONTEXT if _is_sized(prompt) else _SPREAD
            if self.sides[k] >= _wide(extent) * context:
                return k
        return self.last

    def finest(self) -> list[Region]:
        """All views of the first rung, row by row; none if there are no tiles."""
        if self.first >= self.last:
            return []
        side = self.sides[self.first]
        rows, columns = (_spans(length, side) for length in self.shape)
        return [
            Region(y0, x0, y1, x1, self.first, is_crop=False)
            for (y0, y1), (x0, x1) in product(rows, columns)
        ]

    def closer(self, box: Box) -> Region | None:
        """A view below the tiles that suits the object in a box, if there is one."""
        for k in range(self.first):
            if self.sides[k] >= _wide(box) * _CONTEXT:
                return self.at(k, box)
        return None

    def at(self, rung: int, extent: Box | None) -> Region:
        """The view of a rung in whose middle a box is, as nearly as there is."""
        if rung >= self.last or extent is None:
            return Region(0, 0, *self.shape, layer=self.last)
        middle = (extent[0] + extent[2]) / 2, (extent[1] + extent[3]) / 2
        (y0, y1), (x0, x1) = (
            _nearest(length, self.sides[rung], place)
            for length, place in zip(self.shape, middle, strict=True)
        )
        return Region(y0, x0, y1, x1, rung, is_crop=False)

    def among(self, rung: int, prompts: Sequence[Prompt]) -> list[Region]:
        """The view of a rung for each of several prompts; as few views as there are.

        Those around prompts that do not say how large their object is are the same as
        if each were alone.
        """
        views = [self.at(rung, prompt.extent) for prompt in prompts]
        sized = [
            i
            for i, prompt in enumerate(prompts)
            if rung < self.last and _is_sized(prompt)
        ]
        boxes = [_with_margin(prompts[i].extent, self.shape) for i in sized]
        around = _cover(boxes, self.sides[rung], self.shape) if sized else []
        if len(set(around)) < len({views[i] for i in sized}):
            for i, (y0, y1, x0, x1) in zip(sized, around, strict=True):
                views[i] = Region(y0, x0, y1, x1, rung, is_crop=False)
        return views


def _is_sized(prompt: Prompt) -> bool:
    return prompt.box is not None or prompt.mask is not None


def _wide(extent: Box) -> float:
    return max(extent[2] - extent[0], extent[3] - extent[1])


def _with_margin(extent: Box | None, shape: tuple[int, int]) -> Box:
    """A box with what a view should show around it, as far as the image goes."""
    assert extent is not None, "a box or a mask has an extent"
    more = _MARGIN * _wide(extent)
    y0, x0, y1, x1 = extent
    return (
        max(y0 - more, 0.0),
        max(x0 - more, 0.0),
        min(y1 + more, shape[0] - 1.0),
        min(x1 + more, shape[1] - 1.0),
    )


def _cover(
    boxes: Sequence[Box], side: int, shape: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """For each box the square (y0, y1, x0, x1) that holds it, of a few.

    Rows of squares from the top: a row begins where the highest box does that is left,
    and each of its squares where the first box does that is left in the row.
    """
    found: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)] * len(boxes)
    left = sorted(range(len(boxes)), key=lambda i: boxes[i][0])
    while left:
        y0, y1 = _from(boxes[left[0]][0], side, shape[0])
        row = [i for i in left if boxes[i][2] <= y1 - 1]
        left = [i for i in left if boxes[i][2] > y1 - 1]
        row.sort(key=lambda i: boxes[i][1])
        while row:
            x0, x1 = _from(boxes[row[0]][1], side, shape[1])
            for i in row:
                if boxes[i][3] <= x1 - 1:
                    found[i] = (y0, y1, x0, x1)
            row = [i for i in row if boxes[i][3] > x1 - 1]
    return found


def _from(place: float, side: int, length: int) -> tuple[int, int]:
    """The span of `side` that begins at a place, or before where the image ends."""
    start = max(0, min(math.floor(place), length - side))
    return start, min(start + side, length)


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

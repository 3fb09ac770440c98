"""Where a hand points in the image, and what that says of an object. Knows no Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.widgets.layers import current_frame, plane_size
from napari_sam_suite.widgets.placement import to_data

if TYPE_CHECKING:
    from napari.layers import Image
    from numpy.typing import ArrayLike

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.prompts.prompt import Box, Point, Prompt

_HALF = 0.5  # px that a pixel reaches beyond its centre
_LEAST = 1  # px that a box is wide and high


@dataclass(frozen=True, eq=False)
class Aim:
    """Places in the viewer as places in an image.

    All places are given in world coordinates, with an axis for each slider.

    Attributes
    ----------
    layer : Image
        Any layer of the image.
    letters : str
        Meaning of its axes.
    """

    layer: Image
    letters: str

    def frame(self, world: ArrayLike) -> FrameIndex:
        """The frame that was in view when somebody pointed there."""
        return current_frame(self.layer, self.letters, world)[0]

    def point(self, world: ArrayLike) -> Point:
        """(y, x) in pixels of what was clicked.

        Raises
        ------
        ParameterError
            If it is outside the image.
        """
        place = self._place(world)
        point = self._inside(place)
        if np.abs(np.subtract(point, place)).max() > _HALF:
            raise ParameterError("That is outside the image.")
        return point

    def nearest(self, world: ArrayLike) -> Point:
        """(y, x) of the pixel that is nearest, wherever somebody looks."""
        return self._inside(self._place(world))

    def corners(self, one: ArrayLike, other: ArrayLike) -> Box:
        """(y0, x0, y1, x1) between two corners, as much as is in the image."""
        first, second = self.nearest(one), self.nearest(other)
        (y0, y1), (x0, x1) = (sorted(pair) for pair in zip(first, second, strict=True))
        return y0, x0, y1, x1

    def box(self, one: ArrayLike, other: ArrayLike) -> Box:
        """The same of what was drawn as a box.

        Raises
        ------
        ParameterError
            If it has no area to speak of.
        """
        box = self.corners(one, other)
        if min(box[2] - box[0], box[3] - box[1]) < _LEAST:
            raise ParameterError("That box is too small.")
        return box

    def _place(self, world: ArrayLike) -> Point:
        y, x = to_data(self.layer, world)[-2:].tolist()
        return y, x

    def _inside(self, place: Point) -> Point:
        y, x = np.clip(place, 0, np.array(plane_size(self.layer)) - 1).tolist()
        return y, x


def with_point(prompt: Prompt, point: Point, inside: bool) -> Prompt:
    """Say that a point belongs to the object, or that it does not.

    Raises
    ------
    ParameterError
        If nothing was said of what belongs to it.
    """
    if inside:
        return replace(prompt, inside=(*prompt.inside, point))
    if not prompt.inside and prompt.box is None:
        raise ParameterError("Click the object first, then what does not belong to it.")
    return replace(prompt, outside=(*prompt.outside, point))


def with_box(prompt: Prompt, box: Box) -> Prompt:
    """Say which part of the image the object is in."""
    return replace(prompt, box=box)

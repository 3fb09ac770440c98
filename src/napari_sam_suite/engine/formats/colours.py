"""Colours that are easy to tell apart, the same in every file."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import numpy as np
import shapely

from napari_sam_suite.engine.features import UNASSIGNED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shapely import MultiPolygon, Polygon

Colour = tuple[int, int, int]

_GREY = (190, 190, 190)
_HUES = 12
# Successive picks are far apart on the circle, and all twelve come round.
_STRIDE = 5


def palette_colour(index: int) -> Colour:
    """One of a round of colours of about the same lightness.

    Parameters
    ----------
    index : int
        0 or more; every twelfth is the same.

    Returns
    -------
    tuple of int
        Red, green, blue, 0 to 255.
    """
    place = index * _STRIDE % _HUES
    return _pack(0.86 if place % 2 else 0.78, 0.18, (place + 0.3) / _HUES)


def neighbour_colours(
    polygons: Sequence[Polygon | MultiPolygon], distance: float
) -> list[Colour]:
    """A colour for each polygon, another one than its neighbours have.

    Parameters
    ----------
    polygons : sequence of Polygon or MultiPolygon
    distance : float
        Those nearer than this, in px, are neighbours.

    Returns
    -------
    list of tuple of int
        Where a polygon has more than eleven neighbours, the colour least used there.
    """
    shapes = np.array(polygons, dtype=object)
    tree = shapely.STRtree(shapes)
    near: list[list[int]] = [[] for _ in polygons]
    pairs = tree.query(shapes, predicate="dwithin", distance=distance)
    for one, other in pairs.T.tolist():
        if other < one:
            near[one].append(other)
    picks = np.zeros(len(polygons), dtype=np.int64)
    for one, others in enumerate(near):
        used = np.bincount(picks[others], minlength=_HUES)
        # Start the search elsewhere each time, so that all colours are in use.
        turn = np.roll(used, -(one % _HUES))
        picks[one] = (int(turn.argmin()) + one) % _HUES
    return [palette_colour(int(pick)) for pick in picks]


def tag_colour(tag: str) -> Colour:
    """Colour of a tag: the same for the same name, in any file on any machine.

    Parameters
    ----------
    tag : str

    Returns
    -------
    tuple of int
        Red, green, blue, 0 to 255; grey for objects without a tag.
    """
    if tag == UNASSIGNED:
        return _GREY
    code = zlib.crc32(tag.encode())
    return _pack(0.72 + 0.12 * (code >> 31), 0.17, (code & 0xFFFF) / 0x10000)


def _pack(lightness: float, chroma: float, hue: float) -> Colour:
    """OKLCH to 8-bit sRGB (Ottosson, 2020), hue in turns, cut at the gamut."""
    a = chroma * math.cos(2 * math.pi * hue)
    b = chroma * math.sin(2 * math.pi * hue)
    cone = np.array(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    linear = np.clip(
        np.array(
            [
                [4.0767416621, -3.3077115913, 0.2309699292],
                [-1.2684380046, 2.6097574011, -0.3413193965],
                [-0.0041960863, -0.7034186147, 1.7076147010],
            ]
        )
        @ cone**3,
        0,
        1,
    )
    steep = 1.055 * linear ** (1 / 2.4) - 0.055
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, steep)
    red, green, blue = np.round(encoded * 255).astype(int).tolist()
    return red, green, blue

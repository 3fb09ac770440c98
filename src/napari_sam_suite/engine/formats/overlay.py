"""Picture of an image with its objects outlined, to look at and to show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely
from PIL import Image, ImageDraw

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.formats.atomic import replacing
from napari_sam_suite.engine.formats.colours import neighbour_colours, tag_colour

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from shapely import MultiPolygon, Polygon

    from napari_sam_suite.engine.formats.colours import Colour
    from napari_sam_suite.engine.objects import Objects

_FINE = 4
_LARGEST_STENCIL = 2**24
_GOOD_SIZE = 1200
_MOST_ZOOM = 4
# A dark seam lets a bright outline stand out on a bright image.
_SEAM_ALPHA = 0.55
# Objects nearer than this, in px of the image, get different colours.
_NEAR = 12.0
# Corners are cut this much, in px of the image, to take the staircase out.
_CUT = 0.6


class _Stencil(NamedTuple):
    """Coverage of an object's inside, outline and seam, 0 to 255, in a window."""

    window: tuple[slice, slice]
    inside: NDArray[np.uint8]
    line: NDArray[np.uint8]
    seam: NDArray[np.uint8]


def draw_overlay(
    rgb: NDArray[np.uint8],
    objects: Objects,
    *,
    fill_alpha: float = 0.12,
    width: float = 2.6,
    zoom: int = 1,
) -> NDArray[np.uint8]:
    """Draw objects onto an image with smooth-edged outlines.

    Neighbouring objects have different colours; where there are several tags, each
    tag has its own. Smaller objects are drawn over larger ones. Corners are rounded
    by about half a pixel of the image.

    Parameters
    ----------
    rgb : (H, W, 3) array of uint8
        Left unchanged.
    objects : Objects
        Of one frame.
    fill_alpha : float
        How much colour the inside gets, 0 to 1.
    width : float
        Of the outline in px of the picture.
    zoom : int
        Enlarge the image this many times first, so that outlines stay thin on it.

    Returns
    -------
    (H * zoom, W * zoom, 3) array of uint8

    Raises
    ------
    ParameterError
        If the image is not 8-bit RGB.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ParameterError(
            f"An overlay needs an 8-bit RGB image, not {rgb.dtype} of shape "
            f"{rgb.shape}.",
            "Make a composite of the channels first.",
        )
    height, across = (side * zoom for side in rgb.shape[:2])
    large = Image.fromarray(rgb).resize((across, height), Image.Resampling.BICUBIC)
    picture = np.asarray(large, dtype=np.float32).copy()
    colours = _choose_colours(objects)
    drawn_first = np.argsort([-polygon.area for polygon in objects.polygons])
    stencils = [
        (colours[row], stencil)
        for row in drawn_first
        if (stencil := _stencil(objects.polygons[row], (height, across), zoom, width))
    ]
    for colour, stencil in stencils:
        _blend(picture[stencil.window], colour, stencil.inside, fill_alpha)
    for colour, stencil in stencils:
        _blend(picture[stencil.window], (0, 0, 0), stencil.seam, _SEAM_ALPHA)
        _blend(picture[stencil.window], colour, stencil.line, 1.0)
    drawn: NDArray[np.uint8] = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return drawn


def write_overlay(
    path: str | Path,
    rgb: NDArray[np.uint8],
    objects: Objects,
    *,
    fill_alpha: float = 0.12,
    width: float = 2.6,
    zoom: int | None = None,
) -> None:
    """Write the picture of `draw_overlay` as PNG, whole or not at all.

    Parameters
    ----------
    path : str or Path
        Where the picture shall be.
    rgb, objects, fill_alpha, width
        See `draw_overlay`.
    zoom : int, optional
        By default small images are enlarged up to 4 times, to about 1200 px.

    Raises
    ------
    ParameterError
        If the image is not 8-bit RGB.
    OutputError
        If the file cannot be written.
    """
    if zoom is None:
        zoom = int(np.clip(_GOOD_SIZE // max(1, *rgb.shape[:2]), 1, _MOST_ZOOM))
    picture = draw_overlay(rgb, objects, fill_alpha=fill_alpha, width=width, zoom=zoom)
    with replacing(path) as part:
        Image.fromarray(picture).save(part, format="PNG")


def _choose_colours(objects: Objects) -> list[Colour]:
    tags = objects.features["tag"].tolist()
    if len(set(tags)) > 1:
        return [tag_colour(tag) for tag in tags]
    return neighbour_colours(objects.polygons, _NEAR)


def _stencil(
    polygon: Polygon | MultiPolygon, shape: tuple[int, int], zoom: int, width: float
) -> _Stencil | None:
    """Draw a polygon finer than the picture, then average: that smooths the edges."""
    margin = int(np.ceil(width)) + 2
    bounds = (np.array(polygon.bounds) + 0.5) * zoom
    y0, x0 = np.maximum(np.floor(bounds[:2]).astype(int) - margin, 0)
    y1, x1 = np.minimum(np.ceil(bounds[2:]).astype(int) + margin, shape)
    if y0 >= y1 or x0 >= x1:
        return None
    fine = _FINE
    while fine > 1 and (y1 - y0) * (x1 - x0) * fine**2 > _LARGEST_STENCIL:
        fine //= 2
    size = (int(x1 - x0) * fine, int(y1 - y0) * fine)
    inside, line, seam = (Image.new("L", size) for _ in range(3))
    for part in shapely.get_parts(polygon):
        for hole, ring in enumerate(shapely.get_rings(part)):
            points = _round_corners(shapely.get_coordinates(ring))
            points = (points + 0.5) * zoom - (y0, x0)
            path: Any = list(map(tuple, points[:, ::-1] * fine - 0.5))
            ImageDraw.Draw(inside).polygon(path, fill=0 if hole else 255)
            for image, extra in ((line, 0.0), (seam, 2.0)):
                thick = max(1, round((width + extra) * fine))
                ImageDraw.Draw(image).line(path, 255, thick)
    cover = [np.asarray(image.reduce(fine)) for image in (inside, line, seam)]
    return _Stencil((slice(y0, y1), slice(x0, x1)), *cover)


def _round_corners(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chaikin's corner cutting, twice, but never deep into a long edge."""
    for cut in (_CUT, _CUT / 2):
        start, step = ring[:-1], np.diff(ring, axis=0)
        length = np.maximum(np.hypot(*step.T), 1e-12)[:, None]
        share = np.minimum(0.25, cut / length)
        ends = np.stack([start + share * step, start + (1 - share) * step], axis=1)
        ring = np.concatenate([ends.reshape(-1, 2), ends[0, :1]])
    return ring


def _blend(
    part: NDArray[np.float32], colour: Colour, cover: NDArray[np.uint8], alpha: float
) -> None:
    share = cover[..., None] * np.float32(alpha / 255)
    part += (np.array(colour, dtype=np.float32) - part) * share

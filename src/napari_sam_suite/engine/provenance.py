"""What objects say of where they come from: how large the image is, what was searched.

The source of `Objects` is a dictionary that JSON can hold. Frames that were searched
are kept as a person would write them, counted from 1 in the order position, time, z, so
that ten thousand of them are a few characters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.errors import EngineError, ParameterError
from napari_sam_suite.engine.frames import (
    FrameIndex,
    Sizes,
    format_selection,
    parse_selection,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from napari_sam_suite.engine.image import ImageSource

SEARCHED = "searched"
"""Where the source says which frames were searched."""
SHAPES = "shapes"
"""Where it has the rows and columns of each position, if that is known."""
SAVED_FROM = "saved_from"
"""Where the source names the program in which a person looked at the objects."""


def sizes_in(source: Mapping[str, Any]) -> Sizes | None:
    """Sizes of the image, or None if the source does not say."""
    known = source.get("sizes")
    if not known:
        return None
    # A tuple is what JSON makes of it when it was not turned into a dictionary.
    named = known if isinstance(known, dict) else Sizes(*known)._asdict()
    return Sizes(**{k: int(v) for k, v in named.items() if k in Sizes._fields})


def shape_in(source: Mapping[str, Any], position: int) -> tuple[int, int] | None:
    """Rows and columns of the image at a position; None if the source does not say."""
    shapes = source.get(SHAPES)
    if isinstance(shapes, (list, tuple)) and position < len(shapes):
        y, x = shapes[position]
        return int(y), int(x)
    sizes = sizes_in(source)
    return None if sizes is None else (sizes.y, sizes.x)


def check_size(source: Mapping[str, Any], image: ImageSource) -> None:
    """Make sure that objects are of an image with as many rows and columns.

    Parameters
    ----------
    source : mapping
        Of the objects; where it does not say how large their image is, nothing is
        known against them.
    image : ImageSource
        The one they are to be used on.

    Raises
    ------
    ParameterError
        If theirs has another size.
    """
    sizes = sizes_in(source)
    if sizes is None or sizes[-2:] == image.sizes[-2:]:
        return
    raise ParameterError(
        f"The objects are of an image of {sizes.y} x {sizes.x} pixels, and "
        f"{image.name!r} has {image.sizes.y} x {image.sizes.x}.",
        "Give objects that were drawn on this image, or on one of the same size.",
    )


def scale_in(source: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Size of a voxel in z, y and x, or None if the source does not say."""
    known = source.get("scale")
    if not isinstance(known, (list, tuple)) or len(known) not in (2, 3):
        return None
    *z, y, x = (float(size) for size in known)
    return (z[0] if z else 1.0, y, x)


def searched_in(source: Mapping[str, Any]) -> list[FrameIndex]:
    """Frames that were searched, in order; none if the source does not say."""
    sizes, text = sizes_in(source), source.get(SEARCHED)
    if sizes is None or not isinstance(text, str) or not text.strip():
        return []
    try:
        numbers = parse_selection(text, sizes.frame_count, field=SEARCHED)
    except EngineError:
        return []
    return [
        FrameIndex(*(int(i) for i in np.unravel_index(number, sizes[:3])))
        for number in numbers
    ]


def mark_searched(
    source: Mapping[str, Any], frames: Iterable[FrameIndex]
) -> dict[str, Any]:
    """The source with other frames as those that were searched.

    Parameters
    ----------
    source : mapping
        Without sizes it stays as it is.
    frames : iterable of FrameIndex
        Of the image.
    """
    sizes = sizes_in(source)
    if sizes is None:
        return dict(source)
    numbers = [
        (frame.position * sizes.time + frame.time) * sizes.z + frame.z
        for frame in frames
    ]
    return {**source, SEARCHED: format_selection(numbers)}


def merge_sources(sources: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One source for objects of several.

    Those that agree in all but the frames that were searched are one; what is
    different is kept as ``{"sources": [...]}``.
    """
    distinct: list[dict[str, Any]] = []
    searched: list[set[FrameIndex]] = []
    for source in sources:
        for one in source.get("sources", [source]):
            plain = {name: value for name, value in one.items() if name != SEARCHED}
            if not plain:
                continue
            if plain not in distinct:
                distinct.append(plain)
                searched.append(set())
            searched[distinct.index(plain)].update(searched_in(one))
    merged = [
        mark_searched(one, sorted(frames)) if frames else one
        for one, frames in zip(distinct, searched, strict=True)
    ]
    if len(merged) > 1:
        return {"sources": merged}
    return merged[0] if merged else {}


def check_labels(labels: NDArray[Any], sizes: Sizes) -> None:
    """Make sure that a label image has the pixels of its image.

    Raises
    ------
    ParameterError
        If it has others.
    """
    if labels.shape != (sizes.y, sizes.x):
        raise ParameterError(
            f"Labels of shape {labels.shape} do not fit an image of "
            f"({sizes.y}, {sizes.x}) pixels."
        )

"""Label TIFF: one instance number per pixel, one page per frame, and objects in it.

What the pages and the description hold is told in `label_writer`.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

import numpy as np
import tifffile

from napari_sam_suite.engine.errors import ImageError, ParameterError
from napari_sam_suite.engine.formats.instances import check_instances, check_numbers
from napari_sam_suite.engine.formats.label_writer import (
    CAPABILITY,
    IMAGE,
    PAGES,
    TRACK,
    LabelWriter,
)
from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.provenance import SAVED_FROM, SEARCHED, scale_in, sizes_in
from napari_sam_suite.engine.readers.tiff import describe
from napari_sam_suite.engine.readers.whole import check_whole, listening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.readers.contents import Calibration

# ImageJ has no positions; P is a letter of ours.
_LETTERS = {"P": "position", "T": "time", "Z": "z"}
# What reading a damaged TIFF raises, with and without compiled codecs.
_DAMAGE = (
    OSError, ValueError, RuntimeError, LookupError, struct.error, zlib.error
)  # fmt: skip


def write_labels(path: str | Path, labels: NDArray[Any]) -> None:
    """Write one label image, whole or not at all.

    Parameters
    ----------
    path : str or Path
        Where the TIFF shall be.
    labels : (H, W) array of int
        Written as uint16, or uint32 where numbers exceed 65535; never as 8 bit.

    Raises
    ------
    ParameterError
        If these are no labels.
    OutputError
        If the file cannot be written.
    """
    if labels.ndim != 2:
        raise ParameterError(
            f"A label image must have two dimensions, this one has {labels.ndim}.",
            "Use LabelWriter for stacks.",
        )
    with LabelWriter(path, Sizes(y=labels.shape[0], x=labels.shape[1])) as writer:
        writer.write(FrameIndex(), labels)


def read_labels(path: str | Path) -> NDArray[Any]:
    """Read a label image of any number of dimensions.

    Parameters
    ----------
    path : str or Path
        TIFF with whole numbers, 0 for background.

    Returns
    -------
    array of int
        ``(..., H, W)``, axes of length 1 in front removed.

    Raises
    ------
    ImageError
        If the file is missing, damaged or not a label image.
    """
    return _read(Path(path)).labels


def write(objects: Objects, path: Path) -> None:
    """Write objects as a label TIFF of their image's size.

    Raises
    ------
    ParameterError
        If ``objects.source["sizes"]`` does not say how large the image is.
    """
    sizes = sizes_in(objects.source)
    if sizes is None:
        raise ParameterError(
            "The size of the image is not known, so labels cannot be drawn.",
            "Put it into source['sizes'], or save as .geojson.",
        )
    with LabelWriter(
        path,
        sizes,
        scale=scale_in(objects.source),
        units=str(objects.source.get("units", "")),
    ) as writer:
        writer.tracked = TRACK in objects.features
        writer.capability = str(objects.source.get(CAPABILITY) or "")
        writer.image = str(objects.source.get(IMAGE) or "")
        writer.saved_from = str(objects.source.get(SAVED_FROM) or "")
        for frame in objects.searched():
            writer.write(frame, objects.at(frame).to_labels((sizes.y, sizes.x)))


def read(path: Path) -> Objects:
    """Read a label TIFF as objects, one for each number on each frame.

    The number is in the column `label`, and in `track` where the file says so.

    Raises
    ------
    ImageError
        If the file is missing or damaged, or does not hold one number per object.
    """
    labels, axes, about, size = _read(path)
    lead = [_LETTERS.get(axis, "") for axis in axes[:-2]]
    if axes[-2:] != "YX" or "" in lead:
        raise ImageError(
            f"{path.name} has axes {axes}, not some of PTZYX.",
            "Save it as a stack of label images.",
        )
    check_instances(labels, path.name)
    lengths = dict(zip(lead, labels.shape, strict=False))
    sizes = Sizes(**lengths, y=labels.shape[-2], x=labels.shape[-1])
    pages = str(about.get(PAGES, f"1-{sizes.frame_count}"))
    source = {
        "image": path.name,
        "path": str(path),
        "sizes": sizes._asdict(),
        "scale": list(size.scale),
        "units": size.units,
        SEARCHED: pages,
    }
    frames = [
        Objects.from_labels(
            labels[index],
            FrameIndex(**dict(zip(lead, index, strict=True))),
            source=source,
        )
        for index in np.ndindex(*labels.shape[:-2])
    ]
    objects = Objects.concat(frames)
    if about.get("numbers") == TRACK:
        objects = objects.with_features(track=objects.features["label"])
    return objects


def origin(path: Path) -> dict[str, Any] | None:
    """What the description of a file says, without reading its pixels.

    Returns
    -------
    dict or None
        None if the file was not written here.
    """
    try:
        with listening(), tifffile.TiffFile(path) as tiff:
            told = tiff.pages.first.description
            about = tiff.imagej_metadata or json.loads(told)
    except _DAMAGE:
        return None
    if not isinstance(about, dict) or PAGES not in about:
        return None
    quoted = str(about.get(IMAGE, ""))
    return {**about, IMAGE: os.fsdecode(unquote_to_bytes(quoted))}


class _Found(NamedTuple):
    """Labels, their axes, what the description says, and the size of a pixel."""

    labels: NDArray[Any]
    axes: str
    about: dict[str, Any]
    size: Calibration


def _read(path: Path) -> _Found:
    if path.is_dir():
        raise ImageError(f"{path} is a folder.", "Give a label TIFF.")
    if not path.is_file():
        raise ImageError(f"{path} does not exist.", "Check the name.")
    if path.stat().st_size == 0:
        raise ImageError(
            f"{path.name} is empty: the file has no bytes.",
            "Copy it again, or write it again.",
        )
    try:
        with listening() as said, tifffile.TiffFile(path) as tiff:
            every = tiff.series
            check_whole(tiff, said, path.name)
            full = [one for one in every if not one.keyframe.is_reduced] or every
            series, axes = full[0], full[0].axes
            if len(full) > 1:
                _check_alike(full, path.name)
                labels, axes = np.stack([one.asarray() for one in full]), f"P{axes}"
            else:
                labels = series.asarray()
            shaped = tiff.shaped_metadata or ()
            about = dict(tiff.imagej_metadata or next(iter(shaped), {}))
            size = describe(tiff, series.keyframe)[1]
    except _DAMAGE as error:
        raise ImageError(
            f"{path.name} cannot be read as a TIFF: {error}.", "Give a label TIFF."
        ) from error
    while labels.ndim > 2 and labels.shape[0] == 1:
        labels, axes = labels[0], axes[1:]
    if labels.ndim < 2 or "S" in axes:
        raise ImageError(
            f"{path.name} is not a label image: its axes are {axes}.",
            "A label image has one whole number per pixel.",
        )
    check_numbers(labels, path.name)
    return _Found(labels, axes, about, size)


def _check_alike(series: Sequence[tifffile.TiffPageSeries], name: str) -> None:
    """Make sure that series of a file can be its positions."""
    first = series[0]
    for number, one in enumerate(series, start=1):
        if (one.shape, one.axes) != (first.shape, first.axes) or "P" in one.axes:
            raise ImageError(
                f"{name} holds label images that differ: number 1 has shape "
                f"{first.shape} and axes {first.axes}, number {number} {one.shape} "
                f"and {one.axes}.",
                "Save them as separate files.",
            )

"""Label TIFF: one instance number per pixel, one page per frame, zlib-compressed.

Pages are in the order position, time, z. 16-bit files are ImageJ hyperstacks, so that
Fiji and napari find the axes, the pixel size and the brightness by themselves; what
ImageJ cannot hold (32-bit numbers, several positions) is written with its axes as
JSON, which napari and other readers built on `tifffile` understand. Either way the
description says under ``pages_segmented`` which pages were looked at, counted from 1:
the others are zero because nobody looked, not because nothing is there. Where objects
have tracks, their numbers are those, and ``numbers`` is ``track`` in the description.
Under ``capability`` it says who found them, under ``saved_from`` where they were seen.
"""

from __future__ import annotations

import json
import math
import struct
import tempfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self, cast

import numpy as np
import tifffile

from napari_sam_suite.engine.errors import ImageError, ParameterError
from napari_sam_suite.engine.formats.atomic import explain, replacing
from napari_sam_suite.engine.formats.instances import check_instances
from napari_sam_suite.engine.frames import FrameIndex, Sizes, format_selection
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.provenance import (
    SAVED_FROM,
    SEARCHED,
    check_labels,
    scale_in,
    sizes_in,
)
from napari_sam_suite.engine.readers.contents import Calibration, in_micrometers
from napari_sam_suite.engine.readers.tiff import describe
from napari_sam_suite.engine.readers.whole import check_whole, listening

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

_BIG = 2**32 - 2**25
_TRACK = "track"
_PAGES = "pages_segmented"
_CAPABILITY = "capability"
# ImageJ has no positions; P is a letter of ours.
_LETTERS = {"P": "position", "T": "time", "Z": "z"}
# What reading a damaged TIFF raises, with and without compiled codecs.
_DAMAGE = (
    OSError, ValueError, RuntimeError, LookupError, struct.error, zlib.error
)  # fmt: skip


class _Page(NamedTuple):
    """Where a compressed frame lies in the spool, and its type."""

    start: int
    size: int
    dtype: np.dtype[Any]


class LabelWriter:
    """Write the label images of one image as they come, in any order.

    Frames are kept compressed in a nameless file beside the target, so memory holds
    one frame at a time. `close` puts the TIFF together; until then there is no file
    of that name. Frames that never came are zero. Used as a context manager, it
    closes at the end and leaves nothing behind after an error.

    Parameters
    ----------
    path : str or Path
        Where the TIFF shall be.
    sizes : Sizes
        Of the image; channels do not matter.
    scale : tuple of float, optional
        ``(z, y, x)`` size of a pixel.
    units : str, optional
        Of `scale`, such as ``"um"``.

    Attributes
    ----------
    tracked : bool
        Whether numbers are those of tracks; may be set until `close`.
    capability, saved_from : str
        Who found the objects, and in which program a person saw them, as their source
        says it; may be set until `close`.

    Raises
    ------
    OutputError
        If the folder cannot be written to, or is full.
    """

    def __init__(
        self,
        path: str | Path,
        sizes: Sizes,
        *,
        scale: tuple[float, float, float] | None = None,
        units: str = "",
    ) -> None:
        self.path = Path(path)
        self.sizes = sizes
        self.tracked = False
        self.capability = ""
        self.saved_from = ""
        self._scale = scale
        self._units = units
        self._pages: dict[FrameIndex, _Page] = {}
        self._highest = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer: what a full disk does not take must not come up again.
            self._spool: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115
                dir=self.path.parent, buffering=0
            )
        except OSError as error:
            raise explain(error, self.path) from error

    def write(self, frame: FrameIndex, labels: NDArray[Any]) -> None:
        """Take the label image of one frame.

        Parameters
        ----------
        frame : FrameIndex
            0-based. A frame that comes again replaces what was there.
        labels : (H, W) array of int
            0 is background.

        Raises
        ------
        ParameterError
            If the frame or the labels do not fit the image.
        OutputError
            If the disk is full; frames taken before can still be closed into a file.
        """
        self._check(frame, labels)
        highest = int(labels.max(initial=0))
        dtype = _dtype_for(highest)
        self._highest = max(self._highest, highest)
        data = _compress(labels.astype(dtype))
        try:
            start = self._spool.seek(0, 2)
            written = 0
            while written < len(data):
                written += self._spool.write(data[written:])
        except OSError as error:
            raise explain(error, self.path) from error
        self._pages[frame] = _Page(start, len(data), dtype)

    def close(self) -> Path:
        """Put the TIFF together and in place.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        OutputError
            If it cannot be written; nothing is left then.
        """
        with self._spool, replacing(self.path) as part:
            self._assemble(part)
        return self.path

    def discard(self) -> None:
        """Leave nothing behind."""
        self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _check(self, frame: FrameIndex, labels: NDArray[Any]) -> None:
        check_labels(labels, self.sizes)
        limits = (self.sizes.position, self.sizes.time, self.sizes.z)
        if not all(0 <= i < n for i, n in zip(frame, limits, strict=True)):
            raise ParameterError(f"The image has no {frame.label(self.sizes)}.")
        _check_numbers(labels)

    def _assemble(self, part: Path) -> None:
        lengths = dict(zip("PTZ", self.sizes, strict=False))
        lengths = {axis: n for axis, n in lengths.items() if n > 1}
        axes = "".join(lengths) + "YX"
        shape = (*lengths.values(), self.sizes.y, self.sizes.x)
        dtype = _dtype_for(self._highest)
        big = sum(page.size for page in self._pages.values()) > _BIG
        imagej = dtype == np.uint16 and "P" not in axes and not big
        metadata: dict[str, Any] = {"axes": axes, _PAGES: self._segmented()}
        if self.tracked:
            metadata["numbers"] = _TRACK
        told = {_CAPABILITY: self.capability, SAVED_FROM: self.saved_from}
        metadata |= {name: text for name, text in told.items() if text}
        if imagej:
            metadata |= {"min": 0.0, "max": float(max(self._highest, 1))}
        size, options = self._calibration(imagej=imagej)
        metadata |= size
        with tifffile.TiffWriter(
            part, bigtiff=big, byteorder="<", imagej=imagej
        ) as tiff:
            tiff.write(
                self._strips(dtype),
                shape=shape,
                dtype=dtype,
                photometric="minisblack",
                compression="zlib",
                rowsperstrip=self.sizes.y,
                metadata=metadata,
                **options,
            )

    def _calibration(self, *, imagej: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Size of a pixel, for the description and for the tags.

        ImageJ has the unit in the description and knows it as micron. Without ImageJ
        only the tags count, in centimetres.
        """
        scale = self._scale
        if scale is None or not all(math.isfinite(s) and s > 0 for s in scale):
            return {}, {}
        known = in_micrometers(scale, [self._units] * 3)
        metric = known.units != "pixel"
        z, y, x = known.scale if metric else scale
        unit = "micron" if metric else self._units
        metadata = {"spacing": z} | ({"unit": unit} if unit.isascii() else {})
        if imagej:
            return metadata, {"resolution": (1 / x, 1 / y)}
        if not metric:
            return metadata, {}
        tags = {"resolution": (1e4 / x, 1e4 / y), "resolutionunit": "CENTIMETER"}
        return metadata, tags

    def _segmented(self) -> str:
        """Pages whose frames were looked at, from 1; the others are zero for that."""
        order = {index: n for n, index in enumerate(np.ndindex(*self.sizes[:3]))}
        return format_selection(order[tuple(frame)] for frame in self._pages)

    def _strips(self, dtype: np.dtype[Any]) -> Iterator[bytes]:
        size = (self.sizes.y, self.sizes.x)
        blank = _compress(np.zeros(size, dtype))
        for index in np.ndindex(*self.sizes[:3]):
            page = self._pages.get(FrameIndex(*index))
            if page is None:
                yield blank
                continue
            self._spool.seek(page.start)
            data = self._spool.read(page.size)
            if page.dtype != dtype:
                narrow = np.frombuffer(zlib.decompress(data), page.dtype)
                data = _compress(narrow.astype(dtype))
            yield data


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
        writer.tracked = _TRACK in objects.features
        writer.capability = str(objects.source.get(_CAPABILITY) or "")
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
    pages = str(about.get(_PAGES, f"1-{sizes.frame_count}"))
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
    if about.get("numbers") == _TRACK:
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
    return about if isinstance(about, dict) and _PAGES in about else None


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
    _check_numbers(labels, path.name)
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


def _check_numbers(labels: NDArray[Any], name: str = "This array") -> None:
    if labels.dtype.kind == "i" and labels.min(initial=0) < 0:
        raise ImageError(
            f"{name} has negative numbers, which no labels are.",
            "A label image has 0 for background and a number from 1 for each object.",
        )
    if labels.dtype.kind not in "bui":
        raise ImageError(
            f"{name} does not hold labels but {labels.dtype} values.",
            "A label image has whole numbers, 0 for background.",
        )


def _dtype_for(highest: int) -> np.dtype[Any]:
    if highest >= 2**32:
        raise ParameterError(
            f"Label {highest} is too large for 32 bits.", "Number the objects anew."
        )
    return np.dtype("<u2" if highest < 2**16 else "<u4")


def _compress(page: NDArray[Any]) -> bytes:
    # Labels are runs of equal numbers: more effort gains nothing.
    return zlib.compress(cast("Any", np.ascontiguousarray(page)), 1)

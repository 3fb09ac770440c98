"""Label TIFF put together as its frames come: a page for each, zlib-compressed.

Pages are in the order position, time, z. 16-bit files are ImageJ hyperstacks, so that
Fiji and napari find the axes, the pixel size and the brightness by themselves; what
ImageJ cannot hold (32-bit numbers, several positions) is written with its axes as
JSON, which napari and other readers built on `tifffile` understand. Either way the
description says under ``pages_segmented`` which pages were looked at, counted from 1:
the others are zero because nobody looked, not because nothing is there. Where objects
have tracks, their numbers are those, and ``numbers`` is ``track`` in the description.
Under ``capability`` it says who found them, under ``path`` in which image, quoted as in
addresses, and under ``saved_from`` where they were seen.
"""

from __future__ import annotations

import math
import os
import tempfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self, cast
from urllib.parse import quote

import numpy as np
import tifffile

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.formats.atomic import explain, replacing
from napari_sam_suite.engine.formats.instances import check_numbers
from napari_sam_suite.engine.frames import FrameIndex, Sizes, format_selection
from napari_sam_suite.engine.provenance import SAVED_FROM, check_labels
from napari_sam_suite.engine.readers.contents import in_micrometers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from numpy.typing import NDArray

PAGES = "pages_segmented"
"""Where the description says which pages were looked at."""
CAPABILITY = "capability"
"""Where it says who found the objects."""
IMAGE = "path"
"""Where it says in which image."""
TRACK = "track"
"""What numbers are of, if they are those of tracks."""
_BIG = 2**32 - 2**25


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
    capability, image, saved_from : str
        Who found the objects, in which file, and in which program a person saw them,
        as their source says it; may be set until `close`.

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
        self.image = ""
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
        check_numbers(labels)

    def _assemble(self, part: Path) -> None:
        lengths = dict(zip("PTZ", self.sizes, strict=False))
        lengths = {axis: n for axis, n in lengths.items() if n > 1}
        axes = "".join(lengths) + "YX"
        shape = (*lengths.values(), self.sizes.y, self.sizes.x)
        dtype = _dtype_for(self._highest)
        big = sum(page.size for page in self._pages.values()) > _BIG
        imagej = dtype == np.uint16 and "P" not in axes and not big
        metadata: dict[str, Any] = {"axes": axes, PAGES: self._segmented()}
        if self.tracked:
            metadata["numbers"] = TRACK
        told = {
            CAPABILITY: self.capability,
            IMAGE: quote(os.fsencode(self.image)),  # a description is ASCII
            SAVED_FROM: self.saved_from,
        }
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


def _dtype_for(highest: int) -> np.dtype[Any]:
    if highest >= 2**32:
        raise ParameterError(
            f"Label {highest} is too large for 32 bits.", "Number the objects anew."
        )
    return np.dtype("<u2" if highest < 2**16 else "<u4")


def _compress(page: NDArray[Any]) -> bytes:
    # Labels are runs of equal numbers: more effort gains nothing.
    return zlib.compress(cast("Any", np.ascontiguousarray(page)), 1)

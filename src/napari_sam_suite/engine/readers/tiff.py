"""TIFF and OME-TIFF.

bioio's TIFF readers make one dask task per plane and open the file anew for every
plane: 16 s to open a time-lapse of 20,000 planes and 5 s to read one of them. tifffile,
which they stand on, needs 0.02 s and 0.001 s, so it is used directly.
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import ImageError
from napari_sam_suite.engine.readers.contents import (
    Calibration,
    Contents,
    check_alike,
    check_colours,
    in_micrometers,
)
from napari_sam_suite.engine.readers.whole import check_whole, listening
from napari_sam_suite.engine.stack import Stack, name_axes

if TYPE_CHECKING:
    from pathlib import Path

    import tifffile
    import zarr
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)


class _TiffPages:
    """Pages of one TIFF series, decoded when indexed; the file stays open."""

    def __init__(self, path: Path, number: int, series: tifffile.TiffPageSeries):
        self.shape: tuple[int, ...] = series.shape
        self.dtype = series.dtype
        self._path = path
        self._number = number
        self._lock = threading.Lock()
        self._pages: Any = None

    def __getitem__(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        with self._lock:
            if self._pages is None:
                self._pages = self._open()
            return self._pages[key]  # type: ignore[no-any-return]

    def _open(self) -> zarr.Array[Any]:
        import tifffile
        import zarr

        tiff = tifffile.TiffFile(self._path, is_mmstack=False)
        weakref.finalize(self, tiff.close)
        store = tiff.series[self._number].aszarr(level=0, chunkmode="page")
        return zarr.open_array(store, mode="r")


def open_tiff(path: Path, axes: str | None) -> Contents:
    """Open a TIFF or OME-TIFF, one stack per series; `axes` overrules the file's.

    Raises
    ------
    ImageError
        If it holds no image, not all of its frames, or images that differ.
    """
    import tifffile

    with listening() as said, tifffile.TiffFile(path, is_mmstack=False) as tiff:
        every = list(enumerate(tiff.series))
        check_whole(tiff, said, repr(path.name))
        full = [(n, one) for n, one in every if not one.keyframe.is_reduced] or every
        if not full:
            raise ImageError(
                f"{path.name!r} is a TIFF file without an image.",
                "It may be incomplete; write or copy it again.",
            )
        stacks = [
            _tiff_stack(_TiffPages(path, number, series), series, axes, path)
            for number, series in full
        ]
        for number, stack in enumerate(stacks):
            check_alike(stack, number, stacks[0], path)
        names, calibration = describe(tiff, full[0][1].keyframe)
        notices = _doubts(full[0][1], path) if stacks[0].rgb and not axes else ()
    return Contents(len(stacks), stacks.__getitem__, names, calibration, notices)


def _tiff_stack(
    pages: _TiffPages, series: tifffile.TiffPageSeries, axes: str | None, path: Path
) -> Stack:
    from tifffile import EXTRASAMPLE, PHOTOMETRIC

    what = repr(path.name)
    letters: str = series.axes
    if axes and series.keyframe.photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR):
        check_colours(axes, letters, what)
    if axes or any(letter in "QI" for letter in letters):
        return name_axes(pages, axes, what=what)
    if "S" not in letters:
        return name_axes(pages, letters, what=what)
    samples = pages.shape[letters.index("S")]
    page = series.keyframe
    if page.photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR) and samples in (3, 4):
        return name_axes(pages, letters, what=what)
    transparency = (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)
    alpha = sum(extra in transparency for extra in page.extrasamples)
    letters = letters.replace("C", "_").replace("S", "C")
    return name_axes(pages, letters, what=what, channels=samples - alpha)


def _doubts(series: tifffile.TiffPageSeries, path: Path) -> tuple[str, ...]:
    """What is to be said of colours that may be frames: tifffile's default for three.

    Cameras and scanners write colours pixel by pixel, and rarely in more than 8 bits.
    """
    from tifffile import PLANARCONFIG

    page = series.keyframe
    deep = series.dtype.itemsize > 1
    if page.planarconfig != PLANARCONFIG.SEPARATE or not deep:
        return ()
    count = series.shape[series.axes.index("S")]
    return (
        f"{path.name!r} says that its {count} planes of {series.dtype} are the colours "
        "of one image. If they are frames or channels, give `axes`, such as TYX or "
        "CYX.",
    )


def describe(
    tiff: tifffile.TiffFile, page: tifffile.TiffPage | tifffile.TiffFrame
) -> tuple[tuple[str, ...], Calibration]:
    """Channel names and voxel size; nothing where they make no sense.

    Parameters
    ----------
    tiff : TiffFile
        An open file.
    page : TiffPage
        Its first.
    """
    try:
        return _tiff_metadata(tiff, page)
    except (AttributeError, LookupError, SyntaxError, TypeError, ValueError):
        _log.info("The metadata of %s is not understood", tiff.filename, exc_info=True)
        return (), Calibration()


def _tiff_metadata(
    tiff: tifffile.TiffFile, page: tifffile.TiffPage | tifffile.TiffFrame
) -> tuple[tuple[str, ...], Calibration]:
    """Channel names and voxel size, where they are meant seriously."""
    import tifffile

    if tiff.ome_metadata:
        return _ome_metadata(tifffile.xml2dict(tiff.ome_metadata))
    units: tuple[object, ...] = (None, None, None)
    depth = None
    if tiff.imagej_metadata is not None:
        about = tiff.imagej_metadata
        depth = about.get("spacing")
        units = tuple(
            about.get(name, about.get("unit")) for name in ("zunit", "yunit", "unit")
        )
    elif page.resolutionunit != tifffile.RESUNIT.INCH:  # that is a printer's guess
        about = next(iter(tiff.shaped_metadata or ()), {})
        depth = about.get("spacing")
        unit = tifffile.RESUNIT(page.resolutionunit).name
        units = (about.get("unit"), unit, unit)
    x, y = (1 / value if value else None for value in page.resolution)
    return (), in_micrometers((depth, y, x), units)


def _ome_metadata(ome: dict[str, Any]) -> tuple[tuple[str, ...], Calibration]:
    """Channel names and voxel size of the first image of an OME document."""

    def as_list(value: Any) -> list[Any]:
        return value if isinstance(value, list) else [value]

    pixels = as_list(ome.get("OME", {}).get("Image", {}))[0].get("Pixels", {})
    names = tuple(
        str((channel or {}).get("Name") or f"channel {number}")
        for number, channel in enumerate(as_list(pixels.get("Channel", [])), 1)
    )
    sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    units = [pixels.get(f"PhysicalSize{axis}Unit", "um") for axis in "ZYX"]
    return names, in_micrometers(sizes, units)

"""What image files hold: TIFF and OME-TIFF, OME-Zarr, PNG and JPEG."""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import EngineError, ImageError, OutOfMemory
from napari_sam_suite.engine.stack import Stack, name_axes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import tifffile
    import zarr
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

_JPEG = (".jpg", ".jpeg")
_KINDS = "TIFF, OME-TIFF, OME-Zarr, PNG or JPEG"

_MICROMETERS = {
    **dict.fromkeys(("um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("\u00e5", "angstrom"), 1e-4),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
}


@dataclass(frozen=True)
class Calibration:
    """Size of a voxel.

    Attributes
    ----------
    scale : tuple of float
        In z, y and x; 1 where unknown.
    units : str
        ``"micrometer"`` or ``"pixel"``.
    """

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    units: str = "pixel"


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file holds: one stack per position, all alike.

    Attributes
    ----------
    count : int
        Number of stacks.
    stack : callable
        Returns the stack of a 0-based number below `count`.
    channel_names : tuple of str
        As the file has them; empty where it has none.
    calibration : Calibration
        Of the first stack.
    """

    count: int
    stack: Callable[[int], Stack]
    channel_names: tuple[str, ...] = ()
    calibration: Calibration = Calibration()


def read_contents(path: Path, axes: str | None) -> Contents:
    """Read what a file holds, without its pixels.

    Parameters
    ----------
    path : Path
        File, or folder of an OME-Zarr.
    axes : str or None
        Overrules the axes that the file declares.

    Returns
    -------
    Contents

    Raises
    ------
    ImageError
        If there is no such file, or it is not a readable image.
    OutOfMemory
        If not even what it holds can be found out in the memory there is.
    """
    if not path.exists():
        raise ImageError(
            f"There is no file {str(path)!r}.", "Check the path and its spelling."
        )
    suffix = path.suffix.lower()
    if path.is_dir() and (suffix == ".zarr" or _has_zarr_metadata(path)):
        opener = _open_zarr
    elif path.is_file() and suffix in (".tif", ".tiff"):
        opener = _open_tiff
    elif path.is_file() and suffix in (".png", *_JPEG):
        opener = _open_picture
    else:
        kind = "a folder" if path.is_dir() else f"a {suffix or 'file without suffix'}"
        raise ImageError(
            f"{path.name!r} is {kind}, not an image this can read.",
            f"Convert it to {_KINDS}.",
        )
    try:
        contents = opener(path, axes)
        contents.stack(0)
        return contents
    except EngineError:
        raise
    except MemoryError as error:
        raise too_large(repr(path.name)) from error
    except Exception as error:
        raise ImageError(
            f"{path.name!r} cannot be read{reason(error)}.",
            f"Check that it is a complete {_KINDS} file and that you may read it.",
        ) from error


def too_large(what: str, shape: tuple[int, int] | None = None) -> OutOfMemory:
    """Say that an image does not fit into memory.

    Parameters
    ----------
    what : str
        The beginning of the sentence.
    shape : (int, int), optional
        Rows and columns, where they are known.

    Returns
    -------
    OutOfMemory
    """
    size = f": it has {shape[0]} x {shape[1]} pixels" if shape else ""
    return OutOfMemory(
        f"{what} does not fit into the memory{size}.",
        "Close other programs, or cut the image into smaller ones.",
    )


def reason(error: Exception) -> str:
    """Put what a reader complained about into the end of a sentence.

    Parameters
    ----------
    error : Exception
        From a reading library.

    Returns
    -------
    str
        ``": its first line"``; empty where it would tell a person nothing.
    """
    lines = str(error).strip().splitlines()
    if not lines or not isinstance(error, OSError | ValueError | RuntimeError):
        return ""
    return f": {lines[0][:160].rstrip('. ')}"


def _check_alike(stack: Stack, number: int, first: Stack, path: Path) -> Stack:
    if (stack.sizes, stack.rgb, stack.dtype) == (first.sizes, first.rgb, first.dtype):
        return stack
    raise ImageError(
        f"{path.name!r} holds images that differ: number 1 has shape "
        f"{first.array.shape} of {first.dtype}, number {number + 1} "
        f"{stack.array.shape} of {stack.dtype}.",
        "Save them as separate files.",
    )


# TIFF: bioio's TIFF readers make one dask task per plane and open the file anew for
# every plane: 16 s to open a time-lapse of 20,000 planes and 5 s to read one of them.
# tifffile, which they stand on, needs 0.02 s and 0.001 s, so it is used directly.


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


def _open_tiff(path: Path, axes: str | None) -> Contents:
    import tifffile

    with tifffile.TiffFile(path, is_mmstack=False) as tiff:
        every = list(enumerate(tiff.series))
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
            _check_alike(stack, number, stacks[0], path)
        try:
            names, calibration = _tiff_metadata(tiff, full[0][1].keyframe)
        except (AttributeError, LookupError, SyntaxError, TypeError, ValueError):
            _log.info("The metadata of %s is not understood", path, exc_info=True)
            names, calibration = (), Calibration()
    return Contents(len(stacks), stacks.__getitem__, names, calibration)


def _tiff_stack(
    pages: _TiffPages, series: tifffile.TiffPageSeries, axes: str | None, path: Path
) -> Stack:
    from tifffile import EXTRASAMPLE, PHOTOMETRIC

    what = repr(path.name)
    letters: str = series.axes
    if axes and series.keyframe.photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR):
        _check_colours(axes, letters, what)
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


def _check_colours(axes: str, declared: str, what: str) -> None:
    """Refuse axes by which the colours of a colour image would be rows or columns."""
    samples = declared.find("S")
    if len(axes) == len(declared) and axes.upper()[samples] in "YX" and samples >= 0:
        better = declared.translate(str.maketrans("QI", "TT"))
        raise ImageError(
            f"{what} is a colour image: axis {samples + 1} of {axes!r} holds red, "
            f"green and blue, so it cannot be {axes[samples].upper()}.",
            f'Give `axes` as "{better}".',
        )


def _tiff_metadata(
    tiff: tifffile.TiffFile, page: tifffile.TiffPage
) -> tuple[tuple[str, ...], Calibration]:
    """Channel names and voxel size, where they are meant seriously."""
    import tifffile

    if tiff.ome_metadata:
        return _ome_metadata(tifffile.xml2dict(tiff.ome_metadata))
    unit: object = None
    depth = None
    if tiff.imagej_metadata is not None:
        unit = tiff.imagej_metadata.get("unit")
        depth = tiff.imagej_metadata.get("spacing")
    elif page.resolutionunit != tifffile.RESUNIT.INCH:  # that is a printer's guess
        unit = tifffile.RESUNIT(page.resolutionunit).name
    x, y = (1 / value if value else None for value in page.resolution)
    return (), _calibration((depth, y, x), (unit, unit, unit))


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
    return names, _calibration(sizes, units)


def _calibration(sizes: Any, units: Any) -> Calibration:
    """Turn z, y, x sizes into micrometres; unknown unless y and x are known."""
    lengths = []
    for size, unit in zip(sizes, units, strict=True):
        text = str(unit).lower().replace("\\u00b5", "u")
        text = text.replace("\u00b5", "u").replace("\u03bc", "u")
        factor = _MICROMETERS.get(text.strip())
        known = factor is not None and isinstance(size, int | float) and size > 0
        lengths.append(size * factor if known else None)
    z, y, x = lengths
    if y is None or x is None:
        return Calibration()
    return Calibration((1.0 if z is None else z, y, x), "micrometer")


# OME-Zarr


def _has_zarr_metadata(path: Path) -> bool:
    return any((path / name).exists() for name in ("zarr.json", ".zattrs"))


def _open_zarr(path: Path, axes: str | None) -> Contents:
    import bioio_ome_zarr
    import zarr

    places = _zarr_images(zarr.open_group(path, mode="r"))
    if not places:
        raise ImageError(
            f"{path.name!r} has no OME-Zarr metadata.",
            "Open it with zarr or dask and pass the array together with axes.",
        )

    def reader(position: int) -> Any:
        folder, scene = places[position]
        found = bioio_ome_zarr.Reader(str(path / folder))
        found.set_scene(scene)
        return found

    @functools.cache
    def stack(position: int) -> Stack:
        image = reader(position).xarray_dask_data
        declared = "".join(str(name) for name in image.dims)
        found = name_axes(image.data, axes or declared, what=repr(path.name))
        return found if position == 0 else _check_alike(found, position, stack(0), path)

    first = reader(0)
    names = tuple(first.channel_names or ())
    try:
        scale = _zarr_calibration(_ome(first.metadata.attributes), places[0][1])
    except (AttributeError, LookupError, TypeError, ValueError):
        _log.info("The scale of %s is not understood", path, exc_info=True)
        scale = Calibration()
    return Contents(len(places), stack, names, scale)


def _ome(attributes: Any) -> dict[str, Any]:
    """OME part of the attributes: in a block of its own since version 0.5."""
    return dict(attributes.get("ome", attributes))


def _zarr_images(root: zarr.Group) -> list[tuple[str, int]]:
    """Folder and scene number of every image in an image, plate or series."""
    ome = _ome(root.attrs)
    if "plate" in ome:
        wells = [well["path"] for well in ome["plate"]["wells"]]
        return [
            (f"{well}/{field['path']}", 0)
            for well in wells
            for field in _ome(root[well].attrs)["well"]["images"]
        ]
    if "multiscales" in ome:
        return [("", scene) for scene in range(len(ome["multiscales"]))]
    if "bioformats2raw.layout" in ome:
        listed = _ome(root["OME"].attrs).get("series") if "OME" in root else None
        numbered = sorted((n for n in root.group_keys() if n.isdigit()), key=int)
        return [(folder, 0) for folder in listed or numbered]
    return []


def _zarr_calibration(ome: dict[str, Any], scene: int) -> Calibration:
    image = ome["multiscales"][scene]
    axes = [axis if isinstance(axis, dict) else {} for axis in image.get("axes", [])]
    scale = [1.0] * len(axes)
    for owner in (image, image["datasets"][0]):
        for transform in owner.get("coordinateTransformations", []):
            if transform.get("type") == "scale":
                scale = [a * b for a, b in zip(scale, transform["scale"], strict=True)]
    size = {a.get("name"): s for a, s in zip(axes, scale, strict=True)}
    unit = {a.get("name"): a.get("unit") for a in axes}
    return _calibration([size.get(a) for a in "zyx"], [unit.get(a) for a in "zyx"])


# PNG and JPEG, with Pillow: the import of bioio's reader takes seconds.

# Bit depth and colour type in a PNG's header: RGB, and RGB with transparency.
_DEEP_COLOURS = (b"\x10\x02", b"\x10\x06")


class _Picture:
    """A picture that is decoded when indexed, so that a thousand of them fit."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]):
        self.shape = shape
        self.dtype = dtype
        self._path = path

    def __getitem__(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        return _decode(self._path)[0][key]


def _decode(path: Path) -> tuple[NDArray[Any], str]:
    import numpy as np
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    with path.open("rb") as file:
        head = file.read(26)
    # The formats themselves, because Image.open takes a large scan for an attack.
    opener = JpegImageFile if head.startswith(b"\xff\xd8") else PngImageFile
    with opener(path) as picture:
        if opener is PngImageFile and head[24:26] in _DEEP_COLOURS:
            raise ImageError(
                f"{path.name!r} has colours of 16 bits, which would be cut to 8.",
                "Save it as TIFF.",
            )
        if picture.mode in ("P", "PA"):
            pixels = np.asarray(picture.convert("RGB"))
        else:
            pixels = np.asarray(picture)
    if pixels.dtype == np.int32:  # how older Pillow gives 16 bits of grey
        pixels = pixels.astype(np.uint16)
    return pixels, "YXS"[: pixels.ndim]


def _open_picture(path: Path, axes: str | None) -> Contents:
    pixels, letters = _decode(path)
    picture = _Picture(path, pixels.shape, pixels.dtype)
    channels = None
    if axes is None and letters.endswith("S"):
        samples = pixels.shape[-1]
        if samples == 4 and path.suffix.lower() in _JPEG:
            raise ImageError(
                f"{path.name!r} has the four inks of a printer (CMYK).",
                "Convert it to RGB.",
            )
        if samples == 2:  # grey and transparency
            letters, channels = letters[:-1] + "C", 1
    if axes and letters.endswith("S"):
        _check_colours(axes, letters, repr(path.name))
    stack = name_axes(picture, axes or letters, what=repr(path.name), channels=channels)
    return Contents(1, lambda _: stack)

"""Images with named axes, read one frame at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import EngineError, ImageError
from napari_sam_suite.engine.frames import (
    FrameIndex,
    Sizes,
    checked_frame,
    resolve_frames,
)
from napari_sam_suite.engine.readers import read_contents, reason, too_large
from napari_sam_suite.engine.readers.contents import Calibration
from napari_sam_suite.engine.stack import LazyArray, Stack, name_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

_SUFFIXES = (".ome.tiff", ".ome.tif", ".ome.zarr", ".tiff", ".tif", ".zarr")
_FIRST = FrameIndex()
_UNKNOWN = Calibration()


@dataclass(frozen=True, eq=False)
class Frame:
    """One 2-D image with all its channels.

    Attributes
    ----------
    planes : ndarray, shape (C, Y, X)
        Values as stored; never written to.
    index : FrameIndex
        Where it comes from.
    rgb : bool
        Whether the planes are red, green and blue.
    """

    planes: NDArray[Any]
    index: FrameIndex = _FIRST
    rgb: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.planes.shape[1], self.planes.shape[2]


@dataclass(frozen=True, eq=False)
class ImageSource:
    """A lazy image: what is in it is known, its pixels are read frame by frame.

    Attributes
    ----------
    name : str
        File name without its suffixes.
    path : Path or None
        File or folder it is read from.
    sizes : Sizes
        Length of every axis, 1 where there is none.
    rgb : bool
        Whether it is a colour image; its 3 channels are red, green and blue.
    dtype : numpy.dtype
        Of the pixels as stored.
    channel_names : tuple of str
        One per channel.
    scale : tuple of float
        Size of a voxel in z, y and x.
    units : str
        Of `scale`: ``"micrometer"``, or ``"pixel"`` where nothing is known.
    notices : tuple of str
        What the user should know of how its file is understood.
    """

    name: str
    path: Path | None
    sizes: Sizes
    rgb: bool
    dtype: np.dtype[Any]
    channel_names: tuple[str, ...]
    scale: tuple[float, float, float]
    units: str
    _stack: Callable[[int], Stack] = field(repr=False)
    notices: tuple[str, ...] = ()

    @property
    def axes(self) -> str:
        """Letter of each dimension as stored; see `open_image`."""
        return self._stack(0).axes

    def frame(self, index: FrameIndex) -> Frame:
        """Read one frame.

        Parameters
        ----------
        index : FrameIndex
            0-based.

        Returns
        -------
        Frame
            With all channels.

        Raises
        ------
        FrameError
            If the index is outside the image.
        ImageError
            If the file turns out to be damaged there.
        OutOfMemory
            If the frame does not fit into memory.
        """
        index = checked_frame(index, self.sizes)
        try:
            planes = self._stack(index.position).read(index)
        except EngineError:
            raise
        except MemoryError as error:
            shape = self.sizes.y, self.sizes.x
            raise too_large(self._called(index), shape) from error
        except Exception as error:
            raise ImageError(
                f"{self._called(index)} cannot be read{reason(error)}.",
                "The file may be damaged or incomplete; write or copy it again.",
            ) from error
        return Frame(planes, index, self.rgb)

    def _called(self, index: FrameIndex) -> str:
        where = index.label(self.sizes).capitalize()
        return f"{where} of {self.path.name if self.path else self.name!r}"

    def frames(self) -> Iterator[FrameIndex]:
        """Go through all frames; time runs fastest, then z, then position."""
        return iter(resolve_frames(self.sizes, "all"))


def open_image(
    source: str | Path | LazyArray | ImageSource,
    *,
    axes: str | None = None,
    name: str | None = None,
) -> ImageSource:
    """Open an image without reading its pixels.

    Parameters
    ----------
    source : path, array or ImageSource
        A TIFF, OME-TIFF, OME-Zarr (image, plate or series), PNG or JPEG file, or a
        numpy, dask, zarr or similar array. An `ImageSource` is returned unchanged.
    axes : str, optional
        One letter per dimension, such as ``"TZCYX"`` or ``"YXS"``: P position, T, Z,
        C channel, Y, X, and S for the samples of an RGB image; ``"YXC"`` with three
        8-bit channels is RGB as well. Needed for arrays of three or more dimensions
        and for TIFF stacks that do not say it; elsewhere it overrules the file.
    name : str, optional
        Instead of the file name.

    Returns
    -------
    ImageSource
        Scenes, fields of a plate and series of a file are its positions.

    Raises
    ------
    ImageError
        If the source is missing, unreadable, empty, not an image, or ambiguous.

    Notes
    -----
    Nothing is rescaled, and pictures are not turned by their EXIF orientation.
    """
    if isinstance(source, ImageSource):
        return source
    if not isinstance(axes, str | None):
        raise ImageError(
            f"axes={axes!r} is not understood.",
            'Give one letter per dimension as a text, such as "TYX".',
        )
    if isinstance(source, str | Path):
        return _open_file(Path(source).expanduser(), axes, name)
    if not all(hasattr(source, part) for part in ("shape", "dtype", "__getitem__")):
        raise ImageError(
            f"A {type(source).__name__} is not an image.",
            "Give a file, a numpy array or a dask array.",
        )
    stack = name_axes(source, axes, what=f"The array {name!r}" if name else "The array")
    return _describe(stack, stack.sizes.position, lambda _: stack, name or "image")


def _open_file(path: Path, axes: str | None, name: str | None) -> ImageSource:
    contents = read_contents(path, axes)
    first = contents.stack(0)
    if contents.count > 1 and first.sizes.position > 1:
        raise ImageError(
            f"{path.name!r} holds {contents.count} images, each with positions of "
            "its own.",
            "Leave P out of `axes`, or save them as separate files.",
        )
    positions = max(contents.count, first.sizes.position)
    return _describe(
        first,
        positions,
        contents.stack if contents.count > 1 else lambda _: first,
        name or plain_name(path),
        path=path,
        channel_names=contents.channel_names,
        calibration=contents.calibration,
        notices=contents.notices,
    )


def _describe(
    first: Stack,
    positions: int,
    stack: Callable[[int], Stack],
    name: str,
    *,
    path: Path | None = None,
    channel_names: tuple[str, ...] = (),
    calibration: Calibration = _UNKNOWN,
    notices: tuple[str, ...] = (),
) -> ImageSource:
    sizes = first.sizes._replace(position=positions)
    if first.rgb:
        channel_names = ("red", "green", "blue")
    elif len(channel_names) != sizes.channel:
        channel_names = tuple(f"channel {i + 1}" for i in range(sizes.channel))
    return ImageSource(
        name=name,
        path=path,
        sizes=sizes,
        rgb=first.rgb,
        dtype=first.dtype,
        channel_names=channel_names,
        scale=calibration.scale,
        units=calibration.units,
        _stack=stack,
        notices=notices,
    )


def plain_name(path: Path) -> str:
    """Name of an image file without the suffixes of its format."""
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem

"""PNG and JPEG, with Pillow: the import of bioio's reader takes seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import ImageError
from napari_sam_suite.engine.readers.contents import Contents, check_colours
from napari_sam_suite.engine.stack import name_axes

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

JPEG = (".jpg", ".jpeg")

# Bit depth and colour type in a PNG's header: RGB, and grey or RGB with transparency.
_DEEP_COLOURS = (b"\x10\x02", b"\x10\x04", b"\x10\x06")


class _Picture:
    """A picture that is decoded when indexed, so that a thousand of them fit."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]):
        self.shape = shape
        self.dtype = dtype
        self._path = path

    def __getitem__(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        return decode(self._path)[0][key]


def decode(path: Path, *, palette: bool = True) -> tuple[NDArray[Any], str]:
    """Pixels and their axes; without `palette` the numbers of its colours."""
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
                f"{path.name!r} has colours or transparency of 16 bits, which would be "
                "cut to 8.",
                "Save it as TIFF.",
            )
        if palette and picture.mode in ("P", "PA"):
            pixels = np.asarray(picture.convert("RGB"))
        else:
            pixels = np.asarray(picture)
    if pixels.dtype == np.int32:  # how older Pillow gives 16 bits of grey
        pixels = pixels.astype(np.uint16)
    return pixels, "YXS"[: pixels.ndim]


def open_picture(path: Path, axes: str | None) -> Contents:
    """Open a PNG or JPEG; `axes` overrules rows, columns and colours.

    Raises
    ------
    ImageError
        If its colours are such that reading would lose or invent some.
    """
    pixels, letters = decode(path)
    picture = _Picture(path, pixels.shape, pixels.dtype)
    channels = None
    if axes is None and letters.endswith("S"):
        samples = pixels.shape[-1]
        if samples == 4 and path.suffix.lower() in JPEG:
            raise ImageError(
                f"{path.name!r} has the four inks of a printer (CMYK).",
                "Convert it to RGB.",
            )
        if samples == 2:  # grey and transparency
            letters, channels = letters[:-1] + "C", 1
    if axes and letters.endswith("S"):
        check_colours(axes, letters, repr(path.name))
    stack = name_axes(picture, axes or letters, what=repr(path.name), channels=channels)
    return Contents(1, lambda _: stack)

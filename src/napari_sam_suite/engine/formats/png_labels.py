"""Label images as PNG: grey of 8 or 16 bits, or the numbers of a palette's colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from napari_sam_suite.engine.errors import ImageError, ParameterError
from napari_sam_suite.engine.formats.instances import check_instances
from napari_sam_suite.engine.frames import Sizes
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.readers.picture import decode

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def read_pixels(path: Path) -> NDArray[Any]:
    """The numbers of a PNG's pixels.

    Raises
    ------
    ImageError
        If the file is missing, damaged or a colour picture.
    """
    open_image(path)  # says what is wrong with the file
    pixels = decode(path, palette=False)[0]
    if pixels.ndim != 2:
        raise ImageError(
            f"{path.name} is a colour picture, not a label image.",
            "Save it with one number for each object, 0 for the background.",
        )
    return pixels


def read(path: Path) -> Objects:
    """Read objects, one for each number, which is kept in the column `label`.

    Raises
    ------
    ImageError
        If it cannot be read, or does not hold one number per object.
    """
    pixels = read_pixels(path)
    check_instances(pixels, path.name)
    sizes = Sizes(y=pixels.shape[0], x=pixels.shape[1])
    source = {"image": path.name, "path": str(path), "sizes": sizes._asdict()}
    return Objects.from_labels(pixels.astype(np.int64), source=source)


def write(objects: Objects, path: Path) -> NoReturn:
    """Refuse: a PNG holds one frame, and programs save it with fewer bits.

    Raises
    ------
    ParameterError
        Always.
    """
    raise ParameterError(
        f"Label images are not written as PNG ({path.name}).", "Save them as .tif."
    )

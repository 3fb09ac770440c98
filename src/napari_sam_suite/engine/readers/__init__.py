"""What image files hold: TIFF and OME-TIFF, OME-Zarr, PNG and JPEG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sam_suite.engine.errors import EngineError, ImageError
from napari_sam_suite.engine.readers.contents import Contents, reason, too_large
from napari_sam_suite.engine.readers.ome_zarr import has_zarr_metadata, open_zarr
from napari_sam_suite.engine.readers.picture import JPEG, open_picture
from napari_sam_suite.engine.readers.tiff import open_tiff

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Contents", "read_contents", "reason", "too_large"]

_KINDS = "TIFF, OME-TIFF, OME-Zarr, PNG or JPEG"


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
    if path.is_dir() and (suffix == ".zarr" or has_zarr_metadata(path)):
        opener = open_zarr
    elif path.is_file() and suffix in (".tif", ".tiff"):
        opener = open_tiff
    elif path.is_file() and suffix in (".png", *JPEG):
        opener = open_picture
    else:
        if path.is_dir():
            raise ImageError(
                f"{str(path)!r} is a folder, not an image this can read.",
                f"Name the files in it: {_KINDS}.",
            )
        kind = f"a {suffix or 'file without suffix'}"
        raise ImageError(
            f"{path.name!r} is {kind}, not an image this can read.",
            f"Convert it to {_KINDS}.",
        )
    if path.is_file() and path.stat().st_size == 0:
        raise ImageError(
            f"{path.name!r} is empty: the file has no bytes.",
            "Copy it again, or write it again.",
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

"""Objects to files and back, one module per format.

Each module has ``write(objects, path)`` and, where the format allows it,
``read(path) -> Objects``.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.formats.extras import check_extra

if TYPE_CHECKING:
    from napari_sam_suite.engine.objects import Objects


class FormatModule(Protocol):
    """What a module of this package offers."""

    def write(self, objects: Objects, path: Path) -> None:
        """Write all objects to one file."""

    def read(self, path: Path) -> Objects:
        """Read what `write` wrote."""


class Format(NamedTuple):
    """Name of a format, the file name endings it is known by, what it needs.

    Its module has its name, unless `module` is given.
    """

    name: str
    suffixes: tuple[str, ...]
    package: str = ""
    module: str = ""


FORMATS = (
    Format("coco", (".coco.json",)),
    Format("coco-rle", (".coco-rle.json",), module="coco_rle"),
    Format("csv", (".csv",), module="measurements"),
    Format(
        "geojson-annotations", (".annotations.geojson",), module="geojson_annotations"
    ),
    Format("geojson", (".geojson",)),
    Format("labels", (".tif", ".tiff")),
    Format("nimbus", (".nimbus.json",)),
    Format("parquet", (".parquet", ".geoparquet"), "pyarrow"),
    Format("png-labels", (".png",), module="png_labels"),
    Format("rois", (".zip", ".roi"), "roifile"),
    Format("json", (".json",), module="anyjson"),
    Format("zarr", (".zarr",), module="ome_zarr"),
)
"""Names and endings; the first that fits is taken."""


def find_format(path: str | Path, name: str | None = None) -> FormatModule:
    """Module that writes and reads a file.

    Parameters
    ----------
    path : str or Path
        Its ending decides, unless `name` is given.
    name : str, optional
        One of the names in `FORMATS`.

    Raises
    ------
    ParameterError
        If no format has this name or ending.
    """
    file = Path(path).name.lower()
    for known in FORMATS:
        if known.name == name or (name is None and file.endswith(known.suffixes)):
            module = import_module(f"{__name__}.{known.module or known.name}")
            return cast("FormatModule", module)
    if name is None and Path(path).is_dir():
        raise ParameterError(
            f"{path} is a folder, not a file of objects.",
            "Give one of the files in it, such as a .geojson.",
        )
    what = f"format {name!r}" if name else f"file ending {Path(path).suffix!r}"
    known_ = ", ".join(f"{f.name} ({', '.join(f.suffixes)})" for f in FORMATS)
    raise ParameterError(f"The {what} is not known.", f"Use one of: {known_}.")


def check_format(name: str) -> None:
    """Make sure that what a format needs is installed.

    Raises
    ------
    MissingExtra
        If it is not.
    """
    for known in FORMATS:
        if known.name == name and known.package:
            check_extra(known.package)

"""CSV of measurements: one line per object, as spreadsheets and pandas read it.

It has no outlines, so it cannot be read as objects; `id` says which line belongs to
which object of another file, `label` and the frame to which pixels of a label image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.formats.atomic import replacing
from napari_sam_suite.engine.measurements import measure

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.objects import Objects


def write(objects: Objects, path: Path, image: ImageSource | None = None) -> None:
    """Measure objects and write what was measured, whole or not at all.

    Parameters
    ----------
    objects : Objects
        Of any number of frames.
    path : Path
        Where the file shall be.
    image : ImageSource, optional
        For intensities.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    write_table(measure(objects, image), path)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table of `measure`, whole or not at all; UTF-8, as Excel knows it.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with replacing(path) as part:
        table.to_csv(part, index=False, encoding="utf-8-sig")


def read(path: Path) -> NoReturn:
    """Refuse: a table has no outlines.

    Raises
    ------
    ParameterError
        Always.
    """
    raise ParameterError(
        f"{path.name} is a table of measurements: it has no outlines to read.",
        "Read the .geojson or .parquet file of the same objects.",
    )

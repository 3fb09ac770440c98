"""GeoJSON whose objects are annotations in QuPath, to be edited there by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sam_suite.engine.formats import geojson

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam_suite.engine.objects import Objects

read = geojson.read


def write(objects: Objects, path: Path) -> None:
    """Write objects as `geojson.write` does, as annotations.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    geojson.write(objects, path, object_type="annotation")

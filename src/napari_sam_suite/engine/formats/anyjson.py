"""JSON of whatever kind: what is in the file decides; GeoJSON is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sam_suite.engine.formats import coco, dataloop, geojson, nimbus
from napari_sam_suite.engine.formats.jsonfile import parse_json

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from napari_sam_suite.engine.objects import Objects

_READERS = {
    "coco": coco.from_document,
    "nimbus": nimbus.from_document,
    "dataloop": dataloop.from_document,
}


class FoundJson:
    """A JSON file that was parsed once, to tell its kind and then to read it.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    format : str
        ``"coco"``, ``"nimbus"``, ``"dataloop"`` or ``"geojson"``; empty if it is
        none of them.

    Raises
    ------
    ParameterError
        If the file is missing or no JSON.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._document = parse_json(path)
        self.format = _name_format(self._document)

    def read(self) -> Objects:
        """Objects of the file.

        Raises
        ------
        ParameterError
            If it is of none of the kinds, or makes no sense.
        """
        read_document = _READERS.get(self.format, geojson.from_document)
        return read_document(self._document, self.path.name)


def write(objects: Objects, path: Path) -> None:
    """Write GeoJSON; see `geojson.write`."""
    geojson.write(objects, path)


def read(path: Path) -> Objects:
    """Read COCO, NimbusImage's or Dataloop's JSON, or GeoJSON.

    Raises
    ------
    ParameterError
        If the file is missing or of another kind.
    """
    return FoundJson(path).read()


def _name_format(document: Any) -> str:
    if coco.is_coco(document):
        return "coco"
    if nimbus.is_nimbus(document):
        return "nimbus"
    if dataloop.is_dataloop(document):
        return "dataloop"
    return "geojson" if geojson.is_geojson(document) else ""

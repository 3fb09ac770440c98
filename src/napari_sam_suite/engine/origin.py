"""Whose results a file holds: what others made is not written over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sam_suite.engine.errors import OutputError
from napari_sam_suite.engine.provenance import SAVED_FROM

if TYPE_CHECKING:
    from pathlib import Path

_COMMANDS = {"auto": "segment"}
"""Capabilities that the command line calls otherwise."""
_HINT = "Choose another folder with --out, or remove the file."


def spare_others(path: Path, capability: str = "") -> None:
    """Refuse a target that holds anything but results of the same capability.

    Files of ours that do not say who found their objects may be replaced; what a person
    saved from napari may hold corrections, and is not.

    Parameters
    ----------
    path : Path
        A GeoJSON file or a label TIFF to be written; only its header is read.
    capability : str
        Whose results are to be written, as the source of objects says it; without it
        all files of ours may be replaced.

    Raises
    ------
    OutputError
        If it was found by another capability, saved by a person, or not written here.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    from napari_sam_suite.engine.formats import geojson, labels

    kind = geojson if path.suffix == ".geojson" else labels
    source = kind.origin(path)
    if source is None:
        raise OutputError(
            f"{path} was not written by napari-sam-suite, and would be replaced.", _HINT
        )
    sources = source.get("sources", [source])
    programs = sorted({str(one[SAVED_FROM]) for one in sources if SAVED_FROM in one})
    if programs:
        raise OutputError(
            f"{path} was saved from {programs[0]}, perhaps with corrections, and would "
            "be replaced.",
            _HINT,
        )
    found = {one.get("capability") for one in sources}
    others = sorted(_called(name) for name in found - {None, capability})
    if capability and others:
        raise OutputError(
            f"{path} holds what {' and '.join(others)} found, and "
            f"{_called(capability)} would replace it.",
            _HINT,
        )


def _called(capability: str) -> str:
    return _COMMANDS.get(capability, capability)

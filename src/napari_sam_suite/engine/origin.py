"""Whose results a file holds: what others made is not written over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import OutputError
from napari_sam_suite.engine.provenance import SAVED_FROM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COMMANDS = {"auto": "segment"}
"""Capabilities that the command line calls otherwise."""
_HINT = "Choose another folder with --out, or remove the file."


def spare_others(path: Path, capability: str = "", image: Path | None = None) -> None:
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
    image : Path, optional
        Where they were found. One that was moved is no other than it was.

    Raises
    ------
    OutputError
        If it was found by another capability or in another image that is still there,
        saved by a person, or not written here.
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
    other = None if image is None else _other_image(sources, image)
    if other is not None:
        raise OutputError(
            f"{path} holds the objects of another image, {other}, and those of {image} "
            "would replace them.",
            _HINT,
        )


def _other_image(sources: Sequence[Mapping[str, Any]], image: Path) -> Path | None:
    """Where objects were found, if that is still there and is not `image`."""
    named = {one["path"] for one in sources if one.get("path") and "capability" in one}
    known = [Path(name) for name in sorted(named)]
    if any(_is_same(one, image) for one in known):
        return None
    return next((one for one in known if os.path.exists(one)), None)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def _called(capability: str) -> str:
    return _COMMANDS.get(capability, capability)

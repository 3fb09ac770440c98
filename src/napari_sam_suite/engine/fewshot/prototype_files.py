"""The two files of prototypes: arrays in the first, what they are in the second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.formats.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

T = TypeVar("T")

_VERSION = 2
_SUFFIXES = (".safetensors", ".json")


def prototype_files(path: str | Path) -> tuple[Path, Path]:
    """The two files of prototypes: arrays in the first, what they are in the second.

    Raises
    ------
    ParameterError
        If the path has no file name.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise ParameterError(
            f"{str(path)!r} is no name for prototypes.",
            "Give a file name, such as cells.safetensors.",
        )
    stem = path.stem if path.suffix.lower() in _SUFFIXES else path.name
    return path.with_name(stem + _SUFFIXES[0]), path.with_name(stem + _SUFFIXES[1])


def write_files(path: str | Path, card: dict[str, Any], arrays: Arrays) -> None:
    """Write both files, each of them wholly or not at all.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    from safetensors.numpy import save

    path, about = prototype_files(path)
    card = {"format": "napari-sam-suite prototypes", "version": _VERSION, **card}
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with replacing(path) as part:
        part.write_bytes(save(whole))
    with replacing(about) as part:
        part.write_text(json.dumps(card, indent=1), encoding="utf-8")


def read_files(path: str | Path, make: Callable[[dict[str, Any], Arrays], T]) -> T:
    """What `make` makes of the second file and of the arrays of the first.

    Raises
    ------
    ParameterError
        If a file is missing, or they are damaged or something else.
    """
    from safetensors.numpy import load_file

    path, about = prototype_files(path)
    for one in (path, about):
        if not one.is_file():
            raise ParameterError(
                f"There are no prototypes at {one}.",
                "Prototypes are two files, NAME.safetensors and NAME.json.",
            )
    try:
        card: dict[str, Any] = json.loads(about.read_text(encoding="utf-8"))
        if card["version"] != _VERSION:
            raise ValueError(card["version"])
        return make(card, load_file(path))
    except Exception as error:
        # The readers raise a dozen unrelated types for a damaged file.
        raise ParameterError(
            f"{path.name} and its .json are damaged or hold no prototypes.",
            "Save the prototypes again.",
        ) from error

"""What an exported model says about itself, read without loading it.

An ONNX file is a protocol-buffer message. Its metadata are top-level fields of it, so
they are found by stepping over everything else, also over gigabytes of weights.
"""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "sam_suite"
"""Name of the metadata entry that is ours; its value is a JSON object."""
FORMAT = 1
"""Version of that object."""

ENCODER, DECODER, SINGLE_DECODER = "encoder", "decoder", "decoder_single"
"""Names of the files: the last is SAM 2's, and draws the mask of clear prompts."""

_NEEDED = {
    "model",
    "title",
    "family",
    "config",
    "input_size",
    "mean",
    "std",
    "masks",
    "guide",
    "precision",
    "licence",
    "auto",
}
"""What is read of it."""
_FAMILIES = ("sam1", "sam2")
_METADATA = 14  # ModelProto.metadata_props
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_card(path: Path) -> dict[str, Any]:
    """The object that `export_onnx` wrote into an ONNX file.

    Raises
    ------
    ModelError
        If the file is missing, damaged, or comes from elsewhere.
    """
    if not path.is_file():
        raise ModelError(
            f"There is no {path.name} in {path.parent}.",
            "An exported model is a folder with encoder.onnx and decoder.onnx: export "
            "it again with napari-sam-suite export-onnx.",
        )
    try:
        with path.open("rb") as file:
            entries = dict(_metadata(file, path.stat().st_size or 1))  # not nothing
    except (ValueError, EOFError, OSError) as error:
        raise damaged(path) from error
    if KEY not in entries:
        raise ModelError(
            f"{path} is not a model that export-onnx wrote.",
            "How its images and prompts are to be prepared is not said in it: export "
            "the model with napari-sam-suite export-onnx.",
        )
    try:
        card = json.loads(entries[KEY])
    except ValueError as error:
        raise damaged(path) from error
    if not isinstance(card, dict):
        raise damaged(path)
    known = card.get("format") == FORMAT and card.keys() >= _NEEDED
    if not known or card["family"] not in _FAMILIES:
        raise ModelError(
            f"{path} was written by another version of this package.",
            "Export the model again.",
        )
    return card


def damaged(path: Path) -> ModelError:
    """The error of a file that is no whole ONNX model."""
    return ModelError(
        f"{path} is damaged or is not an ONNX model.",
        "It may be cut off: copy or export it again.",
    )


def _metadata(file: IO[bytes], size: int) -> Iterator[tuple[str, str]]:
    """Key and value of every metadata entry of a model."""
    for number, length in _fields(file, size):
        if number != _METADATA:
            file.seek(length, 1)
            continue
        end = file.tell() + length
        entry = {1: "", 2: ""}
        for part, count in _fields(file, end):
            entry[part] = file.read(count).decode("utf-8")
        yield entry[1], entry[2]


def _fields(file: IO[bytes], end: int) -> Iterator[tuple[int, int]]:
    """Number and length of each field of bytes; whoever asks reads or skips it."""
    while file.tell() < end:
        tag = _varint(file)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _varint(file)
        elif kind in (_FIXED64, _FIXED32):
            file.seek(8 if kind == _FIXED64 else 4, 1)
        elif kind == _BYTES:
            length = _varint(file)
            if file.tell() + length > end:
                raise EOFError
            yield number, length
        else:
            raise ValueError(f"unknown wire type {kind}")
    if file.tell() != end:
        raise EOFError


def _varint(file: IO[bytes]) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7

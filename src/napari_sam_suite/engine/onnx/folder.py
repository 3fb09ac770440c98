"""The folder of an export: whole files of one export, or those of before."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import MissingExtra
from napari_sam_suite.engine.formats.atomic import explain
from napari_sam_suite.engine.models.ports import part_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sam_suite.engine.onnx.params import ExportParams
    from napari_sam_suite.engine.onnx.parity import Parity

CARD, PARITY, TABLE = "model.json", "parity.json", "parity.md"
"""What the files say of themselves, for a browser; the comparison; a table of it."""

_PARTS = part_names("sam2", "three")
"""Names of all files that an export may leave, without their ending."""


def write_texts(
    scratch: Path, card: dict[str, Any], parity: Parity, params: ExportParams
) -> None:
    """Write the card for the page, and the comparison to read."""
    ending = "ort" if params.ort else "onnx"
    files = {file.stem: file.name for file in sorted(scratch.glob(f"*.{ending}"))}
    data = sorted(file.name for file in scratch.glob(f"*.{ending}.data"))
    text = json.dumps(card | {"files": files, "data": data}, indent=2) + "\n"
    (scratch / CARD).write_text(text, encoding="utf-8")
    (scratch / PARITY).write_text(parity.as_json(), encoding="utf-8")
    (scratch / TABLE).write_text(parity.as_table(), encoding="utf-8")


def add_page(scratch: Path, runtime: Path | str | None) -> list[str]:
    """Write the page; a sentence if what it runs on cannot be had."""
    from napari_sam_suite.engine.onnx.page import write_page

    try:
        write_page(scratch, runtime)
    except MissingExtra as error:
        # the model itself is whole
        return [" ".join(error.worded("`{}`".format))]
    return []


@contextmanager
def scratch_in(out: Path) -> Iterator[Path]:
    """A folder inside `out` that is gone afterwards."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as name:
            yield Path(name)
    except OSError as error:
        raise explain(error, out) from error


def keep(scratch: Path, out: Path) -> dict[str, int]:
    """Move the files to where they were asked for; those of before go."""
    for old in (*out.glob("*.onnx"), *out.glob("*.onnx.data"), *out.glob("*.ort")):
        if not (scratch / old.name).exists() and old.name.split(".")[0] in _PARTS:
            old.unlink()
    sizes = {}
    for file in sorted(scratch.rglob("*")):
        place = out / file.relative_to(scratch)
        if file.is_dir():
            place.mkdir(exist_ok=True)
            continue
        os.replace(file, place)
        if file.suffix in (".onnx", ".data", ".ort"):
            sizes[file.name] = place.stat().st_size
    return sizes

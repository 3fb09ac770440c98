"""The folder of an export: whole files of one export, or those of before."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import MissingExtra, ModelError, OutputError
from napari_sam_suite.engine.formats.atomic import explain
from napari_sam_suite.engine.models.onnxfile import ENCODER, read_card
from napari_sam_suite.engine.models.ports import part_names
from napari_sam_suite.engine.onnx.page import page_files, write_page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sam_suite.engine.onnx.params import ExportParams
    from napari_sam_suite.engine.onnx.parity import Parity

CARD, PARITY, TABLE = "model.json", "parity.json", "parity.md"
"""What the files say of themselves, for a browser; the comparison; a table of it."""

_FILES = [
    f"{part}.{ending}"
    for part in part_names("sam2", "three")
    for ending in ("onnx", "onnx.data", "ort")
]
"""Names of all models that an export may leave."""


def check_free(out: Path, params: ExportParams) -> None:
    """Refuse a folder with files of somebody else's where an export's would be.

    Raises
    ------
    OutputError
        If there are any, and no earlier export, whose files are replaced.
    """
    texts = (CARD, PARITY, TABLE)
    names = [*_FILES, *texts, *(page_files() if params.page else ())]
    taken = [name for name in names if os.path.lexists(out / name)]
    if taken and not _is_export(out):
        others = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise OutputError(
            f"{out} has files that the export would replace: {taken[0]}{others}.",
            "Choose another folder with `out`, a new one or that of an earlier export.",
        )


def _is_export(folder: Path) -> bool:
    """Whether an export is there, even one that is damaged or of another version."""
    with suppress(ModelError):
        read_card(folder / f"{ENCODER}.onnx")
        return True
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(card, dict) and {"format", "checkpoint_sha256"} <= card.keys()


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
    for name in _FILES:
        if not (scratch / name).exists():
            (out / name).unlink(missing_ok=True)
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

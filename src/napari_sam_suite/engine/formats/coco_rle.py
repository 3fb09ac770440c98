"""COCO JSON in which every object is run-length encoded, for what reads masks only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sam_suite.engine.formats import coco

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam_suite.engine.objects import Objects


def write(objects: Objects, path: Path) -> None:
    """Write objects as `coco.write` does, all as masks."""
    coco.write(objects, path, masks=True)


def read(path: Path) -> Objects:
    """Read what `coco.read` reads."""
    return coco.read(path)

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr

from engine.formats.test_zarr_inside import SHAPE, write_image
from napari_sam_suite.engine.formats.zarr_inside import InsideWriter
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.store.images import know_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", [2, 3])
def test_an_ome_zarr_is_known_by_its_pixels(tmp_path: Path, kind: int) -> None:
    path = write_image(tmp_path / "a.ome.zarr", kind)
    known = know_file(path)
    assert len(known) == 64
    shutil.copytree(path, tmp_path / "b.ome.zarr")
    assert know_file(tmp_path / "b.ome.zarr") == known
    writer = InsideWriter(path, open_image(path).sizes)
    writer.write(FrameIndex(), np.ones(SHAPE[-2:], np.uint32))
    writer.close()
    assert (path / "labels" / "objects").is_dir() and know_file(path) == known
    group = zarr.open_group(path, mode="r+")
    group.attrs["note"] = "mine"
    assert know_file(path) == known
    group["1"][-1, -1, -1, -1, -1] = 9
    assert know_file(path) not in ("", known)


def test_of_an_ome_zarr_with_many_chunks_few_are_read(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w", zarr_format=2)
    pixels = group.create_array("0", shape=(100, 8), dtype="u1", chunks=(1, 8))
    pixels[:] = 1
    known = know_file(tmp_path / "a.ome.zarr")
    chunk = tmp_path / "a.ome.zarr" / "0" / "50.0"
    assert chunk.is_file()
    chunk.write_bytes(b"damaged")
    assert know_file(tmp_path / "a.ome.zarr") == known


def test_what_is_not_there_is_not_known(tmp_path: Path) -> None:
    assert know_file(tmp_path / "a.ome.zarr") == ""

from __future__ import annotations

import time
from os import utime
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
import zarr

from napari_sam_suite.engine.errors import (
    FrameError,
    ImageError,
    OutputError,
    ParameterError,
)
from napari_sam_suite.engine.formats.atomic import part_of, sweep
from napari_sam_suite.engine.formats.ome_zarr import ZarrWriter
from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path


def squares(**sizes: int) -> Objects:
    source = {"sizes": {"y": 30, "x": 40, **sizes}, "scale": [1, 0.5, 0.5]}
    boxes = [shapely.box(0, 0, 3, 3), shapely.box(5, 5, 9, 9)]
    return Objects(boxes, source={**source, "units": "micrometer"})


def test_zarr_reads_the_labels_and_viewers_find_axes_and_scale(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    squares().save(path)
    group = zarr.open_group(path, mode="r")
    labels = np.asarray(group["0"])
    assert labels.shape == (30, 40)
    assert np.bincount(labels.ravel())[1:].tolist() == [16, 25]
    [scales] = group.attrs["multiscales"]
    assert [axis["name"] for axis in scales["axes"]] == ["y", "x"]
    assert "image-label" in group.attrs
    loaded = Objects.load(path)
    assert loaded.source["scale"][-2:] == [0.5, 0.5]
    assert loaded.features["area"].tolist() == [16, 25]


def test_positions_are_a_series(tmp_path: Path) -> None:
    objects = squares(position=2, time=3).with_features(position=[0, 1], time=[1, 2])
    objects.save(tmp_path / "a.ome.zarr")
    loaded = Objects.load(tmp_path / "a.ome.zarr")
    assert loaded.frames() == [FrameIndex(0, 1), FrameIndex(1, 2)]
    assert loaded.features["area"].tolist() == [16, 25]


def test_what_was_written_before_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    squares(time=2).with_features(time=[0, 1]).save(path)
    squares(time=2).with_features(time=[1, 1]).save(path)
    assert Objects.load(path).frames() == [FrameIndex(time=1)]
    assert [one.name for one in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_nothing_else_is_ever_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    path.mkdir()
    (path / "precious").write_text("x")
    with pytest.raises(OutputError, match="something else"):
        squares().save(path)
    assert (path / "precious").exists()
    image = tmp_path / "b.ome.zarr"
    zarr.create_array(image, shape=(4, 4), dtype="u1", zarr_format=2)
    with pytest.raises(OutputError, match="something else"):
        squares().save(image)


def test_a_run_that_breaks_off_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    squares().save(path)
    writer = ZarrWriter(path, Sizes(y=30, x=40))
    with pytest.raises(ParameterError, match="do not fit"):
        writer.write(FrameIndex(), np.zeros((3, 3), np.uint16))
    with pytest.raises(FrameError, match="no time 1"):
        writer.write(FrameIndex(time=1), np.zeros((30, 40), np.uint16))
    writer.discard()
    assert len(Objects.load(path)) == 2
    assert [one.name for one in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    part = part_of(tmp_path / "a.ome.zarr")
    mine = part.name.replace(part.name.split("-")[1], "999999999")
    left = tmp_path / mine
    left.mkdir()
    (left / "0").write_text("x")
    utime(left, (time.time() - 999,) * 2)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_holds_no_labels_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        Objects.load(tmp_path / "none.ome.zarr")
    with pytest.raises(ParameterError, match="size of the image"):
        Objects([shapely.box(0, 0, 3, 3)]).save(tmp_path / "a.ome.zarr")
    assert list(tmp_path.iterdir()) == []

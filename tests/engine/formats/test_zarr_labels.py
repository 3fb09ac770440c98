from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.formats import zarr_labels
from napari_sam_suite.engine.formats.zarr_labels import (
    ZarrLabels,
    list_labels,
    list_series,
)
from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.store.place import open_place

if TYPE_CHECKING:
    from pathlib import Path


def noise(shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 100_000, shape)


@pytest.mark.parametrize(
    ("sizes", "axes"),
    [
        (Sizes(y=30, x=40), "yx"),
        (Sizes(time=3, y=30, x=40), "tyx"),
        (Sizes(time=3, z=2, channel=4, y=30, x=40), "tzyx"),
    ],
)
def test_zarr_reads_what_was_written_frame_by_frame(
    tmp_path: Path, sizes: Sizes, axes: str
) -> None:
    labels = ZarrLabels(open_place(tmp_path / "l.ome.zarr"), sizes)
    labels.create("cells", scale=(2, 0.5, 0.25), units="micrometer")
    frames = [FrameIndex(0, t, z) for t in range(sizes.time) for z in range(sizes.z)]
    for number, frame in reversed(list(enumerate(frames))):
        labels.write(frame, noise((30, 40), number))
    group = zarr.open_group(tmp_path / "l.ome.zarr", mode="r")
    stored = np.asarray(group["0"]).reshape(-1, 30, 40)
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(stored[number], noise((30, 40), number))
        np.testing.assert_array_equal(labels.read(frame), noise((30, 40), number))
    found = group.attrs["multiscales"][0]
    assert "".join(axis["name"] for axis in found["axes"]) == axes
    scale = found["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale[-2:] == [0.5, 0.25]


def test_frames_larger_than_a_chunk_are_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarr_labels, "_CHUNK", 16)
    labels = ZarrLabels(open_place(tmp_path / "l.ome.zarr"), Sizes(y=30, x=40))
    labels.create("cells")
    labels.write(FrameIndex(), noise((30, 40), 1))
    np.testing.assert_array_equal(labels.read(FrameIndex()), noise((30, 40), 1))
    stored = zarr.open_group(tmp_path / "l.ome.zarr", mode="r")["0"]
    np.testing.assert_array_equal(np.asarray(stored), noise((30, 40), 1))


def test_a_frame_without_objects_takes_no_file(tmp_path: Path) -> None:
    labels = ZarrLabels(open_place(tmp_path / "l.ome.zarr"), Sizes(time=2, y=8, x=8))
    labels.create("cells")
    labels.write(FrameIndex(), np.ones((8, 8), int))
    assert (tmp_path / "l.ome.zarr" / "0" / "0" / "0" / "0").is_file()
    labels.write(FrameIndex(), np.zeros((8, 8), int))
    assert not labels.read(FrameIndex()).any()
    assert not (tmp_path / "l.ome.zarr" / "0" / "0" / "0" / "0").exists()


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    labels = ZarrLabels(open_place(tmp_path), Sizes(y=8, x=8))
    with pytest.raises(ParameterError, match="do not fit"):
        labels.write(FrameIndex(), np.zeros((8, 9), int))


def test_positions_are_a_series_that_opens_as_one_image(tmp_path: Path) -> None:
    place = open_place(tmp_path / "plate.ome.zarr")
    list_series(place, 2)
    for position in range(2):
        labels = ZarrLabels(place / str(position), Sizes(time=2, y=8, x=9))
        labels.create(f"position {position}")
        for time in range(2):
            labels.write(FrameIndex(0, time), np.full((8, 9), 10 * position + time))
    image = open_image(tmp_path / "plate.ome.zarr")
    assert image.sizes == Sizes(position=2, time=2, y=8, x=9)
    values = [int(image.frame(f).planes.max()) for f in image.frames()]
    assert values == [0, 1, 10, 11]


def test_a_labels_group_names_its_images(tmp_path: Path) -> None:
    place = open_place(tmp_path / "image.zarr" / "labels")
    list_labels(place, ["cells"])
    labels = ZarrLabels(place / "cells", Sizes(y=8, x=8))
    labels.create("cells", image="../../")
    group = zarr.open_group(tmp_path / "image.zarr" / "labels", mode="r")
    assert group.attrs["labels"] == ["cells"]
    assert group["cells"].attrs["image-label"]["source"] == {"image": "../../"}

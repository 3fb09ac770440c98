from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

from napari_sam_suite.engine.errors import FrameError, OutputError, ParameterError
from napari_sam_suite.engine.formats.zarr_inside import InsideWriter
from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.losses import Losses
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.outputs import ImageOutput
from napari_sam_suite.engine.run import FrameResult

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (2, 3, 1, 32, 48)
"""Time, channel, z, y and x."""


def write_image(path: Path, kind: int = 2, shape: tuple[int, ...] = SHAPE) -> Path:
    """An image of two resolutions, as version 0.4 or 0.5."""
    group = zarr.open_group(path, mode="w", zarr_format=kind)
    for level, factor in enumerate((1, 2)):
        size = (*shape[:3], shape[3] // factor, shape[4] // factor)
        array = group.create_array(str(level), shape=size, dtype="u1", chunks=size)
        array[:] = 7
    units = {"type": "space", "unit": "micrometer"}
    axes: list[dict[str, Any]] = [{"name": "t", "type": "time"}]
    axes += [{"name": "c", "type": "channel"}]
    axes += [{"name": axis, **units} for axis in "zyx"]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1, 1, 2, 0.5 * factor, 0.5 * factor]}
            ],
        }
        for level, factor in enumerate((1, 2))
    ]
    scales: dict[str, Any] = {"name": "cells", "axes": axes, "datasets": datasets}
    if kind == 2:
        group.attrs["multiscales"] = [{"version": "0.4", **scales}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [scales]}
    return path


def blocks(count: int) -> np.ndarray:
    """So many objects beside each other."""
    labels = np.zeros(SHAPE[-2:], np.uint32)
    for number in range(count):
        labels[2:8, 10 * number + 2 : 10 * number + 8] = number + 1
    return labels


def noise(seed: int, shape: tuple[int, int] = SHAPE[-2:]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 100_000, shape).astype(np.uint32)


@pytest.mark.parametrize("kind", [2, 3])
def test_ome_zarr_finds_the_labels_of_an_image_at_every_resolution(
    tmp_path: Path, kind: int
) -> None:
    path = write_image(tmp_path / "a.ome.zarr", kind)
    writer = InsideWriter(path, open_image(path).sizes)
    for time in (1, 0):
        writer.write(FrameIndex(time=time), noise(time))
    assert writer.close() == path / "labels" / "objects"
    location = parse_url(str(path))
    assert location is not None
    nodes = list(Reader(location)())
    [labels] = [node for node in nodes if node.zarr.path.endswith("labels/objects")]
    full, half = labels.data
    assert full.shape == (2, 1, 32, 48) and half.shape == (2, 1, 16, 24)
    whole = np.asarray(full)
    for time in (0, 1):
        np.testing.assert_array_equal(whole[time, 0], noise(time))
    np.testing.assert_array_equal(np.asarray(half), whole[..., 1::2, 1::2])
    assert "".join(axis["name"] for axis in labels.metadata["axes"]) == "tzyx"
    [[step], [coarser]] = labels.metadata["coordinateTransformations"]
    assert step["scale"] == [1, 2, 0.5, 0.5] and coarser["scale"] == [1, 2, 1, 1]
    assert open_image(path).sizes == Sizes(1, 2, 1, 3, 32, 48), "still an image"


@pytest.mark.parametrize("kind", [2, 3])
def test_objects_come_back_with_tracks_and_searched_frames(
    tmp_path: Path, kind: int
) -> None:
    path = write_image(tmp_path / "a.ome.zarr", kind)
    image = open_image(path)
    boxes = [shapely.box(0, 0, 3, 3), shapely.box(5, 5, 9, 9)]
    source = {"sizes": image.sizes._asdict()}
    found = Objects(boxes, source=source).with_features(track=[7, 4])
    output = ImageOutput(tmp_path / "out", image, ["zarr-inside"])
    output.add(FrameResult(FrameIndex(time=1), found.with_features(time=1), Losses()))
    output.close()
    loaded = Objects.load(path)
    assert sorted(loaded.features["track"]) == [4, 7]
    assert loaded.searched() == [FrameIndex(time=1)]
    assert loaded.source["path"] == str(path)
    assert output.files == [path / "labels" / "objects"]


def write_plate(plate: Path) -> Path:
    """Two wells with an image each."""
    group = zarr.open_group(plate, mode="w", zarr_format=2)
    group.attrs["plate"] = {
        "version": "0.4",
        "rows": [{"name": "A"}],
        "columns": [{"name": "1"}, {"name": "2"}],
        "wells": [
            {"path": f"A/{n + 1}", "rowIndex": 0, "columnIndex": n} for n in range(2)
        ],
    }
    for well in ("A/1", "A/2"):
        group.require_group(well).attrs["well"] = {"images": [{"path": "0"}]}
        write_image(plate / well / "0")
    return plate


def test_every_position_of_a_plate_has_its_own(tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "plate.ome.zarr")
    writer = InsideWriter(plate, open_image(plate).sizes)
    writer.write(FrameIndex(position=1, time=1), noise(1))
    assert writer.close() == plate
    for well, expected in (("A/1", np.zeros((32, 48))), ("A/2", noise(1))):
        array = zarr.open_group(plate / well / "0" / "labels" / "objects")["0"]
        np.testing.assert_array_equal(np.asarray(array)[1, 0], expected)
    assert not Objects.load(plate / "A/1/0", "zarr").searched(), "nobody looked there"


def test_positions_that_a_run_does_not_look_at_keep_their_labels(
    tmp_path: Path,
) -> None:
    plate = write_plate(tmp_path / "plate.ome.zarr")
    for number in range(2):
        writer = InsideWriter(plate, open_image(plate).sizes)
        writer.write(FrameIndex(position=number, time=number), blocks(number + 1))
        writer.close()
    for number, well in enumerate(("A/1", "A/2")):
        found = Objects.load(plate / well / "0", "zarr")
        assert found.searched() == [FrameIndex(time=number)]
        drawn = found.to_labels(SHAPE[-2:], FrameIndex(time=number))
        np.testing.assert_array_equal(drawn > 0, blocks(number + 1) > 0)


def test_labels_written_before_are_replaced_and_others_are_kept(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.ome.zarr")
    sizes = open_image(path).sizes
    theirs = path / "labels" / "nuclei"
    zarr.create_array(theirs / "0", shape=(4, 4), dtype="u1", zarr_format=2)
    (path / "labels" / ".zgroup").write_text('{"zarr_format": 2}')
    (path / "labels" / ".zattrs").write_text('{"labels": ["nuclei"], "mine": 1}')
    for seed in (1, 2):
        writer = InsideWriter(path, sizes)
        writer.write(FrameIndex(time=seed - 1), noise(seed))
        writer.close()
    known = json.loads((path / "labels" / ".zattrs").read_text())
    assert known == {"labels": ["nuclei", "objects"], "mine": 1}
    array = np.asarray(zarr.open_group(path / "labels" / "objects")["0"])
    assert not array[0].any(), "only what the last run found"
    np.testing.assert_array_equal(array[1, 0], noise(2))
    assert theirs.is_dir()
    assert {one.name for one in (path / "labels").iterdir()} == {
        ".zattrs",
        ".zgroup",
        "nuclei",
        "objects",
    }
    with pytest.raises(OutputError, match="'nuclei' that were not written here"):
        InsideWriter(path, sizes, "nuclei")


def test_a_run_that_breaks_off_leaves_the_image_as_it_was(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.ome.zarr")
    before = {str(one) for one in path.rglob("*")}
    writer = InsideWriter(path, open_image(path).sizes)
    writer.write(FrameIndex(), noise(0))
    with pytest.raises(ParameterError, match="do not fit"):
        writer.write(FrameIndex(), noise(0, (3, 3)))
    with pytest.raises(FrameError, match="time"):
        writer.write(FrameIndex(time=5), noise(0))
    writer.discard()
    left = {str(one) for one in path.rglob("*")} - before
    assert left <= {str(path / "labels")}


def test_what_has_no_place_for_labels_is_told_before_any_work(tmp_path: Path) -> None:
    empty = tmp_path / "folder"
    empty.mkdir()
    with pytest.raises(OutputError, match="no OME-Zarr image"):
        InsideWriter(empty, Sizes(y=3, x=3))
    path = write_image(tmp_path / "a.ome.zarr")
    with pytest.raises(OutputError, match="not how it was opened"):
        InsideWriter(path, open_image(path).sizes._replace(time=1, z=2))
    with pytest.raises(OutputError, match="has 1 images and not 3"):
        InsideWriter(path, open_image(path).sizes._replace(position=3))
    image = open_image(np.zeros((8, 8), np.uint8), axes="yx")
    with pytest.raises(OutputError, match="no OME-Zarr"):
        ImageOutput(tmp_path / "out", image, ["zarr-inside"])


@pytest.mark.parametrize(("axes", "fits"), [("ZTYX", False), ("tzyx", True)])
def test_axes_that_are_as_long_are_not_taken_for_each_other(
    tmp_path: Path, axes: str, fits: bool
) -> None:
    path = tmp_path / "a.ome.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", shape=(3, 3, 8, 8), dtype="u1")
    scale = {"type": "scale", "scale": [1, 1, 1, 1]}
    datasets = [{"path": "0", "coordinateTransformations": [scale]}]
    kinds = {"t": "time", "z": "space", "y": "space", "x": "space"}
    named = [{"name": name, "type": kind} for name, kind in kinds.items()]
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": named, "datasets": datasets}
    ]
    image = open_image(path, axes=axes)
    assert image.sizes[:3] == (1, 3, 3)
    if fits:
        ImageOutput(tmp_path / "out", image, ["zarr-inside"]).discard()
        return
    with pytest.raises(OutputError, match="not how it was opened"):
        ImageOutput(tmp_path / "out", image, ["zarr-inside"])

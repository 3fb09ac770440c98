"""What docs/formats.md says of each format: written, read back, and the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from engine.formats.cases import make_objects
from napari_sam_suite.engine.formats import FORMATS
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.outputs import FORMATS as OUTPUTS

if TYPE_CHECKING:
    from pathlib import Path

QUPATH = ["geojson", "geojson-annotations"]
WHOLE = [*QUPATH, "coco", "coco-rle", "nimbus", "parquet", "rois"]
SEARCHED = [FrameIndex(), FrameIndex(0, 2), FrameIndex(1, 1, 1), FrameIndex(3, 2, 7)]


def tracked() -> Objects:
    """Tags, a hole, two parts, three frames, tracks; one frame without objects."""
    return make_objects().with_features(track=[3, 3, 70_000]).with_searched(SEARCHED)


def save_and_load(objects: Objects, folder: Path, name: str) -> Objects:
    suffix = next(known.suffixes[0] for known in FORMATS if known.name == name)
    objects.save(folder / f"cells{suffix}")
    return Objects.load(folder / f"cells{suffix}")


@pytest.mark.parametrize("name", WHOLE)
def test_tags_holes_frames_and_tracks_are_kept(name: str, tmp_path: Path) -> None:
    objects = tracked()
    loaded = save_and_load(objects, tmp_path, name)
    for column in ("id", "tag", "position", "time", "z", "track", "score", "note"):
        assert loaded.features[column].tolist() == pytest.approx(
            objects.features[column].tolist(), nan_ok=True
        ), column
    pd.testing.assert_frame_equal(loaded.features, objects.features)
    for mine, theirs in zip(objects.polygons, loaded.polygons, strict=True):
        assert mine.equals(theirs)
    assert (loaded.source, loaded.searched()) == (objects.source, SEARCHED)


@pytest.mark.parametrize("name", WHOLE)
def test_what_was_read_is_written_as_it_was(name: str, tmp_path: Path) -> None:
    once = save_and_load(tracked(), tmp_path, name)
    twice = save_and_load(once, tmp_path, name)
    pd.testing.assert_frame_equal(twice.features, once.features)
    assert twice.source == once.source


@pytest.mark.parametrize("name", ["labels", "zarr"])
def test_labels_keep_pixels_frames_and_tracks(name: str, tmp_path: Path) -> None:
    objects = tracked()
    loaded = save_and_load(objects, tmp_path, name)
    assert loaded.features["track"].tolist() == [3, 3, 70_000]
    assert loaded.frames() == objects.frames()
    assert loaded.searched() == SEARCHED
    for frame in objects.frames():
        shape = (30, 40)
        np.testing.assert_array_equal(
            loaded.at(frame).to_labels(shape), objects.at(frame).to_labels(shape)
        )


def test_every_output_of_a_run_is_a_format_that_can_be_named() -> None:
    # an overlay is for the eye, and labels inside an image are read as OME-Zarr
    kept = set(OUTPUTS) - {"overlay", "zarr-inside"}
    assert kept <= {known.name for known in FORMATS}

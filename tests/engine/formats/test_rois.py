from __future__ import annotations

import logging
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import roifile
import shapely
from roifile import ROI_TYPE, ImagejRoi
from skimage.measure import grid_points_in_poly

from engine.formats.cases import SHAPE, draw_blobs, make_objects
from napari_sam_suite.engine.errors import MissingExtra, ParameterError
from napari_sam_suite.engine.formats import rois
from napari_sam_suite.engine.formats.colours import tag_colour
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.polygons import polygonise
from napari_sam_suite.engine.raster import rasterise


def write_rois(path, *many):
    roifile.roiwrite(path, many)
    return path


def test_all_is_the_same_after_saving_and_loading(tmp_path):
    objects = make_objects()
    objects.save(tmp_path / "cells.zip")
    loaded = Objects.load(tmp_path / "cells.zip")
    pd.testing.assert_frame_equal(loaded.features, objects.features)
    assert loaded.source == objects.source
    for mine, theirs in zip(objects.polygons, loaded.polygons, strict=True):
        assert mine.equals(theirs)


@pytest.mark.parametrize("smoothing", [0, 0.3])
def test_every_object_has_the_same_pixels_afterwards(tmp_path, smoothing):
    masks = draw_blobs(100)
    objects = Objects(
        [polygonise(m, smoothing=smoothing, parts="all").polygon for m in masks]
    )
    objects.save(tmp_path / "a.zip")
    loaded = Objects.load(tmp_path / "a.zip")
    for before, after in zip(objects.polygons, loaded.polygons, strict=True):
        np.testing.assert_array_equal(rasterise(after, SHAPE), rasterise(before, SHAPE))


def test_roifile_reads_the_outlines_from_the_corner_of_the_image(tmp_path):
    pixels = shapely.box(1.5, 2.5, 7.5, 12.5)
    Objects([pixels]).save(tmp_path / "a.zip")
    [roi] = roifile.roiread(tmp_path / "a.zip")
    corners = roi.coordinates()
    assert (corners.min(0).tolist(), corners.max(0).tolist()) == ([3, 2], [13, 8])
    mask = grid_points_in_poly((20, 20), corners[:, ::-1] - 0.5)
    np.testing.assert_array_equal(mask, rasterise(pixels, (20, 20)))


def test_roifile_reads_names_colours_positions_and_properties(tmp_path):
    make_objects().save(tmp_path / "a.zip")
    first, second, third = roifile.roiread(tmp_path / "a.zip")
    assert first.name == "cell-0001"
    assert third.name == "Tumor_π_ Positive-0003"
    assert first.stroke_color == bytes((255, *tag_colour("cell")))
    assert (second.z_position, second.t_position) == (1, 3)
    assert (third.z_position, third.t_position) == (8, 3)
    assert first.properties["score"] == 0.91
    assert first.properties["edited"] is True


def test_a_hole_is_a_ring_of_the_other_sense_in_a_composite(tmp_path):
    make_objects().save(tmp_path / "a.zip")
    roi = roifile.roiread(tmp_path / "a.zip")[0]
    assert roi.composite
    outside, hole = (shapely.LinearRing(r) for r in roi.coordinates(multi=True))
    assert outside.is_ccw != hole.is_ccw
    assert (roi.top, roi.left, roi.bottom, roi.right) == (0, 0, 13, 10)


@pytest.mark.parametrize("axis", ["z", "time"])
def test_a_stack_of_one_axis_has_plain_positions(tmp_path, axis):
    objects = Objects([shapely.box(0, 0, 5, 5)]).with_features(**{axis: [4]})
    objects.save(tmp_path / "a.zip")
    [roi] = roifile.roiread(tmp_path / "a.zip")
    assert (roi.position, roi.z_position, roi.t_position) == (5, 0, 0)
    frame = FrameIndex(**{axis: 4})
    assert Objects.load(tmp_path / "a.zip").frames() == [frame]


@pytest.mark.parametrize("axis", ["z", "time"])
def test_a_stack_with_channels_has_hyperstack_positions(tmp_path, axis):
    box, frame = shapely.box(0, 0, 5, 5), FrameIndex(**{axis: 2})
    sizes = {axis: 5, "channel": 2, "y": 9, "x": 9}
    found = Objects([box], pd.DataFrame({axis: [2]}), {"sizes": sizes})
    found.save(tmp_path / "a.zip")
    [roi] = roifile.roiread(tmp_path / "a.zip")
    assert (roi.position, roi.c_position) == (0, 0)
    assert (roi.z_position, roi.t_position) == (frame.z + 1, frame.time + 1)
    assert Objects.load(tmp_path / "a.zip").frames() == [frame]


@pytest.mark.parametrize("axis", ["z", "time"])
def test_the_colours_of_a_stack_are_no_channels(tmp_path, axis):
    sizes = {axis: 5, "channel": 3, "y": 9, "x": 9}
    source = {"sizes": sizes, "rgb": True}
    objects = Objects([shapely.box(0, 0, 5, 5)], pd.DataFrame({axis: [2]}), source)
    objects.save(tmp_path / "a.zip")
    [roi] = roifile.roiread(tmp_path / "a.zip")
    assert (roi.position, roi.z_position, roi.t_position) == (3, 0, 0)
    assert Objects.load(tmp_path / "a.zip").frames() == [FrameIndex(**{axis: 2})]


def test_shapes_of_imagej_count_from_the_corner_of_the_image(tmp_path):
    rect = ImagejRoi(roitype=ROI_TYPE.RECT, left=2, top=3, right=8, bottom=9)
    oval = ImagejRoi(roitype=ROI_TYPE.OVAL, left=0, top=0, right=10, bottom=20)
    traced = ImagejRoi.frompoints(np.array([[2, 3], [2, 9], [8, 9], [8, 3]]), name="a")
    traced.group, traced.position = 3, 4
    loaded = Objects.load(write_rois(tmp_path / "a.zip", rect, oval, traced))
    assert loaded.polygons[0].bounds == (2.5, 1.5, 8.5, 7.5)
    assert loaded.polygons[2].equals(loaded.polygons[0])
    assert loaded.polygons[1].area == pytest.approx(np.pi * 50, rel=0.02)
    assert loaded.features["tag"].tolist() == ["unassigned", "unassigned", "group 3"]
    assert loaded.features["name"][2] == "a"
    assert loaded.features["z"].tolist() == [0, 0, 3]


def test_what_has_no_area_is_left_out_and_told(tmp_path, caplog):
    line = ImagejRoi(roitype=ROI_TYPE.LINE, x2=9, y2=9, name="line")
    points = ImagejRoi.frompoints(np.array([[1, 1], [5, 5], [9, 1]]), name="points")
    points.roitype = ROI_TYPE.POINT
    rect = ImagejRoi(roitype=ROI_TYPE.RECT, right=5, bottom=5, name="rect")
    curve = ImagejRoi(roitype=ROI_TYPE.RECT, name="curve", shape_roi_size=9)
    curve.multi_coordinates = np.array([0, 1, 1, 2, 2, 2, 3, 3, 4], np.float32)
    path = write_rois(tmp_path / "a.zip", line, points, rect, curve)
    with caplog.at_level(logging.WARNING):
        loaded = Objects.load(path)
    assert (len(loaded), loaded.source["skipped"]) == (1, 3)
    assert "3 ROIs" in caplog.text


def test_features_outlive_a_program_that_drops_the_comment(tmp_path):
    objects = make_objects()
    objects.save(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as file:
        file.comment = b""
    table = Objects.load(tmp_path / "a.zip").features
    assert table["tag"].tolist() == objects.features["tag"].tolist()
    assert table["score"].tolist()[0] == 0.91
    assert table["note"].tolist()[0] == objects.features["note"][0]
    assert table["id"].tolist() == objects.features["id"].tolist()


def test_an_outline_that_was_changed_has_another_area(tmp_path):
    squares = [shapely.box(0, 0, 9, 9), shapely.box(20, 20, 29, 29)]
    objects = Objects(squares).with_features(area=[80, 80])
    objects.save(tmp_path / "a.zip")
    first, second = roifile.roiread(tmp_path / "a.zip")
    larger = np.array([[0, 0], [0, 60], [60, 60], [60, 0]])
    edited = ImagejRoi.frompoints(larger, name=first.name)
    edited.props = first.props
    write_rois(tmp_path / "b.zip", edited, second)
    loaded = Objects.load(tmp_path / "b.zip")
    assert loaded.features["area"].tolist() == [3600, 80]
    assert loaded.features.columns.tolist() == objects.features.columns.tolist()


def test_one_object_is_a_roi_file(tmp_path):
    Objects([shapely.box(0, 0, 5, 5)]).save(tmp_path / "a.roi")
    assert roifile.roiread(tmp_path / "a.roi").coordinates().max() == 5.5
    assert Objects.load(tmp_path / "a.roi").polygons[0].area == 25
    with pytest.raises(ParameterError, match="one object, not 3"):
        make_objects().save(tmp_path / "b.roi")


def test_no_objects_are_a_valid_file(tmp_path):
    Objects.empty({"image": "a"}).save(tmp_path / "a.zip")
    assert roifile.roiread(tmp_path / "a.zip") == []
    loaded = Objects.load(tmp_path / "a.zip")
    assert (len(loaded), loaded.source) == (0, {"image": "a"})


def test_a_source_that_is_too_long_is_left_out(tmp_path, caplog):
    objects = make_objects()
    objects.source["image"] = "a" * 70_000
    rois.write(objects, tmp_path / "a.zip")
    loaded = Objects.load(tmp_path / "a.zip")
    pd.testing.assert_frame_equal(loaded.features, objects.features)
    assert loaded.source == {} and "too long" in caplog.text


def test_damaged_files_are_one_clear_sentence(tmp_path):
    good = write_rois(tmp_path / "good.zip", ImagejRoi(right=5, bottom=5, name="a"))
    whole = good.read_bytes()
    cases = {"short": whole[:30], "text": b"no zip at all", "empty": b""}
    for name, content in cases.items():
        path = tmp_path / f"{name}.zip"
        path.write_bytes(content)
        with pytest.raises(ParameterError, match=f"{name}.zip cannot be read as"):
            Objects.load(path)
    for name, content in {"a.roi": b"Iout" * 4, "b.roi": b"x" * 99}.items():
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
            file.writestr(name, content)
        with pytest.raises(ParameterError, match=r"bad.zip cannot be read as"):
            Objects.load(tmp_path / "bad.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("a.txt", "hello")
    with pytest.raises(ParameterError, match="holds other files"):
        Objects.load(tmp_path / "other.zip")
    with pytest.raises(ParameterError, match=r"none\.zip cannot be read: No such"):
        Objects.load(tmp_path / "none.zip")


def test_a_missing_package_is_one_sentence_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "roifile", None)
    for act in (
        lambda: make_objects().save(tmp_path / "a.zip"),
        lambda: Objects.load(tmp_path / "a.zip"),
    ):
        with pytest.raises(MissingExtra, match="package roifile") as caught:
            act()
        assert 'pip install "napari-sam-suite[formats]"' in caught.value.hint
    assert list(tmp_path.iterdir()) == []

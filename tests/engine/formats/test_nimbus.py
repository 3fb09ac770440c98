from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd
import pytest
import shapely
from shapely import MultiPolygon
from skimage.draw import polygon2mask

from engine.formats.cases import SHAPE, draw_blobs, make_objects
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.formats import nimbus
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.polygons import polygonise
from napari_sam_suite.engine.raster import rasterise

SQUARE = [{"x": 2, "y": 3}, {"x": 2, "y": 9}, {"x": 8, "y": 9}, {"x": 8, "y": 3}]


def annotation(**more):
    return {
        "id": "a1",
        "tags": ["cell"],
        "shape": "polygon",
        "channel": 0,
        "location": {"XY": 0, "Z": 0, "Time": 0},
        "datasetId": "d1",
        "coordinates": SQUARE,
        "color": None,
    } | more


def load(folder, document):
    path = folder / "a.nimbus.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return Objects.load(path)


def written(folder, objects):
    nimbus.write(objects, folder / "a.nimbus.json")
    return json.loads((folder / "a.nimbus.json").read_text(encoding="utf-8"))


def test_all_is_the_same_after_saving_and_loading(tmp_path):
    objects = make_objects().with_features(track=[4, 4, 7], channel=[0, 1, 2])
    objects.save(tmp_path / "cells.nimbus.json")
    loaded = Objects.load(tmp_path / "cells.nimbus.json")
    pd.testing.assert_frame_equal(loaded.features, objects.features)
    assert loaded.source == objects.source
    for mine, theirs in zip(objects.polygons, loaded.polygons, strict=True):
        assert mine.normalize().equals_exact(theirs.normalize(), 0)


@pytest.mark.parametrize("smoothing", [0, 0.3])
def test_every_object_has_the_same_pixels_afterwards(tmp_path, smoothing):
    masks = draw_blobs(100)
    objects = Objects(
        [polygonise(m, smoothing=smoothing, parts="all").polygon for m in masks]
    )
    nimbus.write(objects, tmp_path / "a.json")
    loaded = nimbus.read(tmp_path / "a.json")
    for before, after in zip(objects.polygons, loaded.polygons, strict=True):
        np.testing.assert_array_equal(rasterise(after, SHAPE), rasterise(before, SHAPE))


def test_an_annotation_has_what_the_server_asks_for(tmp_path):
    document = written(tmp_path, make_objects())
    first, second, third, fourth = document["annotations"]
    required = {"coordinates", "tags", "channel", "location", "shape", "datasetId"}
    assert all(required <= one.keys() for one in document["annotations"])
    assert (first["tags"], second["tags"]) == (["cell"], [])
    assert first["shape"] == "polygon"
    assert fourth["location"] == {"XY": 3, "Z": 7, "Time": 2}
    assert len({one["id"] for one in document["annotations"]}) == 4
    assert len(fourth["coordinates"]) == 4
    assert second["location"] == third["location"] == {"XY": 0, "Z": 0, "Time": 2}
    wanted = {"annotationConnections", "annotationProperties"}
    assert wanted <= document.keys()
    assert document["annotationPropertyValues"] == {}


def test_coordinates_count_from_the_corner_of_the_image(tmp_path):
    pixels = shapely.box(1.5, 2.5, 7.5, 12.5)
    [one] = written(tmp_path, Objects([pixels]))["annotations"]
    x, y = (np.array([p[axis] for p in one["coordinates"]]) for axis in "xy")
    assert (x.min(), x.max(), y.min(), y.max()) == (3, 13, 2, 8)
    drawn = polygon2mask((20, 20), np.stack([y, x], 1) - 0.5)
    np.testing.assert_array_equal(drawn, rasterise(pixels, (20, 20)))


def test_holes_are_filled_there_and_parts_are_annotations(tmp_path):
    document = written(tmp_path, make_objects())
    first, second, third, _ = document["annotations"]
    assert len(first["coordinates"]) == 4
    assert len(first["napari_sam_suite"]["holes"]) == 1
    owners = [one["napari_sam_suite"]["object"] for one in (second, third)]
    assert owners[0] == owners[1]


def test_what_was_moved_there_is_moved_here(tmp_path):
    document = written(tmp_path, make_objects())
    for point in document["annotations"][3]["coordinates"]:
        point["x"] += 10
    document["annotations"][3]["tags"] = ["moved"]
    loaded = load(tmp_path, document)
    assert loaded.polygons[2].bounds == (-0.5, 9.5, 4.5, 14.5)
    assert loaded.features["tag"][2] == "moved"
    assert loaded.features["score"][2] == 1 / 3


@pytest.mark.parametrize("shift", [10, 100])
def test_an_outline_that_is_moved_leaves_nothing_behind(tmp_path, shift):
    ring, hole = shapely.box(10, 10, 40, 40), shapely.box(20, 15, 30, 25)
    document = written(tmp_path, Objects([ring - hole]))
    for point in document["annotations"][0]["coordinates"]:
        point["x"] += shift
    loaded = load(tmp_path, document)
    [polygon] = loaded.polygons
    assert polygon.equals(shapely.box(10, 10 + shift, 40, 40 + shift) - hole)
    assert not loaded.to_labels((60, 160))[:, : 10 + shift].any()


def test_parts_that_are_moved_over_each_other_are_one_area(tmp_path):
    parts = [shapely.box(0, 0, 10, 10), shapely.box(20, 20, 30, 30)]
    document = written(tmp_path, Objects([MultiPolygon(parts)]))
    for point in document["annotations"][1]["coordinates"]:
        point["x"] -= 17
        point["y"] -= 14
    loaded = load(tmp_path, document)
    assert loaded.polygons[0].area == 100 + 100 - 4 * 7
    assert loaded.features["area"].tolist() == [172]


def test_the_area_is_that_of_an_outline_which_was_changed_there(tmp_path):
    squares = [shapely.box(0, 0, 9, 9), shapely.box(20, 20, 29, 29)]
    document = written(tmp_path, Objects(squares).with_features(area=80))
    larger, moved = (one["coordinates"] for one in document["annotations"])
    for point in larger:
        point |= {axis: 60 * (point[axis] > 5) for axis in "xy"}
    for point in moved:
        point["x"] += 3
    assert load(tmp_path, document).features["area"].tolist() == [3600, 80]
    del document["annotations"][0]["napari_sam_suite"]["area"]
    assert load(tmp_path, document).features["area"].tolist() == [80, 80]


def test_a_part_that_was_deleted_there_is_no_area_here(tmp_path):
    document = written(tmp_path, make_objects())
    del document["annotations"][2]
    assert load(tmp_path, document).features["area"].tolist() == [99, 9, 25]


def test_tracks_are_connections_from_frame_to_frame(tmp_path):
    squares = Objects([shapely.box(0, 0, 5, 5)] * 5).with_features(
        time=[2, 0, 1, 0, 3], track=[1, 1, 1, 2, 2]
    )
    document = written(tmp_path, squares)
    ids = squares.features["id"].tolist()
    pairs = [(c["parentId"], c["childId"]) for c in document["annotationConnections"]]
    assert pairs == [(ids[1], ids[2]), (ids[2], ids[0]), (ids[3], ids[4])]
    assert load(tmp_path, document).features["track"].tolist() == [1, 1, 1, 2, 2]


def test_files_of_nimbusimage_are_read(tmp_path, caplog):
    listed = [
        annotation(tags=["cell", "big", "odd"], channel=2),
        annotation(id="a2", location={"XY": 1, "Z": 2, "Time": 3}, tags=[]),
        annotation(id="a3", shape="point", coordinates=SQUARE[:1]),
        annotation(id="a4", shape="rectangle", coordinates=SQUARE[::2]),
    ]
    link = {"parentId": "a1", "childId": "a2", "tags": [], "label": "x"}
    document = {"annotations": listed, "annotationConnections": [link]}
    with caplog.at_level(logging.WARNING):
        loaded = load(tmp_path, document)
    assert loaded.polygons[0].bounds == (2.5, 1.5, 8.5, 7.5)
    assert loaded.polygons[2].equals(loaded.polygons[0])
    table = loaded.features
    assert table["id"].tolist() == ["a1", "a2", "a4"]
    assert table["tag"].tolist() == ["cell", "unassigned", "cell"]
    assert table["further tags"][0] == "big; odd"
    assert table["channel"].tolist() == [2, 0, 0]
    assert table["track"][0] == table["track"][1] != table["track"][2]
    assert loaded.frames() == [FrameIndex(), FrameIndex(1, 3, 2)]
    assert loaded.source == {"dataset": "d1", "skipped": 1}
    again = written(tmp_path, loaded)["annotations"][0]
    assert again["tags"] == ["cell", "big", "odd"]
    assert (again["channel"], again["datasetId"]) == (2, "d1")


def test_a_list_of_annotations_as_workers_upload_it_is_read(tmp_path):
    bare = annotation()
    del bare["id"], bare["color"], bare["tags"]
    loaded = load(tmp_path, [bare, bare])
    assert len(loaded) == 2
    assert loaded.features["tag"].tolist() == ["unassigned"] * 2


def test_no_objects_are_a_valid_file(tmp_path):
    Objects.empty({"image": "a"}).save(tmp_path / "a.nimbus.json")
    loaded = Objects.load(tmp_path / "a.nimbus.json")
    assert (len(loaded), loaded.source) == (0, {"image": "a"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not NimbusImage's"),
        ({"annotations": [{"a": 1}]}, "not NimbusImage's"),
        ([annotation(coordinates=[{"x": 1}] * 3)], "has no 'y'"),
        ([annotation(coordinates=[{"x": "a", "y": 1}] * 3)], "make no sense"),
        ([annotation(coordinates=[{"x": float("nan"), "y": 1}] * 3)], "finite"),
        ([annotation(location=3)], "make no sense"),
    ],
)
def test_what_makes_no_sense_is_one_clear_sentence(tmp_path, content, message):
    with pytest.raises(ParameterError, match=message) as caught:
        load(tmp_path, content)
    assert "a.nimbus.json" in str(caught.value)

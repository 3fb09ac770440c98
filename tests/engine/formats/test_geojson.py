from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd
import pytest
import shapely
from shapely import MultiPolygon, Polygon

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.formats import geojson
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.objects import Objects

RING = [[0.0, 0.0], [0.0, 9.0], [12.0, 9.0], [12.0, 0.0], [0.0, 0.0]]
HOLE = [[3.0, 3.0], [3.0, 6.0], [6.0, 6.0], [6.0, 3.0], [3.0, 3.0]]


def make_objects() -> Objects:
    """Two frames, two tags, a hole, two parts, and every kind of value."""
    holed = Polygon(RING, [HOLE])
    double = MultiPolygon([shapely.box(0, 0, 3, 3), shapely.box(8, 8, 9.5, 9.125)])
    square = shapely.box(-0.5, -0.5, 4.5, 4.5)
    features = pd.DataFrame(
        {
            "tag": ["cell", "unassigned", "Tumor: Positive"],
            "score": [0.91, np.nan, 1 / 3],
            "stability": [0.5, 0.25, np.nan],
            "level": [2, -1, 0],
            "area": [99, 12, 25],
            "position": [0, 0, 3],
            "time": [0, 2, 2],
            "z": [0, 0, 7],
            "model": ["sam2-nano", "", "sam2-nano"],
            "run": ["r1", "r1", "r1"],
            "similarity": [0.5, np.inf, np.nan],
            "note": ['é, "quoted"', "", "12"],
            "edited": [True, False, True],
            "count": np.array([1, 2, 3], dtype=np.uint16),
        }
    )
    source = {"image": "a.tif", "sizes": {"z": 8, "y": 30, "x": 40}, "scale": [1, 0.5]}
    return Objects([holed, double, square], features, source)


def write_json(path, document):
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def feature(geometry=None, **properties):
    geometry = geometry or {"type": "Polygon", "coordinates": [RING]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def test_all_is_the_same_after_saving_and_loading(tmp_path):
    objects = make_objects()
    objects.save(tmp_path / "cells.geojson")
    loaded = Objects.load(tmp_path / "cells.geojson")
    pd.testing.assert_frame_equal(loaded.features, objects.features)
    assert loaded.source == objects.source
    for mine, theirs in zip(objects.polygons, loaded.polygons, strict=True):
        assert mine.equals_exact(theirs, 0)


def test_saving_again_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    blob = shapely.MultiPoint(rng.uniform(0, 900, (20, 2))).convex_hull
    Objects([blob]).save(tmp_path / "a.json")
    loaded = Objects.load(tmp_path / "a.json")
    assert loaded.polygons[0].equals_exact(blob, 1e-4)
    loaded.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_no_objects_are_a_valid_file(tmp_path):
    Objects.empty({"image": "a"}).save(tmp_path / "a.geojson")
    document = json.loads((tmp_path / "a.geojson").read_text())
    assert (document["type"], document["features"]) == ("FeatureCollection", [])
    loaded = Objects.load(tmp_path / "a.geojson")
    assert (len(loaded), loaded.source) == (0, {"image": "a"})


def test_the_file_is_what_qupath_reads(tmp_path):
    geojson.write(make_objects(), tmp_path / "a.geojson", object_type="detection")
    document = json.loads((tmp_path / "a.geojson").read_text())
    first, second, third = document["features"]
    assert first["id"] != second["id"]
    assert first["properties"]["objectType"] == "detection"
    name, colour = first["properties"]["classification"].values()
    assert name == "cell"
    assert len(colour) == 3
    assert all(isinstance(part, int) and 0 <= part <= 255 for part in colour)
    assert "classification" not in second["properties"]
    assert first["properties"]["measurements"]["area"] == 99
    assert all(
        isinstance(value, (int, float)) and not isinstance(value, bool)
        for one in document["features"]
        for value in one["properties"]["measurements"].values()
    )
    assert first["properties"]["metadata"]["model"] == "sam2-nano"
    assert "plane" not in first["geometry"]
    assert second["geometry"]["plane"] == {"c": -1, "z": 0, "t": 2}
    assert third["geometry"]["plane"] == {"c": -1, "z": 7, "t": 2}
    assert second["geometry"]["type"] == "MultiPolygon"


def test_annotations_are_a_format_and_an_ending(tmp_path):
    objects = make_objects()
    objects.save(tmp_path / "a.geojson", "geojson-annotations")
    objects.save(tmp_path / "b.annotations.geojson")
    for name in ("a.geojson", "b.annotations.geojson"):
        document = json.loads((tmp_path / name).read_text())
        kinds = {one["properties"]["objectType"] for one in document["features"]}
        assert kinds == {"annotation"}


def test_coordinates_are_x_y_from_the_corner_of_the_image(tmp_path):
    whole_image = shapely.box(-0.5, -0.5, 29.5, 39.5)
    Objects([whole_image]).save(tmp_path / "a.geojson")
    document = json.loads((tmp_path / "a.geojson").read_text())
    (ring,) = document["features"][0]["geometry"]["coordinates"]
    assert sorted(set(map(tuple, ring))) == [(0, 0), (0, 30), (40, 0), (40, 30)]
    assert ring[0] == ring[-1]


def test_a_visit_to_qupath_loses_nothing_that_matters(tmp_path):
    objects = make_objects()
    objects.save(tmp_path / "a.geojson")
    document = json.loads((tmp_path / "a.geojson").read_text())
    del document["napari_sam_suite"]
    names = document["features"][2]["properties"]["classification"]
    names["names"] = names.pop("name").split(": ")
    loaded = Objects.load(write_json(tmp_path / "b.geojson", document))
    pd.testing.assert_frame_equal(
        loaded.features[list(objects.features)[:11]], objects.features.iloc[:, :11]
    )
    assert loaded.features["count"].tolist() == [1, 2, 3]
    assert loaded.polygons[0].equals_exact(objects.polygons[0], 0)


def test_plain_geojson_of_others(tmp_path):
    document = {
        "type": "FeatureCollection",
        "features": [
            feature(label="nucleus", score=0.5, comment="x", nested={"a": 1}),
            feature(classification="cell", measurements=[{"name": "w", "value": 2}]),
            feature(level="high"),
        ],
    }
    objects = Objects.load(write_json(tmp_path / "a.geojson", document))
    table = objects.features
    assert table["tag"].tolist() == ["nucleus", "cell", "unassigned"]
    assert table["score"].tolist()[0] == 0.5
    assert table["w"].tolist()[1] == 2
    assert table["level"].tolist() == [-1, -1, -1]
    assert objects.polygons[0].bounds == (-0.5, -0.5, 8.5, 11.5)
    assert objects.frames() == [FrameIndex()]


@pytest.mark.parametrize(
    "document",
    [
        feature(),
        [feature()],
        {"type": "Polygon", "coordinates": [RING]},
        feature({"type": "MultiPolygon", "coordinates": [[RING]]}),
        feature({"type": "Polygon", "coordinates": [RING[:-1]]}),
        feature({"type": "Polygon", "coordinates": [[[*p, 5.0] for p in RING]]}),
    ],
)
def test_other_spellings_of_one_polygon(tmp_path, document):
    objects = Objects.load(write_json(tmp_path / "a.json", document))
    assert len(objects) == 1
    assert objects.polygons[0].area == 108


def test_what_has_no_area_is_left_out_and_told(tmp_path, caplog):
    features = [
        feature({"type": "Point", "coordinates": [1, 2]}),
        feature({"type": "Polygon", "coordinates": [[[0, 0], [5, 5], [0, 0]]]}),
        feature({"type": "Polygon", "coordinates": [[[0, 0], [5, 5], [9, 9]], HOLE]}),
        feature({"type": "Polygon", "coordinates": []}),
        {"type": "Feature", "geometry": None, "properties": None},
        feature(),
    ]
    document = {"type": "FeatureCollection", "features": features}
    with caplog.at_level(logging.WARNING):
        objects = Objects.load(write_json(tmp_path / "a.json", document))
    assert len(objects) == 1
    assert objects.source["skipped"] == 5
    assert "5 features" in caplog.text


def test_the_area_is_that_of_an_outline_which_was_changed(tmp_path):
    squares = [shapely.box(0, 0, 9, 9), shapely.box(20, 20, 29, 29)]
    objects = Objects(squares).with_features(area=80)
    objects.save(tmp_path / "a.geojson")
    document = json.loads((tmp_path / "a.geojson").read_text())
    larger, other = (one["geometry"]["coordinates"] for one in document["features"])
    larger[0] = [[0, 0], [0, 60], [60, 60], [60, 0], [0, 0]]
    # As QuPath rounds; it also leaves out what is not a Feature's.
    other[0] = [[x + 0.004, y - 0.003] for x, y in other[0]]
    del document["napari_sam_suite"]
    loaded = Objects.load(write_json(tmp_path / "b.geojson", document))
    assert loaded.features["area"].tolist() == [3600, 80]
    assert loaded.features.columns.tolist() == objects.features.columns.tolist()
    del document["features"][0]["properties"]["metadata"]
    before = Objects.load(write_json(tmp_path / "b.geojson", document))
    assert before.features["area"].tolist() == [80, 80]


def test_parts_that_overlap_are_one_area(tmp_path):
    def square(start):
        stop = start + 10
        ends = [[start, start], [start, stop], [stop, stop], [stop, start]]
        return [[*ends, ends[0]]]

    document = feature({"type": "MultiPolygon", "coordinates": [square(0), square(5)]})
    (polygon,) = Objects.load(write_json(tmp_path / "a.json", document)).polygons
    assert polygon.is_valid
    assert polygon.area == 100 + 100 - 5 * 5


def test_crossing_outlines_are_made_valid(tmp_path):
    bow_tie = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]
    document = feature({"type": "Polygon", "coordinates": [bow_tie]})
    (polygon,) = Objects.load(write_json(tmp_path / "a.json", document)).polygons
    assert polygon.is_valid
    assert polygon.area == 50


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{ not json", "not valid JSON"),
        ("\x00\xff", "not valid JSON"),
        ('{"a": 1}', "not GeoJSON"),
        ("[1, 2]", "not GeoJSON"),
        ('{"type": "FeatureCollection", "features": 3}', "not GeoJSON"),
        ('{"type": "Polygon", "coordinates": [["a", "b"]]}', "make no sense"),
        ('{"type": "Polygon", "coordinates": 5}', "make no sense"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [2, 2]]]}', "finite"),
        ('{"type": "MultiPolygon", "coordinates": null}', "make no sense"),
    ],
)
def test_damaged_files_are_one_clear_sentence(tmp_path, text, message):
    path = tmp_path / "bad.geojson"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ParameterError, match=message):
        Objects.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ParameterError, match=r"none\.geojson cannot be read: No such"):
        Objects.load(tmp_path / "none.geojson")


def test_qupath_gets_detections_unless_annotations_are_asked_for(tmp_path):
    kinds = []
    for options in ({}, {"object_type": "annotation"}):
        geojson.write(make_objects(), tmp_path / "a.geojson", **options)
        document = json.loads((tmp_path / "a.geojson").read_text())
        kinds.append({f["properties"]["objectType"] for f in document["features"]})
    assert kinds == [{"detection"}, {"annotation"}]

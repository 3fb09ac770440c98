from __future__ import annotations

import json
import logging
import sys

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import shapely

from engine.formats.cases import SHAPE, draw_blobs, make_objects
from napari_sam_suite.engine.errors import MissingExtra, ParameterError
from napari_sam_suite.engine.formats import parquet
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.polygons import polygonise
from napari_sam_suite.engine.raster import rasterise


def test_all_is_the_same_after_saving_and_loading(tmp_path):
    objects = make_objects()
    objects.save(tmp_path / "cells.parquet")
    loaded = Objects.load(tmp_path / "cells.parquet")
    pd.testing.assert_frame_equal(loaded.features, objects.features)
    assert loaded.source == objects.source
    for mine, theirs in zip(objects.polygons, loaded.polygons, strict=True):
        assert mine.equals_exact(theirs, 0)


def test_outlines_of_any_fraction_move_less_than_a_billionth_of_a_pixel(tmp_path):
    rng = np.random.default_rng(0)
    circles = [
        shapely.Point(rng.uniform(0, 9000, 2)).buffer(rng.uniform(1, 40))
        for _ in range(50)
    ]
    Objects(circles).save(tmp_path / "a.parquet")
    loaded = Objects.load(tmp_path / "a.parquet")
    for mine, theirs in zip(circles, loaded.polygons, strict=True):
        assert mine.equals_exact(theirs, 1e-9)


@pytest.mark.parametrize("smoothing", [0, 0.3])
def test_every_object_has_the_same_pixels_afterwards(tmp_path, smoothing):
    masks = draw_blobs(100)
    objects = Objects(
        [polygonise(m, smoothing=smoothing, parts="all").polygon for m in masks]
    )
    objects.save(tmp_path / "a.parquet")
    loaded = Objects.load(tmp_path / "a.parquet")
    for before, after in zip(objects.polygons, loaded.polygons, strict=True):
        np.testing.assert_array_equal(rasterise(after, SHAPE), rasterise(before, SHAPE))


def test_columns_of_any_type_are_kept(tmp_path):
    objects = make_objects().with_features(
        track=[1, 2**40, -1],
        when=pd.to_datetime(["2026-01-01", None, "2026-02-01"]),
        kind=pd.Categorical(["a", "b", "a"]),
        geometry=["not", "the", "outline"],
        mixed=pd.Series([1, "two", None], dtype=object),
    )
    objects.save(tmp_path / "a.parquet")
    loaded = Objects.load(tmp_path / "a.parquet")
    same = [name for name in objects.features if name != "mixed"]
    pd.testing.assert_frame_equal(loaded.features[same], objects.features[same])
    assert loaded.features["mixed"].tolist()[:2] == ["1", "two"]
    assert loaded.features["mixed"].isna().tolist() == [False, False, True]


def test_geopandas_reads_outlines_from_the_corner_and_columns_in_their_types(tmp_path):
    objects = make_objects()
    objects.save(tmp_path / "a.parquet")
    theirs = geopandas.read_parquet(tmp_path / "a.parquet")
    assert theirs.crs is None
    assert theirs["tag"].tolist() == objects.features["tag"].tolist()
    assert theirs["count"].dtype == np.uint16
    assert theirs["edited"].dtype == bool
    assert len(theirs.geometry[0].interiors) == 1
    assert theirs.geometry[1].geom_type == "MultiPolygon"
    assert theirs.geometry[2].bounds == (0, 0, 5, 5)


def test_files_of_geopandas_are_read(tmp_path, caplog):
    table = geopandas.GeoDataFrame(
        {"label": ["cell", None, "line"], "score": ["0.5", "?", "1"], "n": [1, 2, 3]},
        geometry=[
            shapely.box(2, 3, 8, 9),
            shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 4)]),
            shapely.LineString([(0, 0), (1, 1)]),
        ],
    )
    table.to_parquet(tmp_path / "a.parquet")
    with caplog.at_level(logging.WARNING):
        loaded = Objects.load(tmp_path / "a.parquet")
    assert loaded.polygons[0].bounds == (2.5, 1.5, 8.5, 7.5)
    assert loaded.polygons[1].is_valid
    assert loaded.polygons[1].area == 8
    assert loaded.features["tag"].tolist() == ["cell", "unassigned"]
    assert loaded.features["score"].tolist()[0] == 0.5
    assert loaded.features["n"].tolist() == [1, 2]
    assert loaded.source["skipped"] == 1
    assert "1 rows" in caplog.text


def test_parts_that_overlap_in_files_of_geopandas_are_one_area(tmp_path):
    parts = [shapely.box(0, 0, 10, 10), shapely.box(5, 5, 15, 15)]
    table = geopandas.GeoDataFrame(geometry=[shapely.MultiPolygon(parts)])
    table.to_parquet(tmp_path / "a.parquet")
    loaded = Objects.load(tmp_path / "a.parquet")
    assert loaded.polygons[0].area == 175
    assert loaded.features["area"].tolist() == [175]


def test_no_objects_are_a_valid_file(tmp_path):
    Objects.empty({"image": "a"}).save(tmp_path / "a.parquet")
    assert len(geopandas.read_parquet(tmp_path / "a.parquet")) == 0
    loaded = Objects.load(tmp_path / "a.parquet")
    assert (len(loaded), loaded.source) == (0, {"image": "a"})
    pd.testing.assert_frame_equal(loaded.features, Objects.empty().features)


def test_bytes_are_those_of_the_file(tmp_path):
    objects = make_objects()
    parquet.write(objects, tmp_path / "a.parquet")
    content = parquet.pack(objects)
    assert (tmp_path / "a.parquet").read_bytes() == content
    assert parquet.unpack(content).source == objects.source


def test_damaged_files_are_one_clear_sentence(tmp_path):
    whole = parquet.pack(make_objects())
    cases = {"short": whole[:300], "text": b"no parquet", "empty": b""}
    for name, content in cases.items():
        (tmp_path / f"{name}.parquet").write_bytes(content)
        with pytest.raises(ParameterError, match=f"{name}.parquet cannot be read as"):
            Objects.load(tmp_path / f"{name}.parquet")
    with pytest.raises(ParameterError, match=r"none\.parquet cannot be read: No such"):
        Objects.load(tmp_path / "none.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(ParameterError, match="not GeoParquet: it has no geometry"):
        Objects.load(tmp_path / "plain.parquet")


def test_another_encoding_is_told(tmp_path):
    table = geopandas.GeoDataFrame({"a": [1]}, geometry=[shapely.box(0, 0, 4, 4)])
    table.to_parquet(
        tmp_path / "a.parquet", geometry_encoding="geoarrow", schema_version="1.1.0"
    )
    with pytest.raises(ParameterError, match="in the encoding polygon"):
        Objects.load(tmp_path / "a.parquet")


def test_a_file_whose_metadata_make_no_sense_is_told(tmp_path):
    parquet.write(make_objects(), tmp_path / "a.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    for geo in (b"{}", b"no json", b"[]", json.dumps({"primary_column": "x"}).encode()):
        metadata = {**table.schema.metadata, b"geo": geo}
        path = tmp_path / "bad.parquet"
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)
        with pytest.raises(ParameterError, match=r"bad\.parquet"):
            Objects.load(path)


def test_a_missing_package_is_one_sentence_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    for act in (
        lambda: make_objects().save(tmp_path / "b.parquet"),
        lambda: Objects.load(tmp_path / "a.parquet"),
    ):
        with pytest.raises(MissingExtra, match="package pyarrow") as caught:
            act()
        assert 'pip install "napari-sam-suite[formats]"' in caught.value.hint
    assert not (tmp_path / "b.parquet").exists()

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from engine.hierarchy.cases import nested, square
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.hierarchy.hierarchy import (
    build_hierarchy,
    format_statistics,
)
from napari_sam_suite.engine.hierarchy.params import HierarchyParams
from napari_sam_suite.engine.objects import Objects

TOKEN = HierarchyParams(by="token")
TREE = """\
Whole #1 (area=1600)
  Part #2 (area=400)
    Small #4 (area=100)
  Part #3 (area=225)
    Small #5 (area=100)
  Small #6 (area=49)
Part #7 (area=400)
Small #8 (area=25)
"""


def test_the_tree_as_text_has_each_object_once() -> None:
    assert build_hierarchy(nested(), TOKEN).to_text() == TREE


def test_frames_have_a_heading_where_there_are_several() -> None:
    sizes = {"time": 3, "y": 100, "x": 100}
    objects = Objects([square(0, 0, 50), square(0, 0, 2), square(0, 0, 9)])
    objects = Objects(objects.polygons, source={"sizes": sizes})
    text = build_hierarchy(objects.with_features(time=[0, 0, 2])).to_text()
    assert text.splitlines() == [
        "Time 1 of 3",
        "Whole #1 (area=2500)",
        "  Small #2 (area=4)",
        "Time 3 of 3",
        "Small #1 (area=81)",
    ]


def test_statistics_are_counted_by_hand() -> None:
    table = build_hierarchy(nested(), TOKEN).statistics()
    assert table.index.tolist() == ["whole", "part", "small", "all"]
    assert table["count"].tolist() == [1, 3, 4, 8]
    assert table["share"].tolist() == [12.5, 37.5, 50, 100]
    areas = pytest.approx([16, 10.25, 2.74, 28.99])
    assert table["coverage_sum"].tolist() == areas
    # what lies in the whole is counted once in the union of all
    assert table["coverage_union"].tolist() == pytest.approx([16, 10.25, 2.74, 20.25])
    assert table.loc["part", ["min_area", "mean_area", "max_area"]].tolist() == [
        225,
        pytest.approx(1025 / 3),
        400,
    ]


def test_overlaps_count_once_in_the_union_and_twice_in_the_sum() -> None:
    objects = Objects([square(0, 0, 50)] * 3, source={"sizes": {"y": 50, "x": 50}})
    row = build_hierarchy(objects).statistics().loc["whole"]
    assert (row["coverage_union"], row["coverage_sum"]) == (100, 300)


def test_frames_without_objects_count_for_the_coverage() -> None:
    source = {"sizes": {"time": 4, "y": 50, "x": 50}}
    objects = Objects([square(0, 0, 50)], source=source)
    frames = [FrameIndex(time=t) for t in range(4)]
    table = build_hierarchy(objects.with_searched(frames)).statistics()
    assert table.loc["all", "coverage_union"] == 25


def test_levels_are_columns_and_may_be_tags() -> None:
    hierarchy = build_hierarchy(nested(), TOKEN)
    features = hierarchy.objects.features
    assert features["size_level"].tolist()[:4] == ["whole", "part", "part", "small"]
    ids = features["id"].tolist()
    assert features["inside"].tolist()[:4] == ["", ids[0], ids[0], ids[1]]
    assert hierarchy.objects.features["tag"].unique().tolist() == ["unassigned"]
    assert (
        hierarchy.tagged().features["tag"].tolist() == features["size_level"].tolist()
    )


def test_it_is_saved_as_json_csv_and_text(tmp_path) -> None:
    hierarchy = build_hierarchy(nested(), TOKEN)
    for ending in ("json", "csv", "txt"):
        hierarchy.save(tmp_path / f"a.{ending}")
    document = json.loads((tmp_path / "a.json").read_text())
    assert (document["objects"], document["roots"]) == (8, 3)
    assert document["levels"]["whole"]["count"] == 1
    [whole, *_] = document["tree"]
    assert [c["level"] for c in whole["children"]] == ["part", "part", "small"]
    assert document["params"]["by"] == "token"
    table = pd.read_csv(tmp_path / "a.csv")
    assert table["depth"].tolist() == [0, 1, 2, 1, 2, 1, 0, 0]
    assert table["parent"].tolist() == [0, 1, 2, 1, 3, 1, 0, 0]
    assert table["number"].tolist() == [1, 2, 4, 3, 5, 6, 7, 8]
    text = (tmp_path / "a.txt").read_text()
    assert text.endswith(TREE) and "coverage union" in text
    with pytest.raises(ParameterError, match=r"no \.xml"):
        hierarchy.save(tmp_path / "a.xml")


def test_no_objects_make_an_empty_hierarchy(tmp_path) -> None:
    empty = Objects.empty({"sizes": {"y": 50, "x": 50}})
    for by in ("fraction", "tertile", "token"):
        hierarchy = build_hierarchy(empty, HierarchyParams(by=by))
        assert hierarchy.to_text() == "" and len(hierarchy.table()) == 0
        hierarchy.save(tmp_path / "a.json")
        levels = json.loads((tmp_path / "a.json").read_text())["levels"]
        assert levels["all"]["count"] == 0 and levels["all"]["mean_area"] is None
        assert math.isnan(hierarchy.statistics().loc["all", "share"])
        assert "-" in format_statistics(hierarchy.statistics())

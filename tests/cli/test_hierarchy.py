"""The command ``hierarchy``: on results, and with the embedded model on an image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import tifffile

from commands import FEW, answer, explains, names, run, stack
from engine.hierarchy.cases import nested
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path

    from engine.fakes import FakeSam
    from napari_sam_suite.engine.image import ImageSource

TREE = [f"cells.hierarchy.{ending}" for ending in ("csv", "json", "txt")]
FILES = [*TREE, "cells.levels.geojson"]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    path = tmp_path / "cells.geojson"
    nested().save(path)
    return path


def test_a_result_file_gives_tags_and_the_tree(cells: Path, tmp_path: Path) -> None:
    result = run("hierarchy", cells, "--out", tmp_path / "out", "--by", "token")
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "out") == FILES
    tags = Objects.load(tmp_path / "out" / "cells.levels.geojson").features["tag"]
    assert tags.value_counts().to_dict() == {"small": 4, "part": 3, "whole": 1}
    assert "coverage union" in result.stdout and "12.5 %" in result.stdout
    tree = (tmp_path / "out" / "cells.hierarchy.txt").read_text()
    assert "    Small #4 (area=100)" in tree


def test_settings_are_flags_and_numbers_are_json(cells: Path, tmp_path: Path) -> None:
    result = run(
        "hierarchy", cells, "--out", tmp_path / "out", "--small-below", 0.03,
        "--whole-above", 0.1, "--json", "--format", "parquet,csv",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    [row] = answer(result)["images"]
    counts = {level: row["levels"][level]["count"] for level in row["levels"]}
    assert counts == {"whole": 1, "part": 2, "small": 5, "all": 8}
    assert row["objects"] == 8 and len(row["files"]) == 5
    document = json.loads((tmp_path / "out" / "cells.hierarchy.json").read_text())
    assert document["params"]["small_below"] == 0.03
    assert len(Objects.load(tmp_path / "out" / "cells.levels.parquet")) == 8


def test_an_image_is_segmented_with_masks_that_overlap_and_only_once(
    tmp_path: Path,
) -> None:
    pixels = np.full((128, 128), 30, np.uint8)
    pixels[20:110, 20:110] = 110
    pixels[40:60, 40:60] = 250
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, pixels)
    flags = ("--points-per-side", 8, "--cache", tmp_path / "cache", "--json")
    out = tmp_path / "out"
    first = run("hierarchy", path, "--out", out, *flags)
    assert first.exit_code == 0, first.output
    assert names(out) == FILES
    [kept] = (tmp_path / "cache").iterdir()
    before = kept.stat().st_mtime_ns
    again = run("hierarchy", path, "--out", out, "--by", "tertile", *flags)
    [one], [other] = answer(first)["images"], answer(again)["images"]
    assert one["objects"] == other["objects"] > 0
    assert [kept] == list((tmp_path / "cache").iterdir())
    assert kept.stat().st_mtime_ns >= before
    table = pd.read_csv(out / "cells.hierarchy.csv")
    assert len(table) == other["objects"]
    assert "depth" in table


def test_the_files_of_an_image_are_there_before_the_next_one_is_opened(
    tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, there = tmp_path / "out", {}

    def opening(path: Path, **options: Any) -> ImageSource:
        there[path.stem] = names(out)
        return open_image(path, **options)

    monkeypatch.setattr("napari_sam_suite.engine.image.open_image", opening)
    images = [stack(tmp_path / f"{name}.tif", 1) for name in "ab"]
    result = run("hierarchy", *images, "--out", out, "--json", *FEW)
    assert result.exit_code == 0, result.output
    assert there["a"] == [] and "a.hierarchy.json" in there["b"]
    for row in answer(result)["images"]:
        assert row["levels"]["all"]["count"] == row["objects"] > 0


def test_inputs_are_not_written_over_and_names_do_not_meet(
    cells: Path, tmp_path: Path
) -> None:
    again = tmp_path / "a.levels.geojson"
    nested().save(again)
    nested().save(tmp_path / "a.geojson")
    result = run(
        "hierarchy", tmp_path / "a.geojson", again, "--out", tmp_path, "--by", "token"
    )
    explains(result, "would overwrite the input", "--out", lines=9)
    nested().save(tmp_path / "cells.coco.json")
    result = run("hierarchy", cells, tmp_path / "cells.coco.json", "--out", tmp_path)
    explains(result, "would write the same file")


@pytest.mark.parametrize("name", ["labels", "geojson"])
@pytest.mark.parametrize("made", ["by others", "by a person"])
def test_what_others_made_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, made: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr("napari_sam_suite.engine.models.load.load_model", fail)
    image = stack(tmp_path / "cells.tif", 1)
    ending = {"labels": ".tif", "geojson": ".geojson"}[name]
    there = tmp_path / "out" / f"cells.levels{ending}"
    there.parent.mkdir()
    if made == "by a person":
        source = {**nested().source, "saved_from": "napari"}
        Objects(nested().polygons, source=source).save(there)
    elif name == "labels":
        tifffile.imwrite(there, np.ones((8, 8), np.uint8))
    else:
        there.write_text('{"type": "FeatureCollection", "features": []}')
    before = there.read_bytes()
    out = ("--out", there.parent, "--format", name)
    explains(run("hierarchy", image, *out, *FEW), there.name, "would be replaced")
    nested().save(tmp_path / "cells.geojson")
    result = run("hierarchy", tmp_path / "cells.geojson", *out)
    explains(result, there.name, "would be replaced")
    assert there.read_bytes() == before
    assert names(there.parent) == [there.name]


def test_levels_of_another_image_of_that_name_are_not_replaced(tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    for folder in ("one", "two"):
        image = tmp_path / folder / "cells.tif"
        image.parent.mkdir()
        stack(image, 1)
        source = {**nested().source, "path": str(image), "capability": "auto"}
        Objects(nested().polygons, source=source).save(image.with_suffix(".geojson"))
    first, second = (tmp_path / name / "cells.geojson" for name in ("one", "two"))
    for _ in range(2):
        assert run("hierarchy", first, *out).exit_code == 0
    explains(run("hierarchy", second, *out), "another image", str(tmp_path / "one"))


def test_results_are_not_written_where_images_are_looked_for(tmp_path: Path) -> None:
    stack(tmp_path / "cells.tif", 1)
    asked = ("hierarchy", tmp_path, "--out", tmp_path, "--format", "labels")
    explains(run(*asked, *FEW), "taken for images", "Choose another folder")
    assert names(tmp_path) == ["cells.tif"]


def test_its_own_results_are_replaced_also_those_of_corrected_objects(
    tmp_path: Path,
) -> None:
    source = {**nested().source, "saved_from": "napari"}
    corrected = tmp_path / "cells.geojson"
    Objects(nested().polygons, source=source).save(corrected)
    out = ("--out", tmp_path / "out", "--format", "labels,geojson")
    for _ in range(2):
        result = run("hierarchy", corrected, *out)
        assert result.exit_code == 0, result.output
    assert Objects.load(corrected).source["saved_from"] == "napari"


def test_what_is_wrong_is_one_sentence(cells: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    explains(run("hierarchy", tmp_path / "no.geojson", *out), "no.geojson", lines=9)
    explains(run("hierarchy", cells, *out, "--small-below", 0.5), "--small-below")
    explains(run("hierarchy", cells, *out, "--by", "colour"), "--by", "colour")
    explains(run("hierarchy", cells, *out, "--format", "overlay"), "overlay")
    Objects(nested().polygons).save(tmp_path / "bare.geojson")
    bare = run("hierarchy", tmp_path / "bare.geojson", *out)
    explains(bare, "size of the image", "--by", lines=9)

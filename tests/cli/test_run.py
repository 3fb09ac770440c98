from __future__ import annotations

import errno
import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile

from commands import (
    FEW,
    answer,
    explains,
    hearing,
    loading_for_ever,
    names,
    run,
    segment,
    stack,
    start,
)
from engine.fewshot_fakes import tagged
from engine.models.test_exported import whole
from napari_sam_suite.engine.batch import run as batch_run
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.recipe import Recipe
from napari_sam_suite.engine.store import collect as collected

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from engine.fakes import FakeSam

LONG = 500
"""Seconds after which a process hangs, even on a busy machine."""

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


def saved(recipe: Path, *arguments: object) -> Recipe:
    """The recipe of a command that ran well."""
    result = run(*arguments, "--save-recipe", recipe)
    assert result.exit_code == 0, result.output
    return Recipe.load(recipe)


def same(one: Path, other: Path) -> None:
    """The same objects but for the random parts of their ids."""
    first, second = Objects.load(one), Objects.load(other)
    assert len(first)
    assert [p.wkb for p in first.polygons] == [p.wkb for p in second.polygons]
    columns = [c for c in first.features.columns if c not in ("id", "parent", "inside")]
    assert first.features[columns].equals(second.features[columns])


def test_a_recipe_repeats_segment(tmp_path: Path, out: Path, model: FakeSam) -> None:
    path = stack(tmp_path / "a.tif", 3)
    command = ("segment", path, "--out", out, "--time", "1,3", "--min-area", 20, *FEW)
    recipe = saved(tmp_path / "run.json", *command)
    assert recipe.frames.time == "1,3" and recipe.capability.params.min_area == 20
    first = {name: (out / name).read_bytes() for name in ("a.tif",)}
    (out / "a.geojson").rename(tmp_path / "first.geojson")
    found = answer(run("run", tmp_path / "run.json", "--json"))
    assert (found["done"], found["complete"]) == (2, True)
    same(tmp_path / "first.geojson", out / "a.geojson")
    assert first == {"a.tif": (out / "a.tif").read_bytes()}


def test_a_recipe_repeats_prompts(tmp_path: Path, out: Path, model: FakeSam) -> None:
    path = stack(tmp_path / "a.tif", 3)
    command = ("prompt", path, "--points", "12,20", "--time", "all", "--tag", "x")
    saved(tmp_path / "run.json", *command, "--out", out)
    (out / "a.geojson").rename(tmp_path / "first.geojson")
    assert run("run", tmp_path / "run.json").exit_code == 0
    same(tmp_path / "first.geojson", out / "a.geojson")


def test_a_recipe_repeats_propagation(
    tmp_path: Path, out: Path, model: FakeSam
) -> None:
    path = stack(tmp_path / "a.tif", 4)
    first = Objects.from_labels((tifffile.imread(path)[0] > 0).astype(int), tag="x")
    first.save(tmp_path / "begin.geojson")
    command = ("propagate", path, "--objects", tmp_path / "begin.geojson")
    saved(tmp_path / "run.json", *command, "--out", out)
    (out / "a.geojson").rename(tmp_path / "first.geojson")
    assert run("run", tmp_path / "run.json").exit_code == 0
    same(tmp_path / "first.geojson", out / "a.geojson")
    store = out / "run.store" / "images" / "a" / "objects"
    (store / "p1_t3_z1.parquet").unlink()
    again = answer(run("run", tmp_path / "run.json", "--json"))
    assert (again["done"], again["skipped"]) == (1, 3)
    same(tmp_path / "first.geojson", out / "a.geojson")


def test_a_recipe_repeats_few_shot_with_its_examples(tmp_path: Path, out: Path) -> None:
    spots = [(20, 20), (20, 60), (20, 100), (60, 20), (60, 60), (60, 100), (100, 60)]
    y, x = np.mgrid[:128, :128]
    pixels = np.full((128, 128), 40, np.uint8)
    for cy, cx in spots:
        pixels[(y - cy) ** 2 + (x - cx) ** 2 <= 64] = 220
    tifffile.imwrite(tmp_path / "dots.tif", pixels)
    shapes = tagged((128, 128), *[(y, x, "dot") for y, x in spots[:3]], radius=8)
    shapes.save(tmp_path / "examples.geojson")
    command = ("few-shot", tmp_path / "dots.tif", "--points-per-side", 16, "--out", out)
    learning = ("--examples", tmp_path / "examples.geojson", "--tag", "dot")
    recipe = saved(tmp_path / "run.json", *command, *learning)
    assert len(recipe.capability.examples) == 3
    (tmp_path / "examples.geojson").unlink()
    (out / "dots.geojson").rename(tmp_path / "first.geojson")
    result = run("run", tmp_path / "run.json")
    assert result.exit_code == 0, result.output
    same(tmp_path / "first.geojson", out / "dots.geojson")


def test_a_recipe_repeats_hierarchy(tmp_path: Path, out: Path, model: FakeSam) -> None:
    path = stack(tmp_path / "a.tif", 2)
    command = ("hierarchy", path, "--out", out, "--by", "tertile", *FEW)
    recipe = saved(tmp_path / "run.json", *command, "--format", "geojson,parquet")
    assert recipe.outputs.formats == ("geojson", "parquet")
    first = tmp_path / "first"
    out.rename(first)
    result = run("run", tmp_path / "run.json")
    assert result.exit_code == 0, result.output
    assert names(first) == [name for name in names(out) if name != "run.store"]
    same(first / "a.levels.geojson", out / "a.levels.geojson")
    trees = [
        pd.read_csv(folder / "a.hierarchy.csv").drop(columns="id")
        for folder in (first, out)
    ]
    pd.testing.assert_frame_equal(*trees)
    objects = Objects.load(out / "a.levels.parquet").features
    assert set(objects["inside"]) - {""} <= set(objects["id"])
    assert set(objects["tag"]) <= {"small", "part", "whole"}
    objects = Objects.load(out / "a.levels.geojson")
    objects.save(tmp_path / "b.geojson")
    mixed = ("hierarchy", path, tmp_path / "b.geojson", "--out", out)
    explains(run(*mixed, "--save-recipe", tmp_path / "x.json"), "files of objects")


@pytest.mark.parametrize("form", ["labels,geojson,overlay", "zarr", "rois,csv"])
def test_files_of_a_finished_recipe_are_left_as_they_are(
    tmp_path: Path, out: Path, model: FakeSam, form: str
) -> None:
    path = stack(tmp_path / "a.tif", 2)
    command = ("segment", path, "--out", out, "--format", form, *FEW)
    saved(tmp_path / "run.json", *command)
    assert "collected" in answer(run("run", tmp_path / "run.json", "--json"))
    files = [file for file in out.rglob("*") if file.suffix != ".store"]
    # Not the time of the last reading, which `stat` has too.
    kept = {file: file.stat().st_mtime_ns for file in files}
    mine = out / next(name for name in names(out) if name.startswith("a"))
    again = run("run", tmp_path / "run.json")
    assert again.exit_code == 0, again.output
    assert "The files are there already; collect writes them again." in again.stdout
    assert str(out / "run.store") in again.stdout
    found = answer(run("run", tmp_path / "run.json", "--json"))
    assert (found["done"], found["collected"]) == (0, None)
    assert all(file.stat().st_mtime_ns == before for file, before in kept.items())
    if mine.is_dir():
        shutil.rmtree(mine)
    else:
        mine.unlink()
    assert answer(run("run", tmp_path / "run.json", "--json"))["collected"]["files"]
    assert mine.exists()


def folder_recipe(tmp_path: Path, *formats: str, out: str = "out") -> Path:
    """A recipe of all images in a folder, which has one that is good."""
    (tmp_path / "imgs").mkdir()
    stack(tmp_path / "imgs" / "good.tif", 1)
    body = {
        "recipe": 1,
        "source": {"images": ["imgs"]},
        "capability": {"name": "auto", "params": {"points_per_side": 8}},
        "outputs": {"folder": out, "formats": formats},
    }
    path = tmp_path / "plate.json"
    path.write_text(json.dumps(body))
    return path


def test_files_stay_as_they_are_though_another_image_fails_or_is_new(
    tmp_path: Path, out: Path, model: FakeSam
) -> None:
    recipe = folder_recipe(tmp_path, "labels", "coco")
    (tmp_path / "imgs" / "bad.png").write_bytes(b"no image")
    assert run("run", recipe).exit_code == 1
    corrected = out / "good.coco.json"
    corrected.write_text("mine")
    again = run("run", recipe, "--json")
    assert again.exit_code == 1 and answer(again)["collected"] is None
    assert (answer(again)["done"], answer(again)["skipped"]) == (0, 1)
    stack(tmp_path / "imgs" / "new.tif", 2)
    found = answer(run("run", recipe, "--json"))["collected"]
    assert (found["images"], found["frames"], found["kept"]) == (1, 2, 1)
    assert [Path(name).name for name in found["files"]] == ["new.tif", "new.coco.json"]
    (out / "good.tif").unlink()
    result = run("run", recipe)
    assert "The files of 1 image are there already" in result.stdout
    assert (out / "good.tif").is_file() and corrected.read_text() == "mine"
    run("collect", tmp_path / "plate.store", "--out", out, "--format", "coco")
    assert corrected.read_text() != "mine"


def test_files_of_an_image_whose_results_were_deleted_are_written_again(
    tmp_path: Path, out: Path, model: FakeSam
) -> None:
    recipe = folder_recipe(tmp_path, "coco")
    assert run("run", recipe).exit_code == 0
    (out / "good.coco.json").write_text("old")
    shutil.rmtree(tmp_path / "plate.store" / "images" / "good")
    assert answer(run("run", recipe, "--json"))["collected"]["images"] == 1
    assert (out / "good.coco.json").read_text() != "old"


def test_a_note_of_all_images_at_once_is_understood(
    tmp_path: Path, out: Path, model: FakeSam
) -> None:
    recipe, store = folder_recipe(tmp_path, "coco"), tmp_path / "plate.store"
    stack(tmp_path / "imgs" / "other.tif", 2)
    assert run("run", recipe).exit_code == 0
    for name in ("good", "other"):
        (store / "images" / name / "collected.json").unlink()
    note = store / "collected.json"
    for frames, kept in ((3, True), (2, False)):
        note.write_text(json.dumps({str(out): {"coco": frames}}))
        (out / "good.coco.json").write_text("mine")
        found = answer(run("run", recipe, "--json"))["collected"]
        assert (found is None) is kept
        assert ((out / "good.coco.json").read_text() == "mine") is kept


@pytest.mark.parametrize("source", ["imgs", "imgs/*.tif", "./imgs/../**/*.tif"])
def test_results_are_not_written_where_images_are_looked_for(
    tmp_path: Path, model: FakeSam, source: str
) -> None:
    recipe = folder_recipe(tmp_path, "geojson", "labels", out="imgs")
    body = json.loads(recipe.read_text())
    body["source"]["images"] = [source]
    recipe.write_text(json.dumps(body))
    explains(run("run", recipe), "taken for images", "Choose another folder")
    assert names(tmp_path / "imgs") == ["good.tif"]
    assert names(tmp_path) == ["imgs", "plate.json"]
    body["outputs"]["formats"] = ["geojson"]
    recipe.write_text(json.dumps(body))
    for _ in range(2):
        assert answer(run("run", recipe, "--json"))["images"] == 1
    assert names(tmp_path / "imgs") == ["good.geojson", "good.tif"]


def test_files_of_fewer_frames_are_not_those_of_a_finished_recipe(
    tmp_path: Path, out: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stack(tmp_path / "a.tif", 3)
    saved(tmp_path / "run.json", *("segment", path, "--out", out, *FEW))
    run("run", tmp_path / "run.json")
    frame = out / "run.store" / "images" / "a" / "objects" / "p1_t2_z1.parquet"
    frame.unlink()
    run("collect", out / "run.store", "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr(collected, "collect", lambda *_, **__: signal.raise_signal(2))
        run("run", tmp_path / "run.json")
    assert frame.is_file(), "it was done, but not collected"
    assert answer(run("run", tmp_path / "run.json", "--json"))["collected"]["frames"]


def test_the_files_of_nested_objects_are_left_too(
    tmp_path: Path, out: Path, model: FakeSam
) -> None:
    path = stack(tmp_path / "a.tif", 2)
    forms = ("--format", "geojson,labels")
    command = ("hierarchy", path, "--out", out, "--by", "tertile", *forms, *FEW)
    saved(tmp_path / "run.json", *command)
    for times in range(2):
        found = answer(run("run", tmp_path / "run.json", "--json"))
        assert bool(found["collected"]) is not bool(times)
    (out / "a.hierarchy.csv").unlink()
    assert answer(run("run", tmp_path / "run.json", "--json"))["collected"]


def test_collect_does_not_replace_what_another_command_found(
    tmp_path: Path, out: Path, model: FakeSam
) -> None:
    path = stack(tmp_path / "a.tif", 1)
    command = ("prompt", path, "--points", "12,20", "--out", tmp_path / "first")
    saved(tmp_path / "run.json", *command)
    segment(path, "--out", out)
    before = (out / "a.geojson").read_bytes()
    store = ("--store", tmp_path / "store")
    result = run("run", tmp_path / "run.json", "--out", out, *store, "--json")
    assert result.exit_code == 1
    [failure] = answer(result)["collected"]["failures"]
    assert "holds what segment found, and prompt would" in failure["message"]
    assert (out / "a.geojson").read_bytes() == before
    again = run("collect", tmp_path / "store", "--out", tmp_path / "first")
    assert again.exit_code == 0, again.output


def test_a_recipe_names_a_model_of_a_folder_in_full(
    tmp_path: Path, out: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole(tmp_path / "exported")
    monkeypatch.chdir(tmp_path)
    stack(tmp_path / "a.tif", 1)
    command = ("segment", "a.tif", "--out", out, "--model", "exported", *FEW)
    recipe = saved(tmp_path / "run.json", *command)
    assert Path(recipe.model.id) == tmp_path / "exported" / "encoder.onnx"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("run", tmp_path / "run.json").exit_code == 0


def test_other_images_take_the_place_of_those_of_the_recipe(
    tmp_path: Path, out: Path, model: FakeSam
) -> None:
    saved(
        tmp_path / "run.json",
        *("segment", stack(tmp_path / "a.tif", 1), "--out", out, *FEW),
    )
    (tmp_path / "more").mkdir()
    for name in "bc":
        stack(tmp_path / "more" / f"{name}.tif", 2)
    command = ("run", tmp_path / "run.json", tmp_path / "more", "--json")
    found = answer(run(*command, "--out", tmp_path / "other"))
    assert (found["images"], found["done"]) == (2, 4)
    assert found["store"] == str(tmp_path / "other" / "run.store")
    assert names(tmp_path / "other" / "run.store" / "images") == ["b", "c"]
    assert names(tmp_path / "other") == [
        *("b.geojson", "b.tif", "c.geojson", "c.tif", "run.store")
    ]


@pytest.mark.parametrize("flags", [(), ("--store", "new.store")])
def test_files_of_the_recipes_own_images_are_not_written_over(
    tmp_path: Path, out: Path, model: FakeSam, flags: tuple[str, ...]
) -> None:
    saved(
        tmp_path / "run.json",
        *("segment", stack(tmp_path / "a.tif", 1), "--out", out, *FEW),
    )
    before = (out / "a.tif").read_bytes()
    (tmp_path / "more").mkdir()
    stack(tmp_path / "more" / "a.tif", 2)
    result = run("run", tmp_path / "run.json", tmp_path / "more" / "a.tif", *flags)
    explains(result, str(out), "--out")
    assert (out / "a.tif").read_bytes() == before
    assert run("run", tmp_path / "run.json", tmp_path / "a.tif").exit_code == 0


def test_a_folder_that_cannot_be_written_to_is_found_out_before_any_work(
    tmp_path: Path, out: Path, model: FakeSam
) -> None:
    saved(
        tmp_path / "run.json",
        *("segment", stack(tmp_path / "a.tif", 1), "--out", out, *FEW),
    )
    (tmp_path / "taken").touch()
    place = ("--out", tmp_path / "taken", "--store", tmp_path / "a.store")
    explains(run("run", tmp_path / "run.json", *place), "cannot be a folder", "--out")
    assert not (tmp_path / "a.store").exists()


def test_a_store_has_the_same_name_wherever_it_is_opened(
    tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack(tmp_path / "a.tif", 1)
    body = {"recipe": 1, "source": {"images": ["a.tif"]}}
    (tmp_path / "plate.json").write_text(json.dumps(body))
    monkeypatch.chdir(tmp_path)
    for flags, store in (
        ((), "plate.store"),
        (("--store", "b.store"), "b.store"),
        (("--out", "c"), "c/plate.store"),
    ):
        found = answer(run("run", "plate.json", "--json", *flags))
        assert found["store"] == str(tmp_path / store)


def test_a_store_beside_the_recipe_is_the_default(
    tmp_path: Path, model: FakeSam
) -> None:
    stack(tmp_path / "a.tif", 1)
    body = {"recipe": 1, "source": {"images": ["a.tif"]}}
    (tmp_path / "plate.json").write_text(json.dumps(body))
    assert run("run", tmp_path / "plate.json").exit_code == 0
    assert (tmp_path / "plate.store" / "manifest.json").is_file()


def test_a_run_names_its_store_and_other_images_want_another(
    tmp_path: Path, out: Path, model: FakeSam
) -> None:
    stack(tmp_path / "a.tif", 1)
    body = {"recipe": 1, "source": {"images": ["a.tif"]}}
    (tmp_path / "run.json").write_text(json.dumps(body))
    result = run("run", tmp_path / "run.json")
    assert f"The store, for collect: {tmp_path / 'run.store'}" in result.output
    result = run("run", tmp_path / "run.json", stack(tmp_path / "b.tif", 1))
    explains(result, "run.store", "another --store")


def test_what_failed_is_told_and_the_command_fails(
    tmp_path: Path, model: FakeSam
) -> None:
    stack(tmp_path / "a.tif", 1)
    (tmp_path / "b.tif").write_bytes(b"no image")
    body = {"recipe": 1, "source": {"images": ["*.tif"]}}
    (tmp_path / "plate.json").write_text(json.dumps(body))
    result = run("run", tmp_path / "plate.json")
    assert result.exit_code == 1
    assert "1 frame done" in result.stdout and "b.tif" in result.stdout


def test_collect_writes_what_is_finished(
    tmp_path: Path, out: Path, model: FakeSam
) -> None:
    saved(
        tmp_path / "run.json",
        *("segment", stack(tmp_path / "a.tif", 3), "--out", out, *FEW),
    )
    run("run", tmp_path / "run.json")
    store = out / "run.store"
    (store / "images" / "a" / "objects" / "p1_t2_z1.parquet").unlink()
    command = ("collect", store, "--out", tmp_path / "files", "--json")
    found = answer(run(*command, "--format", "labels,geojson,coco"))
    assert (found["frames"], found["missing"]) == (2, 1)
    assert names(tmp_path / "files") == ["a.coco.json", "a.geojson", "a.tif"]
    labels = tifffile.imread(tmp_path / "files" / "a.tif")
    assert [page.any() for page in labels] == [True, False, True]
    assert len(Objects.load(tmp_path / "files" / "a.geojson")) == 2


def test_files_are_called_as_segment_calls_them(
    tmp_path: Path, out: Path, model: FakeSam
) -> None:
    (tmp_path / "more").mkdir()
    stack(tmp_path / "more" / "b.tif", 1)
    images = [stack(tmp_path / name, 1) for name in ("a (2), late.tif", "b.tif")]
    body = {"recipe": 1, "source": {"images": [*map(str, images), "more"]}}
    (tmp_path / "run.json").write_text(json.dumps(body))
    run("run", tmp_path / "run.json")
    assert run("collect", tmp_path / "run.store", "--out", out).exit_code == 0
    found = [name for name in names(out) if name.endswith(".tif")]
    assert found[0] == "a (2), late.tif"
    assert len(found) == 3 and all(name.startswith("b-") for name in found[1:])


def test_collect_needs_no_images(tmp_path: Path, out: Path, model: FakeSam) -> None:
    path = stack(tmp_path / "a.tif", 2)
    saved(tmp_path / "run.json", *("segment", path, "--out", out, *FEW))
    run("run", tmp_path / "run.json")
    first = tifffile.imread(out / "a.tif")
    path.unlink()
    result = run("collect", out / "run.store", "--out", tmp_path / "files")
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "files" / "a.tif"), first)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"recipe": 1, "sauce": {}}, ("'sauce'", "plate.json")),
        ({"recipe": 1}, ("names no image",)),
        ({"recipe": 1, "source": {"images": ["none/*.tif"]}}, ("no image at",)),
        ({"recipe": 1, "model": {"id": "sam9"}}, ("sam9",)),
    ],
)
def test_what_is_wrong_with_a_recipe_is_told(
    tmp_path: Path, model: FakeSam, body: dict[str, object], words: tuple[str, ...]
) -> None:
    (tmp_path / "plate.json").write_text(json.dumps(body))
    explains(run("run", tmp_path / "plate.json"), *words)


def test_a_store_that_may_not_be_written_to_is_one_sentence(
    tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack(tmp_path / "a.tif", 1)
    body = {"recipe": 1, "source": {"images": ["a.tif"]}}
    (tmp_path / "plate.json").write_text(json.dumps(body))

    def refuse(*_: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    result = run("run", tmp_path / "plate.json")
    explains(result, "plate.store", "read-only", "may write")


def test_a_drive_that_gives_up_is_one_sentence(
    tmp_path: Path, out: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack(tmp_path / "a.tif", 2)
    body = {"recipe": 1, "source": {"images": ["a.tif"]}}
    (tmp_path / "plate.json").write_text(json.dumps(body))
    assert run("run", tmp_path / "plate.json").exit_code == 0
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "manifest.json":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    for command in (
        ("run", tmp_path / "plate.json"),
        ("collect", tmp_path / "plate.store", "--out", out),
    ):
        explains(run(*command), "manifest.json cannot be read: Input/output error")


def test_what_nobody_foresaw_is_one_sentence_too(
    tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack(tmp_path / "a.tif", 1)
    body = {"recipe": 1, "source": {"images": ["a.tif"]}}
    (tmp_path / "plate.json").write_text(json.dumps(body))

    def fail(*_: object) -> None:
        raise RuntimeError("a worker was lost")

    monkeypatch.setattr(batch_run, "process", fail)
    explains(run("run", tmp_path / "plate.json"), "a worker was lost", "--verbose")


def test_a_folder_that_is_no_store_is_told(tmp_path: Path) -> None:
    explains(run("collect", tmp_path, "--out", tmp_path / "x"), "no store")


def test_a_cluster_and_workers_are_not_asked_for_at_once(tmp_path: Path) -> None:
    (tmp_path / "plate.json").write_text('{"recipe": 1}')
    flags = ("--dask", "tcp://x:1", "--workers", 2)
    explains(run("run", tmp_path / "plate.json", *flags), "--dask", "--workers")


def test_a_recipe_is_written_before_anything_is_done(
    tmp_path: Path, out: Path, model: FakeSam
) -> None:
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"no image")
    result = segment(bad, "--out", out, "--save-recipe", tmp_path / "run.json")
    assert result.exit_code == 1
    assert Recipe.load(tmp_path / "run.json").source.images == (str(bad),)


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + LONG
    while not any(folder.rglob(pattern)) and time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@posix
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_so_as_json_and_goes_on(
    tmp_path: Path, kind: signal.Signals
) -> None:
    stack(tmp_path / "movie.tif", 80)
    params = {"points_per_side": 3}
    body = {
        "recipe": 1,
        "source": {"images": ["movie.tif"]},
        "capability": {"name": "auto", "params": params},
        "outputs": {"folder": "out", "formats": ["labels"]},
    }
    (tmp_path / "plate.json").write_text(json.dumps(body))
    process = start("run", tmp_path / "plate.json", "--json", preexec_fn=hearing)
    wait_for(tmp_path, "*.parquet", process)
    process.send_signal(kind)
    stdout, stderr = process.communicate(timeout=LONG)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    told = json.loads(stdout)
    assert told["stopped"] and not told["complete"] and "collected" not in told
    assert 1 <= told["done"] < 80
    process = start("run", tmp_path / "plate.json", "--json")
    again = json.loads(process.communicate(timeout=LONG)[0])
    assert again["complete"] and again["collected"]["frames"] == 80
    assert (again["done"], again["skipped"]) == (80 - told["done"], told["done"])


@posix
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_run_is_stopped_at_once_while_its_model_loads(
    tmp_path: Path, cells: Path, kind: signal.Signals
) -> None:
    code = loading_for_ever(tmp_path / "loading")
    body = {"recipe": 1, "source": {"images": [str(cells)]}}
    (tmp_path / "plate.json").write_text(json.dumps(body))
    arguments = ("run", tmp_path / "plate.json", "--json")
    process = start(*arguments, code=code, preexec_fn=hearing)
    wait_for(tmp_path, "loading", process)
    begin = time.monotonic()
    process.send_signal(kind)
    stdout, stderr = process.communicate(timeout=LONG)
    assert time.monotonic() - begin < 20, "it is not waited for"
    assert process.returncode == 130
    assert json.loads(stdout)["stopped"]
    assert "Traceback" not in stderr


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Hear SIGINT, which a shell lets commands in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_before_a_run_begins_is_json(
    tmp_path: Path, cells: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch,
    kind: signal.Signals,
) -> None:  # fmt: skip
    body = {"recipe": 1, "source": {"images": [str(cells)]}}
    (tmp_path / "plate.json").write_text(json.dumps(body))

    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(kind)

    with monkeypatch.context() as patch:
        patch.setattr(batch_run, "all_done", stop)
        result = run("run", tmp_path / "plate.json", "--json")
    assert result.exit_code == 130
    assert answer(result)["error"]["message"].startswith("Stopped")
    with monkeypatch.context() as patch:
        patch.setattr(collected, "collect", stop)
        asked = ("--store", tmp_path / "store", "--json")
        body["outputs"] = {"folder": str(tmp_path / "out"), "formats": ["labels"]}
        (tmp_path / "plate.json").write_text(json.dumps(body))
        result = run("run", tmp_path / "plate.json", *asked)
    assert result.exit_code == 130
    assert (answer(result)["done"], answer(result)["stopped"]) == (1, True)
    result = run("run", tmp_path / "plate.json", *asked)
    assert result.exit_code == 0
    assert (answer(result)["done"], answer(result)["skipped"]) == (0, 1)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from commands import BOXES, answer, explains, names, run, segment, stack
from napari_sam_suite import __version__
from napari_sam_suite.cli.app import _CLICKS
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.samples import write_demo_image

if TYPE_CHECKING:
    from pathlib import Path

    from engine.fakes import FakeSam

# Around the commands


@pytest.mark.parametrize(
    "command", [[], ["demo"], ["segment"], ["evaluate"], ["models"], ["doctor"]]
)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_commands_are_listed_in_the_order_in_which_they_are_needed() -> None:
    said = run("--help").stdout
    order = (
        "Begin:",
        "demo",
        "Find objects:",
        "segment",
        "prompt",
        "few-shot",
        "propagate",
        "Whole experiments:",
        "run",
        "Look at what was found:",
        "evaluate",
        "Models of your own:",
        "finetune",
    )
    places = [said.index(f"\n  {n} " if n[-1] != ":" else f"\n{n}\n") for n in order]
    assert places == sorted(places)
    assert "Other:" not in said
    assert "..." not in said.partition("Begin:")[2]


@pytest.mark.parametrize(
    ("flag", "words"),
    [("--points-per-side", "a whole number"), ("--smoothing", "a number")],
)
def test_a_number_that_is_none_is_said_in_our_words(flag: str, words: str) -> None:
    result = run("segment", "a.tif", "--out", "x", flag, "abc")
    assert result.exit_code == 2
    assert f"Invalid value for '{flag}': it should be {words}." in result.stderr


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").stdout.strip() == f"napari-sam-suite {__version__}"


@pytest.mark.parametrize(
    "arguments",
    [["segment"], ["segment", "a.png"], ["segment", "a.png", "--sides", "3"]],
)
def test_a_command_that_is_not_complete_says_how_to_use_it(
    arguments: list[str],
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["segment", "a.png", "--bogus", "--json"], "--bogus"),
        (["evaluate", "a", "b", "--iou", "0", "--json"], "'--iou'"),
        (["segment", "--json"], "IMAGE"),
        (["segment", "a.png", "--json", "--smoothing", "abc"], "it should be a number"),
        (["models", "list", "--json", "more"], "more"),
        (["--bogus", "doctor", "--json"], "--bogus"),
        (["nonsense", "--json"], "nonsense"),
    ],
)
def test_a_command_called_wrongly_is_json_where_that_is_asked(
    arguments: list[str], words: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    error = answer(result)["error"]
    assert error.keys() == {"message", "hint"}
    assert words in error["message"] and "\n" not in error["message"]
    assert "--help" in error["hint"]
    assert result.stderr == ""
    assert (
        "Usage" in run(*[a for a in arguments if a != "--json"], "--", "--json").stderr
    )


def test_the_command_line_is_there_before_anything_heavy_is_loaded() -> None:
    code = "import sys, napari_sam_suite.cli.app; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "pandas", "skimage", "scipy", "shapely", "tifffile", "bioio"}
    assert not heavy & set(answer.stdout.split())


def test_the_flags_of_segment_are_listed_in_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = run("segment", "--help").stdout
    places = [
        shown.index(f"\n{words}")
        for words in (
            "Input:", "  --axes", "Output:", "  --out", "Model:", "  --device",
            "Grid:", "  --points-per-side", "Thresholds:", "  --pred-iou-thresh",
            "Crops and tiles:", "  --crop-n-points-downscale-factor",
            "Polygons:", "  --smoothing",
        )
    ]  # fmt: skip
    assert places == sorted(places)
    assert "default: 0.341)" in shown
    assert "blank" not in shown
    assert max(map(len, shown.splitlines())) <= 80


# Segment


def test_segment_writes_labels_and_geojson(
    model: FakeSam, cells: Path, out: Path
) -> None:
    result = segment(cells, "--out", out)
    assert result.exit_code == 0, result.output
    assert names(out) == ["cells.geojson", "cells.tif"]
    assert "2 objects in 1 frame" in result.stdout
    labels = tifffile.imread(out / "cells.tif")
    assert labels.shape == (64, 64)
    areas = sorted((b[2] - b[0]) * (b[3] - b[1]) for b in BOXES)
    assert sorted(np.bincount(labels.ravel())[1:].tolist()) == areas
    assert len(Objects.load(out / "cells.geojson")) == 2


def test_the_answer_for_machines_is_json_and_nothing_else(
    model: FakeSam, cells: Path, out: Path
) -> None:
    result = segment(cells, "--out", out, "--json", "--format", "labels,overlay")
    [row] = answer(result)["images"]
    assert result.exit_code == 0
    assert (row["image"], row["frames"], row["objects"]) == ("cells", 1, 2)
    assert row["error"] is None
    assert {os.path.basename(f) for f in row["files"]} == set(names(out))
    assert all(os.path.isfile(f) for f in row["files"])
    assert result.stderr == ""


def test_parameters_reach_the_engine(model: FakeSam, cells: Path, out: Path) -> None:
    result = run(
        "segment", cells, "--out", out, "--points-per-side", "3", "--smoothing", "1.5",
        "--no-multimask", "--tile", "off", "--min-area", "500",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert sum(model.decoded) == 9
    objects = Objects.load(out / "cells.geojson")
    params = objects.source["params"]
    assert (params["smoothing"], params["multimask"], params["tile"]) == (
        1.5,
        False,
        "off",
    )
    assert objects.features["area"].tolist() == [1200]


def test_a_preset_sets_what_was_not_said(
    model: FakeSam, cells: Path, out: Path
) -> None:
    assert run("segment", cells, "--out", out, "--preset", "speed").exit_code == 0
    assert sum(model.decoded) == 16**2
    assert segment(cells, "--out", out, "--preset", "speed").exit_code == 0
    assert sum(model.decoded) == 16**2 + 8**2


def test_chosen_frames_keep_their_place_in_the_labels(
    model: FakeSam, tmp_path: Path, out: Path
) -> None:
    path = stack(tmp_path / "movie.tif", 6)
    result = segment(path, "--out", out, "--time", "2-3, 6", "--json")
    assert answer(result)["images"][0]["frames"] == 3
    labels = tifffile.imread(out / "movie.tif")
    assert [bool(page.any()) for page in labels] == [0, 1, 1, 0, 0, 1]
    assert Objects.load(out / "movie.geojson").features["time"].tolist() == [1, 2, 5]


def test_chosen_channels_are_looked_at(
    model: FakeSam, tmp_path: Path, out: Path
) -> None:
    pixels = np.zeros((2, 64, 64), np.uint16)
    pixels[0, 5:30, 5:30], pixels[1, 40:60, 40:60] = 900, 900
    tifffile.imwrite(tmp_path / "two.tif", pixels, metadata={"axes": "CYX"})
    for channel, area in (("1", 625), ("2", 400)):
        result = segment(tmp_path / "two.tif", "--out", out, "--channels", channel)
        assert result.exit_code == 0, result.output
        objects = Objects.load(out / "two.geojson")
        assert objects.features["area"].tolist() == [area]


def test_a_blank_frame_among_others_is_told(
    model: FakeSam, tmp_path: Path, out: Path
) -> None:
    path = stack(tmp_path / "movie.tif", 3, blank=(1,))
    result = segment(path, "--out", out)
    assert result.exit_code == 0
    assert "1 of 3 frames" in result.stdout
    [row] = answer(segment(path, "--out", out, "--json"))["images"]
    assert "time 2 of 3" in row["notices"][0]
    assert row["frames"] == 3


def test_one_bad_image_does_not_stop_the_others(
    model: FakeSam, cells: Path, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "bad.tif").write_bytes(b"rubbish")
    third = stack(tmp_path / "movie.tif", 2)
    result = segment(cells, tmp_path / "bad.tif", third, "--out", out)
    explains(result, "bad.tif", "1 of 3 images failed.", lines=3)
    assert "cells" in result.stdout and "movie" in result.stdout
    assert names(out) == ["cells.geojson", "cells.tif", "movie.geojson", "movie.tif"]
    again = segment(cells, tmp_path / "bad.tif", third, "--out", out, "--json")
    rows = answer(again)["images"]
    assert again.exit_code == 1
    assert [bool(row["error"]) for row in rows] == [False, True, False]


def test_a_batch_ends_with_how_many_images_failed(
    model: FakeSam, cells: Path, tmp_path: Path, out: Path
) -> None:
    bad = [tmp_path / f"{name}.tif" for name in "ab"]
    for path in bad:
        path.write_bytes(b"rubbish")
    told = segment(*bad, cells, "--out", out).stderr.strip().splitlines()
    assert told[-1] == "2 of 3 images failed."
    assert "of 1 image" not in segment(bad[0], "--out", out).stderr
    machine = segment(*bad, cells, "--out", out, "--json")
    assert machine.exit_code == 1 and machine.stderr == ""


def test_what_another_command_found_is_not_replaced(
    model: FakeSam, cells: Path, out: Path
) -> None:
    assert segment(cells, "--out", out).exit_code == 0
    before = {name: (out / name).read_bytes() for name in names(out)}
    clicked = ("prompt", cells, "--points", "12,20", "--out", out)
    explains(run(*clicked), "holds what segment found, and prompt would", "--out")
    assert before == {name: (out / name).read_bytes() for name in names(out)}
    assert segment(cells, "--out", out).exit_code == 0


@pytest.mark.parametrize("form", ["labels", "geojson"])
def test_what_was_found_in_another_image_of_that_name_is_not_replaced(
    model: FakeSam, tmp_path: Path, out: Path, form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for day in ("a = é", "b"):
        (tmp_path / day).mkdir()
        stack(tmp_path / day / "plate.tif", 1)
    monkeypatch.chdir(tmp_path / "a = é")
    assert segment("plate.tif", "--out", out, "--format", form).exit_code == 0
    before = {name: (out / name).read_bytes() for name in names(out)}
    monkeypatch.chdir(tmp_path / "b")
    result = segment("plate.tif", "--out", out, "--format", form)
    explains(result, str(tmp_path / "a = é" / "plate.tif"), "another folder with --out")
    assert before == {name: (out / name).read_bytes() for name in names(out)}
    (tmp_path / "link").symlink_to(tmp_path / "a = é")
    again = ("--out", out, "--format", form)
    assert segment(tmp_path / "link" / "plate.tif", *again).exit_code == 0
    (tmp_path / "a = é").rename(tmp_path / "c")
    assert segment(tmp_path / "c" / "plate.tif", *again).exit_code == 0


def test_results_go_beside_single_images_but_not_where_images_are_looked_for(
    model: FakeSam, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(path)
    forms = ("--out", tmp_path, "--format", "geojson,overlay")
    explains(segment(tmp_path, *forms), "taken for images", "Choose another folder")
    assert names(tmp_path) == ["a.png"]
    assert segment(path, *forms).exit_code == 0
    assert names(tmp_path) == ["a.geojson", "a.png", "a_overlay.png"]


def test_a_label_image_drawn_by_hand_is_not_replaced(
    model: FakeSam, cells: Path, out: Path
) -> None:
    out.mkdir()
    drawn = np.ones((64, 64), np.uint16)
    tifffile.imwrite(out / "cells.tif", drawn)
    explains(segment(cells, "--out", out), "cells.tif was not written by napari-sam")
    assert not model.encoded, "it is found out before any work"
    np.testing.assert_array_equal(tifffile.imread(out / "cells.tif"), drawn)
    assert names(out) == ["cells.tif"]


# Demo


def test_the_demo_writes_its_image_and_says_what_could_be_next(
    model: FakeSam, tmp_path: Path
) -> None:
    out = tmp_path / "my demo"
    result = run("demo", "--out", out)
    assert result.exit_code == 0, result.output
    files = ["image.tif", "labels.tif", "objects.geojson", "overlay.png"]
    assert names(out) == files
    assert all(str(out / name) in result.stdout for name in files)
    following = shlex.split(result.stdout.splitlines()[-1])
    assert following[:2] == ["Next:", "napari-sam-suite"]
    clicked = run(*following[2:-1], tmp_path / "clicked", "--json")
    assert answer(clicked)["images"][0]["error"] is None
    again = run("demo", "--out", out, "--json")
    assert str(out / "image.tif") in answer(again)["images"][0]["files"]


def test_the_demo_does_not_replace_another_image(model: FakeSam, out: Path) -> None:
    out.mkdir()
    (out / "image.tif").write_bytes(b"mine")
    explains(run("demo", "--out", out), "image.tif", "is not the demo image", "--out")
    assert (out / "image.tif").read_bytes() == b"mine"
    assert not model.encoded


def test_the_points_of_the_demo_are_on_objects(tmp_path: Path) -> None:
    write_demo_image(tmp_path / "image.tif")
    command = ("prompt", tmp_path / "image.tif", "--points", _CLICKS, "--out", tmp_path)
    clicked = run(*command, "--format", "geojson")
    assert clicked.exit_code == 0, clicked.output
    objects = Objects.load(tmp_path / "image.geojson")
    assert len(objects) == 2
    assert objects.features["area"].between(100, 500).all()


def test_names_with_dots_are_different_images(
    model: FakeSam, tmp_path: Path, out: Path
) -> None:
    paths = [stack(tmp_path / f"plate.{well}.tif", 1) for well in ("A1", "A2")]
    assert segment(*paths, "--out", out, "--format", "labels").exit_code == 0
    assert names(out) == ["plate.A1.tif", "plate.A2.tif"]


def test_images_that_would_write_the_same_file_are_refused_first(
    model: FakeSam, cells: Path, tmp_path: Path, out: Path
) -> None:
    other = stack(tmp_path / "CELLS.ome.tif", 1)
    explains(segment(cells, other, "--out", out), "same file")
    assert not model.encoded


# Evaluate


def test_evaluate_scores_a_folder_and_prints_a_total(tmp_path: Path) -> None:
    for name in ("pred", "true"):
        (tmp_path / name).mkdir()
        labels = np.zeros((64, 64), np.uint16)
        labels[5:20, 5:20], labels[30:50, 30:50] = 1, 2
        tifffile.imwrite(tmp_path / name / "a.tif", labels)
    result = run("evaluate", tmp_path / "pred", tmp_path / "true", "--json")
    assert result.exit_code == 0
    assert answer(result)["total"]["f1"] == 1
    shown = run("evaluate", tmp_path / "pred", tmp_path / "true")
    assert "total" in shown.stdout


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_evaluate_without_truth_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    explains(run("evaluate", tmp_path / "empty", tmp_path / name))


def test_evaluate_refuses_intensities(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "img.tif", rng.integers(1, 4000, (64, 64), np.uint16))
    labels = np.zeros((64, 64), np.uint16)
    labels[5:20, 5:20] = 1
    tifffile.imwrite(tmp_path / "lab.tif", labels)
    for pair in (("img.tif", "lab.tif"), ("lab.tif", "img.tif")):
        result = run("evaluate", *(tmp_path / name for name in pair))
        explains(result, "img.tif does not look like a label image")


def test_evaluate_fails_where_predictions_are_missing_and_scores_the_rest(
    tmp_path: Path,
) -> None:
    for name in ("pred", "true"):
        (tmp_path / name).mkdir()
    labels = np.zeros((64, 64), np.uint16)
    labels[5:20, 5:20] = 1
    for path in ("pred/a.tif", "true/a.tif", "true/b.tif"):
        tifffile.imwrite(tmp_path / path, labels)
    result = run("evaluate", tmp_path / "pred", tmp_path / "true")
    assert result.exit_code == 1
    assert "No prediction for: b" in result.stderr
    assert "1.000" in result.stdout and "total" in result.stdout
    machine = run("evaluate", tmp_path / "pred", tmp_path / "true", "--json")
    assert machine.exit_code == 1
    assert answer(machine)["missing"] == ["b"]
    assert answer(machine)["images"]["a"]["f1"] == 1

from __future__ import annotations

import errno
import os
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from safetensors.numpy import save_file

from commands import FEW, answer, explains, names, run, segment, stack
from napari_sam_suite.engine.models.registry import MODELS

if TYPE_CHECKING:
    from pathlib import Path

    from engine.fakes import FakeSam

# Bad input: one sentence, exit code 1, nothing half-written


def unreadable(folder: Path) -> Path:
    (folder / "bad.tif").write_bytes(b"II*\0 rubbish")
    return folder / "bad.tif"


def truncated(folder: Path) -> Path:
    path = folder / "bad.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def missing(folder: Path) -> Path:
    return folder / "bad.tif"


def empty(folder: Path) -> Path:
    (folder / "bad.png").write_bytes(b"")
    return folder / "bad.png"


def not_an_image(folder: Path) -> Path:
    (folder / "bad.txt").write_text("hello")
    return folder / "bad.txt"


def only_nan(folder: Path) -> Path:
    tifffile.imwrite(folder / "bad.tif", np.full((64, 64), np.nan, np.float32))
    return folder / "bad.tif"


def one_colour(folder: Path) -> Path:
    Image.new("RGB", (64, 64), "teal").save(folder / "bad.png")
    return folder / "bad.png"


def cut_off(folder: Path) -> Path:
    path = folder / "bad.tif"
    frames = np.ones((20, 64, 64), np.uint16)
    tifffile.imwrite(path, frames, imagej=True, metadata={"axes": "TYX"})
    path.write_bytes(path.read_bytes()[:100_000])
    return path


@pytest.mark.parametrize(
    "make",
    [
        unreadable,
        truncated,
        cut_off,
        missing,
        empty,
        not_an_image,
        only_nan,
        one_colour,
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_bad_image_is_one_sentence_and_leaves_no_file(
    model: FakeSam, tmp_path: Path, out: Path, make: Any, as_json: bool
) -> None:
    path = make(tmp_path)
    flags = ["--json"] if as_json else []
    result = segment(path, "--out", out, "--format", "labels,geojson,overlay", *flags)
    assert result.exit_code == 1
    if as_json:
        [row] = answer(result)["images"]
        assert row["error"].keys() == {"message", "hint"}
        assert "bad" in row["error"]["message"]
        assert "\n" not in row["error"]["message"]
        assert row["files"] == []
    else:
        explains(result, "bad")
    assert names(out) == []
    assert not model.encoded


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--time", "9"], ["--time", "1-3"]),
        (["--time", "0"], ["--time", "0"]),
        (["--time", "3-1"], ["--time", "backwards"]),
        (["--z", "2"], ["--z"]),
        (["--positions", "a"], ["--positions", "'a'"]),
        (["--axes", "YXZZ"], ["--axes", "YXZZ"]),
        (["--axes", "ZC"], ["--axes", "ZC"]),
        (["--channels", "2"], ["--channels"]),
        (["--points-per-side", "0"], ["--points-per-side", "0"]),
        (["--points-per-side", "999"], ["--points-per-side", "256"]),
        (["--pred-iou-thresh", "nan"], ["--pred-iou-thresh"]),
        (["--tile", "7"], ["--tile", "32"]),
        (["--tile", "big"], ["--tile", "auto"]),
        (["--parts", "some"], ["--parts", "largest"]),
        (["--preset", "best"], ["best", "coverage"]),
        (["--format", "svg"], ["svg", "geojson"]),
        (["--format", ""], ["format"]),
        (["--model", "sam9"], ["sam9"]),
        (["--model", "nothing.pt"], ["nothing.pt"]),
    ],
)
def test_a_bad_value_is_one_sentence_that_names_it(
    model: FakeSam, tmp_path: Path, out: Path, flags: list[str], words: list[str]
) -> None:
    path = stack(tmp_path / "movie.tif", 3)
    explains(run("segment", path, "--out", out, *FEW, *flags), *words)
    assert names(out) == []
    assert not model.encoded


def test_channels_of_an_rgb_image_are_not_ignored(
    model: FakeSam, cells: Path, out: Path
) -> None:
    explains(segment(cells, "--out", out, "--channels", "2"), "RGB", "--channels")


@pytest.mark.parametrize("flag", ["--device", "--precision"])
def test_a_device_or_precision_that_is_not_there_is_told_once(
    cells: Path, tmp_path: Path, out: Path, flag: str
) -> None:
    other = stack(tmp_path / "movie.tif", 2)
    explains(segment(cells, other, "--out", out, flag, "abacus"), "abacus")
    assert names(out) == []
    result = segment(cells, other, "--out", out, flag, "abacus", "--json")
    assert "abacus" in answer(result)["error"]["message"]


def test_a_missing_checkpoint_says_how_to_get_it(
    cells: Path, tmp_path: Path, out: Path
) -> None:
    arguments = [cells, "--out", out, "--model", "sam2.1_hiera_large"]
    result = segment(*arguments, "--checkpoints", tmp_path)
    explains(result, "models download sam2.1_hiera_large")
    machine = segment(*arguments, "--checkpoints", tmp_path, "--json")
    assert "sam2.1_hiera_large" in answer(machine)["error"]["message"]


@pytest.mark.parametrize("command", ["segment", "hierarchy"])
def test_a_wrong_model_leaves_no_folder_behind(
    cells: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "encoder.onnx").write_bytes(b"rubbish")
    out = tmp_path / "new" / "out"
    for model in (tmp_path / "model", "sam9"):
        explains(run(command, cells, "--out", out, "--model", model))
        assert not out.parent.exists()
    out.mkdir(parents=True)
    explains(run(command, cells, "--out", out, "--model", "sam9"))
    assert out.exists()


def test_colours_that_may_be_frames_are_told(
    model: FakeSam, tmp_path: Path, out: Path
) -> None:
    pixels = np.zeros((3, 64, 64), np.uint16)
    pixels[:, 10:30, 10:40] = 1000
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    [row] = answer(segment(tmp_path / "a.tif", "--out", out, "--json"))["images"]
    assert "give --axes, such as TYX" in row["notices"][0]


def test_a_corrupt_checkpoint_is_told_once(
    cells: Path, tmp_path: Path, out: Path
) -> None:
    other = stack(tmp_path / "movie.tif", 2)
    broken = tmp_path / "sam2.1_hiera_tiny_mine.pt"
    broken.write_bytes(b"rubbish" * 999)
    result = segment(cells, other, "--out", out, "--model", broken)
    explains(result, broken.stem)
    assert names(out) == []


def test_a_checkpoint_of_another_model_is_told(
    cells: Path, tmp_path: Path, out: Path
) -> None:
    other = tmp_path / "sam2.1_hiera_tiny_other.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, other)
    explains(segment(cells, "--out", out, "--model", other), other.stem)


def test_a_checkpoint_of_the_wrong_size_is_told(
    cells: Path, tmp_path: Path, out: Path
) -> None:
    spec = MODELS["sam2.1_hiera_tiny"]
    (tmp_path / spec.filename).write_bytes(b"<html>")
    arguments = ["--model", spec.id, "--checkpoints", tmp_path]
    explains(segment(cells, "--out", out, *arguments), "damaged")


def test_an_output_folder_that_is_a_file_is_told(
    model: FakeSam, cells: Path, out: Path
) -> None:
    out.write_text("mine")
    explains(segment(cells, "--out", out), "out", "--out")
    assert out.read_text() == "mine"
    assert not model.encoded


def test_the_labels_never_overwrite_the_image(model: FakeSam, tmp_path: Path) -> None:
    path = stack(tmp_path / "movie.tif", 2)
    before = path.read_bytes()
    explains(segment(path, "--out", tmp_path), "overwrite", "--out")
    assert path.read_bytes() == before
    assert names(tmp_path) == ["movie.tif"]


def test_an_overlay_never_overwrites_another_image_of_the_run(
    model: FakeSam, tmp_path: Path
) -> None:
    one, other = tmp_path / "a.png", tmp_path / "a_overlay.png"
    for path in (one, other):
        Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(path)
    before = other.read_bytes()
    arguments = ("--out", tmp_path, "--format", "overlay")
    told = segment(one, other, *arguments)
    explains(told, "a_overlay.png would overwrite", "1 of 2 images failed.", lines=3)
    assert other.read_bytes() == before


@pytest.mark.parametrize("name", ["labels", "geojson", "overlay"])
def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    model: FakeSam, cells: Path, out: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    explains(segment(cells, "--out", out, "--format", name), "room")
    assert names(out) == []


def test_a_failure_of_the_model_keeps_the_frames_before_it(
    model: FakeSam, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = model.encode

    def breaks(images: Any) -> Any:
        if len(model.encoded) == 3:
            raise RuntimeError("the device fell off")
        return encode(images)

    monkeypatch.setattr(model, "encode", breaks)
    path = stack(tmp_path / "movie.tif", 6)
    result = segment(path, "--out", out, "--json")
    [row] = answer(result)["images"]
    assert result.exit_code == 1
    assert "the device fell off" in row["error"]["message"]
    assert row["frames"] == 3
    labels = tifffile.imread(out / "movie.tif")
    assert [bool(page.any()) for page in labels] == [1, 1, 1, 0, 0, 0]


def test_one_frame_of_three_gigabytes_takes_little_memory(
    model: FakeSam, tmp_path: Path, out: Path
) -> None:
    pixels = tifffile.memmap(
        tmp_path / "huge.tif", shape=(3000, 800, 640), dtype=np.uint16,
        metadata={"axes": "TYX"},
    )  # fmt: skip
    pixels[1234, 100:300, 100:300] = 500
    del pixels
    assert (tmp_path / "huge.tif").stat().st_size > 3e9
    tracemalloc.start()
    try:
        result = segment(tmp_path / "huge.tif", "--out", out, "--time", "1235")
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert result.exit_code == 0, result.output
    labels = tifffile.imread(out / "huge.tif", key=1234)
    assert np.count_nonzero(labels) == pytest.approx(40_000, rel=0.1)
    assert not tifffile.imread(out / "huge.tif", key=0).any()


@pytest.mark.parametrize("name", ["a.tif", "a.geojson", "a.json"])
def test_a_recipe_never_overwrites_what_is_no_recipe(
    model: FakeSam, tmp_path: Path, out: Path, name: str
) -> None:
    path, image = tmp_path / name, stack(tmp_path / "a.tif", 1)
    if path != image:
        path.write_text('{"type": "FeatureCollection", "features": []}')
    before = path.read_bytes()
    explains(segment(image, "--out", out, "--save-recipe", path), name, "no recipe")
    assert path.read_bytes() == before
    recipe = tmp_path / "run.json"
    for _ in range(2):
        assert segment(image, "--out", out, "--save-recipe", recipe).exit_code == 0


@pytest.mark.parametrize("flag", ["--points", "--boxes"])
def test_a_file_without_coordinates_is_named(
    model: FakeSam, tmp_path: Path, cells: Path, out: Path, flag: str
) -> None:
    (tmp_path / "a.csv").touch()
    explains(run("prompt", cells, flag, tmp_path / "a.csv", "--out", out), "a.csv")
    tifffile.imwrite(tmp_path / "b.tif", np.full((9, 9), 255, np.uint8))
    explains(run("prompt", cells, flag, tmp_path / "b.tif", "--out", out), "b.tif")


def test_a_file_without_objects_is_named(
    model: FakeSam, tmp_path: Path, cells: Path, out: Path
) -> None:
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((9, 9), np.uint8))
    result = run("prompt", cells, "--objects", tmp_path / "b.tif", "--out", out)
    explains(result, "no objects", "b.tif")


@pytest.mark.parametrize(
    "command",
    [("prompt", "--points", "30,30", "--embeddings"), ("hierarchy", "--cache")],
)
def test_a_folder_to_remember_in_that_cannot_be_one_is_told(
    model: FakeSam, cells: Path, tmp_path: Path, out: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "mine").write_text("mine")
    name, *flags = command
    result = run(name, cells, "--out", out, *flags, tmp_path / "mine")
    explains(result, "mine", flags[-1])
    assert not model.encoded

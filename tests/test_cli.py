from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

from engine.fakes import FakeSam, scene
from napari_sam_suite import __version__
from napari_sam_suite.cli import app
from napari_sam_suite.engine.models import load
from napari_sam_suite.engine.models.registry import MODELS
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path

BOXES = [(4, 6, 20, 30), (30, 10, 60, 50)]
FEW = ("--points-per-side", "8")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeSam:
    fake = FakeSam()
    monkeypatch.setattr(load, "load_model", lambda spec, **options: fake)
    return fake


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    path = tmp_path / "cells.png"
    Image.fromarray(scene((64, 64), *BOXES)).save(path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def segment(*arguments: object) -> Result:
    return run("segment", *arguments, *FEW)


def answer(result: Result) -> Any:
    """What is on standard output, all of which must be JSON."""
    return json.loads(result.stdout)


def stack(path: Path, frames: int, *, blank: tuple[int, ...] = ()) -> Path:
    """A time-lapse in which one box grows."""
    pixels = np.zeros((frames, 64, 64), np.uint16)
    for i in range(frames):
        if i not in blank:
            pixels[i, 10 : 20 + i % 20, 10:40] = 1000
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "TYX"})
    return path


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def explains(result: Result, *words: str, lines: int = 2) -> None:
    """Exit code 1, and a sentence with a hint that say all the words; no traceback."""
    assert result.exit_code == 1, result.output
    told = result.stderr.strip().splitlines()
    assert told[0].startswith("Error: ")
    assert len(told) <= lines
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr


# Around the commands


@pytest.mark.parametrize(
    "command", [[], ["demo"], ["segment"], ["evaluate"], ["models"], ["doctor"]]
)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


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


def test_the_command_line_is_there_before_anything_heavy_is_loaded() -> None:
    code = "import sys, napari_sam_suite.cli; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "pandas", "skimage", "scipy", "shapely", "tifffile", "bioio"}
    assert not heavy & set(answer.stdout.split())


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
    assert row["error"] == ""
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
    explains(result, "bad.tif")
    assert "cells" in result.stdout and "movie" in result.stdout
    assert names(out) == ["cells.geojson", "cells.tif", "movie.geojson", "movie.tif"]
    again = segment(cells, tmp_path / "bad.tif", third, "--out", out, "--json")
    rows = answer(again)["images"]
    assert again.exit_code == 1
    assert [bool(row["error"]) for row in rows] == [False, True, False]


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


@pytest.mark.parametrize(
    "make",
    [unreadable, truncated, missing, empty, not_an_image, only_nan, one_colour],
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
        assert "bad" in row["error"] and row["error"].count("\n") == 0
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
        (["--axes", "YXZZ"], ["axes", "YXZZ"]),
        (["--axes", "ZC"], ["axes", "ZC"]),
        (["--channels", "2"], ["--channels"]),
        (["--points-per-side", "0"], ["points_per_side", "0"]),
        (["--points-per-side", "999"], ["points_per_side", "256"]),
        (["--pred-iou-thresh", "nan"], ["pred_iou_thresh"]),
        (["--tile", "7"], ["tile", "32"]),
        (["--tile", "big"], ["tile", "auto"]),
        (["--parts", "some"], ["parts", "largest"]),
        (["--preset", "best"], ["best", "coverage"]),
        (["--format", "coco"], ["coco", "geojson"]),
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
    assert "abacus" in answer(result)["error"]


def test_a_missing_checkpoint_says_how_to_get_it(
    cells: Path, tmp_path: Path, out: Path
) -> None:
    arguments = [cells, "--out", out, "--model", "sam2.1_hiera_large"]
    result = segment(*arguments, "--checkpoints", tmp_path)
    explains(result, "models download sam2.1_hiera_large")
    machine = segment(*arguments, "--checkpoints", tmp_path, "--json")
    assert "sam2.1_hiera_large" in answer(machine)["error"]


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
    assert "the device fell off" in row["error"]
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


# As a person runs it


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "napari_sam_suite", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def test_the_command_runs_with_the_embedded_model(cells: Path, out: Path) -> None:
    arguments = ["--out", out, "--points-per-side", "4", "--device", "cpu", "--json"]
    process = start("segment", cells, *arguments)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["images"][0]["frames"] == 1
    assert stderr == ""
    assert names(out) == ["cells.geojson", "cells.tif"]


def test_ctrl_c_stops_the_command_and_keeps_finished_frames(
    tmp_path: Path, out: Path
) -> None:
    path = stack(tmp_path / "movie.tif", 3000)
    process = start(
        "segment", path, "--out", out, "--points-per-side", "3", "--device", "cpu",
        "--format", "labels,geojson,overlay", "--json",
        # A shell that runs the tests in the background makes children deaf to it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    end = time.monotonic() + 120
    while not any(out.glob("*_t0003.png")) and time.monotonic() < end:
        assert process.poll() is None, process.stderr
        time.sleep(0.05)
    pressed = time.monotonic()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - pressed < 20
    assert "Stopped" in stderr and "Traceback" not in stderr
    [row] = json.loads(stdout)["images"]
    assert 3 <= row["frames"] < 3000
    assert not any(".part" in name or name.startswith(".") for name in names(out))
    assert len(list(out.glob("*.png"))) == row["frames"]
    with tifffile.TiffFile(out / "movie.tif") as tiff:
        assert tiff.series[0].shape == (3000, 64, 64)
    found = Objects.load(out / "movie.geojson")
    assert len(found) == row["objects"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_disk_that_is_really_full_is_one_sentence(cells: Path, out: Path) -> None:
    import resource

    def room_for_little() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    arguments = ["--out", out, "--points-per-side", "2", "--device", "cpu"]
    process = start("segment", cells, *arguments, preexec_fn=room_for_little)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "no room left" in stderr
    assert "Traceback" not in stderr
    assert names(out) == []

from __future__ import annotations

import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

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
from napari_sam_suite.cli.batch import Batch
from napari_sam_suite.cli.intake import Intake
from napari_sam_suite.cli.tasks import Segmenting
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.jobs import Engine
from napari_sam_suite.engine.models import load
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.params import AutoParams

if TYPE_CHECKING:
    from engine.fakes import FakeSam

LONG = 500
"""Seconds after which a process hangs, even on a busy machine."""

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")

# What is found


@pytest.mark.parametrize("given", ["plate", "plate/[ab].tif"])
@pytest.mark.parametrize("command", ["segment", "hierarchy"])
def test_a_folder_and_a_pattern_mean_their_images(
    model: FakeSam, tmp_path: Path, out: Path, command: str, given: str
) -> None:
    (tmp_path / "plate").mkdir()
    for name in "ab":
        stack(tmp_path / "plate" / f"{name}.tif", 1)
    (tmp_path / "plate" / "notes.txt").touch()
    result = run(command, tmp_path / given, "--out", out, "--json", *FEW)
    assert [row["image"] for row in answer(result)["images"]] == ["a", "b"]
    (tmp_path / "empty").mkdir()
    nothing = run(command, tmp_path / "empty", "--out", out, *FEW)
    explains(nothing, "There is no image at", "empty")


def test_where_nothing_is_found_the_flags_to_try_are_named(
    model: FakeSam, cells: Path, out: Path
) -> None:
    strict = [cells, "--out", out, "--pred-iou-thresh", "0.99"]
    result = segment(*strict)
    assert result.exit_code == 0
    assert "Nothing was found" in result.stdout
    for words in ("--pred-iou-thresh (now 0.99)", "--points-per-side (now 8)"):
        assert words in result.stdout
    assert "--min-area" not in result.stdout
    [row] = answer(segment(*strict, "--min-area", "9", "--json"))["images"]
    assert "other --min-area" in row["notices"][0]
    assert "Nothing was found" not in segment(cells, "--out", out).stdout


def damaged(path: Path, plane: int, pixels: np.ndarray) -> Path:
    """A movie (3, Y, X) of which one plane cannot be read."""
    tifffile.imwrite(
        path, pixels, compression="zlib",
        photometric="minisblack", metadata={"axes": "TYX"},
    )  # fmt: skip
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[plane].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"rubbish")
    return path


def test_what_cannot_be_read_is_found_out_before_a_model_is_loaded(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[object] = []
    monkeypatch.setattr(load, "load_model", lambda spec, **options: loaded.append(spec))
    path = damaged(tmp_path / "bad.tif", 1, np.zeros((3, 64, 64), np.uint16))
    explains(segment(path, "--out", out, "--time", "2"), "ime 2 of 3", "bad.tif")
    assert loaded == []


def test_a_frame_that_cannot_be_read_does_not_stop_the_others(
    model: FakeSam, cells: Path, tmp_path: Path, out: Path
) -> None:
    movie = np.repeat(np.asarray(Image.open(cells).convert("L"))[None], 3, 0)
    path = damaged(tmp_path / "bad.tif", 0, movie)
    result = segment(path, "--out", out, "--json")
    [row] = json.loads(result.stdout)["images"]
    assert result.exit_code == 1
    assert "ime 1 of 3" in row["error"]["message"]
    assert row["frames"] == 2 and row["objects"] == 4 and row["partial"]
    assert "2 of 3 frames were finished and kept." in row["notices"]


def test_an_image_larger_than_the_memory_is_one_sentence(
    model: FakeSam, tmp_path: Path, out: Path
) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    side = 2**31 - 1
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"0" * 100))
    (tmp_path / "vast.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels)
    result = segment(tmp_path / "vast.png", "--out", out)
    explains(result, "vast.png", "does not fit into the memory")
    again = segment(tmp_path / "vast.png", "--out", out, "--json")
    [row] = answer(again)["images"]
    assert again.exit_code == 1
    assert "memory" in row["error"]["message"]


# Files that cannot be written


@posix
def test_frames_before_a_full_disk_are_kept(
    model: FakeSam, tmp_path: Path, out: Path
) -> None:
    import resource

    path = stack(tmp_path / "movie.tif", 12)
    pixels = tifffile.imread(path)
    # Its picture does not become small when it is compressed.
    pixels[4] = np.random.default_rng(0).integers(0, 1000, pixels[4].shape)
    tifffile.imwrite(path, pixels, metadata={"axes": "TYX"})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (34_000, before[1]))
    try:
        result = segment(
            path, "--out", out, "--format", "labels,geojson,overlay", "--json"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    [row] = answer(result)["images"]
    assert result.exit_code == 1
    assert "movie_overlay_t05.png" in row["error"]["message"]
    assert "room" in row["error"]["message"]
    assert 5 <= row["frames"] < 12
    assert f"{row['frames']} of 12 frames" in row["notices"][-1]
    assert {os.path.basename(name) for name in row["files"]} == set(names(out))
    labels = tifffile.imread(out / "movie.tif")
    drawn = [bool(page.any()) for page in labels]
    assert drawn == [True] * row["frames"] + [False] * (12 - row["frames"])
    times = Objects.load(out / "movie.geojson").features["time"]
    assert set(times) == set(range(row["frames"]))


class Fading:
    """Six frames; whoever draws overlays has no memory for the fourth any more."""

    shape, dtype = (6, 64, 64), np.dtype(np.uint8)
    segmented = False

    def __getitem__(self, key: tuple[int | slice, ...]) -> np.ndarray:
        if key[0] == 3:
            drawing = threading.current_thread() is threading.main_thread()
            if drawing and self.segmented:
                raise MemoryError
            self.segmented |= not drawing
        plane = np.zeros((64, 64), np.uint8)
        plane[10:30, 10:40] = 200
        return plane[key[1:]]


def test_frames_before_memory_runs_out_are_kept(model: FakeSam, out: Path) -> None:
    task = Segmenting(AutoParams(points_per_side=8))
    batch = Batch(out, ("labels", "overlay"), task, as_json=True)
    image = open_image(Fading(), axes="TYX", name="movie")
    batch.run([lambda: image], "sam2-nano")
    [row] = batch.rows
    assert row.error is not None
    assert "memory" in row.error["message"]
    assert "movie.tif" in names(out)
    drawn = [bool(page.any()) for page in tifffile.imread(out / "movie.tif")]
    assert row.frames >= 4
    assert drawn == [True] * row.frames + [False] * (6 - row.frames)


# The engine and whoever writes


def test_the_engine_does_not_run_ahead_of_the_files(
    model: FakeSam, tmp_path: Path
) -> None:
    image = open_image(stack(tmp_path / "movie.tif", 20))
    with Engine("sam2-nano") as engine:
        job = engine.start_segment(image, AutoParams(points_per_side=4))
        intake = Intake(job, most=3)
        first = intake.next(60)
        assert not job.wait(1.0)
        assert len(job.parts) <= 5
        rest = iter(lambda: intake.next(60), None)
        got = [first, *itertools.islice(rest, 19)]
        assert [part.frame.time for part in got if part] == list(range(20))
        assert job.wait(60)


def test_who_stops_a_job_need_not_take_what_waits(
    model: FakeSam, tmp_path: Path
) -> None:
    image = open_image(stack(tmp_path / "movie.tif", 20))
    with Engine("sam2-nano") as engine:
        job = engine.start_segment(image, AutoParams(points_per_side=4))
        intake = Intake(job, most=1)
        assert intake.next(60)
        job.cancel()
        assert job.wait(60)


# As a person runs it


def test_the_command_runs_with_the_embedded_model(cells: Path, out: Path) -> None:
    arguments = ["--out", out, "--points-per-side", "4", "--device", "cpu", "--json"]
    process = start("segment", cells, *arguments)
    stdout, stderr = process.communicate(timeout=LONG)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["images"][0]["frames"] == 1
    assert stderr == ""
    assert names(out) == ["cells.geojson", "cells.tif"]
    told = json.loads(stdout)
    assert not told["interrupted"] and not told["images"][0]["partial"]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_command_and_keeps_finished_frames(
    tmp_path: Path, out: Path, kind: signal.Signals
) -> None:
    path = stack(tmp_path / "movie.tif", 3000)
    process = start(
        "segment", path, "--out", out, "--points-per-side", "3", "--device", "cpu",
        "--format", "labels,geojson,overlay", "--json",
        preexec_fn=hearing,
    )  # fmt: skip
    end = time.monotonic() + LONG
    while not any(out.glob("*_t0003.png")) and time.monotonic() < end:
        assert process.poll() is None, process.stderr
        time.sleep(0.05)
    process.send_signal(kind)
    stdout, stderr = process.communicate(timeout=LONG)
    assert process.returncode == 130
    assert "Stopped" in stderr and "Traceback" not in stderr
    told = json.loads(stdout)
    [row] = told["images"]
    assert 3 <= row["frames"] < 3000
    assert told["interrupted"] and row["partial"]
    assert f"{row['frames']} of 3000 frames were finished and kept." in row["notices"]
    assert not any(".part" in name or name.startswith(".") for name in names(out))
    assert len(list(out.glob("*.png"))) == row["frames"]
    with tifffile.TiffFile(out / "movie.tif") as tiff:
        assert tiff.series[0].shape == (3000, 64, 64)
    found = Objects.load(out / "movie.geojson")
    assert len(found) == row["objects"]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + LONG
    while not path.exists() and time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@posix
def test_ctrl_c_while_a_model_loads_is_answered_at_once(
    tmp_path: Path, cells: Path, out: Path
) -> None:
    code = loading_for_ever(tmp_path / "loading")
    process = start("segment", cells, "--out", out, code=code, preexec_fn=hearing)
    wait_for(tmp_path / "loading", process)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=LONG)
    assert time.monotonic() - begin < 20, "it is not waited for"
    assert process.returncode == 130
    assert "Stopped" in stderr and "Traceback" not in stderr
    assert names(out) == []


@posix
def test_a_second_ctrl_c_leaves_a_model_that_cannot_be_interrupted(
    tmp_path: Path, out: Path
) -> None:
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from engine.fakes import FakeSam
from napari_sam_suite.engine.models import load
class Stuck(FakeSam):
    def encode(self, images):
        if len(self.encoded) == 4:
            time.sleep(6000)
        return super().encode(images)
load.load_model = lambda *_, **__: Stuck()
"""
    path = stack(tmp_path / "movie.tif", 9)
    process = start(
        "segment", path, "--out", out, *FEW, "--format", "labels,overlay", "--json",
        code=code, preexec_fn=hearing,
    )  # fmt: skip
    wait_for(out / "movie_overlay_t3.png", process)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=LONG)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    [row] = json.loads(stdout)["images"]
    assert row["frames"] >= 3
    labels = tifffile.imread(out / "movie.tif")
    assert [bool(page.any()) for page in labels[:3]] == [True] * 3


@posix
def test_a_disk_that_is_really_full_is_one_sentence(cells: Path, out: Path) -> None:
    import resource

    def room_for_little() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    arguments = ["--out", out, "--points-per-side", "2", "--device", "cpu"]
    process = start("segment", cells, *arguments, preexec_fn=room_for_little)
    _, stderr = process.communicate(timeout=LONG)
    assert process.returncode == 1
    assert "no room left" in stderr
    assert "Traceback" not in stderr
    assert names(out) == []

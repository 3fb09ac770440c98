from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
import shapely

from napari_sam_suite.engine.errors import EngineError, OutputError
from napari_sam_suite.engine.formats.atomic import explain, replacing, sweep
from napari_sam_suite.engine.objects import Objects

MANY = Objects([shapely.box(i, i, i + 5, i + 5) for i in range(50)]).with_tags("cell")


def test_the_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with replacing(path) as part:
        part.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with pytest.raises(KeyError), replacing(path) as part:
        part.write_text("half")
        raise KeyError
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_file_in_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="part of its folder name is a file"):
        MANY.save(tmp_path / "file" / "a.geojson")


def test_a_folder_of_that_name_is_told(tmp_path):
    (tmp_path / "a.geojson").mkdir()
    with pytest.raises(OutputError, match="there is a folder of that name"):
        MANY.save(tmp_path / "a.geojson")
    assert os.listdir(tmp_path) == ["a.geojson"]


@pytest.mark.skipif(os.access("/", os.W_OK), reason="root may write anywhere")
@pytest.mark.parametrize("name", ["a.geojson", "a.tif"])
def test_a_read_only_folder_is_told(tmp_path, name):
    objects = Objects(MANY.polygons, source={"sizes": {"y": 60, "x": 60}})
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="read-only"):
            objects.save(tmp_path / name)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no room left"),
        (errno.EACCES, "read-only"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_every_cause_has_its_sentence(tmp_path, number, message):
    error = explain(OSError(number, os.strerror(number)), tmp_path / "a.tif")
    assert isinstance(error, EngineError)
    assert message in error.message
    assert "a.tif" in error.message
    assert error.hint


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
import numpy as np, shapely
from napari_sam_suite.engine.errors import OutputError
from napari_sam_suite.engine.formats.overlay import write_overlay
from napari_sam_suite.engine.objects import Objects
path = sys.argv[1]
boxes = [shapely.box(i, i, i + 5, i + 5) for i in range(60)]
objects = Objects(boxes, source={"sizes": {"z": 40, "y": 80, "x": 80}})
objects = objects.with_features(z=[i % 40 for i in range(60)])
try:
    if path.endswith(".png"):
        noise = np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)
        write_overlay(path, noise, objects)
    else:
        objects.save(path)
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits")
@pytest.mark.parametrize("name", ["a.geojson", "a.tif", "a.png"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, name):
    (tmp_path / name).write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "There is no room left to write" in done.stdout
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "old"


KILLED = """
import os, signal, sys
from napari_sam_suite.engine.formats.atomic import replacing
with replacing(sys.argv[1]) as part:
    part.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.tif")], check=False)
    [left] = os.listdir(tmp_path)
    foreign = left.replace(left.split(".")[3][:8], "00000000")
    for name in (foreign, ".mine.part", ".b.tif.part"):
        (tmp_path / name).write_text("not ours")
    sweep(tmp_path)
    assert left in os.listdir(tmp_path), "it was written to a moment ago"
    for name in os.listdir(tmp_path):
        os.utime(tmp_path / name, (0, 0))
    with replacing(tmp_path / "c.tif") as part:
        part.write_text("in work")
        os.utime(part, (0, 0))
        sweep(tmp_path)
        assert part.exists()
    assert sorted(os.listdir(tmp_path)) == sorted(
        [foreign, ".mine.part", ".b.tif.part", "c.tif"]
    )
    sweep(tmp_path / "nowhere")

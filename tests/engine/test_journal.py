from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import psutil
import pytest

from napari_sam_suite.engine import journal
from napari_sam_suite.engine.errors import OutputError, ParameterError
from napari_sam_suite.engine.journal import (
    Journal,
    Snapshot,
    find_lost,
    read_snapshot,
    state_folder,
    write_snapshot,
)

if TYPE_CHECKING:
    from pathlib import Path

CRASH = """
import sys, time
from pathlib import Path
import numpy as np
from napari_sam_suite.engine.journal import Journal, Snapshot
journal = Journal(Path(sys.argv[1]))
journal.write("a", Snapshot({"name": "cells"}, np.zeros((3, 2)), np.array([3])))
print("written", flush=True)
time.sleep(600)
"""


def snapshot(name: str = "cells", shapes: int = 2) -> Snapshot:
    points = np.arange(shapes * 8, dtype=np.float32).reshape(-1, 2)
    table = pd.DataFrame(
        {
            "id": [f"{n}" for n in range(shapes)],
            "score": np.linspace(0, 1, shapes),
            "level": np.arange(shapes),
            "edited": [True] * shapes,
            "note": ["é"] + [None] * (shapes - 1),
        }
    )
    return Snapshot(
        {"name": name, "size": np.int64(3)},
        points,
        np.arange(1, shapes + 1) * 4,
        ["polygon"] * shapes,
        table,
        {"edge_color": np.ones((shapes, 4), np.float32)},
    )


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """A folder with the snapshot of a process that was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", CRASH, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        assert find_lost(tmp_path) == []  # while it lives, nobody takes it
        process.send_signal(signal.SIGKILL)
    return tmp_path


def test_a_snapshot_keeps_shapes_table_and_looks(tmp_path: Path) -> None:
    before = snapshot()
    write_snapshot(tmp_path / "a.npz", before)
    after = read_snapshot(tmp_path / "a.npz")
    assert after.about == {"name": "cells", "size": 3}
    assert after.kinds == ["polygon", "polygon"]
    for mine, theirs in zip(before.shapes(), after.shapes(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    assert (
        after.table.drop(columns="note").to_dict()
        == before.table.drop(columns="note").to_dict()
    )
    assert after.table["note"][0] == "é" and pd.isna(after.table["note"][1])
    np.testing.assert_array_equal(after.looks["edge_color"], np.ones((2, 4)))


def test_no_shapes_are_a_snapshot_too(tmp_path: Path) -> None:
    write_snapshot(
        tmp_path / "a.npz", Snapshot({}, np.empty((0, 2)), np.array([], int))
    )
    assert read_snapshot(tmp_path / "a.npz").shapes() == []


def test_a_killed_process_leaves_its_work_to_the_next(crashed: Path) -> None:
    [lost] = find_lost(crashed)
    [head] = lost.heads
    assert (head["about"], head["count"]) == ({"name": "cells"}, 1)
    assert abs(head["time"] - time.time()) < 300 and lost.time == head["time"]
    assert read_snapshot(head["path"]).points.shape == (3, 2)


def test_lost_work_goes_to_one_process_only(crashed: Path) -> None:
    [lost] = find_lost(crashed)
    assert find_lost(crashed) == []
    lost.release()
    [again] = find_lost(crashed)
    again.discard()
    assert list(crashed.iterdir()) == []


def test_who_ends_well_leaves_nothing(tmp_path: Path) -> None:
    mine = Journal(tmp_path)
    assert list(tmp_path.iterdir()) == []
    mine.write("a", snapshot())
    mine.discard()
    assert list(tmp_path.iterdir()) == [] and find_lost(tmp_path) == []


def test_the_journals_of_one_process_do_not_meet(tmp_path: Path) -> None:
    one, other = Journal(tmp_path), Journal(tmp_path)
    one.write("a", snapshot("one"))
    other.write("a", snapshot("other"))
    assert find_lost(tmp_path) == []
    one.discard()
    assert read_snapshot(other.path("a")).about["name"] == "other"
    other.discard()


def test_another_thread_may_write_and_end_it(tmp_path: Path) -> None:
    mine = Journal(tmp_path)
    for work in (lambda: mine.write("a", snapshot()), mine.discard):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert list(tmp_path.iterdir()) == []


def test_a_layer_is_written_anew_and_forgotten(tmp_path: Path) -> None:
    mine = Journal(tmp_path)
    mine.write("a", snapshot("old"))
    mine.write("a", snapshot("new"))
    mine.write("b", snapshot())
    mine.remove("b")
    mine.remove("never")
    assert [path.name for path in mine.folder.iterdir()] == ["a.npz"]
    assert read_snapshot(mine.path("a")).about["name"] == "new"
    mine.discard()


def test_old_and_empty_and_damaged_ones_are_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(name: str, days: float) -> None:
        folder = tmp_path / name
        monkeypatch.setattr(journal.time, "time", lambda: now - days * 86400)
        write_snapshot(folder / "a.npz", snapshot(name))

    now = time.time()
    for number in range(12):
        leave(f"{number:02}", number / 24)
    leave("old", 15)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.npz").write_bytes(b"no")
    monkeypatch.setattr(journal.time, "time", lambda: now)
    found = [lost.folder.name for lost in find_lost(tmp_path)]
    assert found == [f"{number:02}" for number in range(10)]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == found


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX links")
def test_what_the_disk_does_not_give_now_is_left_for_another_time(
    tmp_path: Path,
) -> None:
    write_snapshot(tmp_path / "lost" / "a.npz", snapshot())
    (tmp_path / "lost" / "b.npz").symlink_to("b.npz")  # opening it is an OSError
    assert find_lost(tmp_path) == []
    (tmp_path / "lost" / "b.npz").unlink()
    [lost] = find_lost(tmp_path)
    assert [head["path"].name for head in lost.heads] == ["a.npz"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="counts POSIX descriptors")
def test_who_ends_well_has_no_file_open(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    mine = Journal(tmp_path)
    mine.write("a", snapshot())
    mine.write("a", snapshot())
    mine.discard()
    assert psutil.Process().num_fds() == before


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_nobody_else_sees_the_names_of_images(tmp_path: Path) -> None:
    mine = Journal(tmp_path / "state")
    mine.write("a", snapshot())
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    mine.discard()


def test_a_damaged_snapshot_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_snapshot(path, snapshot())
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ParameterError, match="cannot be read"):
        read_snapshot(path)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX limits")
def test_a_full_disk_is_one_sentence_and_keeps_the_one_before(tmp_path: Path) -> None:
    import resource

    mine = Journal(tmp_path)
    mine.write("a", snapshot("before"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OutputError, match="no room left"):
            mine.write("a", snapshot("after", 5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert read_snapshot(mine.path("a")).about["name"] == "before"
    assert len(list(mine.folder.iterdir())) == 1
    mine.discard()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        Journal(tmp_path / "file" / "folder").write("a", snapshot())


def test_the_folder_can_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(journal.FOLDER_VARIABLE, str(tmp_path))
    assert state_folder() == tmp_path
    monkeypatch.delenv(journal.FOLDER_VARIABLE)
    assert state_folder().name == "autosave"

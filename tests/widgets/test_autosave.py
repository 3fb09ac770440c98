from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer, Shapes

from napari_sam_suite.contributions import write_geojson
from napari_sam_suite.engine import journal
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.journal import find_lost, read_snapshot, write_snapshot
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.widgets.autosave import Autosave
from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.saving import save_layer
from napari_sam_suite.widgets.snapshots import OWN, describe, take_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sam_suite.widgets.panel import Panel

SQUARE = np.array([[0.0, 0, 0], [0, 0, 5], [0, 5, 5], [0, 5, 0]])
RUN = {"image": {"name": "cells", "path": "/data/cells.tif"}, "params": {"a": 1}}

CRASH = """
import sys, time
import numpy as np
from qtpy.QtWidgets import QApplication
application = QApplication([])
from napari.components import ViewerModel
from napari_sam_suite.widgets.autosave import Autosave
sys.path.insert(0, sys.argv[1])
from test_autosave import make_layer
model = ViewerModel()
saving = Autosave(model)
saving.delay = 0
saving.written.connect(lambda: print("written", flush=True))
model.add_layer(make_layer())
application.exec()
"""


def make_layer(name: str = "cells objects") -> Shapes:
    """A layer as the panel makes it: a stack of two polygons, one with a hole."""
    holed = np.concatenate([SQUARE, SQUARE[:1], (SQUARE + 5)[::-1] / 3])
    holed[:, 0] = 2
    return Shapes(
        [SQUARE, holed],
        shape_type="polygon",
        name=name,
        features={"id": ["a", "b"], "tag": ["cell", "unassigned"], "score": [0.5, 1]},
        edge_color=np.array([[1, 0, 0, 1], [0, 1, 0, 0.5]]),
        scale=(3, 0.5, 0.5),
        units=("um", "um", "um"),
        axis_labels=("z", "y", "x"),
        metadata={
            KEY: {
                "axes": "ZYX",
                "image": ["cells"],
                "runs": {"r1": RUN},
                "tags": ["unassigned", "cell"],
                "colours": {"cell": "#ff0000"},
            }
        },
    )


@pytest.fixture
def model() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def saving(model: ViewerModel, qtbot: Any) -> Iterator[Autosave]:
    saving = Autosave(model)
    saving.delay = 0
    qtbot.addWidget(saving.bar)
    yield saving
    saving.close()


@pytest.fixture(scope="module")
def wreck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process that was killed in the middle of its work has left."""
    folder = tmp_path_factory.mktemp("wreck")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CRASH, str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"NAPARI_SAM_SUITE_STATE": str(folder)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    return folder


@pytest.fixture
def crashed(wreck: Path, state_folder: Path) -> Path:
    """The same, for one test."""
    shutil.copytree(wreck, state_folder)
    return state_folder


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.npz"))


def written(saving: Autosave, qtbot: Any) -> Any:
    return qtbot.waitSignal(saving.written, timeout=120_000)


def test_objects_are_written_some_time_after_they_came_and_changed(
    model: ViewerModel, saving: Autosave, state_folder: Path, qtbot: Any
) -> None:
    layer = make_layer()
    with written(saving, qtbot):
        model.add_layer(layer)
    [path] = files(state_folder)
    with written(saving, qtbot):
        layer.add_polygons(SQUARE + 40)
    assert len(read_snapshot(path).shapes()) == 3
    with written(saving, qtbot):
        layer.features = layer.features.assign(tag=["x", "y", "z"])
    assert read_snapshot(path).table["tag"].tolist() == ["x", "y", "z"]
    assert files(state_folder) == [path]


def test_many_changes_in_a_row_are_written_once(
    model: ViewerModel, saving: Autosave, qtbot: Any
) -> None:
    heard: list[None] = []
    saving.written.connect(lambda: heard.append(None))
    saving.delay = 0.3
    layer = make_layer()
    with written(saving, qtbot):
        model.add_layer(layer)
        for _ in range(20):
            layer.features = layer.features.assign(score=[0.1, 0.2])
            qtbot.wait(5)
    assert len(heard) == 1


def test_shapes_that_are_not_ours_are_left_alone_until_they_are_tagged(
    model: ViewerModel, saving: Autosave, state_folder: Path, qtbot: Any
) -> None:
    drawn = model.add_shapes([SQUARE], shape_type="polygon")
    drawn.add_polygons(SQUARE + 3)
    qtbot.wait(100)
    assert files(state_folder) == []
    drawn.metadata[KEY] = {"tags": ["a"]}
    drawn.add_polygons(SQUARE + 6)
    qtbot.wait(100)
    assert files(state_folder) == []
    with written(saving, qtbot):
        drawn.features = {"tag": ["a", "a", "a"]}
    assert len(files(state_folder)) == 1


def test_a_layer_that_is_emptied_or_removed_is_forgotten(
    model: ViewerModel, saving: Autosave, state_folder: Path, qtbot: Any
) -> None:
    one, other = make_layer("one"), make_layer("other")
    with written(saving, qtbot):
        model.add_layer(one)
        model.add_layer(other)
    assert len(files(state_folder)) == 2
    with written(saving, qtbot):
        model.layers.remove(one)
    [path] = files(state_folder)
    with written(saving, qtbot):
        other.selected_data = {0, 1}
        other.remove_selected()
    assert not path.exists()


def test_ending_well_and_saving_leave_nothing_to_restore(
    model: ViewerModel,
    saving: Autosave,
    state_folder: Path,
    tmp_path: Path,
    qtbot: Any,
) -> None:
    layer = make_layer()
    with written(saving, qtbot):
        model.add_layer(layer)
    data, meta, _ = layer.as_layer_data_tuple()
    write_geojson(str(tmp_path / "a.geojson"), data, meta)
    assert files(state_folder) == []
    with written(saving, qtbot):
        layer.add_polygons(SQUARE + 30)
    assert len(files(state_folder)) == 1
    saving.close()
    assert list(state_folder.iterdir()) == []


def test_what_was_saved_before_it_was_written_is_not_written(
    model: ViewerModel,
    saving: Autosave,
    state_folder: Path,
    tmp_path: Path,
    qtbot: Any,
) -> None:
    saving.delay = 0.2
    layer = make_layer()
    with written(saving, qtbot):
        model.add_layer(layer)
        data, meta, _ = layer.as_layer_data_tuple()
        write_geojson(str(tmp_path / "a.geojson"), data, meta)
    assert files(state_folder) == []


@pytest.mark.parametrize("name", ["csv", "labels"])
def test_a_file_without_outlines_is_no_save(
    model: ViewerModel,
    saving: Autosave,
    state_folder: Path,
    tmp_path: Path,
    qtbot: Any,
    name: str,
) -> None:
    layer = make_layer()
    with written(saving, qtbot):
        model.add_layer(layer)
    data, meta, _ = layer.as_layer_data_tuple()
    image = open_image(np.zeros((3, 40, 40), np.uint8), axes="ZYX", name="cells")
    assert save_layer(str(tmp_path / "file"), data, meta, name, image) == 2
    assert len(files(state_folder)) == 1


@pytest.mark.parametrize("early", [True, False])
def test_what_is_drawn_while_a_file_is_saved_is_not_saved(
    model: ViewerModel,
    saving: Autosave,
    state_folder: Path,
    tmp_path: Path,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
    early: bool,
) -> None:
    layer = make_layer()
    with written(saving, qtbot):
        model.add_layer(layer)
    save = Objects.save

    def save_slowly(*arguments: Any) -> None:
        save(*arguments)
        layer.add_polygons(SQUARE + 40)
        if early:
            qtbot.waitSignal(saving.written, timeout=120_000).wait()

    monkeypatch.setattr(Objects, "save", save_slowly)
    data, meta, _ = layer.as_layer_data_tuple()
    save_layer(str(tmp_path / "a.geojson"), data, meta, "geojson")
    if not early:
        qtbot.waitSignal(saving.written, timeout=120_000).wait()
    [path] = files(state_folder)
    assert len(read_snapshot(path).shapes()) == 3


def test_after_a_crash_one_click_brings_everything_back(
    crashed: Path, model: ViewerModel, qtbot: Any
) -> None:
    saving = Autosave(model)
    saving.delay = 0
    qtbot.addWidget(saving.bar)
    qtbot.waitUntil(lambda: not saving.bar.isHidden())
    text = saving.restore.text()
    assert text.startswith("Restore 2 objects of cells.tif from ")
    with written(saving, qtbot):
        saving.restore.click()
    [layer], before = model.layers, make_layer()
    for mine, theirs in zip(layer.data, before.data, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert layer.features.to_dict("list") == before.features.to_dict("list")
    np.testing.assert_allclose(layer.edge_color, before.edge_color)
    np.testing.assert_allclose(layer.scale, before.scale)
    assert (layer.units, layer.axis_labels) == (before.units, before.axis_labels)
    about = {k: v for k, v in layer.metadata[KEY].items() if k not in OWN}
    assert about == before.metadata[KEY]
    assert layer.name == "cells objects" and saving.bar.isHidden()
    # now they are this session's, and only once
    [path] = files(crashed)
    assert str(path) == layer.metadata[KEY]["snapshot"]
    saving.close()
    assert list(crashed.iterdir()) == []


def test_lost_objects_can_be_forgotten(
    crashed: Path, model: ViewerModel, qtbot: Any
) -> None:
    saving = Autosave(model)
    qtbot.addWidget(saving.bar)
    qtbot.waitUntil(lambda: not saving.bar.isHidden())
    saving.discard.click()
    assert saving.bar.isHidden() and list(crashed.iterdir()) == []


def test_what_cannot_be_restored_now_is_not_lost(
    model: ViewerModel, state_folder: Path, qtbot: Any
) -> None:
    snapshot = take_snapshot(make_layer())
    snapshot.about["options"]["of another version"] = 1
    write_snapshot(state_folder / "lost" / "a.npz", snapshot)
    saving = Autosave(model)
    qtbot.addWidget(saving.bar)
    qtbot.waitUntil(lambda: not saving.bar.isHidden())
    with qtbot.waitSignal(saving.said):
        saving.restore.click()
    assert saving.bar.isHidden()
    assert files(state_folder) == [state_folder / "lost" / "a.npz"]
    [lost] = find_lost()
    lost.release()
    saving.close()


def test_restored_shapes_of_the_user_are_kept_again(
    model: ViewerModel, state_folder: Path, qtbot: Any
) -> None:
    drawn = Shapes([SQUARE], shape_type="polygon", features={"tag": ["a"]})
    drawn.metadata[KEY] = {"tags": ["a"]}
    write_snapshot(state_folder / "lost" / "a.npz", take_snapshot(drawn))
    saving = Autosave(model)
    saving.delay = 0
    qtbot.addWidget(saving.bar)
    qtbot.waitUntil(lambda: not saving.bar.isHidden())
    with qtbot.waitSignal(saving.written, timeout=10_000):
        saving.restore.click()
    [path] = files(state_folder)
    assert str(path) == model.layers[0].metadata[KEY]["snapshot"]
    saving.close()


def test_a_duplicate_of_a_layer_is_kept_beside_it(
    model: ViewerModel, saving: Autosave, state_folder: Path, qtbot: Any
) -> None:
    layer = make_layer()
    with written(saving, qtbot):
        model.add_layer(layer)
    [first] = files(state_folder)
    data, state, kind = layer.as_layer_data_tuple()
    with written(saving, qtbot):
        model.add_layer(Layer.create(deepcopy(data), state, kind))
    assert len(files(state_folder)) == 2
    with written(saving, qtbot):
        model.layers.pop()
    assert files(state_folder) == [first]


def test_two_viewers_at_once_do_not_offer_each_others_work(
    model: ViewerModel, saving: Autosave, qtbot: Any
) -> None:
    with written(saving, qtbot):
        model.add_layer(make_layer())
    other = Autosave(ViewerModel())
    qtbot.addWidget(other.bar)
    qtbot.wait(300)
    assert other.bar.isHidden()
    other.close()


def test_a_panel_that_is_opened_again_takes_the_snapshots_over(
    model: ViewerModel, saving: Autosave, state_folder: Path, qtbot: Any
) -> None:
    layer = make_layer()
    with written(saving, qtbot):
        model.add_layer(layer)
    [before] = files(state_folder)
    saving.disconnect_viewer()
    again = Autosave(model)
    qtbot.addWidget(again.bar)
    again.delay = 0
    with written(again, qtbot):
        layer.add_polygons(SQUARE + 40)
    [now] = files(state_folder)
    assert now != before and len(read_snapshot(now).shapes()) == 3
    with written(again, qtbot):
        model.layers.remove(layer)
    assert files(state_folder) == []
    again.close()


def test_a_full_disk_is_told_once_and_the_session_goes_on(
    model: ViewerModel,
    saving: Autosave,
    state_folder: Path,
    qtbot: Any,
) -> None:
    state_folder.write_text("in the way")
    heard: list[str] = []
    saving.said.connect(heard.append)
    layer = make_layer()
    model.add_layer(layer)
    qtbot.waitUntil(lambda: len(heard) == 1)
    assert heard[0].startswith("Objects are not kept in case of a crash: ")
    layer.add_polygons(SQUARE + 9)
    qtbot.waitUntil(lambda: saving._timer.remainingTime() > 1000)
    assert len(heard) == 1
    state_folder.unlink()
    with written(saving, qtbot):
        layer.add_polygons(SQUARE + 19)
    assert len(files(state_folder)) == 1


def test_autosave_can_be_switched_off(
    model: ViewerModel,
    saving: Autosave,
    state_folder: Path,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "napari_sam_suite.widgets.autosave.autosave_wanted", lambda: False
    )
    model.add_layer(make_layer())
    qtbot.wait(200)
    assert files(state_folder) == []


def test_the_button_names_image_number_and_time(
    crashed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [lost] = find_lost()
    lost.heads.append(
        {
            "count": 10,
            "about": {"metadata": {}, "options": {"name": "drawn"}},
        }
    )
    clock = time.strftime("%H:%M", time.localtime(lost.time))
    text, tip = describe(lost)
    assert text == f"Restore 12 objects of cells.tif and 1 more from {clock}"
    assert "cells.tif, drawn" in tip
    monkeypatch.setattr(time, "localtime", _days_later(time.localtime, lost.time))
    assert time.strftime("%Y-%m-%d", time.gmtime(lost.time))[:5] in describe(lost)[0]


def _days_later(localtime: Any, then: float) -> Any:
    return lambda at=None: localtime(then + 3 * 86400 if at is None else at)


def test_a_snapshot_does_not_change_with_the_layer() -> None:
    layer = make_layer()
    snapshot = take_snapshot(layer)
    layer.data = [SQUARE + 100] * 2
    layer.features = layer.features.assign(score=[9, 9])
    layer.metadata[KEY]["runs"]["r2"] = {}
    np.testing.assert_array_equal(snapshot.shapes()[0], SQUARE)
    assert snapshot.table["score"].tolist() == [0.5, 1]
    assert list(snapshot.about["metadata"]["runs"]) == ["r1"]


def test_a_run_of_the_panel_is_kept(
    panel: Panel, state_folder: Path, qtbot: Any, blobs: Any
) -> None:
    panel.autosave.delay = 0
    panel.viewer.add_image(blobs(), name="cells")
    with written(panel.autosave, qtbot):
        panel.auto.button.click()
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=120_000)
    qtbot.waitUntil(lambda: len(files(state_folder)) == 1, timeout=30_000)
    snapshot = read_snapshot(files(state_folder)[0])
    assert snapshot.table["area"].tolist() == [256] * 4
    panel.autosave.close()
    assert journal.find_lost() == []

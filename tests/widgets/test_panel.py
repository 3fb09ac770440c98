from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from napari.layers import Image, Shapes
from qtpy.QtCore import Qt

from napari_sam_suite.engine.errors import Cancelled, EngineError, OutOfMemory
from napari_sam_suite.widgets import finding, models, outcome
from napari_sam_suite.widgets.layers import KEY

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam_suite.widgets.panel import Panel
    from widgets.hands import Blobs

LEFT = Qt.MouseButton.LeftButton
LIMIT = 300_000


def press(panel: Panel, qtbot: Any) -> None:
    panel.auto.set_params(panel.auto.params().with_(points_per_batch=32))
    qtbot.mouseClick(panel.auto.button, LEFT)
    assert panel.busy, panel.footer.status.text()


def segment(panel: Panel, qtbot: Any) -> None:
    """Press the button and wait for the end."""
    press(panel, qtbot)
    settle(panel, qtbot)


def settle(panel: Panel, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=LIMIT)


def results(panel: Panel) -> list[Shapes]:
    return [layer for layer in panel.viewer.layers if isinstance(layer, Shapes)]


def say(panel: Panel) -> str:
    return panel.footer.status.text()


def fake_of(panel: Panel) -> Any:
    return panel.session._engine._fake


def test_pressing_segment_draws_a_polygon_around_every_object(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    assert not panel.auto.button.isEnabled()
    assert "No image" in panel.auto.button.toolTip()
    image = viewer.add_image(blobs(), name="cells", scale=(0.5, 0.5), units="um")
    segment(panel, qtbot)
    [layer] = results(panel)
    assert say(panel).startswith("Done in") and "4 objects in 1 frame" in say(panel)
    assert layer.name == "cells objects" and len(layer.data) == 4
    np.testing.assert_allclose(layer.scale, image.scale)
    assert layer.units == image.units
    assert set(layer.features["tag"]) == {"unassigned"}
    assert sorted(layer.features["area"]) == [256] * 4
    boxes = sorted(tuple(np.round(d.min(0))) for d in layer.data)
    assert boxes == [(8, 8), (8, 40), (40, 8), (40, 40)]
    np.testing.assert_allclose(layer.face_color[:, 3], 0)
    assert panel.device.text() == "CPU"
    [recipe] = layer.metadata[KEY]["runs"].values()
    assert recipe["params"]["points_per_side"] == 32
    assert recipe["versions"]["napari-sam-suite"]


def test_frames_of_a_stack_appear_in_their_place_while_the_run_goes_on(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs, fake: dict[str, Any]
) -> None:
    fake["delay"] = 0.01
    stack = blobs(2, 3, 4)
    stack[1] //= 2
    viewer.add_image(stack, axis_labels=("p", "t", "z", "y", "x"))
    viewer.dims.set_current_step(0, 1)
    panel.auto.batch["time"].text.setText("2-3")
    panel.auto.batch["z"].text.setText("1, 4")
    assert panel.auto.button.text() == "Segment 4 frames"
    press(panel, qtbot)
    qtbot.waitUntil(lambda: bool(results(panel)), timeout=LIMIT)
    assert panel.busy and len(results(panel)[0].data) < 16
    settle(panel, qtbot)
    [layer] = results(panel)
    places = {tuple(int(v) for v in shape[0][:3]) for shape in layer.data}
    assert places == {(1, 1, 0), (1, 1, 3), (1, 2, 0), (1, 2, 3)}
    assert len(layer.data) == 16
    table = layer.features[["position", "time", "z"]].to_numpy()
    leading = np.array([shape[0][:3] for shape in layer.data])
    np.testing.assert_array_equal(table, leading)
    assert layer.axis_labels == ("p", "t", "z", "y", "x")


def test_cancel_waits_for_no_more_than_the_call_under_way_and_keeps_what_is_done(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs, fake: dict[str, Any]
) -> None:
    fake["delay"] = 0.02
    viewer.add_image(blobs(9))
    panel.auto.batch["z"].text.setText("all")
    press(panel, qtbot)
    assert "Wait" in panel.auto.button.toolTip()
    qtbot.waitUntil(lambda: bool(results(panel)), timeout=LIMIT)
    qtbot.mouseClick(panel.footer.cancel, LEFT)
    calls = len(fake_of(panel).decoded)
    qtbot.waitUntil(lambda: not panel.busy, timeout=LIMIT)
    qtbot.waitUntil(lambda: not panel.session._engine._current, timeout=LIMIT)
    assert len(fake_of(panel).decoded) <= calls + 1
    assert say(panel).startswith("Stopped; kept: ") and panel.auto.button.isEnabled()
    done = len(results(panel)[0].data)
    assert 0 < done < 36
    segment(panel, qtbot)
    assert "in 9 frames" in say(panel) and len(results(panel)[0].data) == 36


def test_a_model_that_does_not_react_does_not_hold_the_panel(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs, fake: dict[str, Any]
) -> None:
    gate = fake["gate"] = threading.Event()
    viewer.add_image(blobs())
    press(panel, qtbot)
    qtbot.waitUntil(lambda: panel.session._engine is not None, timeout=LIMIT)
    qtbot.waitUntil(lambda: fake_of(panel).waiting, timeout=LIMIT)
    qtbot.mouseClick(panel.footer.cancel, LEFT)
    try:
        qtbot.waitUntil(lambda: not panel.busy, timeout=LIMIT)
        assert fake_of(panel).waiting
    finally:
        gate.set()
    segment(panel, qtbot)
    assert "4 objects" in say(panel)


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (OutOfMemory("The GPU is full.", "Choose the CPU."), "GPU is full. Choose the"),
        (EngineError("No.", "Do this."), "No. Do this."),
        (ValueError("odd"), "unexpected went wrong: odd"),
    ],
)
def test_an_error_is_one_sentence_and_the_panel_goes_on(
    viewer: Any,
    panel: Panel,
    qtbot: Any,
    blobs: Blobs,
    failure: Exception,
    text: str,
) -> None:
    viewer.add_image(blobs())
    segment(panel, qtbot)
    fake_of(panel).failure = failure
    segment(panel, qtbot)
    assert text in say(panel) and panel.auto.button.isEnabled()
    assert len(results(panel)[0].data) == 4
    fake_of(panel).failure = None
    segment(panel, qtbot)
    assert say(panel).startswith("Done")


def test_a_run_replaces_adds_or_starts_anew_and_can_be_undone(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    def count() -> list[int]:
        return [len(layer.data) for layer in results(panel)]

    viewer.add_image(blobs(3))
    panel.auto.batch["z"].text.setText("1-2")
    segment(panel, qtbot)
    first = results(panel)[0].features["id"].tolist()
    assert count() == [8] and not panel.bar.redo.isEnabled()
    panel.auto.batch["z"].text.setText("2-3")
    segment(panel, qtbot)
    assert count() == [12]
    qtbot.mouseClick(panel.bar.undo, LEFT)
    assert count() == [8]
    assert set(results(panel)[0].features["id"]) == set(first)
    qtbot.mouseClick(panel.bar.undo, LEFT)
    assert count() == [0] and not panel.bar.undo.isEnabled()
    qtbot.mouseClick(panel.bar.redo, LEFT)
    qtbot.mouseClick(panel.bar.redo, LEFT)
    assert count() == [12]
    assert results(panel)[0].features.groupby("z").size().tolist() == [4, 4, 4]
    panel.bar.mode_box.setCurrentIndex(1)
    segment(panel, qtbot)
    assert count() == [20]
    panel.bar.mode_box.setCurrentIndex(2)
    segment(panel, qtbot)
    assert count() == [20, 8]


def test_a_run_that_was_taken_away_leaves_the_recipe_of_the_one_before(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    viewer.add_image(blobs())
    segment(panel, qtbot)
    [layer] = results(panel)
    [first] = layer.metadata[KEY]["runs"]
    segment(panel, qtbot)
    qtbot.mouseClick(panel.bar.undo, LEFT)
    assert set(layer.features["run"]) == {first}
    assert list(layer.metadata[KEY]["runs"]) == [first]


def test_a_run_leaves_what_was_drawn_by_hand_in_other_frames(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    viewer.add_image(blobs(3))
    panel.auto.batch["z"].text.setText("1")
    segment(panel, qtbot)
    [layer] = results(panel)
    layer.add_polygons(np.array([[2.0, 0, 0], [2, 0, 5], [2, 5, 5]]))
    segment(panel, qtbot)
    assert sorted(shape[0, 0] for shape in layer.data) == [0, 0, 0, 0, 2]


def test_results_stay_those_of_an_image_that_gets_another_name(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    image = viewer.add_image(blobs(), name="cells")
    segment(panel, qtbot)
    image.name = "nuclei"
    assert panel.bar.undo.isEnabled() and panel.bar.more.isEnabled()
    segment(panel, qtbot)
    [layer] = [layer for layer in viewer.layers if isinstance(layer, Shapes)]
    assert len(layer.data) == 4 and layer.name == "cells objects"


def test_an_image_renamed_before_the_first_object_is_drawn_has_its_results(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs, fake: dict[str, Any]
) -> None:
    gate = fake["gate"] = threading.Event()
    image = viewer.add_image(blobs(), name="cells")
    press(panel, qtbot)
    qtbot.waitUntil(lambda: panel.session._engine is not None, timeout=LIMIT)
    qtbot.waitUntil(lambda: fake_of(panel).waiting, timeout=LIMIT)
    image.name = "nuclei"
    gate.set()
    settle(panel, qtbot)
    [layer] = results(panel)
    assert panel.parts.result_layer() == layer


def test_an_image_of_the_same_name_from_another_folder_has_its_own_results(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "img.tif", blobs())
    [first] = viewer.open(tmp_path / "a" / "img.tif", plugin="napari")
    segment(panel, qtbot)
    [old] = results(panel)
    assert panel.parts.result_layer() == old
    viewer.layers.remove(first)
    [second] = viewer.open(tmp_path / "b" / "img.tif", plugin="napari")
    assert second.name == "img"
    assert panel.parts.result_layer() is None
    before = set(old.features["id"])
    segment(panel, qtbot)
    assert set(old.features["id"]) == before
    assert len(results(panel)) == 2


def test_many_objects_are_offered_and_shown_as_labels(
    viewer: Any,
    panel: Panel,
    qtbot: Any,
    blobs: Blobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (finding, outcome):
        monkeypatch.setattr(module, "MANY", 7)
    viewer.add_image(blobs(2, 3), name="cells", scale=(1, 3, 2, 2))
    panel.auto.batch["z"].text.setText("2-3")
    segment(panel, qtbot)
    assert "Show as labels, is quicker" in say(panel)
    panel.bar.labels.trigger()
    name = "cells objects (labels)"
    qtbot.waitUntil(lambda: name in [layer.name for layer in viewer.layers])
    assert say(panel).startswith(f"The objects are in {name}. Their polygons")
    assert not viewer.layers["cells objects"].visible
    labels = viewer.layers[name]
    assert labels.data.shape == (2, 3, 64, 64)
    np.testing.assert_array_equal(labels.data[0, 1:] > 0, blobs(2) > 0)
    assert not labels.data[1].any() and not labels.data[0, 0].any()
    assert sorted(set(labels.data.ravel())) == list(range(9))
    np.testing.assert_allclose(labels.scale, (1, 3, 2, 2))
    layers = len(viewer.layers)
    labels.data = np.zeros_like(labels.data)
    panel.bar.labels.trigger()
    qtbot.waitUntil(lambda: labels.data.any())
    assert len(viewer.layers) == layers


def test_another_image_during_a_run_does_not_get_its_results(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs, fake: dict[str, Any]
) -> None:
    fake["delay"] = 0.02
    first = viewer.add_image(blobs(4), name="first")
    panel.auto.batch["z"].text.setText("all")
    press(panel, qtbot)
    qtbot.waitUntil(lambda: bool(results(panel)), timeout=LIMIT)
    second = viewer.add_image(np.zeros((5, 32, 32), np.uint8), name="second")
    panel.images.choose(second)
    viewer.layers.remove(first)
    viewer.layers.remove(results(panel)[0])
    settle(panel, qtbot)
    assert panel.results.layer_of(panel.images.picture()) is None
    assert {layer.name for layer in results(panel)} == {"first objects"}


def test_layers_of_one_image_are_ticked_together(
    viewer: Any, panel: Panel, blobs: Blobs
) -> None:
    viewer.add_image(np.stack([blobs()] * 3), channel_axis=0, name=["a", "b", "c"])
    assert [layer.name for layer in panel.images.layers()] == ["a", "b", "c"]
    other = viewer.add_image(np.zeros((5, 32, 32), np.uint8), name="other")
    assert len(panel.images.layers()) == 3
    panel.images.list.item(0).setCheckState(Qt.CheckState.Checked)
    assert panel.images.layers() == [other]
    assert panel.images.letters() == "ZYX"
    viewer.layers.clear()
    assert "No image" in panel.auto.button.toolTip()


def test_channels_of_another_file_are_not_ticked(
    viewer: Any, panel: Panel, blobs: Blobs, tmp_path: Path
) -> None:
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, np.stack([blobs()] * 2))
        viewer.open(tmp_path / name, plugin="napari", channel_axis=0)
    first, second, third, fourth = viewer.layers
    assert panel.images.layers() == [first, second]
    panel.images.choose(third, fourth)
    assert panel.images.layers() == [third, fourth]


def test_what_the_user_says_of_an_axis_is_kept(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    image = viewer.add_image(blobs(3))
    viewer.dims.set_current_step(0, 2)
    [combo] = panel.images.combos
    assert combo.currentText() == "Z (3)"
    combo.setCurrentIndex(combo.findData("T"))
    segment(panel, qtbot)
    [layer] = results(panel)
    assert layer.features["time"].tolist() == [2] * 4
    assert panel.images.letters() == "TYX"
    image.data = blobs(7)
    [combo] = panel.images.combos
    assert combo.currentText() == "Time (7)"
    assert panel.auto.batch["time"].range.text() == "of 1-7"
    image.data = blobs(2, 7)
    assert panel.images.letters() == "TZYX"


def test_what_sam_sees_is_a_layer_that_follows_the_image(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    def seen() -> Image | None:
        names = [layer.name for layer in viewer.layers]
        return viewer.layers["What SAM sees"] if "What SAM sees" in names else None

    image = viewer.add_image(blobs(3), colormap="red", contrast_limits=(0, 510))
    viewer.dims.set_current_step(0, 0)
    panel.preview_box.click()
    qtbot.waitUntil(lambda: seen() is not None)
    np.testing.assert_array_equal(seen().data[10, 10], (128, 0, 0))
    assert panel.images.layers() == [image]
    image.contrast_limits = (0, 255)
    qtbot.waitUntil(lambda: seen().data[10, 10].tolist() == [255, 0, 0])
    panel.preview_box.click()
    assert seen() is None


def test_a_model_that_is_not_here_can_be_got(
    viewer: Any,
    panel: Panel,
    qtbot: Any,
    blobs: Blobs,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    """The network is not in this test: the download is one that waits to be stopped."""

    def download(spec: Any, folder: Any, *, progress: Any, stop: Any) -> None:
        part = tmp_path / f"{spec.filename}.part"
        part.write_bytes(b"0")
        progress(40_000_000, 156_000_000, f"Downloading {spec.filename}")
        while not stop():
            time.sleep(0.01)
        raise Cancelled

    monkeypatch.setenv("NAPARI_SAM_SUITE_CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr(models, "download", download)
    viewer.add_image(blobs())
    assert panel.models.button.isHidden()
    panel.models.choose("sam2.1_hiera_tiny")
    assert not panel.auto.button.isEnabled()
    assert "Download SAM 2.1 tiny first" in panel.auto.button.toolTip()
    assert panel.models.button.text() == "Download"
    qtbot.mouseClick(panel.models.button, LEFT)
    qtbot.waitUntil(lambda: "40 of 156 MB" in say(panel))
    qtbot.mouseClick(panel.footer.cancel, LEFT)
    qtbot.waitUntil(lambda: "kept" in say(panel))
    assert panel.models.button.text() == "Resume" and panel.models.isEnabled()
    panel.models.choose("sam2-nano")
    assert panel.auto.button.isEnabled()

"""The Fine-tune tab: tick what to learn from, watch, and have a new model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_sam_suite.engine.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_sam_suite.widgets.panel import Panel

LIMIT = 240_000
QUICK = {"epochs": 2, "patience": 2}
FAST = {"views": 2, "prompts": 4, "variants": 0, "calibrate": False}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_SAM_SUITE_CHECKPOINTS", str(tmp_path))
    return tmp_path / "tuned"


@pytest.fixture
def panel(viewer: Any, qtbot: Any) -> Iterator[Panel]:
    from napari_sam_suite.engine.models.preload import load_triton
    from napari_sam_suite.widgets.panel import Panel
    from widgets.conftest import FakeEngine

    # The tests use networks before the panel does, and by now Mesa is there.
    load_triton()

    class TinyEngine(FakeEngine):
        def _load(self) -> Any:
            from engine.finetune.tiny import tiny_model

            if self._model is None:
                self._model = tiny_model()
            return self._model

    panel = Panel(viewer, start=lambda model, _: TinyEngine(model, {}))
    viewer.window.add_dock_widget(panel, name="SAM Suite")
    yield panel
    panel.session.close(timeout=10)


def add_fields(viewer: Any) -> None:
    """Three frames, the objects of two of them in a Labels layer."""
    from engine.finetune.tiny import sample

    fields = [sample(k) for k in range(3)]
    viewer.add_image(np.stack([f.rgb[..., 0] for f in fields]), name="cells")
    labels = np.zeros((3, 64, 64), int)
    for k in range(2):
        for number in range(4):
            labels[k][fields[k].masks.full(number)] = number + 1
    viewer.add_labels(labels, name="truth")


def better(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Let validation find these scores."""
    from napari_sam_suite.engine.finetune.scoring import Exam, Score

    left = list(values)

    def score(*_: Any) -> Score:
        value = left.pop(0)
        return Score(value, value, value)

    monkeypatch.setattr(Exam, "score", score)


def learn(panel: Panel, qtbot: Any) -> None:
    panel.finetune.name.setText("cells 1")
    start(panel, qtbot, QUICK)
    qtbot.waitUntil(lambda: not panel.busy, timeout=LIMIT)


def start(panel: Panel, qtbot: Any, values: dict[str, int]) -> None:
    panel.finetune.form.set_values(values)
    panel.finetune.advanced.set_values(FAST)
    qtbot.waitUntil(lambda: panel.finetune.button.isEnabled(), timeout=LIMIT)
    qtbot.mouseClick(panel.finetune.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: panel.busy, timeout=LIMIT)


def test_a_new_model_is_learnt_plotted_and_chosen(
    panel: Panel,
    viewer: Any,
    qtbot: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    better(monkeypatch, 0.1, 0.4, 0.3)
    add_fields(viewer)
    learn(panel, qtbot)
    assert "Better: score 0.10 before, 0.40 now" in panel.footer.status.text()
    curves = panel.finetune.curves.values
    assert curves["F1"] == curves["IoU"] == [0.1, 0.4, 0.3]
    assert np.isnan(curves["loss"][0]) and np.isfinite(curves["loss"][1:]).all()
    made = folder / "cells 1.safetensors"
    assert made.is_file() and made.with_suffix(".json").is_file()
    assert panel.models.spec.file == made
    assert panel.models.spec.auto.pred_iou_thresh == 0.5
    names = [panel.models.combo.itemText(k) for k in range(panel.models.combo.count())]
    assert names[-1].startswith("cells 1")


def test_a_model_that_is_not_better_is_not_chosen(
    panel: Panel, viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    better(monkeypatch, 0.5, 0.4, 0.3)
    add_fields(viewer)
    before = panel.models.spec
    learn(panel, qtbot)
    assert "did not become better" in panel.footer.status.text()
    assert panel.models.spec is before


def test_a_training_that_was_stopped_leaves_a_model_that_can_be_chosen(
    panel: Panel,
    viewer: Any,
    qtbot: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    better(monkeypatch, 0.1, *(0.4 + 0.01 * k for k in range(50)))
    add_fields(viewer)
    before = panel.models.spec
    panel.finetune.name.setText("cells 1")
    start(panel, qtbot, {"epochs": 50, "patience": 50})
    curves = panel.finetune.curves
    qtbot.waitUntil(lambda: len(curves.values["F1"]) > 1, timeout=LIMIT)
    panel.runner.cancel()
    made = str(folder / "cells 1.safetensors")
    qtbot.waitUntil(lambda: panel.models.combo.findData(made) >= 0, timeout=LIMIT)
    assert panel.models.spec is before
    assert panel.finetune.name.text() == "cells 1", "the same name goes on with it"
    seen = curves.values["F1"][:2]
    start(panel, qtbot, {"epochs": 50, "patience": 50})
    qtbot.waitUntil(lambda: len(curves.values["F1"]) > 1, timeout=LIMIT)
    assert curves.values["F1"][:2] == seen, "the plot is whole"
    panel.runner.cancel()
    qtbot.waitUntil(lambda: not panel.busy, timeout=LIMIT)


def test_an_unfinished_training_is_not_replaced_but_another_name_goes_on(
    panel: Panel,
    viewer: Any,
    qtbot: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_sam_suite.engine.finetune import loop

    def killed(*_: Any) -> None:
        raise RuntimeError

    better(monkeypatch, 0.1, 0.4, 0.3, 0.1, 0.2)
    add_fields(viewer)
    with monkeypatch.context() as patch:
        patch.setattr(loop._Training, "_finish", killed)
        learn(panel, qtbot)
    state = folder / "cells 1.training" / "last.safetensors"
    before = state.read_bytes()
    start(panel, qtbot, {"epochs": 1})
    qtbot.waitUntil(lambda: not panel.busy, timeout=LIMIT)
    said = panel.footer.status.text()
    assert "unfinished training with epochs 2 instead of 1, at epoch 2" in said
    assert "choose another name" in said
    assert state.read_bytes() == before
    panel.finetune.name.setText("cells 2")
    start(panel, qtbot, {"epochs": 1})
    qtbot.waitUntil(lambda: not panel.busy, timeout=LIMIT)
    assert (folder / "cells 2.safetensors").is_file()


def test_objects_that_lie_outside_of_the_image_are_told_of(
    panel: Panel, viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    better(monkeypatch, 0.5, 0.4, 0.3)
    add_fields(viewer)
    truth = viewer.layers["truth"]
    truth.data = np.concatenate([truth.data, truth.data])
    learn(panel, qtbot)
    assert "left out: 8 in cells" in panel.footer.status.text()


def test_a_name_that_is_free_is_proposed(
    panel: Panel, viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    better(monkeypatch, 0.5, 0.4, 0.3)
    add_fields(viewer)
    assert panel.finetune.name.text() == "my-model"
    start(panel, qtbot, QUICK)
    qtbot.waitUntil(lambda: not panel.busy, timeout=LIMIT)
    assert panel.finetune.name.text() == "my-model-2"


def test_results_are_ticked_and_sketches_are_not_offered(
    panel: Panel, viewer: Any
) -> None:
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.widgets.layers import KEY
    from napari_sam_suite.widgets.sketch import Sketch

    viewer.add_image(np.random.default_rng(0).random((64, 64)), name="cells")
    Sketch(viewer).show(panel.images.picture(), FrameIndex(), None, [], [])
    assert panel.finetune.layers.count() == 0
    outline = [np.array([[4, 4], [4, 40], [40, 40]])]
    shapes = viewer.add_shapes(outline, shape_type="polygon", name="drawn")
    result = viewer.add_shapes(
        outline, shape_type="polygon", name="found", metadata={KEY: {"runs": {}}}
    )
    other = viewer.add_shapes(outline, shape_type="polygon", name="other")
    assert panel.finetune.chosen() == [shapes, result]
    panel.finetune.layers.item(0).setCheckState(Qt.CheckState.Unchecked)
    result.name, other.name = "better", "found"
    names = [
        panel.finetune.layers.item(row).text()
        for row in range(panel.finetune.layers.count())
    ]
    assert names == ["drawn", "better", "found"]
    assert panel.finetune.chosen() == [result]


def test_results_of_another_image_are_not_ticked_and_are_refused(
    panel: Panel, viewer: Any
) -> None:
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.widgets.layers import KEY
    from napari_sam_suite.widgets.learning import read_truth

    images = [viewer.add_image(np.eye(64), name=name) for name in ("one", "two")]
    outline = [np.array([[4, 4], [4, 40], [40, 40]])]
    found = [
        viewer.add_shapes(
            outline,
            shape_type="polygon",
            name=f"{name} objects",
            metadata={KEY: {"image": [name], "runs": {}}},
        )
        for name in ("one", "two")
    ]
    tab = panel.finetune
    assert tab.chosen() == found[:1]
    panel.images.choose(images[1])
    assert tab.chosen() == found[1:]
    tab.layers.item(1).setCheckState(Qt.CheckState.Unchecked)
    viewer.add_labels(np.ones((64, 64), int), name="labels")
    assert tab.chosen() == []
    panel.images.choose(images[0])
    assert tab.chosen() == found[:1]
    with pytest.raises(ParameterError, match="'two objects' are of two, not of one"):
        read_truth(found, panel.images.picture(), FrameIndex())


def test_objects_of_one_channel_are_learnt_from_on_all_of_them(
    panel: Panel, viewer: Any
) -> None:
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.widgets.layers import KEY
    from napari_sam_suite.widgets.learning import read_truth

    for name in ("red", "green"):
        viewer.add_image(np.eye(64), name=name, blending="additive")
    layer = viewer.add_shapes(
        [np.array([[4, 4], [4, 40], [40, 40]])],
        shape_type="polygon",
        metadata={KEY: {"image": ["red"], "runs": {}}},
    )
    assert panel.images.picture().names == ("red", "green")
    assert panel.finetune.chosen() == [layer]
    assert len(read_truth([layer], panel.images.picture(), FrameIndex())(str)) == 1


def test_large_labels_are_not_read_while_the_window_waits(
    panel: Panel, viewer: Any
) -> None:
    from dask.array import from_array

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.widgets.learning import read_truth

    truth = np.zeros((3, 64, 64), int)
    truth[1, 4:20, 4:20] = 1
    read: list[int] = []

    def seen(block: Any) -> Any:
        read.append(1)
        return block

    lazy = from_array(truth, chunks=(1, 64, 64)).map_blocks(seen, dtype=int)
    viewer.add_image(np.random.default_rng(0).random((3, 64, 64)), name="cells")
    viewer.add_labels(lazy, name="lazy")
    read.clear()
    make = read_truth(panel.finetune.chosen(), panel.images.picture(), FrameIndex())
    assert not read
    assert [frame.z for frame in make(str).frames()] == [1]
    assert len(read) == 3


def test_labels_are_learnt_from_as_they_were_when_the_button_was_pressed(
    panel: Panel, viewer: Any
) -> None:
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.widgets.learning import read_truth

    add_fields(viewer)
    make = read_truth(panel.finetune.chosen(), panel.images.picture(), FrameIndex())
    viewer.layers["truth"].data[:] = 0
    assert len(make(str)) == 8


def test_islands_of_one_number_are_objects_and_an_empty_layer_is_none(
    panel: Panel, viewer: Any
) -> None:
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.widgets.learning import read_truth

    add_fields(viewer)
    viewer.layers["truth"].data = (viewer.layers["truth"].data > 0).astype(int)
    viewer.add_labels(np.zeros((3, 64, 64), int), name="empty")
    told: list[str] = []
    for row in range(2):
        panel.finetune.layers.item(row).setCheckState(Qt.CheckState.Checked)
    picture = panel.images.picture()
    make = read_truth(panel.finetune.chosen(), picture, FrameIndex())
    found = make(told.append)
    assert [len(found.at(frame)) for frame in found.frames()] == [4, 4]
    (said,) = told
    assert said.startswith("truth is painted with one number, so each of its 8 islands")


def test_what_becomes_of_earlier_results_is_asked_only_where_there_are_new_ones(
    panel: Panel,
) -> None:
    box = panel.bar.mode_box
    panel.tabs.setCurrentWidget(panel.finetune)
    assert not box.isEnabled()
    assert "makes no objects" in box.toolTip()
    panel.tabs.setCurrentWidget(panel.auto)
    assert box.isEnabled()
    assert "earlier results" in box.toolTip()


def test_without_outlines_it_says_what_to_do(panel: Panel, viewer: Any) -> None:
    viewer.add_image(np.zeros((64, 64), np.uint8))
    assert "Draw the outlines" in panel.finetune.hint.text()
    assert not panel.finetune.button.isEnabled()


def test_layers_of_another_size_are_refused(panel: Panel, viewer: Any) -> None:
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.widgets.learning import read_truth

    viewer.add_image(np.eye(64, dtype=np.uint8), name="cells")
    viewer.add_labels(np.zeros((32, 64), int), name="other")
    picture = panel.images.picture()
    with pytest.raises(ParameterError, match="'other' has 32 x 64 pixels"):
        read_truth(panel.finetune.chosen(), picture, FrameIndex())


def test_shapes_keep_their_holes_and_rejected_ones_are_left_out(
    panel: Panel, viewer: Any
) -> None:
    from napari_sam_suite.engine.finetune.data import gather_samples
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.widgets.learning import read_truth

    viewer.add_image(np.random.default_rng(0).random((2, 64, 64)), name="cells")
    outer = [[1, 4, 4], [1, 4, 40], [1, 40, 40], [1, 40, 4], [1, 4, 4]]
    hole = [[1, 10, 10], [1, 10, 20], [1, 20, 20], [1, 20, 10], [1, 10, 10]]
    bad = [[1, 50, 50], [1, 50, 60], [1, 60, 60], [1, 60, 50]]
    viewer.add_shapes(
        [np.array(outer + hole), np.array(bad)],
        shape_type="polygon",
        features={"review": ["accepted", "rejected"]},
    )
    picture = panel.images.picture()
    truth = read_truth(panel.finetune.chosen(), picture, FrameIndex())
    (found,) = gather_samples(picture.image, truth(str), picture.composite)
    assert len(found.masks) == 1
    mask = found.masks.full(0)
    assert mask[5, 5] and not mask[15, 15]
    assert found.frame.z == 1

"""The Few-shot tab: tag, find, move the threshold, judge."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely
from qtpy.compat import isalive
from qtpy.QtCore import Qt, QThread
from qtpy.QtWidgets import QApplication

from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.recipe import as_python
from napari_sam_suite.widgets.table import column

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari.layers import Shapes

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.widgets.panel import Panel

LEFT = Qt.MouseButton.LeftButton
LIMIT = 120_000
RED, BLUE = (220, 20, 20), (20, 20, 220)
SPOTS = [(8, 8), (8, 40), (40, 8), (24, 24), (24, 56), (56, 40)]
OTHERS = [(8, 24), (40, 40), (56, 8)]


def dots() -> np.ndarray:
    from engine.fewshot_fakes import dots as draw

    return draw((64, 64), *[(*s, RED) for s in SPOTS], *[(*s, BLUE) for s in OTHERS])


@pytest.fixture
def panel(viewer: Any, qtbot: Any) -> Iterator[Panel]:
    from napari_sam_suite.widgets.panel import Panel
    from widgets.conftest import FakeEngine

    class ColourEngine(FakeEngine):
        def _load(self) -> Any:
            from engine.fewshot_fakes import ColourSam

            if not isinstance(self._fake, ColourSam):
                self._fake = ColourSam(batch=64)
                # prototypes ask which model has made them
                self._fake.spec = replace(self._fake.spec, id=self.spec.id)
            return self._fake

    panel = Panel(viewer, start=lambda model, _: ColourEngine(model, {}))
    viewer.window.add_dock_widget(panel, name="SAM Suite")
    yield panel
    panel.session.close(timeout=10)


def tag_shapes(viewer: Any, *leading: int) -> Shapes:
    """Three red dots drawn by hand as ``red``, one blue one as ``blue``."""
    places = [*SPOTS[:3], OTHERS[0]]
    boxes = [
        [[*leading, y + dy, x + dx] for dy, dx in [(-4, -4), (-4, 4), (4, 4), (4, -4)]]
        for y, x in places
    ]
    features = {"tag": ["red", "red", "red", "blue"]}
    layer = viewer.add_shapes(boxes, shape_type="polygon", features=features)
    QApplication.processEvents()  # the tab looks at the layers in the next turn
    return layer


def find(panel: Panel, qtbot: Any) -> Shapes:
    assert panel.fewshot.button.isEnabled(), panel.fewshot.button.toolTip()
    qtbot.mouseClick(panel.fewshot.button, LEFT)
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=LIMIT)
    layer = panel.parts.result_layer()
    assert layer is not None, panel.footer.status.text()
    return layer


def wait(panel: Panel, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: panel.fewshot.similar.settled, timeout=LIMIT)


def test_without_tagged_shapes_it_says_what_to_do(viewer: Any, panel: Panel) -> None:
    viewer.add_image(dots(), rgb=True)
    assert not panel.fewshot.button.isEnabled()
    assert "Tag 5 to 20 shapes" in panel.fewshot.hint.text()


def test_every_tag_of_the_layer_can_be_chosen(viewer: Any, panel: Panel) -> None:
    viewer.add_image(dots(), rgb=True)
    tag_shapes(viewer)
    assert list(panel.fewshot.choices) == ["blue", "red"]
    assert "Choose which tag" in panel.fewshot.hint.text()
    panel.fewshot.choices["red"].setCurrentText("Find these")
    assert panel.fewshot.button.isEnabled()


def test_shapes_of_another_image_are_no_examples(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    viewer.add_image(dots(), rgb=True, name="dots")
    tag_shapes(viewer).metadata[KEY] = {"image": ["other"], "runs": {}}
    panel.fewshot.choices["red"].setCurrentText("Find these")
    qtbot.mouseClick(panel.fewshot.button, LEFT)
    assert "are of other, not of dots. Tick other" in panel.footer.status.text()
    assert not panel.busy


def test_objects_like_the_examples_are_found_and_filtered_and_judged(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    viewer.add_image(dots(), rgb=True, name="dots")
    tag_shapes(viewer)
    panel.fewshot.choices["red"].setCurrentText("Find these")
    panel.fewshot.choices["blue"].setCurrentText("Not these")
    layer = find(panel, qtbot)
    assert len(layer.data) == 3
    assert set(layer.features["tag"]) == {"red"}
    assert (layer.features["similarity"] >= 0.5).all()
    middles = {tuple(np.round(d.mean(0)).astype(int).tolist()) for d in layer.data}
    assert middles == set(SPOTS[3:])
    # the slider filters without the model
    calls = len(panel.session._engine._fake.decoded)
    panel.fewshot.threshold.setValue(1.0)
    assert not panel.fewshot.automatic.isChecked()
    wait(panel, qtbot)
    assert len(layer.data) == 0
    panel.fewshot.automatic.setChecked(True)
    wait(panel, qtbot)
    assert len(layer.data) == 3
    assert len(panel.session._engine._fake.decoded) == calls
    # what a person rejects is learnt at once, and stays in the layer
    table = layer.features.copy()
    table["review"] = ["rejected", "", ""]
    layer.features = table
    wait(panel, qtbot)
    similar = panel.fewshot.similar
    assert len(similar._finder.prototypes.rest) > len(similar._learnt.rest)
    assert "rejected" in set(layer.features["review"])


# -- the threshold, moved again ------------------------------------------------------


def find_red(viewer: Any, panel: Panel, qtbot: Any, frames: int) -> Shapes:
    """A run over some planes, the first of which has the examples."""
    viewer.add_image(np.stack([dots()] * frames), rgb=True, name="dots")
    viewer.dims.set_current_step(0, 0)
    tag_shapes(viewer, 0)
    panel.fewshot.choices["red"].setCurrentText("Find these")
    panel.fewshot.choices["blue"].setCurrentText("Not these")
    panel.fewshot.batch["z"].text.setText(f"1-{frames}")
    return find(panel, qtbot)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[FrameIndex, bool]]:
    """Frames in which was chosen again, and whether on the main thread."""
    from qtpy.QtWidgets import QApplication

    from napari_sam_suite.engine.fewshot.finder import FewShot

    seen: list[tuple[FrameIndex, bool]] = []
    choose = FewShot.filter

    def note(finder: FewShot, frame: FrameIndex, *given: Any) -> Any:
        main = QThread.currentThread() is QApplication.instance().thread()
        seen.append((frame, main))
        return choose(finder, frame, *given)

    monkeypatch.setattr(FewShot, "filter", note)
    return seen


def test_frames_are_chosen_on_another_thread_and_the_shown_one_first(
    viewer: Any, panel: Panel, qtbot: Any, chosen: list[tuple[FrameIndex, bool]]
) -> None:
    layer = find_red(viewer, panel, qtbot, frames=3)
    before = len(layer.data)
    viewer.dims.set_current_step(0, 2)
    panel.fewshot.threshold.setValue(1.0)
    wait(panel, qtbot)
    assert [frame.z for frame, _ in chosen] == [2, 0, 1]
    assert not any(main for _, main in chosen)
    assert len(layer.data) == 0
    panel.fewshot.automatic.setChecked(True)
    wait(panel, qtbot)
    assert len(layer.data) == before
    assert sorted(set(layer.features["z"])) == [0, 1, 2]


def test_several_moves_are_one_choice(
    viewer: Any, panel: Panel, qtbot: Any, chosen: list[tuple[FrameIndex, bool]]
) -> None:
    layer = find_red(viewer, panel, qtbot, frames=1)
    for value in (0.6, 0.7, 0.8, 1.0):
        panel.fewshot.threshold.setValue(value)
    wait(panel, qtbot)
    assert len(chosen) == 1
    assert len(layer.data) == 0


def test_only_objects_that_are_not_there_are_drawn(
    viewer: Any, panel: Panel, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam_suite.engine.objects import Objects

    find_red(viewer, panel, qtbot, frames=1)
    made: list[int] = []
    outline = Objects.from_masks

    def note(masks: Any, *given: Any, **named: Any) -> Any:
        made.append(len(masks))
        return outline(masks, *given, **named)

    monkeypatch.setattr(Objects, "from_masks", note)
    panel.fewshot.threshold.setValue(0.49)
    wait(panel, qtbot)
    assert made == [0]


def test_an_object_with_another_tag_stays_and_a_deleted_one_stays_away(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    layer = find_red(viewer, panel, qtbot, frames=1)
    ids = layer.features["id"].tolist()
    table = layer.features.copy()
    table.loc[0, "tag"] = "mine"
    layer.features = table
    layer.selected_data = {1}
    layer.remove_selected()
    panel.fewshot.threshold.setValue(1.0)
    wait(panel, qtbot)
    assert layer.features["id"].tolist() == [ids[0]]
    panel.fewshot.automatic.setChecked(True)
    wait(panel, qtbot)
    assert set(layer.features["id"]) == set(ids) - {ids[1]}


def test_padded_outlines_are_cut_apart_as_by_the_run(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    panel.fewshot.advanced.set_values({"padding": 16.0})
    layer = find_red(viewer, panel, qtbot, frames=1)
    before = dict(zip(layer.features["id"], map(area, layer.data), strict=True))
    panel.fewshot.threshold.setValue(1.0)
    wait(panel, qtbot)
    panel.fewshot.automatic.setChecked(True)
    wait(panel, qtbot)
    after = dict(zip(layer.features["id"], map(area, layer.data), strict=True))
    assert after == pytest.approx(before)
    outlines = [shapely.Polygon(shape) for shape in layer.data]
    together = shapely.union_all(outlines).area
    assert together == pytest.approx(sum(one.area for one in outlines), abs=1e-2)


def area(shape: np.ndarray) -> float:
    return shapely.Polygon(shape[:, -2:]).area


def test_an_object_that_somebody_has_drawn_otherwise_stays(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    layer = find_red(viewer, panel, qtbot, frames=1)
    ids = layer.features["id"].tolist()
    layer.data = [layer.data[0] + [0, 1, 0][-layer.ndim :], *layer.data[1:]]
    panel.fewshot.threshold.setValue(1.0)
    wait(panel, qtbot)
    assert layer.features["id"].tolist() == [ids[0]]


# -- verdicts ------------------------------------------------------------------------


def judge(layer: Shapes, **columns: list[str]) -> None:
    layer.features = layer.features.assign(**columns)


def test_a_verdict_scores_all_others_anew(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    layer = find_red(viewer, panel, qtbot, frames=1)
    before = layer.features["similarity"].tolist()
    layer.selected_data = {1}
    judge(layer, review=["rejected", "", ""])
    wait(panel, qtbot)
    finder = panel.fewshot.similar._finder
    [frame] = finder.seen
    found = finder.filter(frame, 0.0).columns
    now = dict(zip(found["id"], found["similarity"], strict=True))
    table = layer.features
    assert table["review"].tolist() == ["rejected", "", ""]
    assert table["similarity"][0] == before[0]
    assert (table["similarity"][1:] != before[1:]).all()
    assert [now[one] for one in table["id"][1:]] == table["similarity"][1:].tolist()
    # who goes on with the next object still has it
    assert set(layer.selected_data) == {1}


def test_another_tag_of_an_accepted_object_is_learnt(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    layer = find_red(viewer, panel, qtbot, frames=1)
    judge(layer, review=["accepted", "", ""])
    wait(panel, qtbot)
    similar = panel.fewshot.similar
    assert similar._finder.prototypes.labels[-1] == "red"
    judge(layer, tag=["blue", "red", "red"])
    wait(panel, qtbot)
    assert similar._finder.prototypes.labels[-1] == "blue"


def test_the_exact_mode_learns_what_is_accepted(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    panel.fewshot.advanced.set_values(
        {"mode": "exact", "points_per_side": 16, "min_area": 5}
    )
    layer = find_red(viewer, panel, qtbot, frames=1)
    count = len(layer.data)
    judge(layer, review=["accepted", "rejected", *[""] * (count - 2)])
    wait(panel, qtbot)
    similar = panel.fewshot.similar
    assert len(similar._finder.prototypes) == len(similar._learnt) + 1


def test_what_was_rejected_is_no_example_and_not_found_again(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    layer = find_red(viewer, panel, qtbot, frames=1)
    judge(layer, review=["rejected", "", ""])
    wait(panel, qtbot)
    rejected = layer.data[0].mean(0)
    panel.parts.viewer.layers.selection.active = layer
    QApplication.processEvents()
    panel.fewshot.choices["red"].setCurrentText("Find these")
    panel.fewshot.threshold.setValue(0.0)
    find(panel, qtbot)
    middles = [shape.mean(0) for shape in layer.data]
    near = [m for m in middles if np.abs(m - rejected).max() < 3]
    assert len(near) == 1
    finder = panel.fewshot.similar._finder
    assert len(finder.examples.objects) == 2


def test_only_what_was_accepted_keeps_its_pixels(
    viewer: Any, panel: Panel, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = find_red(viewer, panel, qtbot, frames=1)
    finder, asked = panel.fewshot.similar._finder, []
    choose = finder.filter

    def listen(*given: Any) -> Any:
        asked.append([set(ids) for ids in given[2:]])
        return choose(*given)

    monkeypatch.setattr(finder, "filter", listen)
    ids = column(layer, "id").tolist()
    names = [panel.fewshot.similar._masks.get(one, one) for one in ids]
    judge(layer, review=["accepted", "rejected", ""])
    wait(panel, qtbot)
    assert asked[-1] == [set(names[:2]), set(names[:1])]
    assert names[0] in finder.ids[next(iter(finder.ids))]


def test_a_step_back_while_it_chooses_is_not_overwritten(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    layer = find_red(viewer, panel, qtbot, frames=2)
    panel.fewshot.threshold.setValue(0.0)
    qtbot.waitUntil(
        lambda: panel.fewshot.similar._gradual._work is not None, timeout=LIMIT
    )
    work = panel.fewshot.similar._gradual._work
    with qtbot.waitSignal(work.done, timeout=LIMIT):
        panel.results.undo()
    assert len(layer.data) == 0
    assert panel.fewshot.similar.settled


def test_a_run_too_large_to_be_filtered_says_so(
    viewer: Any, panel: Panel, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam_suite.engine.fewshot import finder

    monkeypatch.setattr(finder, "_MOST", 100)
    layer = find_red(viewer, panel, qtbot, frames=1)
    assert "too large to be filtered" in panel.footer.status.text()
    before = len(layer.data)
    panel.footer.say("")
    panel.fewshot.threshold.setValue(1.0)
    assert "search fewer frames" in panel.footer.status.text()
    assert panel.fewshot.similar.settled
    assert len(layer.data) == before > 0


def test_after_a_run_that_found_nothing_the_slider_shows_candidates(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    viewer.add_image(dots(), rgb=True, name="dots")
    tag_shapes(viewer)
    panel.fewshot.choices["red"].setCurrentText("Find these")
    panel.fewshot.choices["blue"].setCurrentText("Not these")
    panel.fewshot.threshold.setValue(1.0)
    qtbot.mouseClick(panel.fewshot.button, LEFT)
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=LIMIT)
    assert panel.outcome.recipe() == {}
    panel.fewshot.threshold.setValue(0.5)
    wait(panel, qtbot)
    layer = panel.parts.result_layer()
    assert layer is not None
    assert len(layer.data) == 3
    # and what is found then can be judged, as always
    table = layer.features.copy()
    table["review"] = ["rejected", "", ""]
    layer.features = table
    wait(panel, qtbot)
    assert len(panel.fewshot.similar._finder.prototypes.rest) > len(
        panel.fewshot.similar._learnt.rest
    )


def test_moves_of_the_threshold_are_one_step_to_undo(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    layer = find_red(viewer, panel, qtbot, frames=2)
    before = set(layer.features["id"])
    for value in (1.0, 0.6, 1.0):
        panel.fewshot.threshold.setValue(value)
        wait(panel, qtbot)
    assert len(layer.data) == 0
    panel.results.undo()
    assert set(layer.features["id"]) == before
    assert panel.fewshot.automatic.isChecked()
    panel.results.redo()
    assert len(layer.data) == 0
    assert panel.fewshot.threshold.value() == 1.0
    # the slider goes on from there, with the same objects
    panel.fewshot.threshold.setValue(0.5)
    wait(panel, qtbot)
    assert set(layer.features["id"]) == before


def test_objects_that_are_added_otherwise_leave_the_threshold_at_work(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    layer = find_red(viewer, panel, qtbot, frames=1)
    picture = panel.images.picture()
    added = panel.results.begin(picture, {"capability": "prompt"}, "add")
    panel.results.finish(added)
    panel.fewshot.threshold.setValue(1.0)
    wait(panel, qtbot)
    assert len(layer.data) == 0
    every = panel.results.begin(picture, {"capability": "auto"}, "add")
    panel.results.finish(every)
    panel.fewshot.automatic.setChecked(True)
    wait(panel, qtbot)
    assert len(layer.data) == 0


def test_a_closed_panel_hears_of_no_verdicts(
    viewer: Any, panel: Panel, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = find_red(viewer, panel, qtbot, frames=1)
    heard: list[str] = []
    monkeypatch.setattr(
        panel.fewshot.similar, "_judged", lambda: heard.append("") or {}
    )
    viewer.window.remove_dock_widget(panel)
    qtbot.waitUntil(lambda: not isalive(panel), timeout=LIMIT)
    judge(layer, review=["rejected", "", ""])
    assert not heard and len(layer.data) == 3


def test_while_the_run_is_taken_away_the_threshold_waits(
    viewer: Any, panel: Panel, qtbot: Any
) -> None:
    layer = find_red(viewer, panel, qtbot, frames=1)
    count = len(layer.data)
    panel.results.undo()
    panel.fewshot.threshold.setValue(1.0)
    wait(panel, qtbot)
    assert "Bring back" in panel.footer.status.text()
    panel.results.redo()
    assert len(layer.data) == count
    panel.fewshot.threshold.setValue(0.99)
    panel.fewshot.threshold.setValue(1.0)
    wait(panel, qtbot)
    assert len(layer.data) == 0


# -- prototypes ----------------------------------------------------------------------


def test_prototypes_are_saved_and_find_the_same_in_another_image(
    viewer: Any, panel: Panel, qtbot: Any, tmp_path: Path
) -> None:
    box = panel.fewshot.prototypes
    assert not box.save_button.isEnabled()
    find_red(viewer, panel, qtbot, frames=1)
    box.save(tmp_path / "red.safetensors")
    assert (tmp_path / "red.json").is_file()
    assert "Saved red.safetensors" in panel.footer.status.text()
    viewer.layers.clear()
    viewer.add_image(dots(), rgb=True, name="another")
    assert not panel.fewshot.button.isEnabled()
    box.load(tmp_path / "red.safetensors")
    assert "Finds red as learnt from 4 examples" in box.about.text()
    layer = find(panel, qtbot)
    assert {tuple(d.mean(0).round().astype(int).tolist()) for d in layer.data} == {
        *SPOTS
    }
    assert "Prototypes.load(" in as_python(panel.outcome.recipe())
    # what is there already is not found again
    find(panel, qtbot)
    assert len(layer.data) == len(SPOTS)
    box.drop()
    assert panel.fewshot.button.isEnabled()


def test_prototypes_of_the_other_mode_are_told_before_anything_runs(
    viewer: Any, panel: Panel, qtbot: Any, tmp_path: Path
) -> None:
    find_red(viewer, panel, qtbot, frames=1)
    panel.fewshot.prototypes.save(tmp_path / "red.safetensors")
    panel.fewshot.prototypes.load(tmp_path / "red.safetensors")
    panel.fewshot.advanced.set_values({"mode": "exact"})
    panel.fewshot.start()
    assert not panel.busy
    assert "made in fast mode, not in exact mode" in panel.footer.status.text()


def test_a_file_that_holds_no_prototypes_is_told(panel: Panel, tmp_path: Path) -> None:
    panel.fewshot.prototypes.load(tmp_path / "none.safetensors")
    assert "There are no prototypes" in panel.footer.status.text()
    assert panel.fewshot.prototypes.loaded is None

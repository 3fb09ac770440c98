from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Shapes
from qtpy.QtWidgets import QApplication

from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.recipe import as_python
from widgets.hands import (
    ENTER,
    ESCAPE,
    LEFT,
    LIMIT,
    SHIFT,
    Hand,
    N,
    X,
    Y,
    Z,
    answered,
    corners,
    dots,
    layer_of,
    let_engine_end,
    no_answers,
    open_prompts,
    outlines,
    ready,
    results,
    said,
    show_brighter,
)

if TYPE_CHECKING:
    from napari_sam_suite.widgets.panel import Panel
    from widgets.hands import Blobs

pytestmark = pytest.mark.usefixtures("libraries")


def test_a_click_outlines_the_object_under_it(panel: Panel, hand: Hand) -> None:
    hand.outline(16, 16)
    [shape] = outlines(panel)
    assert corners(shape) == [8, 8, 24, 24]
    assert "Answer 1 of 3, score 0.95" in panel.prompts.state.text()
    np.testing.assert_allclose(dots(panel), [[16, 16]], atol=0.5)


def test_enter_adds_the_outline_with_the_chosen_tag_and_undo_takes_it_away(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    panel.prompts.tag.setEditText("nucleus")
    hand.outline(16, 16)
    hand.press(ENTER)
    [layer] = results(panel)
    assert list(layer.features["tag"]) == ["nucleus"]
    assert corners(layer.data[0]) == [8, 8, 24, 24]
    assert outlines(panel) == []
    assert said(panel) == "Added 1 object."
    hand.outline(48, 48)
    hand.press(ENTER)
    assert len(layer.data) == 2
    qtbot.mouseClick(panel.bar.undo, LEFT)
    assert len(layer.data) == 1


def test_shift_marks_what_does_not_belong_to_it(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    hand.click(16, 16, SHIFT)
    assert "Click the object first" in said(panel)
    hand.outline(16, 16)
    hand.click(48, 48, SHIFT)
    answered(panel.prompts, qtbot, prompts=2)
    turn = panel.prompts.turns.last
    assert turn is not None
    assert (len(turn.prompt.inside), len(turn.prompt.outside)) == (1, 1)


def test_a_drag_is_a_box(panel: Panel, hand: Hand, qtbot: Any) -> None:
    hand.drag((42, 6), (58, 26))
    answered(panel.prompts, qtbot)
    turn = panel.prompts.turns.last
    assert turn is not None
    np.testing.assert_allclose(turn.prompt.box, (42, 6, 58, 26), atol=0.6)
    assert corners(outlines(panel)[0]) == [40, 8, 56, 24]


def test_keys_take_clicks_back_and_bring_them_again(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    tab = panel.prompts
    hand.outline(16, 16)
    hand.click(18, 20)
    answered(tab, qtbot, prompts=2)
    hand.press(Z)
    answered(tab, qtbot, prompts=1)
    hand.press(Z)
    assert tab.turns.last is None
    assert outlines(panel) == []
    hand.press(Y)
    answered(tab, qtbot, prompts=1)
    assert len(outlines(panel)) == 1


def test_a_click_that_the_next_one_overtook_is_answered_when_undo_leads_to_it(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    tab = panel.prompts
    with no_answers(panel):
        hand.click(16, 16)
        hand.click(18, 20)
        first = tab.turns.before
    assert first is not None
    answered(tab, qtbot, prompts=2)
    assert not first.answered
    hand.press(Z)
    assert tab.turns.last is first
    answered(tab, qtbot, prompts=1)
    [shape] = outlines(panel)
    assert corners(shape) == [8, 8, 24, 24]
    assert tab.keys.buttons["commit"].isEnabled()


def test_a_click_taken_back_before_its_answer_is_answered_when_it_comes_again(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    hand.click(16, 16)
    hand.press(Z)
    assert panel.prompts.turns.last is None
    hand.press(Y)
    answered(panel.prompts, qtbot)
    assert len(outlines(panel)) == 1


def test_an_answer_never_goes_to_another_click_than_its_own(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    tab = panel.prompts
    hand.click(16, 16)
    hand.click(18, 20)
    answered(tab, qtbot, prompts=2)
    second = tab.turns.last
    assert second is not None
    found = second.found
    hand.press(Z)  # asks for the first one again
    hand.press(Y)
    let_engine_end(panel)
    assert tab.turns.last is second
    assert second.found is found


def test_x_goes_round_the_three_answers(panel: Panel, hand: Hand) -> None:
    hand.outline(16, 16)
    scores = []
    for _ in range(3):
        hand.press(X)
        scores.append(panel.prompts.state.text().partition("score ")[2])
    assert scores == ["0.90.", "0.85.", "0.95."]


def test_other_parameters_change_the_outline_that_is_shown(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    hand.outline(16, 16)
    panel.prompts.advanced.set_values({"padding": 3.0})
    # 16 pixels wide, and 3 more on every side
    qtbot.waitUntil(
        lambda: np.ptp(outlines(panel)[0], axis=0).min() > 20, timeout=LIMIT
    )
    hand.press(ENTER)
    [recipe] = results(panel)[0].metadata[KEY]["runs"].values()
    assert recipe["params"]["padding"] == 3
    assert "PromptParams(padding=3.0)" in as_python(recipe)


def test_n_keeps_an_outline_and_begins_the_next_object(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    hand.keep((16, 16), (16, 48))
    assert len(outlines(panel)) == 2
    assert results(panel) == []
    qtbot.mouseClick(panel.prompts.keys.buttons["commit"], LEFT)
    [layer] = results(panel)
    assert sorted(map(corners, layer.data)) == [[8, 8, 24, 24], [8, 40, 24, 56]]


def test_escape_forgets_everything(panel: Panel, hand: Hand) -> None:
    hand.keep((16, 16))
    hand.outline(48, 48)
    hand.press(ESCAPE)
    assert outlines(panel) == []
    assert not panel.prompts.keys.buttons["commit"].isEnabled()


def test_undo_brings_back_what_was_cleared(panel: Panel, hand: Hand) -> None:
    hand.keep((16, 16))
    hand.outline(48, 48)
    hand.press(ESCAPE)
    hand.press(Z)
    assert len(outlines(panel)) == 2
    assert panel.prompts.state.text().startswith("Answer 1 of 3")


def test_undo_goes_on_with_the_object_kept_last(panel: Panel, hand: Hand) -> None:
    hand.keep((16, 16), (16, 48))
    hand.press(Z)
    hand.press(Z)
    assert [corners(shape) for shape in outlines(panel)] == [[8, 8, 24, 24]]
    assert not panel.prompts.turns.kept[1:]


def test_enter_waits_for_the_answer_that_is_on_its_way(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    with no_answers(panel):
        hand.click(16, 16)
        hand.press(ENTER)
        assert results(panel) == []
    qtbot.waitUntil(lambda: len(results(panel)) == 1, timeout=LIMIT)
    [shape] = results(panel)[0].data
    assert corners(shape) == [8, 8, 24, 24]


def test_clicks_after_a_quick_next_are_on_another_object(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    with no_answers(panel):
        hand.click(16, 16)
        hand.press(N)
        hand.click(16, 48)
        hand.press(N)
        hand.click(48, 48)
        hand.press(Z)  # takes the click back that still waits
        hand.press(ENTER)
    qtbot.waitUntil(lambda: len(results(panel)) == 1, timeout=LIMIT)
    [layer] = results(panel)
    assert sorted(map(corners, layer.data)) == [[8, 8, 24, 24], [8, 40, 24, 56]]


def test_kept_outlines_stay_when_the_image_is_shown_in_another_way(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    hand.keep((16, 16), (16, 48))
    hand.outline(48, 48)
    [image] = [x for x in panel.viewer.layers if x.name == "cells"]
    image.contrast_limits = (0, 90)
    qtbot.waitUntil(lambda: len(panel.prompts.turns.kept) == 2)
    answered(panel.prompts, qtbot)
    image.visible = False
    QApplication.processEvents()
    assert len(panel.prompts.turns.kept) == 2
    image.visible = True
    QApplication.processEvents()
    answered(panel.prompts, qtbot)
    hand.press(ENTER)
    [layer] = results(panel)
    assert len(layer.data) == 3


def test_an_object_that_is_opened_again_is_answered_as_the_image_is_shown_now(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    tab = panel.prompts
    hand.keep((16, 16))
    [kept] = tab.turns.kept
    before = kept.found
    show_brighter(panel)
    assert kept.found is before
    hand.press(Z)
    assert tab.turns.last is kept
    answered(tab, qtbot)
    assert kept.found is not before


def test_what_was_cleared_comes_back_and_is_answered_as_the_image_is_shown_now(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    tab = panel.prompts
    hand.outline(16, 16)
    before = tab.turns.last
    assert before is not None
    found = before.found
    tab.dialogue.clear()
    show_brighter(panel)
    hand.press(Z)
    assert tab.turns.last is before
    answered(tab, qtbot)
    assert before.found is not found


def test_kept_outlines_wait_for_their_image(
    panel: Panel, hand: Hand, blobs: Blobs, qtbot: Any
) -> None:
    hand.keep((16, 16))
    [cells] = [x for x in panel.viewer.layers if x.name == "cells"]
    other = panel.viewer.add_image(blobs(), name="other")
    panel.images.choose(other)
    panel.images.changed.emit()
    qtbot.waitUntil(lambda: panel.prompts.turns.kept == [])
    assert "1 outline waits to be added" in said(panel)
    panel.images.choose(cells)
    panel.images.changed.emit()
    qtbot.waitUntil(lambda: len(panel.prompts.turns.kept) == 1)
    assert len(outlines(panel)) == 1


def test_a_bad_parameter_loses_no_outline(
    panel: Panel, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand.outline(16, 16)
    bad = {"tile": "abc"}
    monkeypatch.setattr(panel.prompts.advanced, "values", lambda: bad)
    hand.press(ENTER)
    assert results(panel) == []
    assert "ile" in said(panel)
    monkeypatch.undo()
    hand.press(ENTER)
    assert len(results(panel)) == 1


def test_prompts_want_rows_and_columns_in_view(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    panel.viewer.dims.order = (1, 0)
    qtbot.waitUntil(lambda: "undo Roll and Transpose" in panel.prompts.state.text())
    assert not panel.prompts.pointing.on
    panel.viewer.dims.order = (0, 1)
    qtbot.waitUntil(lambda: panel.prompts.pointing.on)


def test_outlines_of_prompts_are_nobodys_to_work_on(panel: Panel, hand: Hand) -> None:
    hand.outline(16, 16)
    panel.viewer.layers.selection = {layer_of(panel, Shapes, "Prompt")}
    assert panel.prompts.parts.shapes_layer() is None
    hand.press(ENTER)
    assert panel.prompts.parts.shapes_layer() == results(panel)[0]


def test_every_key_stands_on_its_button(panel: Panel) -> None:
    assert [button.text() for button in panel.prompts.keys.buttons.values()] == [
        "Add to results  (Enter)",
        "Next object  (N)",
        "Undo  (Z)",
        "Redo  (Y)",
        "Other answer  (X)",
        "Clear  (Escape)",
    ]


def test_the_mouse_is_left_alone_when_another_tab_is_open(
    panel: Panel, hand: Hand
) -> None:
    panel.tabs.setCurrentWidget(panel.auto)
    hand.drag((20, 20), (40, 50))
    assert panel.prompts.turns.last is None
    panel.tabs.setCurrentWidget(panel.prompts)
    panel.prompts.point.setChecked(False)
    hand.click(16, 16)
    assert panel.prompts.turns.last is None


def test_opening_the_tab_encodes_the_frame_in_advance(panel: Panel, hand: Hand) -> None:
    assert (64, 64) in panel.session._engine._fake.encoded  # type: ignore[union-attr]


def test_the_neighbouring_planes_are_encoded_in_advance(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs, monkeypatch: Any
) -> None:
    from engine.fakes import FakeSam

    seen: list[int] = []
    encode = FakeSam.encode

    def spy(self: FakeSam, images: Any) -> Any:
        seen.extend(int((image > 0).any(-1).sum()) // 256 for image in images)
        return encode(self, images)

    monkeypatch.setattr(FakeSam, "encode", spy)
    # plane k has k squares of 256 pixels, and is known by them
    stack = blobs(5)
    for plane, squares in enumerate([(), ((8, 8),), ((8, 8), (8, 40))]):
        stack[plane] = 0
        for y, x in squares:
            stack[plane, y : y + 16, x : x + 16] = 255
    stack[3, 40:, 40:] = 0
    viewer.add_image(stack, axis_labels=("z", "y", "x"), name="stack")
    viewer.dims.set_current_step(0, 2)
    open_prompts(panel, qtbot)
    qtbot.waitUntil(lambda: {1, 2, 3} <= set(seen), timeout=LIMIT)
    assert seen[0] == 2
    assert set(seen) == {1, 2, 3}
    viewer.dims.set_current_step(0, 3)
    ready(panel, qtbot)
    qtbot.waitUntil(lambda: 4 in seen, timeout=LIMIT)


def test_a_click_outside_of_the_image_is_said(panel: Panel, hand: Hand) -> None:
    hand.click(-20, 10)
    assert "outside the image" in said(panel)


def test_objects_go_to_the_frame_in_view(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    viewer.add_image(blobs(2, 3), axis_labels=("t", "z", "y", "x"), name="stack")
    viewer.dims.set_current_step(0, 1)
    viewer.dims.set_current_step(1, 2)
    hand = open_prompts(panel, qtbot)
    hand.keep((16, 16))
    viewer.dims.set_current_step(1, 0)
    hand.outline(48, 48)
    hand.press(ENTER)
    [layer] = results(panel)
    assert list(layer.features["time"]) == [1, 1]
    assert list(layer.features["z"]) == [2, 0]
    assert [tuple(shape[0][:2]) for shape in layer.data] == [(1, 2), (1, 0)]


def test_a_scaled_image_of_two_channels_is_pointed_at_in_its_pixels(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    for name, colour in (("one", "green"), ("two", "magenta")):
        viewer.add_image(blobs(), name=name, scale=(0.25, 0.25), colormap=colour)
    panel.images.choose(*viewer.layers)
    hand = open_prompts(panel, qtbot)
    hand.outline(16, 48)
    [shape] = outlines(panel)
    assert corners(shape) == [8, 40, 24, 56]


def test_what_was_added_is_a_recipe_that_python_understands(
    panel: Panel, hand: Hand
) -> None:
    hand.outline(16, 16)
    hand.press(ENTER)
    [recipe] = results(panel)[0].metadata[KEY]["runs"].values()
    assert recipe["capability"] == "prompt"
    script = as_python(recipe)
    compile(script, "recipe", "exec")
    assert "Prompt(inside=((" in script


def test_the_panel_says_why_there_is_nothing_to_point_at(panel: Panel) -> None:
    panel.tabs.setCurrentWidget(panel.prompts)
    panel.prompts.refresh()
    assert "No image" in panel.prompts.state.text()


def test_buttons_that_do_nothing_say_why(panel: Panel, hand: Hand) -> None:
    buttons = panel.prompts.keys.buttons
    assert buttons["commit"].toolTip() == "Click an object in the image first."
    assert buttons["redo"].toolTip() == "Nothing was taken back."
    hand.outline(16, 16)
    assert buttons["commit"].toolTip() == "Put what is outlined into the results."
    assert buttons["redo"].toolTip() == "Nothing was taken back."


def test_the_engine_is_asked_before_the_prompt_is_drawn(
    panel: Panel, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    tab = panel.prompts
    show, ask = tab.showing.sketch.show, tab.dialogue.ask_newest
    monkeypatch.setattr(
        tab.showing.sketch, "show", lambda *a: (order.append("show"), show(*a))[1]
    )
    monkeypatch.setattr(
        tab.dialogue, "ask_newest", lambda: (order.append("ask"), ask())[1]
    )
    hand.outline(16, 16)
    assert order[0] == "ask" and order.count("show") <= 2


def test_a_prompt_is_seen_before_an_answer_that_takes_long(
    panel: Panel, hand: Hand, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = panel.prompts
    monkeypatch.setattr(tab.dialogue, "ask_newest", lambda: None)
    hand.click(16, 16)
    qtbot.waitUntil(lambda: "Prompt" in panel.viewer.layers)
    qtbot.waitUntil(lambda: len(dots(panel)) == 1)


def test_keys_belong_to_a_layer_while_it_is_drawn_in(panel: Panel, hand: Hand) -> None:
    hand.outline(16, 16)
    hand.press(ENTER)
    [layer] = results(panel)
    panel.viewer.layers.selection.active = layer
    hand.outline(48, 48)
    layer.mode = "add_polygon"
    for key in (ENTER, ESCAPE):
        hand.press(key)
    assert len(outlines(panel)) == 1 and len(layer.data) == 1
    hand.press(Z)
    assert layer.mode == "pan_zoom"  # what Z does in napari
    assert len(outlines(panel)) == 1
    hand.press(ESCAPE)
    assert outlines(panel) == []

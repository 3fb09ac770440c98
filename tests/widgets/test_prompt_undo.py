"""Steps of the Prompt tab taken back, also those that reach into the results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from widgets.hands import (
    CONTROL,
    ENTER,
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
    open_tab,
    outlines,
    results,
    said,
    show_brighter,
)

if TYPE_CHECKING:
    from napari.layers import Shapes

    from napari_sam_suite.widgets.panel import Panel

pytestmark = pytest.mark.usefixtures("libraries")


def add(panel: Panel, hand: Hand, *places: tuple[int, int]) -> Shapes:
    """Outline objects, and put them into the results together."""
    hand.keep(*places[:-1])
    hand.outline(*places[-1])
    hand.press(ENTER)
    [layer] = results(panel)
    return layer


def found(layer: Shapes) -> list[list[float]]:
    return sorted(map(corners, layer.data))


def test_undo_takes_an_object_out_of_the_results_and_brings_its_clicks_back(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    hand.outline(16, 16)
    hand.click(18, 20)
    answered(panel.prompts, qtbot, prompts=2)
    hand.press(ENTER)
    [layer] = results(panel)
    assert len(layer.data) == 1 and outlines(panel) == []
    qtbot.mouseClick(panel.prompts.keys.buttons["undo"], LEFT)
    assert len(layer.data) == 0
    assert [corners(shape) for shape in outlines(panel)] == [[8, 8, 24, 24]]
    assert len(dots(panel)) == 2
    assert said(panel) == "Took 1 object out of the results; the clicks are back."
    assert panel.prompts.keys.buttons["commit"].isEnabled()


def test_control_z_does_the_same(panel: Panel, hand: Hand) -> None:
    layer = add(panel, hand, (16, 16))
    hand.press(Z, CONTROL)
    assert len(layer.data) == 0 and len(outlines(panel)) == 1
    hand.press(Z, CONTROL | SHIFT)
    assert len(layer.data) == 1 and outlines(panel) == []


def test_objects_that_waited_wait_again_when_their_adding_is_undone(
    panel: Panel, hand: Hand
) -> None:
    layer = add(panel, hand, (16, 16), (16, 48))
    hand.press(Z)
    assert len(layer.data) == 0
    assert len(outlines(panel)) == 2 and len(panel.prompts.turns.kept) == 1
    hand.press(Z)
    assert panel.prompts.turns.last is None
    hand.press(Z)
    assert panel.prompts.turns.last is not None and not panel.prompts.turns.kept


def test_every_adding_is_undone_in_its_turn(panel: Panel, hand: Hand) -> None:
    layer = add(panel, hand, (16, 16))
    add(panel, hand, (48, 48))
    hand.press(Z)
    assert found(layer) == [[8, 8, 24, 24]]
    hand.press(Z)  # the click on the second
    assert found(layer) == [[8, 8, 24, 24]] and outlines(panel) == []
    hand.press(Z)
    assert found(layer) == []
    assert [corners(shape) for shape in outlines(panel)] == [[8, 8, 24, 24]]


def test_redo_adds_the_objects_again(panel: Panel, hand: Hand) -> None:
    layer = add(panel, hand, (16, 16))
    ids = list(layer.features["id"])
    hand.press(Z)
    hand.press(Z)
    assert panel.prompts.turns.last is None
    hand.press(Y)
    hand.press(Y)
    assert list(layer.features["id"]) == ids
    assert outlines(panel) == [] and said(panel) == "Added 1 object."


def test_an_object_that_is_corrected_after_undo_is_in_the_results_once(
    panel: Panel, hand: Hand
) -> None:
    layer = add(panel, hand, (16, 16))
    hand.press(Z)
    hand.press(X)
    hand.press(ENTER)
    assert len(layer.data) == 1
    assert not panel.results.can_redo


def test_bring_back_does_what_redo_does(panel: Panel, hand: Hand, qtbot: Any) -> None:
    layer = add(panel, hand, (16, 16))
    hand.press(Z)
    qtbot.mouseClick(panel.bar.redo, LEFT)
    assert len(layer.data) == 1 and outlines(panel) == []
    hand.press(Z)
    assert len(layer.data) == 0 and len(outlines(panel)) == 1


def test_after_undo_run_only_the_clicks_come_back(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    layer = add(panel, hand, (16, 16))
    qtbot.waitUntil(panel.bar.undo.isEnabled)
    qtbot.mouseClick(panel.bar.undo, LEFT)
    assert len(layer.data) == 0 and outlines(panel) == []
    hand.press(Z)
    assert len(layer.data) == 0 and len(outlines(panel)) == 1


@pytest.mark.parametrize("how", ["moved", "deleted", "tagged"])
def test_what_was_changed_after_it_was_added_is_not_undone_by_a_key(
    how: str, panel: Panel, hand: Hand
) -> None:
    layer = add(panel, hand, (16, 16))
    if how == "moved":
        layer.data = [layer.data[0] + 2]
    elif how == "deleted":
        layer.selected_data = {0}
        layer.remove_selected()
    else:
        layer.features = layer.features.assign(tag="cell")
    before = found(layer)
    hand.press(Z)
    assert said(panel) == (
        "What was added was changed since; only Undo run takes it away."
    )
    assert found(layer) == before and outlines(panel) == []


def test_shapes_drawn_by_hand_do_not_keep_an_object_in(
    panel: Panel, hand: Hand
) -> None:
    layer = add(panel, hand, (16, 16))
    drawn = [[40, 40], [40, 50], [50, 50]]
    layer.add(np.array(drawn), shape_type="polygon")
    hand.press(Z)
    assert found(layer) == [[40, 40, 50, 50]] and len(outlines(panel)) == 1


def test_a_run_that_came_after_has_to_be_undone_first(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    layer = add(panel, hand, (16, 16))
    panel.tabs.setCurrentWidget(panel.auto)
    panel.bar.mode_box.setCurrentIndex(1)
    qtbot.mouseClick(panel.auto.button, LEFT)
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=LIMIT)
    count = len(layer.data)
    assert count > 1
    open_tab(panel, qtbot)
    hand.press(Z)
    assert said(panel) == (
        "The results changed since; take that back first with Undo run."
    )
    assert len(layer.data) == count
    qtbot.mouseClick(panel.bar.undo, LEFT)
    hand.press(Z)
    assert len(layer.data) == 0 and len(outlines(panel)) == 1


def test_a_layer_that_was_removed_gives_nothing_back(panel: Panel, hand: Hand) -> None:
    layer = add(panel, hand, (16, 16))
    panel.viewer.layers.remove(layer)
    hand.press(Z)
    assert said(panel) == (
        "The layer with the added objects was removed; click them anew."
    )


def test_what_was_added_is_answered_as_the_image_is_shown_when_it_comes_back(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    layer = add(panel, hand, (16, 16))
    show_brighter(panel)
    hand.press(Z)
    assert len(layer.data) == 0
    answered(panel.prompts, qtbot)
    assert len(outlines(panel)) == 1


def test_undo_goes_back_to_the_object_in_the_frame_before(
    panel: Panel, stack_hand: Hand
) -> None:
    tab = panel.prompts
    stack_hand.outline(16, 16)
    first = tab.turns.last
    panel.viewer.dims.set_current_step(0, 1)
    stack_hand.outline(48, 48)
    assert tab.turns.last is not first
    stack_hand.press(Z)
    assert tab.turns.last is first
    [shape] = outlines(panel)
    assert corners(shape) == [8, 8, 24, 24] and set(shape[:, 0]) == {0}
    stack_hand.press(Y)
    [shape] = outlines(panel)
    assert corners(shape) == [40, 40, 56, 56] and set(shape[:, 0]) == {1}


def test_a_box_that_comes_to_nothing_leaves_the_object_of_another_frame(
    panel: Panel, stack_hand: Hand
) -> None:
    tab = panel.prompts
    stack_hand.outline(16, 16)
    first = tab.turns.last
    panel.viewer.dims.set_current_step(0, 1)
    stack_hand.drag((40, 6), (40, 26))
    assert said(panel) == "That box is too small."
    stack_hand.click(48, 48, SHIFT)
    assert "Click the object first" in said(panel)
    assert tab.turns.last is first and len(outlines(panel)) == 1


def test_next_without_an_outline_can_be_undone(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    tab = panel.prompts
    tab.advanced.set_values({"mask_threshold": 20.0})  # which no logit of the fake has
    hand.click(16, 16)
    qtbot.waitUntil(lambda: not tab.turns.pending, timeout=LIMIT)
    before = tab.turns.last
    assert before is not None and not before.found
    hand.press(N)
    assert tab.turns.last is None and tab.turns.kept == []
    hand.press(Z)
    assert tab.turns.last is before


def test_redo_after_undo_of_next_keeps_the_outline_again(
    panel: Panel, hand: Hand
) -> None:
    tab = panel.prompts
    hand.keep((16, 16))
    hand.press(Z)
    assert tab.turns.last is not None and tab.turns.kept == []
    hand.press(Y)
    assert tab.turns.last is None and len(tab.turns.kept) == 1

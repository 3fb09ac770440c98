"""Prompts while something else changes: the frame, the image, the view, a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Shapes
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_sam_suite.widgets.layers import SHOWN
from widgets.hands import (
    ENTER,
    LIMIT,
    Hand,
    N,
    Z,
    answered,
    corners,
    layer_of,
    let_engine_end,
    no_answers,
    open_prompts,
    outlines,
    ready,
    results,
    show_brighter,
)

if TYPE_CHECKING:
    from napari_sam_suite.widgets.panel import Panel
    from widgets.hands import Blobs

pytestmark = pytest.mark.usefixtures("libraries")


def shown(panel: Panel) -> list[Shapes]:
    layers = [x for x in panel.viewer.layers if SHOWN in x.metadata]
    return [layer for layer in layers if len(layer.data)]


def test_a_contrast_changed_on_another_tab_is_answered_on_the_way_back(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    hand.outline(16, 16)
    panel.tabs.setCurrentWidget(panel.auto)
    show_brighter(panel)
    panel.tabs.setCurrentWidget(panel.prompts)
    answered(panel.prompts, qtbot)
    assert len(outlines(panel)) == 1


def test_what_was_asked_for_during_a_run_is_answered_after_it(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    tab = panel.prompts
    with no_answers(panel):
        hand.click(16, 16)
        hand.click(18, 20)
    answered(tab, qtbot, prompts=2)
    with no_answers(panel):
        qtbot.mouseClick(panel.auto.button, Qt.MouseButton.LeftButton)
        panel.auto.button.click()
        qtbot.waitUntil(lambda: panel.busy)
        hand.press(Z)
        assert tab.turns.last is not None and not tab.turns.last.answered
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=LIMIT)
    answered(tab, qtbot, prompts=1)


def test_3d_and_back_says_what_there_is(panel: Panel, hand: Hand) -> None:
    tab = panel.prompts
    panel.viewer.dims.ndisplay = 3
    assert tab.state.text() == "Prompts need the 2-D view."
    panel.viewer.dims.ndisplay = 2
    assert tab.state.text() == "Ready."
    hand.outline(16, 16)
    panel.viewer.dims.ndisplay = 3
    panel.viewer.dims.ndisplay = 2
    assert tab.state.text().startswith("Answer 1 of 3")


def test_an_answer_that_comes_in_3d_does_not_hide_why_clicks_do_nothing(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    with no_answers(panel):
        hand.click(16, 16)
        panel.viewer.dims.ndisplay = 3
    answered(panel.prompts, qtbot)
    assert panel.prompts.state.text() == "Prompts need the 2-D view."
    panel.viewer.dims.ndisplay = 2
    assert panel.prompts.state.text().startswith("Answer 1 of 3")
    qtbot.waitUntil(lambda: len(shown(panel)) == 1)


def test_a_frame_that_is_ready_in_3d_does_not_hide_why_clicks_do_nothing(
    panel: Panel, hand: Hand
) -> None:
    panel.viewer.dims.ndisplay = 3
    panel.prompts.dialogue.ready.emit()  # what was on its way
    assert panel.prompts.state.text() == "Prompts need the 2-D view."
    panel.viewer.dims.ndisplay = 2
    assert panel.prompts.state.text() == "Ready."


def test_a_layer_removed_while_a_box_is_drawn_ends_the_box(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    hand.hold((42, 6), (58, 26))
    assert shown(panel)
    place = hand.at(50, 30)
    panel.viewer.layers.remove("cells")
    QApplication.processEvents()
    panel.viewer.add_labels(np.zeros((64, 64), int))
    hand.move(50, 30)
    qtbot.mouseRelease(hand.canvas, Qt.MouseButton.LeftButton, pos=place)
    assert panel.prompts.turns.last is None
    assert not shown(panel)


def test_a_tab_left_while_a_box_is_drawn_ends_the_box(panel: Panel, hand: Hand) -> None:
    hand.hold((42, 6), (58, 26))
    panel.tabs.setCurrentWidget(panel.auto)
    hand.let_go((58, 26))
    assert panel.prompts.turns.last is None
    assert not shown(panel)


def test_a_layer_removed_while_an_answer_is_under_way_leaves_nothing(
    panel: Panel, hand: Hand
) -> None:
    with no_answers(panel):
        hand.click(16, 16)
        hand.press(ENTER)
        panel.viewer.layers.remove("cells")
        QApplication.processEvents()
    let_engine_end(panel)
    assert results(panel) == [] and not shown(panel)


def test_a_box_is_in_the_frame_where_it_was_begun(
    panel: Panel, stack_hand: Hand, qtbot: Any
) -> None:
    stack_hand.hold((6, 6), (26, 26))
    panel.viewer.dims.set_current_step(0, 1)  # a movie is playing
    stack_hand.let_go((26, 26))
    answered(panel.prompts, qtbot)
    assert panel.prompts.turns.last is not None
    assert panel.prompts.turns.last.frame.z == 0


def test_the_frame_before_does_not_say_that_this_one_is_ready(
    panel: Panel, stack_hand: Hand
) -> None:
    with no_answers(panel):
        panel.viewer.dims.set_current_step(0, 2)
        assert panel.prompts.state.text() == "Preparing this frame."
        panel.prompts.dialogue.ready.emit()  # what was on its way for the other one
        assert panel.prompts.state.text() == "Preparing this frame."


def test_n_gives_the_tag_that_stood_there_when_it_was_pressed(
    panel: Panel, hand: Hand, qtbot: Any
) -> None:
    tab = panel.prompts
    with no_answers(panel):
        tab.tag.setEditText("nucleus")
        hand.click(16, 16)
        hand.press(N)
        tab.tag.setEditText("vacuole")
    qtbot.waitUntil(lambda: len(tab.turns.kept) == 1, timeout=LIMIT)
    assert tab.turns.kept[0].prompt.tag == "nucleus"


TURNED = {"scale": (0.5, 0.25), "translate": (100, -30), "rotate": 20, "shear": [0.2]}


def test_prompts_lie_on_an_image_that_is_turned_and_sheared(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    image = viewer.add_image(blobs(), name="cells", **TURNED)
    hand = open_prompts(panel, qtbot)
    hand.outline(16, 48)
    assert corners(outlines(panel)[0]) == [8, 40, 24, 56]
    hand.press(ENTER)
    for layer in (layer_of(panel, Shapes, "Prompt"), results(panel)[0]):
        there, here = (one.data_to_world((16, 48)) for one in (image, layer))
        np.testing.assert_allclose(here, there)


def test_outlines_follow_an_image_that_is_moved_and_turned(
    panel: Panel, hand: Hand
) -> None:
    hand.keep((16, 16))
    image = panel.viewer.layers["cells"]
    sketch = layer_of(panel, Shapes, "Prompt")
    for name, value in TURNED.items():
        setattr(image, name, value)
        there, here = (one.data_to_world((16, 48)) for one in (image, sketch))
        np.testing.assert_allclose(here, there)
    image.rotate, image.shear = np.eye(2), [0.0]
    there, here = (one.data_to_world((16, 48)) for one in (image, sketch))
    np.testing.assert_allclose(here, there)


def test_outlines_of_another_image_are_not_left_behind(
    panel: Panel, hand: Hand, blobs: Blobs, qtbot: Any
) -> None:
    hand.keep((16, 16))
    [cells] = panel.images.layers()
    stack = panel.viewer.add_image(blobs(3), name="stack")
    panel.images.choose(stack)
    QApplication.processEvents()
    assert not shown(panel)
    ready(panel, qtbot)
    hand.outline(16, 16)
    assert [layer.ndim for layer in shown(panel)] == [3]
    panel.images.choose(cells)
    qtbot.waitUntil(lambda: len(panel.prompts.turns.kept) == 1)
    assert [layer.ndim for layer in shown(panel)] == [2]
    assert sum(SHOWN in layer.metadata for layer in panel.viewer.layers) == 2


def test_outlines_are_seen_on_every_channel(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    viewer.add_image(blobs(2, 3), axis_labels=("t", "c", "y", "x"), name="movie")
    viewer.dims.set_current_step(0, 1)
    viewer.dims.set_current_step(1, 0)
    hand = open_prompts(panel, qtbot)
    hand.outline(16, 16)
    assert set(outlines(panel)[0][:, 1]) == {0}
    viewer.dims.set_current_step(1, 2)
    assert set(outlines(panel)[0][:, 1]) == {2}

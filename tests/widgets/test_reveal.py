"""A new layer is shown a part at a time, and in the end all of it."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Shapes
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QWidget

from napari_sam_suite.widgets.reveal import Reveal

SQUARE = np.array([[0, 0], [0, 9], [9, 9], [9, 0]])
PARTS = ("shape_faces", "shape_highlights", "highlight_lines", "highlight_vertices")


def hidden_layer() -> Shapes:
    return Shapes([SQUARE], shape_type="polygon", visible=False)


def drawing(viewer, layer):
    return viewer.window._qt_viewer.canvas.layer_to_visual[layer].node


def shown(viewer, layer) -> int:
    node = drawing(viewer, layer)
    return sum(getattr(node, part).visible for part in PARTS)


def test_parts_come_one_by_one_until_all_are_there(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    reveal = Reveal(viewer)
    layer = hidden_layer()
    reveal.add(layer)
    assert layer in viewer.layers
    assert not layer.visible
    assert not reveal.idle
    reveal._next()
    assert layer.visible
    assert reveal.idle
    counts = [shown(viewer, layer)]
    while reveal._timer.isActive():
        reveal._next()
        counts.append(shown(viewer, layer))
    assert counts == [1, 2, 3, 4]


def test_it_ends_by_itself_and_says_so(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    reveal = Reveal(viewer)
    layer = hidden_layer()
    with qtbot.waitSignal(reveal.done):
        reveal.add(layer)
    assert layer.visible
    qtbot.waitUntil(lambda: shown(viewer, layer) == len(PARTS))
    assert not reveal._timer.isActive()


def test_text_is_drawn_as_soon_as_a_layer_has_some(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    reveal = Reveal(viewer)
    layer = hidden_layer()
    reveal.add(layer)
    reveal.finish()
    text = drawing(viewer, layer).text
    assert not text.visible
    layer.text = {"string": {"constant": "cell"}}
    assert text.visible
    assert set(text.text) == {"cell"}


def test_the_window_draws_a_new_layer_in_a_later_turn(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    panel = QWidget()
    viewer.window.add_dock_widget(panel)
    reveal = Reveal(viewer, QObject(panel))
    reveal.add(hidden_layer())
    assert not panel.window().updatesEnabled()
    qtbot.waitUntil(lambda: panel.window().updatesEnabled())


def test_the_next_layer_finishes_the_one_before(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    reveal = Reveal(viewer)
    first, second = hidden_layer(), hidden_layer()
    reveal.add(first)
    reveal.add(second)
    assert first.visible
    assert shown(viewer, first) == len(PARTS)
    assert not second.visible


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_layer_that_was_removed_meanwhile_is_left_alone(
    make_napari_viewer, qtbot, turns
):
    viewer = make_napari_viewer()
    reveal = Reveal(viewer)
    layer = hidden_layer()
    reveal.add(layer)
    for _ in range(turns):
        reveal._next()
    viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: not reveal._timer.isActive())
    assert reveal.idle
    assert layer.visible is (turns > 0)


def test_a_viewer_without_a_window_shows_it_at_once(qtbot):
    viewer = ViewerModel()
    reveal = Reveal(viewer)
    layer = hidden_layer()
    with qtbot.waitSignal(reveal.done):
        reveal.add(layer)
    assert layer.visible
    assert reveal.idle

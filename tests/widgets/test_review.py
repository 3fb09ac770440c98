from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Shapes
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QOpenGLWidget

from napari_sam_suite.widgets import promptkeys
from napari_sam_suite.widgets.drawing import delete_rows
from napari_sam_suite.widgets.edits import Edits
from napari_sam_suite.widgets.review import KEYS, Review, look_at, next_row
from napari_sam_suite.widgets.table import ACCEPTED, REJECTED, column, paint
from napari_sam_suite.widgets.tags import TagTab
from widgets.hands import draw_by_hand

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sam_suite.widgets.panel import Panel

SQUARE = np.array([[0.0, 0], [0, 5], [5, 5], [5, 0]])
CONTROL = Qt.KeyboardModifier.ControlModifier
SHIFT = Qt.KeyboardModifier.ShiftModifier
ALT = Qt.KeyboardModifier.AltModifier


def squares(*corners: tuple[float, ...]) -> Shapes:
    """A layer of squares of 5 px, with corners on any leading axes."""
    data = []
    for *leading, y, x in corners:
        at = np.tile(leading, (4, 1)) if leading else np.empty((4, 0))
        data.append(np.hstack([at, SQUARE + np.array([y, x])]))
    return Shapes(data, shape_type="polygon", name="objects")


@pytest.fixture
def layer() -> Shapes:
    return squares((0, 0), (0, 40), (40, 0))


@pytest.fixture
def tab(layer: Shapes, make_parts: Any, qtbot: Any) -> TagTab:
    viewer = ViewerModel()
    viewer.add_layer(layer)
    tab = TagTab(make_parts(viewer))
    qtbot.addWidget(tab)
    return tab


@pytest.fixture
def press(panel: Panel, qtbot: Any) -> Callable[..., None]:
    """Press a key as a person whose mouse is over the canvas."""
    canvas = panel.window().findChild(QOpenGLWidget)

    def press(key: Any, *modifiers: Any) -> None:
        pressed = Qt.KeyboardModifier.NoModifier
        for modifier in modifiers:
            pressed |= modifier
        QApplication.processEvents()  # tabs follow a new layer one turn later
        qtbot.keyClick(canvas, key, pressed)

    return press


def reviews(layer: Shapes) -> list[str]:
    return column(layer, "review").tolist()


def test_keys_tag_accept_reject_step_and_take_back_whichever_tab_is_open(
    viewer: Any, panel: Panel, layer: Shapes, press: Callable[..., None]
) -> None:
    viewer.add_layer(layer)
    QApplication.processEvents()
    assert panel.tabs.currentWidget() is panel.auto
    panel.tags.name.setText("cell")
    panel.tags.add.click()
    press(Qt.Key.Key_J)
    assert set(layer.selected_data) == {0}
    press(Qt.Key.Key_2, ALT)
    press(Qt.Key.Key_G)
    assert column(layer, "tag").tolist() == ["cell", "unassigned", "unassigned"]
    assert reviews(layer) == [ACCEPTED, "", ""] and set(layer.selected_data) == {1}
    press(Qt.Key.Key_H)
    assert reviews(layer) == [ACCEPTED, REJECTED, ""]
    press(Qt.Key.Key_Z, CONTROL)
    press(Qt.Key.Key_Z, CONTROL)
    press(Qt.Key.Key_Z, CONTROL)
    assert reviews(layer) == ["", "", ""]
    assert column(layer, "tag").tolist() == ["unassigned"] * 3
    press(Qt.Key.Key_Z, CONTROL, SHIFT)
    press(Qt.Key.Key_Z, CONTROL, SHIFT)
    assert reviews(layer) == [ACCEPTED, "", ""]
    assert column(layer, "tag").tolist() == ["cell", "unassigned", "unassigned"]


def test_keys_of_napari_stay_what_they_are(
    viewer: Any, panel: Panel, layer: Shapes, press: Callable[..., None]
) -> None:
    viewer.add_layer(layer)
    press(Qt.Key.Key_A)
    assert set(layer.selected_data) == {0, 1, 2}
    press(Qt.Key.Key_R)
    assert layer.mode == "add_rectangle"
    press(Qt.Key.Key_5)
    assert layer.mode == "select"
    assert reviews(layer) == ["", "", ""]


def test_keys_are_free_again_on_a_layer_that_is_left(
    viewer: Any, panel: Panel, layer: Shapes, press: Callable[..., None]
) -> None:
    other = squares((0, 0))
    viewer.add_layer(layer)
    viewer.add_layer(other)
    assert not layer.keymap
    press(Qt.Key.Key_J)
    press(Qt.Key.Key_G)
    assert (reviews(layer), reviews(other)) == (["", "", ""], [ACCEPTED])


def test_no_key_is_one_of_napari_for_shapes_or_of_another_tab(layer: Shapes) -> None:
    from napari.utils.shortcuts import default_shortcuts

    taken = {
        str(key)
        for action, keys in default_shortcuts.items()
        if "shape" in action or "vertex" in action or "add_" in action
        for key in keys
    }
    assert "R" in taken and "A" in taken
    taken |= {key for _, key, *_ in promptkeys._KEYS.values()}
    ours = {key.replace("Control", "Ctrl").replace("-", "+") for key in KEYS.values()}
    assert not ours & taken


def test_buttons_name_their_keys_and_count_the_review(
    tab: TagTab, layer: Shapes
) -> None:
    review = tab.review
    assert review.count.text() == "0 accepted, 0 rejected, 3 to review"
    assert (review.accept.text(), review.reject.text()) == ("Accept (G)", "Reject (H)")
    layer.selected_data = {0, 1}
    review.reject.click()
    layer.selected_data = {2}
    review.accept.click()
    assert review.count.text() == "1 accepted, 2 rejected, 0 to review"
    assert not review.step.isEnabled()
    assert review.step.toolTip() == "All objects are reviewed."


def test_what_is_rejected_is_grey_or_not_seen(tab: TagTab, layer: Shapes) -> None:
    paint(layer)
    before = np.array(layer.edge_color)
    layer.selected_data = {1}
    tab.review.reject.click()
    grey = np.array(layer.edge_color)
    assert len(set(grey[1, :3].tolist())) == 1 and 0 < grey[1, 3] < 1
    np.testing.assert_array_equal(grey[[0, 2]], before[[0, 2]])
    tab.review.shown.setCurrentIndex(1)
    assert layer.edge_color[1, 3] == 0
    tab.review.undo.click()
    np.testing.assert_allclose(layer.edge_color, grey)
    tab.review.undo.click()
    np.testing.assert_allclose(layer.edge_color, before)


def test_without_a_selection_a_verdict_says_what_to_do(
    tab: TagTab, layer: Shapes
) -> None:
    heard: list[str] = []
    tab.said.connect(heard.append)
    tab.review.accept.click()
    assert heard == [
        "Select objects first: press S, then click or drag. J shows the next one."
    ]
    assert reviews(layer) == ["", "", ""]


def test_going_on_after_each_can_be_switched_off(tab: TagTab, layer: Shapes) -> None:
    tab.review.follow.setChecked(False)
    layer.selected_data = {0}
    tab.review.accept.click()
    assert set(layer.selected_data) == {0}


def test_the_next_object_is_that_of_the_line_then_of_the_frame() -> None:
    layer = squares((1, 0, 0), (0, 60, 0), (0, 2, 50), (0, 0, 90), (0, 4, 10))
    order = []
    for _ in range(6):
        row = next_row(layer)
        assert row is not None
        order.append(row)
        layer.selected_data = {row}
    assert order == [4, 2, 3, 1, 0, 4]
    layer.features = {"review": [ACCEPTED] * 5}
    assert next_row(layer) is None


def test_what_is_skipped_comes_again_only_after_all_that_is_more_certain() -> None:
    layer = squares((0, 0), (0, 20), (0, 40), (0, 60), (0, 80))
    margin = np.array([0.9, 0.1, np.nan, 0.5, 0.3])
    layer.features = {"margin": margin, "similarity": margin * 0 + 1}
    layer.features["review"] = [""] * 5
    order = []
    for _ in range(5):
        row = next_row(layer)
        assert row is not None
        order.append(row)
        layer.selected_data = {row}
    assert order == [1, 4, 3, 0, 1]
    layer.features["review"] = [ACCEPTED, ACCEPTED, "", ACCEPTED, ACCEPTED]
    assert next_row(layer) == 2


@pytest.mark.parametrize(
    ("similarity", "margin", "first"),
    [
        # one tag, also below the suggested threshold
        ([0.1, 0.95, 0.55], [0.1, 0.95, 0.55], 2),
        # surely one of the two, and hardly one at all
        ([0.99, 0.99, 0.52], [0.01, 0.9, 0.5], 0),
        ([0.99, 0.99, 0.52], [0.06, 0.9, 0.5], 2),
    ],
)
def test_what_is_hardly_one_and_what_is_hardly_of_its_tag_comes_first(
    layer: Shapes, similarity: list[float], margin: list[float], first: int
) -> None:
    layer.features = {"similarity": similarity, "margin": margin, "review": [""] * 3}
    assert next_row(layer) == first


def test_what_is_removed_by_a_run_leaves_the_others_selected(layer: Shapes) -> None:
    layer.features = {"number": [0, 1, 2]}
    layer.selected_data = {0, 2}
    delete_rows(layer, [0])
    assert layer.features["number"].tolist() == [1, 2]
    assert set(layer.selected_data) == {1}


@pytest.mark.parametrize("corners", [4, 2])
def test_a_shape_that_is_being_drawn_ends_as_it_is_when_others_are_removed(
    layer: Shapes, corners: int
) -> None:
    layer.features = {"number": [0, 1, 2]}
    layer.feature_defaults = {"number": [9]}
    draw_by_hand(layer, SQUARE[:corners] + 80)
    layer.add_polygons(SQUARE + 60)
    before = [shape.copy() for shape in layer.data]
    delete_rows(layer, [0, 2])
    kept = [1, 3, 4] if corners == 4 else [1, 4]
    assert layer.features["number"].tolist() == [1, 9, 9][: len(kept)]
    assert len(layer.data) == len(kept)
    for shape, row in zip(layer.data, kept, strict=True):
        wanted = SQUARE + 80 if row == 3 else before[row]
        np.testing.assert_array_equal(shape, wanted)
    assert not layer._is_creating


def test_the_camera_goes_to_the_frame_and_the_place() -> None:
    viewer = ViewerModel()
    viewer.add_image(np.zeros((4, 200, 200)), scale=(3, 2, 2))
    layer = squares((2, 60, 80))
    layer.scale = (3, 2, 2)
    viewer.add_layer(layer)
    viewer.dims.set_current_step(0, 0)
    zoom = viewer.scene.camera.zoom = 8.0
    look_at(viewer, layer, 0)
    assert viewer.dims.current_step[0] == 2
    assert tuple(viewer.scene.camera.center[1:]) == (125, 165)
    assert viewer.scene.camera.zoom == zoom
    viewer.scene.camera.zoom = 0.1
    look_at(viewer, layer, 0)
    seen = 10 * viewer.scene.camera.zoom / min(viewer.canvas.size)
    assert seen == pytest.approx(0.2)


def test_steps_back_know_objects_by_their_ids(layer: Shapes, qtbot: Any) -> None:
    edits = Edits()
    edits.change(layer, "one", review=np.array([ACCEPTED, "", REJECTED], object))
    layer.selected_data = {0}
    layer.remove_selected()
    layer.add_polygons(SQUARE + 80)
    assert edits.undo(layer) == "one"
    assert reviews(layer) == ["", "", ""]
    assert edits.redo(layer) == "one"
    assert reviews(layer) == ["", REJECTED, ""]
    assert edits.redo(layer) == ""


def test_a_shape_drawn_after_a_change_is_of_no_object(
    layer: Shapes, qtbot: Any
) -> None:
    layer.features = {"id": ["a", "b", "c"], "score": [0.1, 0.2, 0.3]}
    Edits().change(layer, "all", tag=np.array(["cell"] * 3, object))
    layer.add_polygons(SQUARE + 80)
    new = layer.features.iloc[3]
    assert (new["id"], new["tag"]) == ("", "unassigned") and np.isnan(new["score"])


def test_each_layer_has_its_own_steps(layer: Shapes, qtbot: Any) -> None:
    edits, other = Edits(), squares((0, 0))
    edits.change(layer, "first", tag=np.array(["a"] * 3, object))
    edits.change(other, "second", tag=np.array(["b"], object))
    assert (edits.undo(layer), edits.undo(layer)) == ("first", "")
    assert column(other, "tag").tolist() == ["b"]
    assert edits.redoable(other) == "" and edits.undoable(other) == "second"


def test_renaming_and_recolouring_are_taken_back(tab: TagTab, layer: Shapes) -> None:
    layer.selected_data = {0}
    tab.tag_selection("a")
    tab.recolour("a", "#ff0000")
    tab.rename("a", "b")
    np.testing.assert_allclose(layer.edge_color[0], (1, 0, 0, 1))
    tab.review.undo.click()
    assert column(layer, "tag")[0] == "a" and tab.tags() == ["unassigned", "a"]
    np.testing.assert_allclose(layer.edge_color[0], (1, 0, 0, 1))
    tab.review.undo.click()
    assert not np.allclose(layer.edge_color[0], (1, 0, 0, 1))
    tab.review.redo.click()
    tab.review.redo.click()
    assert column(layer, "tag")[0] == "b" and tab.tags() == ["unassigned", "b"]


def test_the_review_page_is_built_without_a_layer(qtbot: Any) -> None:
    review = Review(ViewerModel(), Edits())
    qtbot.addWidget(review)
    review.set_layer(None)
    for button in (review.accept, review.reject, review.step, review.undo):
        assert not button.isEnabled() and button.toolTip()
    for control in (review.shown, review.saved):
        assert not control.isEnabled()
        assert control.toolTip() == "There are no objects yet."
    review.judge(ACCEPTED)
    review.show_next()

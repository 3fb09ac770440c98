from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Shapes
from qtpy.QtWidgets import QApplication

from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.tags import TagTab

SQUARE = np.array([[0.0, 0], [0, 5], [5, 5], [5, 0]])


@pytest.fixture
def layer() -> Shapes:
    return Shapes(
        [SQUARE, SQUARE + 10, SQUARE + 20],
        shape_type="polygon",
        features={"tag": ["unassigned"] * 3, "score": [0.1, 0.2, 0.3]},
        metadata={KEY: {}},
    )


@pytest.fixture
def tab(layer: Shapes, make_parts: Any, qtbot: Any) -> TagTab:
    viewer = ViewerModel()
    viewer.add_layer(layer)
    tab = TagTab(make_parts(viewer))
    qtbot.addWidget(tab)
    return tab


def rows(tab: TagTab) -> list[tuple[str, ...]]:
    items = [tab.tree.topLevelItem(i) for i in range(tab.tree.topLevelItemCount())]
    return [tuple(item.text(column) for column in range(3)) for item in items]


def add(tab: TagTab, tag: str) -> None:
    tab.name.setText(tag)
    tab.add.click()


def test_a_key_gives_its_tag_to_the_selection(tab: TagTab, layer: Shapes) -> None:
    assert rows(tab) == [("unassigned", "3", "Alt+1")]
    add(tab, "nucleus")
    assert rows(tab)[1] == ("nucleus", "0", "Alt+2")
    assert tab.assign.text() == "Tag selection as nucleus  (Alt+2)"
    heard: list[str] = []
    tab.said.connect(heard.append)
    tab.press_key(2)
    layer.selected_data = {0, 2}
    tab.press_key(2)
    tab.press_key(9)
    assert heard == [
        "Select objects first: press S, then click or drag.",
        "2 objects are nucleus now.",
    ]
    assert layer.features["tag"].tolist() == ["nucleus", "unassigned", "nucleus"]
    assert layer.features["score"].tolist() == [0.1, 0.2, 0.3]
    assert set(layer.selected_data) == {0, 2}
    edges = np.asarray(layer.edge_color)
    np.testing.assert_array_equal(edges[0], edges[2])
    assert (edges[0] != edges[1]).any()
    assert [count for _, count, _ in rows(tab)] == ["1", "2"]


def test_a_tag_is_renamed_and_recoloured(tab: TagTab, layer: Shapes) -> None:
    add(tab, "a")
    layer.selected_data = {1}
    tab.assign.click()
    tab.recolour("a", "#ff0000")
    item = tab.tree.topLevelItem(1)
    item.setText(0, "b")
    assert layer.features["tag"].tolist() == ["unassigned", "b", "unassigned"]
    np.testing.assert_allclose(layer.edge_color[1], (1, 0, 0, 1))
    assert [tag for tag, *_ in rows(tab)] == ["unassigned", "b"]
    tab.rename("b", "  ")
    assert [tag for tag, *_ in rows(tab)] == ["unassigned", "b"]


def test_shapes_of_any_layer_can_be_tagged(tab: TagTab, qtbot: Any) -> None:
    drawn = tab.parts.viewer.add_shapes([SQUARE, SQUARE + 9], shape_type="polygon")
    qtbot.waitUntil(lambda: rows(tab) == [("unassigned", "2", "Alt+1")])
    add(tab, "b")
    add(tab, "a")
    drawn.selected_data = {1}
    tab.press_key(3)
    assert drawn.features["tag"].tolist() == ["unassigned", "a"]
    assert [tag for tag, *_ in rows(tab)] == ["unassigned", "b", "a"]


def test_another_image_shows_the_tags_of_its_own_results(
    viewer: Any, panel: Any, blobs: Any
) -> None:
    images = [viewer.add_image(blobs(), name=name) for name in ("a", "b")]
    for image in images:
        viewer.add_shapes(
            [SQUARE],
            shape_type="polygon",
            features={"tag": [f"of {image.name}"]},
            metadata={KEY: {"image": [image.name], "axes": "YX"}},
        )
    viewer.layers.selection.active = images[0]
    QApplication.processEvents()
    for image in reversed(images):
        panel.images.choose(image)
        assert [tag for tag, *_ in rows(panel.tags)] == [f"of {image.name}"]


def test_without_objects_the_controls_say_why(tab: TagTab, qtbot: Any) -> None:
    tab.parts.viewer.layers.clear()
    qtbot.waitUntil(lambda: rows(tab) == [])
    assert not tab.assign.isEnabled() and "no objects" in tab.assign.toolTip()
    assert not tab.name.isEnabled() and rows(tab) == []

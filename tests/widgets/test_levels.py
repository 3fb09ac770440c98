from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Shapes

from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.levels import COLOURS
from napari_sam_suite.widgets.tags import TagTab


def square(side: float, at: float = 0) -> Any:
    corners = np.array([[0.0, 0], [0, 1], [1, 1], [1, 0]])
    return corners * side + at


@pytest.fixture
def layer() -> Shapes:
    """A whole with a part with a small one in it, and a line, in 100 x 100 px."""
    sizes = {"position": 1, "time": 1, "z": 1, "channel": 1, "y": 100, "x": 100}
    return Shapes(
        [square(50), square(5, 60)[:2], square(20, 5), square(5, 6)],
        shape_type=["polygon", "line", "polygon", "polygon"],
        features={"tag": ["cell"] * 4, "area": [2500, 0, 400, 25]},
        metadata={KEY: {"runs": {"r": {"image": {"sizes": sizes}}}}},
    )


@pytest.fixture
def tab(layer: Shapes, make_parts: Any, qtbot: Any) -> TagTab:
    viewer = ViewerModel()
    viewer.add_layer(layer)
    tab = TagTab(make_parts(viewer))
    qtbot.addWidget(tab)
    return tab


def choose(tab: TagTab, text: str, qtbot: Any, signal: str = "said") -> str:
    [action] = [a for a in tab.levels.menu().actions() if a.text() == text]
    with qtbot.waitSignal(getattr(tab, signal), timeout=20_000) as heard:
        action.trigger()
    return str(heard.args[0])


def test_objects_are_tagged_by_their_level_and_shown_so(
    tab: TagTab, layer: Shapes, qtbot: Any
) -> None:
    said = choose(tab, "By share of the image", qtbot)
    assert said == "1 whole, 1 part, 1 small; 1 lie in no other."
    assert layer.features["tag"].tolist() == ["whole", "cell", "part", "small"]
    red = np.array([int(COLOURS["small"][i : i + 2], 16) / 255 for i in (1, 3, 5)])
    np.testing.assert_allclose(layer.edge_color[3][:3], red, atol=1e-3)
    assert {"cell", "whole", "part", "small"} <= set(tab.tags())


def test_levels_are_one_step_that_can_be_taken_back(
    tab: TagTab, layer: Shapes, qtbot: Any
) -> None:
    choose(tab, "By thirds", qtbot)
    tab.review.undo.click()
    assert layer.features["tag"].tolist() == ["cell"] * 4
    tab.review.redo.click()
    assert layer.features["tag"].tolist() == ["whole", "cell", "part", "small"]


def test_what_cannot_be_done_is_told(tab: TagTab, layer: Shapes, qtbot: Any) -> None:
    said = choose(tab, "By the model's output", qtbot, "failed")
    assert said.startswith("3 of 3 objects do not say")
    assert layer.features["tag"].tolist() == ["cell"] * 4
    tab.parts.viewer.layers.clear()
    qtbot.waitUntil(lambda: not tab.levels.isEnabled())
    assert not tab.levels.isEnabled() and "no objects" in tab.levels.toolTip()


def test_objects_that_changed_meanwhile_are_left_alone(
    tab: TagTab, layer: Shapes, qtbot: Any
) -> None:
    [action, *_] = tab.levels.menu().actions()
    with qtbot.waitSignal(tab.said, timeout=20_000) as heard:
        action.trigger()
        layer.selected_data = {0}
        layer.remove_selected()
    assert "changed meanwhile" in heard.args[0]
    assert set(layer.features["tag"]) == {"cell"}

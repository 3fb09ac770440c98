"""The Few-shot tab: tag, find, move the threshold, judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.layers import Shapes

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
            return self._fake

    panel = Panel(viewer, start=lambda model, _: ColourEngine(model, {}))
    viewer.window.add_dock_widget(panel, name="SAM Suite")
    yield panel
    panel.session.close(timeout=10)


def tag_shapes(viewer: Any) -> Shapes:
    """Three red dots drawn by hand as ``red``, one blue one as ``blue``."""
    places = [*SPOTS[:3], OTHERS[0]]
    boxes = [
        [[y - 4, x - 4], [y - 4, x + 4], [y + 4, x + 4], [y + 4, x - 4]]
        for y, x in places
    ]
    features = {"tag": ["red", "red", "red", "blue"]}
    return viewer.add_shapes(boxes, shape_type="polygon", features=features)


def find(panel: Panel, qtbot: Any) -> Shapes:
    assert panel.fewshot.button.isEnabled(), panel.fewshot.button.toolTip()
    qtbot.mouseClick(panel.fewshot.button, LEFT)
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=LIMIT)
    layer = panel.outcome.layer()
    assert layer is not None, panel.footer.status.text()
    return layer


def wait(panel: Panel, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not panel.similar._timer.isActive(), timeout=LIMIT)


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
    assert len(panel.similar._finder.prototypes.rest) > len(panel.similar._learnt.rest)
    assert "rejected" in set(layer.features["review"])

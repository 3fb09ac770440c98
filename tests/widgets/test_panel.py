from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import Qt

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_sam_suite.widgets.panel import Panel

    Blobs = Callable[..., NDArray[np.uint8]]

LEFT = Qt.MouseButton.LeftButton


def segment(panel: Panel, qtbot: Any) -> None:
    """Press the button and wait for the end."""
    qtbot.mouseClick(panel.auto.button, LEFT)
    assert panel.busy, panel.footer.status.text()
    settle(panel, qtbot)


def settle(panel: Panel, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=20_000)


def result(panel: Panel) -> Shapes:
    layers = [layer for layer in panel.viewer.layers if isinstance(layer, Shapes)]
    return layers[-1]


def say(panel: Panel) -> str:
    return panel.footer.status.text()


def test_pressing_segment_draws_a_polygon_around_every_object(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    assert not panel.auto.button.isEnabled()
    assert "No image" in panel.auto.button.toolTip()
    image = viewer.add_image(blobs(), name="cells", scale=(0.5, 0.5), units="um")
    segment(panel, qtbot)
    layer = result(panel)
    assert say(panel).startswith("Done in") and "4 objects in 1 frame" in say(panel)
    assert layer.name == "cells objects" and len(layer.data) == 4
    np.testing.assert_allclose(layer.scale, image.scale)
    assert layer.units == image.units
    assert set(layer.features["tag"]) == {"unassigned"}
    assert sorted(layer.features["area"]) == [256] * 4
    boxes = sorted(tuple(np.round(d.min(0))) for d in layer.data)
    assert boxes == [(8, 8), (8, 40), (40, 8), (40, 40)]
    np.testing.assert_allclose(layer.face_color[:, 3], 0)
    assert panel.device.text() == "CPU"

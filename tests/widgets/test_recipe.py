from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

import napari_sam_suite.engine
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.widgets.layers import KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from numpy.typing import NDArray

    from napari_sam_suite.widgets.panel import Panel


def run(panel: Panel, qtbot: Any) -> Shapes:
    qtbot.mouseClick(panel.auto.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=60_000)
    [layer] = [one for one in panel.viewer.layers if isinstance(one, Shapes)]
    return layer


def test_the_copied_script_finds_the_same_in_a_stack_of_five_axes(
    viewer: Any,
    panel: Panel,
    qtbot: Any,
    blobs: Callable[..., NDArray[np.uint8]],
    make_engine: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    stack = np.stack([blobs(2, 2), blobs(2, 2)[..., ::-1]])
    viewer.add_image(
        stack,
        channel_axis=0,
        name=["nuclei", "membranes"],
        colormap=["cyan", "magenta"],
        contrast_limits=(0, 255),
        axis_labels=("t", "z", "y", "x"),
    )
    panel.auto.batch["time"].text.setText("all")
    panel.auto.batch["z"].text.setText("2")
    panel.auto.set_params(AutoParams(points_per_side=16, smoothing=0, min_area=5))
    layer = run(panel, qtbot)
    panel.bar.copy.trigger()
    script = QApplication.clipboard().text()
    monkeypatch.setattr(napari_sam_suite.engine, "Engine", make_engine, raising=False)
    monkeypatch.chdir(tmp_path)
    exec(script, {"viewer": viewer})
    objects = Objects.load("objects.geojson")
    assert len(objects) == len(layer.data) == 8
    columns = ["tag", "score", "stability", "level", "area", "time", "z"]
    for name in columns:
        assert objects.features[name].tolist() == layer.features[name].tolist()
    for polygon, shape in zip(objects.polygons, layer.data, strict=True):
        np.testing.assert_allclose(polygon.exterior.coords[:-1], shape[:, 2:])


def test_a_recipe_is_saved_as_json(
    viewer: Any,
    panel: Panel,
    qtbot: Any,
    blobs: Callable[..., NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    viewer.add_image(blobs(), name="cells")
    layer = run(panel, qtbot)
    panel.outcome.save(tmp_path / "recipe.json")
    saved = json.loads((tmp_path / "recipe.json").read_text())
    assert [saved] == list(layer.metadata[KEY]["runs"].values())
    assert saved["frames"] == [[0, 0, 0]] and saved["image"]["layers"] == ["cells"]
    assert AutoParams(**saved["params"]) == panel.auto.params()
    panel.outcome.save(tmp_path / "missing" / "recipe.json")
    assert "cannot be written" in panel.footer.status.text()

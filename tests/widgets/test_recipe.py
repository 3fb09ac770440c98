from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from napari.layers import Shapes
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

import napari_sam_suite.engine
from napari_sam_suite.engine.batch.run import start_run
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.recipe import Recipe
from napari_sam_suite.engine.store.store import Store

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


def test_a_saved_recipe_finds_the_same_in_the_file(
    viewer: Any,
    panel: Panel,
    qtbot: Any,
    blobs: Callable[..., NDArray[np.uint8]],
    make_engine: Callable[..., Any],
    tmp_path: Path,
) -> None:
    options = {"photometric": "minisblack", "metadata": {"axes": "TYX"}}
    tifffile.imwrite(tmp_path / "cells.tif", blobs(3), **options)
    viewer.open(
        str(tmp_path / "cells.tif"), plugin="napari", axis_labels=("t", "y", "x")
    )
    panel.auto.batch["time"].text.setText("1, 3")
    panel.auto.set_params(AutoParams(search="auto", points_per_side=16, min_area=5))
    layer = run(panel, qtbot)
    panel.outcome.save(tmp_path / "run.json")
    recipe = Recipe.load(tmp_path / "run.json")
    assert recipe.source.images == (str(tmp_path / "cells.tif"),)
    assert recipe.frames.time == "1, 3" and recipe.source.layers == ("cells",)
    recipe = recipe.changed(outputs={"store": str(tmp_path / "store")})
    with make_engine("sam2-nano") as engine:
        assert start_run(engine, recipe).result().objects == len(layer.data) == 8
    image = Store.open(tmp_path / "store").image("cells")
    found = [image.read(frame)[0] for frame in sorted(image.done())]
    polygons = [polygon for objects in found for polygon in objects.polygons]
    for polygon, shape in zip(polygons, layer.data, strict=True):
        np.testing.assert_allclose(polygon.exterior.coords[:-1], shape[:, 1:])


def test_without_a_file_the_recipe_names_the_layers(
    viewer: Any,
    panel: Panel,
    qtbot: Any,
    blobs: Callable[..., NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    viewer.add_image(blobs(), name="cells")
    run(panel, qtbot)
    panel.outcome.save(tmp_path / "run.json")
    saved = Recipe.load(tmp_path / "run.json")
    assert saved.source.images == () and saved.source.layers == ("cells",)
    assert saved.capability.params == panel.auto.params()
    panel.outcome.save(tmp_path)
    assert "is a folder" in panel.footer.status.text()

"""The panel and the command line find the same objects in the same image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from napari.layers import Shapes
from qtpy.QtCore import Qt

from commands import run
from napari_sam_suite.cli.colours import Colours
from napari_sam_suite.engine import Objects, open_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.slow


def make_stack() -> NDArray[np.uint16]:
    """Two time points, two planes, two channels of disks that move."""
    y, x = np.mgrid[:72, :72]
    rng = np.random.default_rng(5)
    stack = rng.integers(90, 160, (2, 2, 2, 72, 72)).astype(np.uint16)
    for t, z, c in np.ndindex(2, 2, 2):
        for number in range(3):
            cy, cx = 14 + 22 * number + 2 * t, 16 + 34 * c + 5 * z + 3 * number
            stack[t, z, c][(y - cy) ** 2 + (x - cx) ** 2 < 49] += 900 + 700 * number
    return stack


def by_place(objects: Objects) -> list[tuple[tuple[float, ...], Any]]:
    table = objects.features[["time", "z", "score"]].round(4).to_numpy()
    places = [
        (*row[:2], *np.round(p.bounds, 1))
        for row, p in zip(table.tolist(), objects.polygons, strict=True)
    ]
    return sorted(zip(places, objects.polygons, strict=True), key=lambda o: o[0])


def test_a_composite_of_five_axes_gives_the_same_objects_through_both_doors(
    viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    from napari_sam_suite.widgets.panel import Panel
    from napari_sam_suite.widgets.shapes import to_objects

    stack = make_stack()
    path = tmp_path / "stack.tif"
    axes = {"axes": "TZCYX"}
    tifffile.imwrite(path, stack, photometric="minisblack", metadata=axes)

    panel = Panel(viewer)
    viewer.window.add_dock_widget(panel)
    viewer.add_image(
        stack,
        channel_axis=2,
        name=["nuclei", "membrane"],
        colormap=["magenta", "green"],
        contrast_limits=[(100, 2600), (80, 2200)],
        gamma=[0.7, 1.0],
        axis_labels=("t", "z", "y", "x"),
    )
    panel.auto.set_params(panel.auto.params().with_(points_per_side=16))
    panel.auto.batch["time"].text.setText("2")
    panel.auto.batch["z"].text.setText("all")
    qtbot.mouseClick(panel.auto.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=300_000)
    panel.session.close(timeout=10)
    [layer] = [one for one in viewer.layers if isinstance(one, Shapes)]
    picture = panel.images.picture()
    shown = to_objects(layer.data, layer.shape_type, layer.features, picture.placement)
    assert len(shown) >= 6 and set(shown.features["time"]) == {1}

    out = tmp_path / "out"
    colours = ("1:#ff00ff:100-2600:0.7", "2:#00ff00:80-2200")
    flags = [flag for text in colours for flag in ("--channel", text)]
    chosen = ("--time", "2", "--points-per-side", "16", "--format", "geojson")
    result = run("segment", path, "--out", out, *chosen, *flags, "--blend", "add")
    assert result.exit_code == 0, result.output
    saved = Objects.load(out / "stack.geojson")
    assert len(saved) == len(shown)
    for (place, mine), (other_place, theirs) in zip(
        by_place(shown), by_place(saved), strict=True
    ):
        assert place == pytest.approx(other_place, abs=0.11)
        assert mine.symmetric_difference(theirs).area < 0.01 * mine.area

    recipe = tmp_path / "recipe.json"
    panel.outcome.save(recipe)
    image = open_image(path)
    said = Colours(channel=colours, blend="add").composite(image)
    assert Colours(file=recipe).composite(image) == said

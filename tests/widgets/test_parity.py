"""The panel, the command line, Python and a cluster find the same objects."""

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
from napari_sam_suite.engine.batch.run import run_recipe
from napari_sam_suite.engine.cluster import open_cluster, start_cluster_run
from napari_sam_suite.engine.recipe import Recipe
from napari_sam_suite.engine.store.store import Store

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


def check_alike(one: Objects, other: Objects) -> None:
    """The same objects but for how a layer draws them."""
    assert len(one) == len(other)
    for (place, mine), (other_place, theirs) in zip(
        by_place(one), by_place(other), strict=True
    ):
        assert place == pytest.approx(other_place, abs=0.11)
        assert mine.symmetric_difference(theirs).area < 0.01 * mine.area


def test_a_composite_of_five_axes_gives_the_same_objects_through_every_door(
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
    panel.auto.set_params(panel.auto.params().with_(points_per_side=16, search="grid"))
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
    chosen = ("--time", "2", "--points-per-side", "16", "--search", "grid")
    result = run("segment", path, "--out", out, *chosen, *flags, "--blend", "add")
    assert result.exit_code == 0, result.output
    saved = Objects.load(out / "stack.geojson")
    check_alike(shown, saved)

    recipe = tmp_path / "recipe.json"
    panel.outcome.save(recipe)
    image = open_image(path)
    said = Colours(channel=colours, blend="add").composite(image)
    assert Colours(file=recipe).composite(image) == said

    # The panel's recipe through the three other doors.
    asked = Recipe.load(recipe).changed(source={"images": [str(path)]})
    asked.save(recipe)
    stores = [tmp_path / door for door in ("command", "python", "cluster")]
    command, python, cluster = (
        asked.changed(outputs={"store": str(store)}) for store in stores
    )
    result = run("run", recipe, "--store", command.outputs.store)
    assert result.exit_code == 0, result.output
    assert run_recipe(python).complete
    with open_cluster(workers=1, device="cpu") as client:
        assert start_cluster_run(client, cluster).result().complete
    for store in stores:
        place = Store.open(store).image("stack")
        found = [place.read(frame)[0] for frame in sorted(place.done())]
        check_alike(shown, Objects.concat(found))

"""Propagation from the Prompt tab, in a real viewer."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Shapes

from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.recipe import as_python
from napari_sam_suite.widgets.repeat import to_recipe
from widgets.hands import LEFT, LIMIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.widgets.panel import Panel
    from widgets.hands import Blobs

pytestmark = pytest.mark.usefixtures("libraries")

SQUARES = [(8, 8), (8, 40), (40, 8), (40, 40)]


def draw(viewer: Any, *numbers: int, frame: int = 0) -> Shapes:
    """Shapes drawn by hand around some of the squares."""
    corners = [(0, 0), (0, 15), (15, 15), (15, 0)]
    data = [
        np.array([(frame, y + dy, x + dx) for dy, dx in corners], float)
        for y, x in (SQUARES[n] for n in numbers)
    ]
    layer = Shapes(data, shape_type="polygon", name="drawn", ndim=3)
    viewer.add_layer(layer)
    return layer


def movie(viewer: Any, image: NDArray[np.uint8]) -> None:
    viewer.add_image(image, axis_labels=("t", "y", "x"), name="movie")
    viewer.dims.set_current_step(0, 0)


def propagate(panel: Panel, qtbot: Any) -> str:
    """Press the button; what the panel says in the end."""
    panel.tabs.setCurrentWidget(panel.prompts)
    button = panel.prompts.carry.button
    assert button.isEnabled(), button.toolTip()
    button.click()
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=LIMIT)
    return str(panel.footer.status.text())


def results(panel: Panel) -> Shapes:
    [layer] = [
        layer
        for layer in panel.viewer.layers
        if isinstance(layer, Shapes) and layer.metadata.get(KEY, {}).get("runs")
    ]
    return layer


def places(layer: Shapes) -> list[tuple[int, int, list[float]]]:
    """Track, time and first corner of every shape."""
    table = layer.features
    return sorted(
        (int(track), int(shape[0][0]), shape.min(0)[1:].round().tolist())
        for track, shape in zip(table["track"], layer.data, strict=True)
    )


def test_objects_of_the_frame_shown_go_through_time(
    viewer: Any, panel: Panel, blobs: Blobs, qtbot: Any
) -> None:
    movie(viewer, blobs(3))
    draw(viewer, 0, 3)
    said = propagate(panel, qtbot)
    assert "2 tracks, 6 objects in 3 frames" in said
    layer = results(panel)
    first = [(1, t, [8.0, 8.0]) for t in range(3)]
    assert places(layer) == first + [(2, t, [40.0, 40.0]) for t in range(3)]
    table = layer.features
    ids = {(row.track, row.time): row.id for row in table.itertuples()}
    for row in table.itertuples():
        assert row.parent == ids.get((row.track, row.time - 1), "")


def test_what_was_given_stays_as_it_was_and_undo_leaves_only_that(
    viewer: Any, panel: Panel, blobs: Blobs, qtbot: Any
) -> None:
    movie(viewer, blobs(3))
    draw(viewer, 0, 3)
    propagate(panel, qtbot)
    viewer.layers.remove("drawn")
    viewer.dims.set_current_step(0, 2)
    layer = results(panel)
    before, there = [shape.copy() for shape in layer.data], places(layer)
    [last] = np.flatnonzero((layer.features.track == 1) & (layer.features.time == 2))
    layer.selected_data = {int(last)}
    panel.prompts.carry.form.set_values({"direction": "backward"})
    said = propagate(panel, qtbot)
    assert "1 track, 3 objects in 3 frames" in said
    assert places(layer) == there
    assert any(np.array_equal(before[last], shape) for shape in layer.data)
    qtbot.mouseClick(panel.bar.undo, LEFT)
    assert len(layer.data) == len(before)
    for shape in before:
        assert any(np.array_equal(shape, one) for one in layer.data)


def test_only_selected_objects_are_carried_on_where_some_are(
    viewer: Any, panel: Panel, blobs: Blobs, qtbot: Any
) -> None:
    movie(viewer, blobs(2))
    draw(viewer, 0, 1, 2).selected_data = {1}
    assert "1 track, 2 objects in 2 frames" in propagate(panel, qtbot)
    assert places(results(panel)) == [(1, 0, [8.0, 40.0]), (1, 1, [8.0, 40.0])]


def test_gaps_and_losses_are_said(
    viewer: Any, panel: Panel, blobs: Blobs, qtbot: Any
) -> None:
    image = blobs(6)
    image[1, 8:24, 8:24] = 0
    image[2:, 8:24, 40:56] = 0
    movie(viewer, image)
    draw(viewer, 0, 1)
    said = propagate(panel, qtbot)
    assert "Not seen in time 2: track 1." in said
    assert "Lost after time 2: track 2." in said


def test_planes_are_gone_through_in_an_image_without_time(
    viewer: Any, panel: Panel, blobs: Blobs, qtbot: Any
) -> None:
    viewer.add_image(blobs(3), axis_labels=("z", "y", "x"), name="stack")
    viewer.dims.set_current_step(0, 1)
    draw(viewer, 2, frame=1)
    panel.prompts.carry.form.set_values({"direction": "both"})
    propagate(panel, qtbot)
    assert sorted(results(panel).features["z"]) == [0, 1, 2]


def test_the_button_says_what_is_missing(
    viewer: Any, panel: Panel, blobs: Blobs, qtbot: Any
) -> None:
    viewer.add_image(blobs(), name="flat")
    carry = panel.prompts.carry
    assert not carry.button.isEnabled()
    assert carry.button.toolTip() == "The image has only one time point."
    viewer.layers.clear()
    movie(viewer, blobs(3))
    draw(viewer, 0, frame=2)
    carry.button.click()
    assert "There are no objects in this frame" in panel.footer.status.text()


def test_objects_of_another_image_are_not_carried_on(
    viewer: Any, panel: Panel, blobs: Blobs
) -> None:
    movie(viewer, blobs(2))
    draw(viewer, 0).metadata[KEY] = {"image": ["another"], "runs": {}}
    panel.prompts.carry.button.click()
    assert "are of another, not of movie" in panel.footer.status.text()
    assert not panel.busy


@pytest.mark.parametrize("labels", [("t", "y", "x"), ("c", "t", "y", "x")])
def test_shapes_with_more_or_fewer_axes_than_the_image_are_where_napari_shows_them(
    viewer: Any, panel: Panel, blobs: Blobs, qtbot: Any, labels: tuple[str, ...]
) -> None:
    channels = (2,) * (len(labels) - 3)
    viewer.add_image(blobs(*channels, 3), axis_labels=labels, name="movie")
    viewer.dims.set_current_step(len(channels), 0)
    outline = np.array([(8, 8), (8, 23), (23, 23), (23, 8)], float)
    if channels:
        leading = np.tile([1.0, 0.0], (4, 1))
        outline = np.hstack([leading, outline])
    viewer.add_shapes([outline], shape_type="polygon")
    assert "1 track, 3 objects in 3 frames" in propagate(panel, qtbot)
    assert places(results(panel)) == [(1, t, [8.0, 8.0]) for t in range(3)]


def test_a_propagation_is_kept_as_a_script(
    viewer: Any, panel: Panel, blobs: Blobs, qtbot: Any
) -> None:
    movie(viewer, blobs(2))
    draw(viewer, 0)
    panel.prompts.carry.advanced.set_values({"max_gap": 4})
    propagate(panel, qtbot)
    [recipe] = results(panel).metadata[KEY]["runs"].values()
    assert recipe["capability"] == "propagate"
    script = as_python(recipe)
    compile(script, "recipe", "exec")
    assert "PropagateParams(max_gap=4)" in script
    [shape] = to_recipe(recipe).capability.objects  # type: ignore[union-attr]
    assert shape.frame == (1, 1, 1)


class TestCancel:
    gate = Event()

    @pytest.fixture
    def fake(self) -> dict[str, Any]:
        self.gate.clear()
        return {"gate": self.gate}

    def test_cancel_keeps_what_was_given(
        self, viewer: Any, panel: Panel, blobs: Blobs, qtbot: Any
    ) -> None:
        movie(viewer, blobs(3))
        draw(viewer, 0)
        panel.tabs.setCurrentWidget(panel.prompts)
        panel.prompts.carry.button.click()
        qtbot.waitUntil(
            lambda: (
                getattr(panel.session._engine, "_fake", None) is not None
                and panel.session._engine._fake.waiting
            ),  # type: ignore[union-attr]
            timeout=LIMIT,
        )
        qtbot.mouseClick(panel.footer.cancel, LEFT)
        self.gate.set()
        qtbot.waitUntil(lambda: not panel.busy, timeout=LIMIT)
        assert "Stopped; kept: 1 track" in panel.footer.status.text()
        assert len(viewer.layers["drawn"].data) == 1

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from napari.components import ViewerModel
from napari.layers import Shapes

from napari_sam_suite.engine.composite import Composite
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.widgets import shapes
from napari_sam_suite.widgets.layers import Picture, Placement
from napari_sam_suite.widgets.results import Results, Run

MANY = 60


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def results(viewer: ViewerModel, qtbot: Any) -> Results:
    return Results(viewer)


@pytest.fixture
def run(results: Results) -> Run:
    image = open_image(np.zeros((40, 400), np.uint8), axes="YX", name="cells")
    where = Placement("YX", {})
    picture = Picture(image, Composite.default(image), where, ("cells",), "YX")
    return results.begin(picture, {"params": {}}, "new")


def squares(count: int) -> Objects:
    return Objects([shapely.box(0, 5 * i, 4, 5 * i + 4) for i in range(count)])


def test_what_comes_while_a_layer_is_built_goes_into_it(
    viewer: ViewerModel, results: Results, run: Run, qtbot: Any
) -> None:
    results.show(run, squares(MANY).with_features(run=run.id))
    results.show(run, squares(2).with_features(run=run.id))
    assert not viewer.layers and not results.settled
    qtbot.waitUntil(lambda: results.settled, timeout=60_000)
    [layer] = viewer.layers
    assert isinstance(layer, Shapes) and layer.visible
    assert len(layer.data) == MANY + 2


def test_a_layer_that_cannot_be_built_does_not_hold_what_comes_next(
    viewer: ViewerModel,
    results: Results,
    run: Run,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = shapes.to_vertices

    def broken(objects: Objects, placement: Placement) -> Any:
        if len(objects) == MANY:
            raise ValueError("odd")
        return drawn(objects, placement)

    monkeypatch.setattr(shapes, "to_vertices", broken)
    failures: list[Exception] = []
    results.failed.connect(failures.append)
    results.show(run, squares(MANY).with_features(run=run.id))
    results.show(run, squares(2).with_features(run=run.id))
    qtbot.waitUntil(lambda: results.settled, timeout=60_000)
    assert [str(error) for error in failures] == ["odd"]
    [layer] = viewer.layers
    assert len(layer.data) == 2

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely
from napari.components import ViewerModel
from napari.layers import Shapes

from napari_sam_suite.engine.composite import Composite
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.losses import Losses
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.run import FrameResult
from napari_sam_suite.widgets import shapes
from napari_sam_suite.widgets.layers import Picture, build_picture
from napari_sam_suite.widgets.placement import Placement
from napari_sam_suite.widgets.results import _CHUNK, Results
from napari_sam_suite.widgets.table import REJECTED, paint
from widgets.hands import draw_by_hand

if TYPE_CHECKING:
    from napari_sam_suite.widgets.runs import Run

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


def frame_of(objects: Objects) -> FrameResult:
    return FrameResult(FrameIndex(), objects, Losses())


def settle(results: Results, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: results.settled, timeout=60_000)


def ids(run: Run) -> list[str]:
    assert run.layer is not None
    return sorted(run.layer.features["id"])


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


@pytest.fixture
def first(results: Results, run: Run, qtbot: Any) -> Run:
    """A run that has filled the layer."""
    results.add(run, frame_of(squares(3 * _CHUNK)))
    results.finish(run)
    settle(results, qtbot)
    return run


def test_a_run_replaces_objects_some_in_each_turn(
    results: Results, first: Run, qtbot: Any
) -> None:
    layer, before = first.layer, ids(first)
    assert layer is not None
    counts: list[int] = []
    layer.events.data.connect(lambda event: counts.append(len(layer.data)))
    again = results.begin(first.picture, {"params": {}}, "replace")
    results.add(again, frame_of(squares(2 * _CHUNK + 7)))
    results.finish(again)
    assert not results.settled and not results.can_undo
    settle(results, qtbot)
    steps = np.abs(np.diff([3 * _CHUNK, *counts]))
    assert again.layer is layer and set(layer.features["run"]) == {again.id}
    assert len(layer.data) == 2 * _CHUNK + 7
    assert steps.max() == _CHUNK
    assert sorted(again.replaced.features["id"]) == before
    results.undo()
    assert ids(first) == before
    results.redo()
    assert set(layer.features["run"]) == {again.id}
    assert len(layer.data) == 2 * _CHUNK + 7


HAND = np.array([[20.0, 20], [20, 30], [30, 30], [30, 20]])


def replace_meanwhile(results: Results, first: Run, found: Objects) -> Run:
    """A run that has found objects, and all turns in which they can be drawn."""
    again = results.begin(first.picture, {"params": {}}, "replace")
    results.add(again, frame_of(found))
    results.finish(again)
    for _ in range(5):
        results._turn()
    return again


def test_a_shape_that_is_being_drawn_is_not_broken_off_by_a_run_that_replaces(
    results: Results, first: Run, qtbot: Any
) -> None:
    layer, before = first.layer, ids(first)
    assert layer is not None
    draw_by_hand(layer, HAND)
    again = replace_meanwhile(results, first, squares(5))
    assert layer._is_creating and not results.settled
    assert len(layer.data) == 3 * _CHUNK + 1 + 5
    layer._finish_drawing()
    settle(results, qtbot)
    assert sorted(again.replaced.features["id"]) == before
    [hand] = np.flatnonzero(layer.features["run"] != again.id)
    np.testing.assert_array_equal(layer.data[hand], HAND)
    assert len(layer.data) == 5 + 1
    results.undo()
    assert set(before) < set(ids(first)) and len(layer.data) == 3 * _CHUNK + 1


def test_a_shape_that_is_given_up_leaves_the_table_as_it_was(
    results: Results, first: Run, qtbot: Any
) -> None:
    layer, found = first.layer, squares(5)
    assert layer is not None
    draw_by_hand(layer, HAND[:2])
    replace_meanwhile(results, first, found)
    layer._finish_drawing()
    settle(results, qtbot)
    wanted = found.features["id"].tolist()
    assert layer.features["id"].tolist() == wanted and len(layer.data) == 5
    draw_by_hand(layer, HAND[:2])
    layer._finish_drawing()
    more = squares(2)
    run = results.begin(first.picture, {"params": {}}, "add")
    results.add(run, frame_of(more))
    results.finish(run)
    settle(results, qtbot)
    assert layer.features["id"].tolist() == wanted + more.features["id"].tolist()


@pytest.mark.parametrize("gone", [False, True])
def test_rejected_objects_that_come_back_look_rejected(
    viewer: ViewerModel, results: Results, first: Run, qtbot: Any, gone: bool
) -> None:
    layer = first.layer
    assert layer is not None
    reviews = [REJECTED, *[""] * (len(layer.data) - 1)]
    layer.features = layer.features.assign(review=reviews)
    paint(layer)
    looks = {tuple(colour) for colour in layer.edge_color.tolist()}
    again = results.begin(first.picture, {"params": {}}, "replace")
    results.add(again, frame_of(squares(2)))
    results.finish(again)
    settle(results, qtbot)
    if gone:
        viewer.layers.remove(layer)
    results.undo()
    settle(results, qtbot)
    layer = again.layer
    assert layer is not None and layer in viewer.layers
    rejected = (layer.features["review"] == REJECTED).to_numpy()
    assert np.count_nonzero(rejected) == 1
    assert {tuple(colour) for colour in layer.edge_color.tolist()} == looks
    assert layer.edge_color[rejected][0, 3] < 1


def test_new_objects_lie_on_an_image_that_was_moved_since_the_first_run(
    viewer: ViewerModel, results: Results, qtbot: Any
) -> None:
    image = viewer.add_image(np.zeros((40, 400), np.uint8), name="cells")
    layers = []
    for mode in ("replace", "add"):
        run = results.begin(build_picture([image], "YX"), {"params": {}}, mode)
        image.scale, image.translate = (0.5, 0.25), (10, 20)
        results.add(run, frame_of(squares(2)))
        results.finish(run)
        settle(results, qtbot)
        layers.append(run.layer)
        if mode == "replace":
            image.scale = (2, 2)
    assert layers[0] is layers[1]
    np.testing.assert_array_equal(layers[0].scale, image.scale)
    np.testing.assert_array_equal(layers[0].translate, image.translate)
    image.scale = (3, 3)
    results.undo()
    results.redo()
    np.testing.assert_array_equal(layers[0].scale, (3, 3))


def test_objects_of_other_frames_stay_when_some_are_replaced(
    viewer: ViewerModel, results: Results, qtbot: Any
) -> None:
    image = open_image(np.zeros((2, 40, 400), np.uint8), axes="ZYX", name="stack")
    where = Placement("ZYX", {})
    picture = Picture(image, Composite.default(image), where, ("stack",), "ZYX")
    runs = []
    for frames in ((0, 1), (1,)):
        run = results.begin(picture, {"params": {}}, "replace")
        for z in frames:
            found = squares(3).with_features(z=z)
            results.add(run, FrameResult(FrameIndex(z=z), found, Losses()))
        results.finish(run)
        settle(results, qtbot)
        runs.append(run)
    [layer] = viewer.layers
    table = layer.features
    assert table["run"][table["z"] == 0].tolist() == [runs[0].id] * 3
    assert table["run"][table["z"] == 1].tolist() == [runs[1].id] * 3


def test_a_run_that_finds_nothing_replaces_as_well(
    results: Results, first: Run, qtbot: Any
) -> None:
    before = ids(first)
    again = results.begin(first.picture, {"params": {}}, "replace")
    results.add(again, frame_of(Objects.empty()))
    results.finish(again)
    settle(results, qtbot)
    assert ids(again) == []
    results.undo()
    assert ids(first) == before


def test_what_comes_late_of_a_run_that_was_taken_away_is_dropped(
    results: Results, first: Run, qtbot: Any
) -> None:
    before = ids(first)
    results.undo()
    results.add(first, frame_of(squares(1)))
    results.finish(first)
    settle(results, qtbot)
    assert ids(first) == [] and results.can_redo
    results.redo()
    assert ids(first) == before


def test_what_follows_a_run_is_called_when_all_is_drawn(
    results: Results, run: Run, qtbot: Any
) -> None:
    drawn: list[int] = []
    results.add(run, frame_of(squares(MANY)))
    results.finish(run, lambda: drawn.append(len(ids(run))))
    settle(results, qtbot)
    assert drawn == [MANY]


def test_a_second_run_goes_into_the_layer_that_is_being_built_for_the_first(
    viewer: ViewerModel, results: Results, run: Run, qtbot: Any
) -> None:
    second = results.begin(run.picture, {"params": {}}, "add")
    for one, count in ((run, MANY), (second, MANY)):
        results.add(one, frame_of(squares(count)))
        results.finish(one)
    settle(results, qtbot)
    [layer] = viewer.layers
    assert len(layer.data) == 2 * MANY


def test_runs_that_end_at_once_are_undone_in_their_order(
    results: Results, first: Run, qtbot: Any
) -> None:
    pair = [results.begin(first.picture, {"params": {}}, "add") for _ in range(2)]
    for run in pair:
        results.add(run, frame_of(squares(2)))
        results.finish(run)
    settle(results, qtbot)
    assert results.last is pair[1]
    results.undo()
    assert results.last is pair[0]


@pytest.mark.parametrize(
    ("sizes", "same"), [((5, 40, 400), True), ((2, 40, 300), False)]
)
def test_results_are_of_an_image_that_has_grown_but_not_of_one_of_other_planes(
    results: Results, qtbot: Any, sizes: tuple[int, ...], same: bool
) -> None:
    def picture(*sizes: int) -> Picture:
        image = open_image(np.zeros(sizes, np.uint8), axes="TYX", name="film")
        where = Placement("TYX", {})
        return Picture(image, Composite.default(image), where, ("film",), "TYX")

    first = picture(2, 40, 400)
    image = {"sizes": first.image.sizes._asdict(), "path": ""}
    run = results.begin(first, {"params": {}, "image": image}, "replace")
    results.add(run, frame_of(squares(3)))
    results.finish(run)
    settle(results, qtbot)
    assert results.layer_of(first) is run.layer is not None
    assert results.layer_of(picture(*sizes)) is (run.layer if same else None)


def test_a_layer_that_is_removed_while_it_is_filled_is_replaced_by_a_new_one(
    viewer: ViewerModel, results: Results, first: Run, qtbot: Any
) -> None:
    old = first.layer
    again = results.begin(first.picture, {"params": {}}, "replace")
    results.add(again, frame_of(squares(2 * _CHUNK)))
    results._turn()
    results._turn()
    viewer.layers.remove(old)
    results.finish(again)
    settle(results, qtbot)
    [layer] = viewer.layers
    assert layer is not old
    assert set(layer.features["run"]) == {again.id}

"""Sliders that filter the last run again, clicked in a real window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely
from napari.components import ViewerModel
from napari.layers import Shapes
from qtpy.QtCore import Qt

from engine.fakes import FAKE
from napari_sam_suite.engine.composite import Composite
from napari_sam_suite.engine.filters import Candidates, refilter
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.losses import Losses
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.run import FrameResult
from napari_sam_suite.engine.tiles import Region
from napari_sam_suite.widgets.filterbox import FilterBox
from napari_sam_suite.widgets.layers import KEY, Picture
from napari_sam_suite.widgets.livefilter import LiveFilter
from napari_sam_suite.widgets.placement import Placement
from napari_sam_suite.widgets.results import Results

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sam_suite.widgets.panel import Panel
    from widgets.hands import Blobs

LEFT = Qt.MouseButton.LeftButton
LIMIT = 240_000
FIRST_TWO = [(8, 8), (8, 40)]


@pytest.fixture
def fake() -> dict[str, Any]:
    """A model that rates the four squares 0.95, 0.85, 0.75 and 0.65; 0.8 passes."""
    ratings = {255: 0.95, 215: 0.85, 175: 0.75, 135: 0.65}
    return {
        "batch": 64,
        "score": lambda token, colour: ratings.get(int(colour[0]), 0.5),
    }


def segment(panel: Panel, qtbot: Any) -> Shapes:
    panel.auto.set_params(panel.auto.params().with_(points_per_side=16))
    qtbot.mouseClick(panel.auto.button, LEFT)
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=LIMIT)
    return [layer for layer in panel.viewer.layers if isinstance(layer, Shapes)][-1]


def settle(panel: Panel, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: panel.auto.live.settled, timeout=LIMIT)


def rate(panel: Panel, qtbot: Any, value: float) -> None:
    """Move the slider of the quality."""
    panel.auto.filters.sliders["pred_iou_thresh"].setValue(value)
    settle(panel, qtbot)


def corners(layer: Shapes) -> list[tuple[int, ...]]:
    found = [tuple(np.round(shape.min(0)).astype(int).tolist()) for shape in layer.data]
    return sorted(found)


def decoded(panel: Panel) -> int:
    return sum(panel.session._engine._fake.decoded)


def test_a_slider_shows_more_and_fewer_objects_without_the_model(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    viewer.add_image(blobs())
    layer = segment(panel, qtbot)
    ids = set(layer.features["id"])
    before = decoded(panel)
    assert corners(layer) == FIRST_TWO
    rate(panel, qtbot, 0.7)
    assert corners(layer) == [*FIRST_TWO, (40, 8)]
    assert ids < set(layer.features["id"])
    assert set(layer.features["run"]) == {next(iter(layer.metadata[KEY]["runs"]))}
    rate(panel, qtbot, 0.9)
    assert corners(layer) == [(8, 8)]
    assert set(layer.features["id"]) < ids
    assert decoded(panel) == before
    assert "1 object, of" in panel.auto.filters.told.text()


def test_what_is_shown_is_what_a_run_with_these_settings_finds(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    viewer.add_image(blobs())
    layer = segment(panel, qtbot)
    rate(panel, qtbot, 0.7)
    [recipe] = layer.metadata[KEY]["runs"].values()
    assert recipe["params"]["pred_iou_thresh"] == 0.7
    table = layer.features.copy()
    filtered = {tuple(map(tuple, shape)) for shape in layer.data}
    panel.auto.set_params(type(panel.auto.params())(**recipe["params"]))
    layer = segment(panel, qtbot)
    assert {tuple(map(tuple, shape)) for shape in layer.data} == filtered
    for name in ("score", "stability", "level", "area", "model", "tag"):
        assert sorted(layer.features[name]) == sorted(table[name])


def test_undo_brings_back_what_the_run_had_found(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    viewer.add_image(blobs())
    layer = segment(panel, qtbot)
    ids = set(layer.features["id"])
    for value in (0.9, 0.7, 0.62):
        rate(panel, qtbot, value)
    assert len(layer.data) == 4
    qtbot.mouseClick(panel.bar.undo, LEFT)
    assert set(layer.features["id"]) == ids
    slider = panel.auto.filters.sliders["pred_iou_thresh"]
    assert slider.value() == pytest.approx(0.8)
    qtbot.mouseClick(panel.bar.redo, LEFT)
    assert len(layer.data) == 4
    assert slider.value() == pytest.approx(0.62)
    qtbot.mouseClick(panel.bar.undo, LEFT)
    qtbot.mouseClick(panel.bar.undo, LEFT)
    assert len(layer.data) == 0
    assert not slider.isEnabled() and "taken away" in slider.toolTip()
    qtbot.mouseClick(panel.bar.redo, LEFT)
    assert corners(layer) == FIRST_TWO and slider.isEnabled()


def test_back_to_the_run_leaves_nothing_to_undo_but_the_run(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    viewer.add_image(blobs())
    layer = segment(panel, qtbot)
    rate(panel, qtbot, 0.7)
    rate(panel, qtbot, 0.9)
    panel.auto.filter_fold.expand()
    panel.auto.filters.reset.click()
    settle(panel, qtbot)
    assert corners(layer) == FIRST_TWO
    [recipe] = layer.metadata[KEY]["runs"].values()
    assert recipe["params"]["pred_iou_thresh"] is None
    qtbot.mouseClick(panel.bar.undo, LEFT)
    assert len(layer.data) == 0


def test_shapes_that_were_tagged_or_edited_stay_and_deleted_ones_stay_away(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    viewer.add_image(blobs())
    layer = segment(panel, qtbot)
    rate(panel, qtbot, 0.62)
    rows = {corner: row for row, corner in enumerate(map(_corner, layer.data))}
    table = layer.features.copy()
    table.loc[rows[40, 8], "tag"] = "cell"
    layer.features = table
    data = list(layer.data)
    data[rows[40, 40]] = data[rows[40, 40]] + 2
    layer.data = data
    layer.features = table
    layer.selected_data = {rows[8, 40]}
    layer.remove_selected()
    rate(panel, qtbot, 0.9)
    assert corners(layer) == [(8, 8), (40, 8), (42, 42)]
    rate(panel, qtbot, 0.7)
    assert corners(layer) == [(8, 8), (40, 8), (42, 42)]
    assert sorted(layer.features["tag"]) == ["cell", "unassigned", "unassigned"]


def _corner(shape: NDArray[Any]) -> tuple[int, ...]:
    return tuple(np.round(shape.min(0)).astype(int).tolist())


def test_area_and_overlaps_are_filtered_too(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    image = blobs()
    image[8:24, 8:24] = 0
    image[10:14, 10:14] = 255
    viewer.add_image(image)
    layer = segment(panel, qtbot)
    assert sorted(layer.features["area"]) == [16, 256]
    area = panel.auto.filters.area
    area.slider.setValue((120, 200))
    settle(panel, qtbot)
    assert layer.features["area"].tolist() == [256]
    area.slider.setValue((0, 120))
    settle(panel, qtbot)
    assert layer.features["area"].tolist() == [16]
    [recipe] = layer.metadata[KEY]["runs"].values()
    assert (recipe["params"]["min_area"], recipe["params"]["max_area"]) == (0, 28)
    panel.auto.filters.allow.setChecked(True)
    settle(panel, qtbot)
    assert layer.features["area"].tolist() == [16]
    area.slider.setValue((0, 200))
    settle(panel, qtbot)
    assert sorted(layer.features["area"]) == [16, 256]


def test_all_frames_of_a_run_are_filtered(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    viewer.add_image(blobs(3))
    panel.auto.batch["z"].text.setText("all")
    layer = segment(panel, qtbot)
    assert len(layer.data) == 6
    rate(panel, qtbot, 0.7)
    assert layer.features.groupby("z").size().tolist() == [3, 3, 3]
    assert sorted(shape[0][0] for shape in layer.data) == [0] * 3 + [1] * 3 + [2] * 3
    qtbot.mouseClick(panel.bar.undo, LEFT)
    assert layer.features.groupby("z").size().tolist() == [2, 2, 2]


def test_objects_are_found_where_the_run_had_found_none(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs
) -> None:
    image = blobs()
    image[:32] = 0
    viewer.add_image(image)
    panel.auto.set_params(panel.auto.params().with_(points_per_side=16))
    qtbot.mouseClick(panel.auto.button, LEFT)
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=LIMIT)
    assert not any(isinstance(layer, Shapes) for layer in viewer.layers)
    rate(panel, qtbot, 0.7)
    [layer] = [layer for layer in viewer.layers if isinstance(layer, Shapes)]
    assert corners(layer) == [(40, 8)]


def test_sliders_say_why_they_cannot_be_used_and_how_low_they_go(
    viewer: Any, panel: Panel, qtbot: Any, blobs: Blobs, fake: dict[str, Any]
) -> None:
    slider = panel.auto.filters.sliders["pred_iou_thresh"]
    assert not slider.isEnabled() and "Segment first" in slider.toolTip()
    fake["delay"] = 0.02
    viewer.add_image(blobs())
    panel.auto.set_params(panel.auto.params().with_(points_per_batch=16))
    qtbot.mouseClick(panel.auto.button, LEFT)
    assert "Wait" in slider.toolTip()
    qtbot.waitUntil(lambda: not panel.busy and panel.results.settled, timeout=LIMIT)
    assert slider.isEnabled() and slider.minimum() == pytest.approx(0.6)
    assert "Below 0.6 takes another run" in slider.toolTip()
    [layer] = [layer for layer in viewer.layers if isinstance(layer, Shapes)]
    viewer.layers.remove(layer)
    panel.results.changed.emit()
    assert not slider.isEnabled() and "removed" in slider.toolTip()


def test_a_run_too_large_to_keep_its_candidates_says_so(
    viewer: Any,
    panel: Panel,
    qtbot: Any,
    blobs: Blobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_sam_suite.widgets import livefilter

    monkeypatch.setattr(livefilter, "_MOST", 100)
    viewer.add_image(blobs())
    layer = segment(panel, qtbot)
    assert corners(layer) == FIRST_TWO
    slider = panel.auto.filters.sliders["pred_iou_thresh"]
    assert not slider.isEnabled() and "too large" in slider.toolTip()


def test_of_a_run_too_large_no_frame_keeps_its_candidates(
    viewer: Any,
    panel: Panel,
    qtbot: Any,
    blobs: Blobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_sam_suite.widgets import livefilter

    viewer.add_image(blobs(2))
    taken: list[FrameResult] = []
    panel.results.taken.connect(lambda _, result: taken.append(result))
    panel.auto.batch["z"].text.setText("1")
    segment(panel, qtbot)
    monkeypatch.setattr(livefilter, "_MOST", int(1.5 * taken.pop().candidates.nbytes))
    panel.auto.batch["z"].text.setText("1-2")
    segment(panel, qtbot)
    assert [result.candidates for result in taken] == [None, None]


@pytest.fixture
def padded(qtbot: Any) -> tuple[ViewerModel, FilterBox, Candidates]:
    """A run of three masks side by side, of which two pass, padded by 4 px."""
    image = open_image(np.zeros((40, 60), np.uint8), axes="YX", name="cells")
    where = Placement("YX", {})
    picture = Picture(image, Composite.default(image), where, ("cells",), "YX")
    params = AutoParams(padding=4.0).resolved(FAKE).with_(pred_iou_thresh=0.8)
    builder = MaskBuilder((40, 60))
    for score, x in ((0.95, 10), (0.85, 36), (0.75, 23)):
        builder.add(np.ones((20, 12), bool), (10, x), score=score, stability=1.0)
    region = Region(0, 0, 40, 60)
    lowest = params.with_(pred_iou_thresh=0.5)
    kept = Candidates((region,), (builder.build(),), params, lowest, "run")
    objects, losses = afresh(kept, params)
    viewer, box = ViewerModel(), FilterBox()
    results = Results(viewer)
    live = LiveFilter(viewer, results, box, box)
    qtbot.addWidget(
        box, before_close_func=lambda _: qtbot.waitUntil(lambda: live.settled)
    )
    recipe = {"capability": "auto", "params": params.model_dump(mode="json")}
    run = results.begin(picture, recipe, "new")
    results.add(run, FrameResult(FrameIndex(), objects, losses, kept))
    results.finish(run)
    qtbot.waitUntil(lambda: results.settled)
    live.refresh(busy=False)
    return viewer, box, kept


def afresh(kept: Candidates, params: AutoParams) -> tuple[Objects, Losses]:
    """What a run with these settings would find."""
    masks = refilter(kept, params)
    return Objects.from_masks(
        masks,
        FrameIndex(),
        padding=params.padding,
        exclusive=True,
        columns={"id": kept.ids(masks)},
    )


def test_padded_outlines_make_room_for_what_comes_as_in_a_fresh_run(
    padded: tuple[ViewerModel, FilterBox, Candidates], qtbot: Any
) -> None:
    viewer, box, kept = padded
    [layer] = viewer.layers
    before = layer.features.sort_values("id")[["id", "area"]].to_numpy().tolist()
    for threshold, count in ((0.7, 3), (0.9, 1), (0.7, 3), (0.8, 2)):
        box.sliders["pred_iou_thresh"].setValue(threshold)
        wanted, _ = afresh(kept, kept.params.with_(pred_iou_thresh=threshold))
        areas = sorted(wanted.features["area"])
        qtbot.waitUntil(lambda a=areas: sorted(layer.features["area"]) == a)
        outlines = [shapely.Polygon(shape) for shape in layer.data]
        assert len(outlines) == count
        assert shapely.union_all(outlines).area == pytest.approx(
            sum(outline.area for outline in outlines), abs=1e-3
        )
    after = layer.features.sort_values("id")[["id", "area"]].to_numpy().tolist()
    assert after == before


def test_a_padded_object_of_the_user_does_not_come_again_in_another_outline(
    padded: tuple[ViewerModel, FilterBox, Candidates], qtbot: Any
) -> None:
    viewer, box, _ = padded
    [layer] = viewer.layers
    layer.features = layer.features.assign(tag=["cell", "unassigned"])
    mine = layer.features["id"].iloc[0]
    box.sliders["pred_iou_thresh"].setValue(0.7)
    qtbot.waitUntil(lambda: len(layer.data) == 3)
    assert mine in set(layer.features["id"])


@pytest.fixture
def overlapping(qtbot: Any) -> Iterator[tuple[ViewerModel, Results, FilterBox]]:
    """A run that found two objects, of which the second has more pixels alone."""
    image = open_image(np.zeros((40, 40), np.uint8), axes="YX", name="cells")
    where = Placement("YX", {})
    picture = Picture(image, Composite.default(image), where, ("cells",), "YX")
    params = AutoParams().resolved(FAKE)
    builder = MaskBuilder((40, 40))
    for score, x in ((0.95, 5), (0.9, 20)):
        builder.add(np.ones((20, 20), bool), (5, x), score=score, stability=1.0)
    region = Region(0, 0, 40, 40)
    kept = Candidates((region,), (builder.build(),), params, params, "run")
    masks = refilter(kept, params)
    objects, losses = Objects.from_masks(
        masks, FrameIndex(), columns={"id": kept.ids(masks)}
    )
    viewer, box = ViewerModel(), FilterBox()
    qtbot.addWidget(box)
    results = Results(viewer)
    live = LiveFilter(viewer, results, box, box)
    recipe = {"capability": "auto", "params": params.model_dump(mode="json")}
    run = results.begin(picture, recipe, "new")
    results.add(run, FrameResult(FrameIndex(), objects, losses, kept))
    results.finish(run)
    qtbot.waitUntil(lambda: results.settled)
    live.refresh(busy=False)
    yield viewer, results, box
    qtbot.waitUntil(lambda: live.settled)


@pytest.mark.parametrize("keep", [True, False])
def test_an_object_of_the_user_does_not_come_again_in_other_pixels(
    overlapping: tuple[ViewerModel, Results, FilterBox], keep: bool, qtbot: Any
) -> None:
    viewer, _, box = overlapping
    [layer] = viewer.layers
    assert layer.features["area"].tolist() == [400, 300]
    if keep:
        layer.features = layer.features.assign(tag=["unassigned", "cell"])
    else:
        layer.selected_data = {1}
        layer.remove_selected()
    box.allow.setChecked(True)
    qtbot.waitUntil(lambda: "candidates" in box.told.text())
    assert layer.features["area"].tolist() == [400] + [300] * keep


def test_a_run_can_be_filtered_after_objects_were_added_by_prompts(
    overlapping: tuple[ViewerModel, Results, FilterBox], qtbot: Any
) -> None:
    viewer, results, box = overlapping
    [layer] = viewer.layers
    picture = results.last.picture
    recipe = {"capability": "prompt", "params": {}}
    clicked = results.begin(picture, recipe, "add")
    added = Objects([shapely.box(30, 30, 35, 35)])
    results.add(clicked, FrameResult(FrameIndex(), added, Losses()))
    results.finish(clicked)
    qtbot.waitUntil(lambda: len(layer.data) == 3)
    box.allow.setChecked(True)
    qtbot.waitUntil(lambda: "candidates" in box.told.text())
    assert sorted(layer.features["area"]) == [25, 400, 400]
    assert layer.features["run"].tolist().count(clicked.id) == 1

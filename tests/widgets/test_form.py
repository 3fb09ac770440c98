from __future__ import annotations

from typing import Any

import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QSpinBox

from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.widgets.auto import AutoTab
from napari_sam_suite.widgets.footer import Footer, duration
from napari_sam_suite.widgets.form import Form
from napari_sam_suite.widgets.tab import State

OTHERS: dict[str, Any] = {
    "smoothing": 1.25,
    "padding": -2.0,
    "parts": "all",
    "search": "grid",
    "points_per_side": 64,
    "points_per_batch": 128,
    "pred_iou_thresh": 0.0,
    "stability_score_thresh": 0.9,
    "stability_score_offset": 1.5,
    "mask_threshold": -0.5,
    "box_nms_thresh": 0.6,
    "crop_n_layers": 1,
    "crop_nms_thresh": 0.5,
    "crop_overlap_ratio": 0.25,
    "crop_n_points_downscale_factor": 2,
    "min_mask_region_area": 9,
    "multimask": False,
    "refine": True,
    "tile": 1024,
    "overlap": "allow",
    "min_area": 10,
    "max_area": 5000,
}


@pytest.fixture
def tab(make_parts: Any, qtbot: Any) -> AutoTab:
    tab = AutoTab(make_parts(ViewerModel()))
    qtbot.addWidget(tab)
    return tab


def test_the_form_starts_at_the_defaults_to_the_last_digit(tab: AutoTab) -> None:
    assert tab.params() == AutoParams()


def test_every_parameter_can_be_set_and_read(tab: AutoTab) -> None:
    assert set(OTHERS) == set(AutoParams.model_fields)
    tab.set_params(AutoParams(**OTHERS))
    assert tab.params() == AutoParams(**OTHERS)
    tab.set_params(AutoParams())
    assert tab.params() == AutoParams()


def test_the_seeds_ranges_are_shown(tab: AutoTab) -> None:
    points = tab.form.rows["points_per_side"].control
    smoothing = tab.form.rows["smoothing"].control
    assert (points.minimum(), points.maximum(), points.value()) == (16, 128, 32)
    assert (smoothing.minimum(), smoothing.maximum()) == (0, 3)
    assert smoothing.value() == pytest.approx(0.3)


def test_points_of_a_grid_are_for_a_search_by_grid(tab: AutoTab, qtbot: Any) -> None:
    points = tab.form.rows["points_per_side"].control
    assert tab.parts.models.spec.guided
    assert not points.isEnabled()
    assert "Set Search" in points.toolTip()
    tab.advanced.set_values({"search": "grid"})
    assert points.isEnabled()
    assert "squared" in points.toolTip()
    tab.advanced.set_values({"search": "auto"})
    assert not points.isEnabled()
    tab.parts.models.choose("sam2.1_hiera_tiny")
    tab.show_state(State(None, Sizes(), FrameIndex(), ""))
    assert points.isEnabled()
    tab.advanced.set_values({"search": "guided"})
    assert not points.isEnabled()


def test_an_open_value_is_one_step_below_the_smallest(qtbot: Any) -> None:
    form = Form(AutoParams, ["points_per_batch"])
    qtbot.addWidget(form)
    spin = form.rows["points_per_batch"].control
    assert isinstance(spin, QSpinBox) and spin.text() == "auto"
    spin.stepUp()
    assert form.values() == {"points_per_batch": 1}
    spin.stepDown()
    assert form.values() == {"points_per_batch": None}


def test_a_preset_sets_its_values_and_a_change_leaves_it(tab: AutoTab) -> None:
    assert tab.preset.currentText() == "Default"
    tab.preset.textActivated.emit("Coverage")
    assert tab.params() == AutoParams.preset("coverage")
    tab.form.set_values({"smoothing": 1.0})
    assert tab.preset.currentText() == "Own settings"


def test_what_the_filters_say_is_used_in_the_next_run(tab: AutoTab) -> None:
    shown = AutoParams(pred_iou_thresh=0.8, box_nms_thresh=0.6, min_area=7)
    shown = shown.with_(stability_score_thresh=0.905, max_area=90)
    lowest = AutoParams(pred_iou_thresh=0.6, stability_score_thresh=0.6)
    tab.filters.set_run(shown, lowest, 200)
    assert not tab.filters.adopt.isEnabled()
    tab.filters.block("")
    tab.filters.sliders["pred_iou_thresh"].setValue(0.71)
    tab.filters.adopt.click()
    assert tab.params() == shown.with_(pred_iou_thresh=0.71)


def test_batch_fields_show_their_range_and_refuse_what_is_not_there(
    tab: AutoTab,
) -> None:
    tab.show_state(
        State(None, Sizes(position=1, time=3, z=12), FrameIndex(0, 1, 4), "")
    )
    z, time = tab.batch["z"], tab.batch["time"]
    assert z.range.text() == "of 1-12" and not tab.batch["position"].isEnabled()
    assert tab.batch.frames() == [FrameIndex(0, 1, 4)]
    assert tab.button.text() == "Segment this frame"
    z.text.setText("2-3, 12")
    time.text.setText("all")
    assert len(tab.batch.frames()) == 9 and tab.button.text() == "Segment 9 frames"
    z.text.setText("13")
    assert not tab.button.isEnabled()
    assert "Batch Z: there is no 13" in tab.button.toolTip()
    assert not tab.warning.isHidden()
    z.text.setText("")
    assert tab.button.isEnabled() and tab.warning.isHidden()


def test_text_for_an_axis_that_is_gone_does_no_harm(tab: AutoTab) -> None:
    tab.show_state(State(None, Sizes(z=5), FrameIndex(), ""))
    tab.batch["z"].text.setText("4-5")
    tab.show_state(State(None, Sizes(), FrameIndex(), ""))
    assert tab.batch.frames() == [FrameIndex()] and tab.button.isEnabled()


def test_the_time_left_is_told_from_what_is_done(qtbot: Any) -> None:
    now = [0.0]
    footer = Footer(lambda: now[0])
    qtbot.addWidget(footer)
    footer.start("Loading.")
    now[0] = 30.0
    footer.advance(25, 100, "Finding objects")
    assert footer.status.text() == "Finding objects, 2 min left"
    assert footer.bar.value() == footer.bar.maximum() // 4
    footer.stop("Done.")
    footer.advance(50, 100, "late")
    assert footer.status.text() == "Done." and not footer.cancel.isEnabled()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (600, "10 min"), (7800, "2 h 10 min")],
)
def test_a_duration_is_said_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text

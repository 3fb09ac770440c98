from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.hierarchy.params import HierarchyParams
from napari_sam_suite.engine.models.registry import MODELS
from napari_sam_suite.engine.params import PRESETS, AutoParams, PolygonParams

RANGES = {
    "smoothing": (0, 3),
    "padding": (-20, 20),
    "points_per_side": (1, 256),
    "points_per_batch": (1, 4096),
    "pred_iou_thresh": (0, 1),
    "stability_score_thresh": (0, 1),
    "stability_score_offset": (0, 10),
    "mask_threshold": (-32, 32),
    "box_nms_thresh": (0, 1),
    "crop_n_layers": (0, 4),
    "crop_nms_thresh": (0, 1),
    "crop_n_points_downscale_factor": (1, 16),
}
LEFT_OPEN = (
    "pred_iou_thresh",
    "stability_score_thresh",
    "stability_score_offset",
    "box_nms_thresh",
)


@pytest.mark.parametrize(("name", "limits"), RANGES.items())
def test_both_ends_of_a_range_are_allowed(name: str, limits: tuple[int, int]) -> None:
    for value in limits:
        assert getattr(AutoParams(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "limits"), RANGES.items())
def test_beyond_a_range_the_field_and_its_end_are_named(
    name: str, limits: tuple[int, int]
) -> None:
    for value, end in ((limits[0] - 1, limits[0]), (limits[1] + 1, limits[1])):
        with pytest.raises(ParameterError) as caught:
            AutoParams(**{name: value})
        assert caught.value.message == f"{name} cannot be {value!r}."
        assert caught.value.hint.startswith("It should be ")
        assert caught.value.hint.endswith(f" {end}.")


def test_a_word_that_cannot_be_chosen_is_answered_with_all_that_can() -> None:
    with pytest.raises(ParameterError) as caught:
        AutoParams(parts="some")
    assert caught.value.hint == "It should be 'largest', 'main' or 'all'."
    with pytest.raises(ParameterError, match="'fraction', 'tertile' or 'token'"):
        HierarchyParams(by="size")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["smoothing", "pred_iou_thresh", "mask_threshold"])
def test_what_is_no_number_is_refused(name: str, value: float) -> None:
    with pytest.raises(ParameterError, match=name):
        AutoParams(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("points_per_side", "many"),
        ("points_per_side", 3.5),
        ("points_per_side", None),
        ("min_area", -1),
        ("min_mask_region_area", -1),
        ("crop_overlap_ratio", 1),
        ("multimask", "perhaps"),
        ("parts", "some"),
        ("overlap", "sometimes"),
    ],
)
def test_a_wrong_value_is_one_sentence_about_its_field(name: str, value: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        AutoParams(**{name: value})
    assert caught.value.message == f"{name} cannot be {value!r}."
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("tile", [32, 1024, "512", "auto", "off"])
def test_a_tile_is_a_number_or_a_word(tile: int | str) -> None:
    expected = int(tile) if str(tile).isdigit() else tile
    assert AutoParams(tile=tile).tile == expected


@pytest.mark.parametrize("tile", [0, 31, -5, "large", 3.5])
def test_another_tile_is_refused_with_all_that_may_be_said(tile: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        AutoParams(tile=tile)
    assert caught.value.message == f"tile cannot be {tile!r}."
    number = "at least 32" if isinstance(tile, int) else "a whole number"
    for kind in (number, "'auto'", "'off'"):
        assert kind in caught.value.hint


def test_a_largest_object_below_the_smallest_is_refused() -> None:
    with pytest.raises(ParameterError, match="max_area"):
        AutoParams(min_area=100, max_area=50)
    assert AutoParams(min_area=100, max_area=0).max_area == 0
    assert AutoParams(min_area=100, max_area=100).max_area == 100


def test_an_unknown_key_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ParameterError, match="no parameter called point_per_side") as e:
        AutoParams(point_per_side=3)
    assert "points_per_side" in e.value.hint


def test_a_recipe_is_checked_like_a_call() -> None:
    with pytest.raises(ParameterError, match="points_per_side cannot be 0"):
        AutoParams.model_validate_json('{"points_per_side": 0}')


def test_params_never_change() -> None:
    with pytest.raises(Exception, match="frozen"):
        AutoParams().points_per_side = 3  # type: ignore[misc]


def test_a_changed_copy_is_checked_and_keeps_the_rest() -> None:
    params = AutoParams(smoothing=1).with_(points_per_side=5)
    assert (params.points_per_side, params.smoothing) == (5, 1)
    with pytest.raises(ParameterError, match="smoothing"):
        params.with_(smoothing=4)


def test_params_survive_json() -> None:
    params = AutoParams(points_per_side=7, tile=64, pred_iou_thresh=0.5)
    assert AutoParams.model_validate_json(params.model_dump_json()) == params


@pytest.mark.parametrize(("name", "side"), [("speed", 16), ("quality", 32)])
def test_a_preset_sets_the_grid(name: str, side: int) -> None:
    assert AutoParams.preset(name).points_per_side == side


def test_each_preset_is_a_setting_of_its_own() -> None:
    settings = [AutoParams.preset(name) for name in PRESETS]
    assert AutoParams.preset("default") == AutoParams()
    assert all(a != b for a, b in itertools.combinations(settings, 2))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_leaves_the_thresholds_to_the_model(name: str) -> None:
    assert all(getattr(AutoParams.preset(name), field) is None for field in LEFT_OPEN)


def test_coverage_has_the_densest_grid() -> None:
    sides = {name: AutoParams.preset(name).points_per_side for name in PRESETS}
    assert max(sides, key=sides.__getitem__) == "coverage"


def test_what_is_given_beside_a_preset_wins() -> None:
    assert AutoParams.preset("speed", points_per_side=20).points_per_side == 20
    assert AutoParams.preset("speed", smoothing=1).points_per_side == 16


def test_an_unknown_preset_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ParameterError, match="'best'") as caught:
        AutoParams.preset("best")
    assert all(name in caught.value.hint for name in PRESETS)


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.id)
def test_what_is_left_open_becomes_what_suits_the_model(spec: Any) -> None:
    resolved = AutoParams().resolved(spec)
    for name in LEFT_OPEN:
        assert getattr(AutoParams(), name) is None
        assert getattr(resolved, name) == getattr(spec.auto, name)


def test_what_was_said_stays_when_the_rest_is_filled_in() -> None:
    spec = MODELS["sam_vit_b_01ec64"]
    params = AutoParams(pred_iou_thresh=0.0, points_per_side=9).resolved(spec)
    assert params.pred_iou_thresh == 0.0
    assert params.points_per_side == 9
    assert params.stability_score_thresh == 0.95


def test_the_defaults_are_those_of_the_generators_we_replace() -> None:
    params = AutoParams().resolved(MODELS["sam2.1_hiera_small"])
    assert (params.points_per_side, params.pred_iou_thresh) == (32, 0.8)
    assert (params.stability_score_thresh, params.stability_score_offset) == (0.95, 1)
    assert (params.box_nms_thresh, params.crop_nms_thresh) == (0.7, 0.7)
    assert params.crop_overlap_ratio == 512 / 1500
    assert AutoParams().resolved(MODELS["sam_vit_h_4b8939"]).pred_iou_thresh == 0.88
    assert (params.smoothing, params.padding) == (0.3, 0)


def test_every_field_says_what_it_is_for_a_form() -> None:
    for model in (PolygonParams, AutoParams):
        for name, field in model.model_fields.items():
            assert field.title and field.description, name


def test_points_without_a_search_ask_for_a_grid() -> None:
    assert AutoParams().search == "auto"
    assert AutoParams(points_per_side=8).search == "grid"
    assert AutoParams(points_per_side=8, search="auto").search == "auto"
    assert AutoParams(search="guided").with_(points_per_side=8).search == "guided"
    assert AutoParams.preset("speed").search == "auto"
    assert AutoParams.preset("speed", points_per_side=8).search == "grid"

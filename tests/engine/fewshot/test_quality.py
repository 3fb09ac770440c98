"""Outlines judged by the model's ratings, the edges below them, and their size."""

from __future__ import annotations

import numpy as np
import pytest

from engine.fewshot_fakes import RED, dots
from napari_sam_suite.engine.fewshot.quality import (
    edge_odds,
    edge_shares,
    rating_odds,
    size_odds,
)
from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.models.registry import AutoDefaults
from napari_sam_suite.engine.tiles import Region

USUAL = AutoDefaults(pred_iou_thresh=0.8, stability_score_thresh=0.9)
SHAPE = (64, 64)
IMAGE = dots(SHAPE, (30, 30, RED), radius=8)
Y, X = np.mgrid[:64, :64]
DISC = (Y - 30) ** 2 + (X - 30) ** 2 <= 64
WHOLE = Region(0, 0, *SHAPE, is_crop=False)


def masks(*full: np.ndarray, score: float = 1.0, stability: float = 1.0) -> Masks:
    builder = MaskBuilder(SHAPE)
    for one in full:
        builder.add(one, (0, 0), score=score, stability=stability)
    return builder.build()


def shares(*full: np.ndarray, image=IMAGE, region=WHOLE, width=16.0) -> np.ndarray:
    return edge_shares(image, masks(*full), region, width)


# Edges


def test_an_object_has_an_edge_all_around() -> None:
    assert shares(DISC)[0] > 0.8


def test_half_an_object_has_none_where_it_is_cut() -> None:
    whole, half = shares(DISC, DISC & (Y < 30))
    assert half < 0.3 < whole


def test_what_is_larger_than_the_object_has_less_of_an_edge() -> None:
    whole, both = shares(DISC, DISC | ((abs(Y - 30) < 8) & (X >= 30) & (X < 50)))
    assert both < whole / 2


def test_where_the_image_is_flat_there_is_no_edge() -> None:
    far = (Y - 54) ** 2 + (X - 54) ** 2 <= 16
    assert shares(far)[0] == pytest.approx(0, abs=1e-6)


def test_dark_objects_have_edges_as_bright_ones() -> None:
    assert shares(DISC, image=255 - IMAGE) == pytest.approx(shares(DISC), abs=0.01)


def test_an_object_at_the_border_is_judged_by_the_rest_of_its_outline() -> None:
    at_border = (Y - 2) ** 2 + (X - 30) ** 2 <= 64
    image = dots(SHAPE, (2, 30, RED), radius=8)
    assert shares(at_border, image=image)[0] > 0.7


def test_a_tile_shows_the_same_edges_as_the_frame() -> None:
    tile = Region(10, 12, 60, 62, is_crop=False)
    assert shares(DISC, region=tile) == pytest.approx(shares(DISC), abs=1e-3)


def test_an_empty_mask_has_no_edge() -> None:
    assert shares(np.zeros(SHAPE, bool)).tolist() == [0.0]


# Evidence


def test_ratings_count_from_the_thresholds_that_suit_the_model() -> None:
    at = rating_odds(masks(DISC, score=0.8, stability=0.9), USUAL)
    assert at == pytest.approx([-1.0], abs=1e-6)
    assert rating_odds(masks(DISC), USUAL) == pytest.approx([-1.0 + 1.05 + 1.65])


def test_a_threshold_of_one_is_no_division_by_zero() -> None:
    strict = AutoDefaults(pred_iou_thresh=1.0, stability_score_thresh=1.0)
    assert np.isfinite(rating_odds(masks(DISC), strict)).all()


def test_edges_count_as_much_as_the_examples_have_them() -> None:
    shares = np.array([0.8, -0.2])
    odds = edge_odds(shares, np.array([0.9, 0.3]))
    assert odds == pytest.approx(0.1 * 0.6 * shares)


def test_edges_say_nothing_where_the_examples_have_none() -> None:
    halos = edge_odds(np.array([0.8, -0.2]), np.array([-0.9, -0.7]))
    assert halos.tolist() == [0, 0]


def test_the_usual_size_speaks_against_nothing_and_others_by_their_ratio() -> None:
    odds = size_odds(np.array([50, 100, 200]), np.array([100.0, 100.0]))
    assert odds == pytest.approx(np.array([-0.4, 0, -0.4]) * np.log(2) ** 2)


def test_examples_of_many_sizes_make_sizes_count_less() -> None:
    narrow = size_odds(np.array([300]), np.array([90.0, 110.0]))
    wide = size_odds(np.array([300]), np.array([30.0, 330.0]))
    assert narrow < wide < 0

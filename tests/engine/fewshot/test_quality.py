"""Outlines judged by the model's ratings, and by their size."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_suite.engine.fewshot.quality import rating_odds, size_odds
from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.models.registry import AutoDefaults

USUAL = AutoDefaults(pred_iou_thresh=0.8, stability_score_thresh=0.9)
SHAPE = (64, 64)
Y, X = np.mgrid[:64, :64]
DISC = (Y - 30) ** 2 + (X - 30) ** 2 <= 64


def masks(*full: np.ndarray, score: float = 1.0, stability: float = 1.0) -> Masks:
    builder = MaskBuilder(SHAPE)
    for one in full:
        builder.add(one, (0, 0), score=score, stability=stability)
    return builder.build()


def test_ratings_count_from_the_thresholds_that_suit_the_model() -> None:
    at = rating_odds(masks(DISC, score=0.8, stability=0.9), USUAL)
    assert at == pytest.approx([-0.85], abs=1e-6)
    perfect = rating_odds(masks(DISC), USUAL)
    assert perfect == pytest.approx([-0.85 + 1.1 + 1.65])


def test_a_threshold_of_one_is_no_division_by_zero() -> None:
    strict = AutoDefaults(pred_iou_thresh=1.0, stability_score_thresh=1.0)
    assert np.isfinite(rating_odds(masks(DISC), strict)).all()


def test_the_usual_size_speaks_against_nothing_and_others_by_their_ratio() -> None:
    odds = size_odds(np.array([50, 100, 200]), np.array([100.0, 100.0]))
    assert odds == pytest.approx(np.array([-0.4, 0, -0.4]) * np.log(2) ** 2)


def test_examples_of_many_sizes_make_sizes_count_less() -> None:
    narrow = size_odds(np.array([300]), np.array([90.0, 110.0]))
    wide = size_odds(np.array([300]), np.array([30.0, 330.0]))
    assert narrow < wide < 0

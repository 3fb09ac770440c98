"""Masks beside what a guide says: one object, all of it, or neither."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_suite.engine.fewshot.guided import guide_odds
from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.models.protocol import Embedding
from napari_sam_suite.engine.tiles import Region

SHAPE = (64, 64)
WHOLE = Region(0, 0, *SHAPE, is_crop=False)


def square(y0: int, x0: int, height: int, width: int) -> np.ndarray:
    full = np.zeros(SHAPE, bool)
    full[y0 : y0 + height, x0 : x0 + width] = True
    return full


def embedding(*objects: np.ndarray, places: int = 32, region=WHOLE) -> Embedding:
    """With a guide that knows these objects; every place is of 2 x 2 pixels."""
    guide = np.full((1, 5, places, places), -4.0, np.float32)
    step = region.shape[0] // places
    for full in objects:
        part = full[region.y0 : region.y1, region.x0 : region.x1]
        y, x = np.nonzero(part[::step, ::step])
        guide[0, 0, y, x] = 4
        guide[0, 2, y, x] = (y.mean() - y) / 8
        guide[0, 3, y, x] = (x.mean() - x) / 8
        guide[0, 4, y, x] = np.log(np.sqrt(len(y)) / 8)
    return Embedding({"guide": guide}, region.shape, region.shape)


def masks(*full: np.ndarray) -> Masks:
    builder = MaskBuilder(SHAPE)
    for one in full:
        builder.add(one, (0, 0))
    return builder.build()


def test_a_whole_object_has_all_that_the_guide_can_give() -> None:
    one = square(10, 10, 16, 16)
    assert guide_odds(embedding(one), masks(one), WHOLE) == pytest.approx([0.43])


def test_half_an_object_is_off_in_its_middle_and_its_size() -> None:
    one, half = square(10, 10, 16, 16), square(10, 10, 16, 8)
    found = guide_odds(embedding(one), masks(half), WHOLE)
    # 8 x 4 places, all of which name a centre 2 places from their own.
    expected = 0.43 - 0.34 * 2 / np.sqrt(32) - 0.47 * np.log(2)
    assert found == pytest.approx([expected], abs=1e-5)


def test_two_objects_are_not_one() -> None:
    left, right = square(10, 10, 16, 16), square(10, 26, 16, 16)
    one, both = guide_odds(embedding(left, right), masks(left, left | right), WHOLE)
    assert one - both > 0.47 * np.log(2)


def test_a_tile_says_the_same_as_the_frame() -> None:
    one, half = square(20, 20, 16, 16), square(20, 20, 8, 16)
    tile = Region(8, 8, 56, 56, is_crop=False)
    guide = embedding(one, places=24, region=tile)
    expected = guide_odds(embedding(one), masks(one, half), WHOLE)
    assert guide_odds(guide, masks(one, half), tile) == pytest.approx(expected)


def test_a_mask_between_the_places_is_not_judged() -> None:
    dot = square(11, 11, 1, 1)
    assert guide_odds(embedding(places=4), masks(dot), WHOLE).tolist() == [0]


def test_a_model_without_a_guide_says_nothing() -> None:
    plain = Embedding({"image": np.zeros((1, 3, 4, 4))}, SHAPE, SHAPE)
    assert guide_odds(plain, masks(square(0, 0, 9, 9)), WHOLE).tolist() == [0]

"""What several clicks say of logits."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_suite.engine.clicked import AROUND, CLICK, bumps, siding

YES, NO = True, False


def level(*clicks: tuple[float, bool]) -> float:
    values, inside = zip(*clicks, strict=True)
    return siding(np.array(values), np.array(inside))


def test_the_likeliest_level_of_one_click() -> None:
    # 0 = t - 1 / (1 + exp(t - v)): for v = 2, t = 0.76 (by hand), in steps of 0.25
    assert level((2.0, NO)) == pytest.approx(0.75)
    assert level((-2.0, YES)) == pytest.approx(-0.75)


def test_clicks_that_are_on_their_sides_hardly_move_the_outline() -> None:
    assert level((6.0, YES), (-6.0, NO)) == 0


def test_a_click_that_is_contradicted_more_moves_more() -> None:
    found = [level((9.0, YES), (value, NO)) for value in (-4, 0, 1, 4)]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_the_middle_of_the_object_holds_the_outline_back() -> None:
    assert level((0.5, YES), (4.0, NO)) < level((9.0, YES), (4.0, NO))


def test_many_clicks_do_not_go_beyond_the_bounds() -> None:
    assert level(*[(9.0, NO)] * 20) == 3
    assert level(*[(-9.0, YES)] * 20) == -3


def test_bumps_are_highest_at_their_clicks() -> None:
    points, inside = np.array([[8.0, 8], [8, 24]]), np.array([YES, NO])
    found = bumps(points, inside, 20.0, (16, 32))
    assert found.shape == (16, 32)
    assert found.dtype == np.float32
    assert found[8, 8] == pytest.approx(CLICK, rel=1e-3)
    assert found[8, 24] == pytest.approx(-CLICK, rel=1e-3)
    one_off = CLICK * np.exp(-0.5)
    assert found[8, 8 + round(AROUND * 20)] == pytest.approx(one_off, rel=1e-2)

"""The logit at which a mask fills its box."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_suite.engine.extent import filling


def cone(radius: float) -> np.ndarray:
    """Logits that fall by one a place and are 0 at a circle around (20, 24)."""
    y, x = np.indices((40, 48), np.float32)
    return radius - np.hypot(y - 20, x - 24)


def area_of(radius: float) -> float:
    return float((cone(radius) > 0).sum())


def box_of(radius: float) -> tuple[np.ndarray, np.ndarray]:
    middle = np.array([20.0, 24.0])
    return middle - radius, middle + radius


@pytest.mark.parametrize(("radius", "level"), [(8, 0), (6, 2), (10, -2), (5, 3)])
def test_the_level_is_where_the_mask_has_the_size_of_its_box(radius, level):
    assert filling(cone(8), *box_of(radius), area_of(radius)) == level


def test_levels_have_bounds():
    assert filling(cone(8), *box_of(3), area_of(3)) == 4
    assert filling(cone(8), *box_of(16), area_of(16)) == -3


def test_a_little_is_not_worth_another_level():
    assert filling(cone(8), *box_of(7.74), area_of(8)) == 0
    assert filling(cone(8), *box_of(7.4), area_of(7.5)) == 0.5


def test_no_mask_at_any_level_is_no_level():
    assert filling(np.full((8, 8), -9.0), np.zeros(2), np.full(2, 5.0), 25) == 0


def test_a_mask_at_the_edges_of_the_image_ends_there():
    ramp = np.repeat(np.linspace(4, -4, 17)[None], 17, 0)
    found = filling(ramp, np.array([-0.5, -0.5]), np.array([16.5, 6.0]), 120)
    assert found == 1.0


def test_a_mask_is_not_to_be_fat_for_a_little_of_the_box() -> None:
    """A disc in a box, all of which a lower level would fill."""
    low, high = box_of(8.7)
    y, x = np.indices((40, 48))
    within = (abs(y - 20) < 8.7) & (abs(x - 24) < 8.7)
    logits = np.where(within, np.maximum(cone(8), -0.7), cone(8))
    assert filling(logits, low, high, area_of(8)) == -0.5
    assert filling(logits, low, high, float(within.sum())) == -1

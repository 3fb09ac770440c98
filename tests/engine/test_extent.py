"""The logit at which a mask fills its box."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_suite.engine.extent import filling


def cone(radius: float) -> np.ndarray:
    """Logits that fall by one a place and are 0 at a circle around (20, 24)."""
    y, x = np.indices((40, 48), np.float32)
    return radius - np.hypot(y - 20, x - 24)


def box_of(radius: float) -> tuple[np.ndarray, np.ndarray]:
    middle = np.array([20.0, 24.0])
    return middle - radius, middle + radius


@pytest.mark.parametrize(("radius", "level"), [(8, 0), (6, 2), (10, -2), (5, 3)])
def test_the_level_is_where_the_mask_has_the_size_of_its_box(radius, level):
    assert filling(cone(8), *box_of(radius)) == level


def test_levels_have_bounds():
    assert filling(cone(8), *box_of(3)) == 4
    assert filling(cone(8), *box_of(16)) == -3


def test_a_little_is_not_worth_another_level():
    assert filling(cone(8), *box_of(7.74)) == 0
    assert filling(cone(8), *box_of(7.4)) == 0.5


def test_no_mask_at_any_level_is_no_level():
    assert filling(np.full((8, 8), -9.0), np.zeros(2), np.full(2, 5.0)) == 0


def test_a_mask_at_the_edges_of_the_image_ends_there():
    ramp = np.repeat(np.linspace(4, -4, 17)[None], 17, 0)
    found = filling(ramp, np.array([-0.5, -0.5]), np.array([16.5, 6.0]))
    assert found == 1.0

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import find_contours

from napari_sam_suite.engine.outlines import signed_area, trace_outlines


def noise(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.random(rng.integers(1, 14, size=2)) < rng.random() for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_traces_the_same_rings_as_skimage_point_for_point(seed):
    for mask in noise(100, seed):
        padded = np.pad(mask, 1).astype(float)
        expected = find_contours(padded, 0.5, fully_connected="high")
        found = trace_outlines(mask)
        assert len(found) == len(expected)
        for ring in expected:
            assert any(np.array_equal(ring - 1, other) for other in found)


def test_islands_turn_one_way_and_holes_the_other():
    mask = np.ones((5, 5), dtype=bool)
    mask[2, 2] = False
    areas = sorted(signed_area(ring) for ring in trace_outlines(mask))
    assert areas == [-24.5, 0.5]


def test_an_empty_mask_has_no_outline():
    assert trace_outlines(np.zeros((3, 4), dtype=bool)) == []

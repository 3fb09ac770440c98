"""Boxes near another are found without comparing all with all."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_suite.engine.nearby import Nearby

SHAPE = (60, 90)


def some_boxes(count: int, seed: int) -> np.ndarray:
    """Small boxes, one in ten as large as the frame may hold, and an empty one."""
    rng = np.random.default_rng(seed)
    most = np.where(np.arange(count)[:, None] % 10 == 0, SHAPE, 9)
    size = rng.integers(1, most + 1)
    first = rng.integers(np.array(SHAPE) - size + 1)
    return np.concatenate([np.hstack([first, first + size]), np.zeros((1, 4))]).astype(
        np.int32
    )


@pytest.mark.parametrize("seed", range(5))
def test_boxes_nearby_are_those_that_share_a_pixel(seed: int) -> None:
    boxes = some_boxes(60, seed)
    nearby = Nearby.of(boxes)
    filled = []
    for y0, x0, y1, x1 in boxes.tolist():
        filled.append(np.zeros(SHAPE, bool))
        filled[-1][y0:y1, x0:x1] = True
    for one, box in zip(filled, boxes, strict=True):
        assert nearby.to(box) == [
            j for j, two in enumerate(filled) if (one & two).any()
        ]


def test_no_boxes_have_nothing_nearby() -> None:
    none = Nearby.of(np.zeros((0, 4), np.int32))
    assert none.to(np.array([0, 0, 5, 5], np.int32)) == []

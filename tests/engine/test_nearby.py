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


class Counted(list):
    """Counts what is taken out of it."""

    taken = 0

    def __getitem__(self, key):
        Counted.taken += 1
        return super().__getitem__(key)


def grid(many: int) -> np.ndarray:
    """So many boxes of 4 px along each side, a pixel between them."""
    first = 5 * np.stack(np.mgrid[:many, :many], -1).reshape(-1, 2)
    return np.hstack([first, first + 4]).astype(np.int32)


def test_a_box_is_compared_with_those_around_it_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Counted, "taken", 0)
    boxes = grid(40)
    nearby = Nearby.of(boxes)
    nearby._boxes = Counted(nearby._boxes)
    assert [nearby.to(box) for box in boxes] == [[j] for j in range(len(boxes))]
    assert Counted.taken < 10 * len(boxes)


def test_a_box_as_large_as_the_frame_lies_in_a_bounded_number_of_cells() -> None:
    large = np.array([[0, 0, 4000, 4000]], np.int32)
    nearby = Nearby.of(np.concatenate([grid(20), large]))
    assert len(nearby._cells) <= 101**2


def test_a_large_box_looks_only_where_there_are_boxes() -> None:
    nearby = Nearby.of(grid(5))
    assert len(list(nearby._covered([0, 0, 4000, 4000]))) <= 10**2
    assert nearby.to(np.array([0, 0, 4000, 4000], np.int32)) == list(range(25))

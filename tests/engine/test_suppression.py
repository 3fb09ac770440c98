from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.suppression import (
    best_first,
    drop_duplicates,
    make_exclusive,
    suppress_overlaps,
    within_area,
)

SHAPE = (200, 300)


def rectangles(
    *boxes: tuple[int, int, int, int], scores: list[float] | None = None
) -> Masks:
    builder = MaskBuilder(SHAPE)
    for i, (y0, x0, y1, x1) in enumerate(boxes):
        pixels = np.ones((y1 - y0, x1 - x0), bool)
        builder.add(pixels, (y0, x0), score=scores[i] if scores else 1 - i / 100)
    return builder.build()


def random_masks(count: int, seed: int) -> Masks:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 150, (count, 2))
    sides = rng.integers(1, 50, (count, 2))
    boxes = np.concatenate([corners, corners + sides], 1)
    scores = rng.integers(0, 8, count) / 8
    return rectangles(*map(tuple, boxes.tolist()), scores=scores.tolist())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_duplicates_are_those_of_torchvision(seed: int, threshold: float) -> None:
    masks = random_masks(80, seed)
    kept = drop_duplicates(masks, masks.scores, threshold)
    xyxy = masks.boxes[:, [1, 0, 3, 2]] - np.array([0, 0, 1, 1])
    expected = nms(
        torch.from_numpy(xyxy.astype(np.float32)),
        torch.from_numpy(masks.scores),
        threshold,
    )
    np.testing.assert_array_equal(kept.boxes, masks.boxes[expected.numpy()])


def test_masks_that_survive_come_best_first() -> None:
    boxes = [(0, 0, 9, 9), (50, 50, 60, 60), (100, 0, 110, 9)]
    masks = rectangles(*boxes, scores=[0.2, 0.9, 0.5])
    kept = drop_duplicates(masks, masks.scores, 0.7)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.5, 0.2])


def test_no_masks_have_no_duplicates() -> None:
    masks = Masks.empty(SHAPE)
    assert len(drop_duplicates(masks, masks.scores, 0.7)) == 0
    assert len(make_exclusive(masks)) == 0
    assert len(suppress_overlaps(masks, best_first(masks))) == 0


def test_area_limits_include_their_ends_and_zero_is_none() -> None:
    masks = rectangles((0, 0, 2, 5), (0, 0, 4, 5), (0, 0, 6, 5))
    assert within_area(masks, 10, 20).area.tolist() == [10, 20]
    assert within_area(masks, 20, 0).area.tolist() == [20, 30]
    assert within_area(masks, 0, 0).area.tolist() == [10, 20, 30]
    assert within_area(masks, 0, 5).area.tolist() == []


def test_equally_good_masks_keep_their_order() -> None:
    boxes = [(0, 0, 1, 1), (0, 0, 2, 2), (0, 0, 3, 3)]
    masks = rectangles(*boxes, scores=[0.5, 0.9, 0.5])
    assert best_first(masks).tolist() == [1, 0, 2]


# By pixels


def test_of_two_masks_of_the_same_thing_the_first_in_order_stays() -> None:
    masks = rectangles((0, 0, 10, 10), (0, 0, 10, 11), (50, 50, 60, 60))
    assert suppress_overlaps(masks, np.array([1, 0, 2])).tolist() == [1, 2]


def test_a_part_of_another_mask_is_not_its_duplicate() -> None:
    masks = rectangles((0, 0, 100, 100), (10, 10, 20, 20))
    assert suppress_overlaps(masks, best_first(masks)).tolist() == [0, 1]


def test_an_iou_of_exactly_one_half_is_not_the_same_thing() -> None:
    masks = rectangles((0, 0, 10, 10), (0, 0, 10, 20))
    assert len(suppress_overlaps(masks, best_first(masks))) == 2


@pytest.mark.parametrize("seed", range(4))
def test_the_grid_of_cells_misses_no_neighbour(seed: int) -> None:
    masks = random_masks(60, seed)
    kept: list[int] = []
    for i in best_first(masks).tolist():
        one = masks.full(i)
        others = [masks.full(j) for j in kept]
        if all((one & two).sum() <= 0.5 * (one | two).sum() for two in others):
            kept.append(i)
    assert suppress_overlaps(masks, best_first(masks)).tolist() == kept


# Exclusive


def test_exclusive_masks_share_no_pixel_and_lose_none() -> None:
    masks = random_masks(40, 0)
    exclusive = make_exclusive(masks)
    count = np.zeros(SHAPE, int)
    for i in range(len(exclusive)):
        count += exclusive.full(i)
    assert count.max() == 1
    assert 1 < len(exclusive) < 40


def test_a_shared_pixel_belongs_to_the_better_mask() -> None:
    masks = rectangles((0, 0, 10, 10), (0, 6, 10, 16), scores=[0.5, 0.9])
    exclusive = make_exclusive(masks)
    assert exclusive.scores.tolist() == pytest.approx([0.9, 0.5])
    assert exclusive.boxes.tolist() == [[0, 6, 10, 16], [0, 0, 10, 6]]
    assert exclusive.area.tolist() == [100, 60]


def test_a_mask_most_of_which_is_taken_is_dropped() -> None:
    masks = rectangles((0, 0, 10, 10), (0, 4, 10, 14), scores=[0.9, 0.5])
    assert make_exclusive(masks).scores.tolist() == pytest.approx([0.9])


def test_a_mask_half_of_which_is_left_stays() -> None:
    masks = rectangles((0, 0, 10, 10), (0, 5, 10, 15), scores=[0.9, 0.5])
    assert make_exclusive(masks).area.tolist() == [100, 50]


def test_a_better_mask_inside_leaves_a_hole_in_the_worse() -> None:
    masks = rectangles((0, 0, 20, 20), (5, 5, 10, 10), scores=[0.5, 0.9])
    exclusive = make_exclusive(masks)
    assert exclusive.area.tolist() == [25, 375]
    assert not exclusive.full(1)[5:10, 5:10].any()


def test_masks_without_a_pixel_are_dropped() -> None:
    builder = MaskBuilder(SHAPE)
    builder.add(np.zeros((3, 3), bool), (0, 0))
    builder.add(np.ones((3, 3), bool), (0, 0), score=0.5)
    assert make_exclusive(builder.build()).area.tolist() == [9]

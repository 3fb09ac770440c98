"""Of many candidates in one place one is kept, without comparing all with all."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_suite.engine.fewshot.choose import not_known, resolve
from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.suppression import share_out

SHAPE = (60, 90)


def blots(count: int, seed: int) -> Masks:
    """Small masks, one in ten as large as the frame may hold, and an empty one."""
    rng = np.random.default_rng(seed)
    builder = MaskBuilder(SHAPE)
    for k in range(count):
        most = SHAPE if k % 10 == 0 else (9, 9)
        size = [int(rng.integers(1, n + 1)) for n in most]
        y0, x0 = (
            int(rng.integers(n - s + 1)) for n, s in zip(SHAPE, size, strict=True)
        )
        builder.add(rng.random(size) < 0.8, (y0, x0))
    builder.add(np.zeros((0, 0), bool), (0, 0))
    return builder.build()


def alike(masks: Masks, i: int, others: Masks, j: int) -> bool:
    shared = np.count_nonzero(masks.full(i) & others.full(j))
    return bool(shared > min(masks.area[i], others.area[j]) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_kept_is_what_comparing_all_with_all_keeps(seed: int) -> None:
    masks = blots(120, seed)
    rank = np.random.default_rng(seed + 100).random(len(masks)).round(1)
    plain: list[int] = []
    for i in np.argsort(-rank, kind="stable").tolist():
        if masks.area[i] and not any(alike(masks, i, masks, j) for j in plain):
            plain.append(i)
    kept = resolve(masks, rank)
    assert kept.tolist() == plain
    assert 10 < len(kept) < len(masks) - 10


@pytest.mark.parametrize("seed", range(5))
def test_what_is_new_is_what_comparing_all_with_all_says(seed: int) -> None:
    masks, known = blots(120, seed), blots(20, seed + 50)
    plain = [
        i
        for i in range(len(masks))
        if not any(alike(masks, i, known, j) for j in range(len(known)))
    ]
    assert not_known(masks, known).tolist() == plain
    assert 10 < len(plain) < len(masks) - 10


def box(y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def drawn(*masks: np.ndarray) -> Masks:
    builder = MaskBuilder(SHAPE)
    for mask in masks:
        builder.add(mask, (0, 0))
    return builder.build()


def test_pixels_of_known_objects_stay_theirs() -> None:
    known, found = drawn(box(0, 0, 10, 10)), drawn(box(0, 6, 10, 20))
    left, _ = share_out(found, known)
    assert np.array_equal(left.full(0), box(0, 10, 10, 20))


def test_pixels_of_two_are_of_the_first() -> None:
    found = drawn(box(0, 6, 10, 20), box(0, 0, 10, 10))
    left, _ = share_out(found, Masks.empty(SHAPE))
    assert np.array_equal(left.full(0), box(0, 6, 10, 20))
    assert np.array_equal(left.full(1), box(0, 0, 10, 6))


@pytest.mark.parametrize(("least", "left"), [(1, [0]), (60, [0]), (61, [])])
def test_what_is_left_is_not_below_the_smallest_area(
    least: int, left: list[int]
) -> None:
    known, found = drawn(box(0, 0, 10, 10)), drawn(box(0, 6, 10, 16))
    assert share_out(found, known, least)[1].tolist() == left


@pytest.mark.parametrize("gap", [0, 1])
def test_a_mask_of_which_others_leave_less_than_half_is_dropped(gap: int) -> None:
    between, apart = box(0, 5, 10, 15 + gap), box(30, 30, 40, 40)
    known = drawn(box(0, 0, 10, 10), box(0, 10 + gap, 10, 20))
    masks, left = share_out(drawn(between, apart), known)
    assert left.tolist() == [1] and np.array_equal(masks.full(0), apart)
    _, left = share_out(drawn(*map(known.full, (0, 1)), between), Masks.empty(SHAPE))
    assert left.tolist() == [0, 1]

"""Of many candidates in one place one is kept, without comparing all with all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_sam_suite.engine.fewshot.choose import Nearby, not_known, resolve
from napari_sam_suite.engine.masks import MaskBuilder, Masks

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
    _, kept = resolve(masks, rank)
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


@pytest.mark.parametrize("seed", range(5))
def test_boxes_nearby_are_those_that_share_a_pixel(seed: int) -> None:
    masks = blots(60, seed)
    nearby = Nearby.of(masks.boxes)
    filled = []
    for y0, x0, y1, x1 in masks.boxes.tolist():
        filled.append(np.zeros(SHAPE, bool))
        filled[-1][y0:y1, x0:x1] = True
    for one, box in zip(filled, masks.boxes, strict=True):
        assert nearby.to(box) == [
            j for j, two in enumerate(filled) if (one & two).any()
        ]


def test_no_boxes_have_nothing_nearby() -> None:
    none = Nearby.of(Masks.empty(SHAPE).boxes)
    assert none.to(np.array([0, 0, 5, 5], np.int32)) == []


class Counted(np.ndarray):
    """Counts the numbers that are taken out of it."""

    taken = 0

    def __getitem__(self, key: object) -> np.ndarray:
        got = super().__getitem__(key)
        Counted.taken += got.size
        return got


def test_every_candidate_is_compared_with_its_neighbours_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Counted, "taken", 0)
    builder = MaskBuilder((200, 200))
    for y0, x0 in np.ndindex(40, 40):
        builder.add(np.ones((4, 4), bool), (5 * y0, 5 * x0))
    masks = builder.build()
    counted = replace(masks, boxes=masks.boxes.view(Counted))
    _, kept = resolve(counted, np.zeros(len(masks)), exclusive=False)
    assert len(kept) == len(masks)
    assert Counted.taken < 40 * len(masks)

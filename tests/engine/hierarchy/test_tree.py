from __future__ import annotations

import numpy as np
import pytest
import shapely

from engine.hierarchy.cases import nested, square
from napari_sam_suite.engine.hierarchy.tree import find_parents
from napari_sam_suite.engine.objects import Objects

RANKS = np.array([2, 1, 1, 0, 0, 0, 1, 0])


def test_each_object_lies_in_the_next_level_or_in_the_one_above() -> None:
    parents = find_parents(nested(), RANKS)
    assert parents.tolist() == [-1, 0, 0, 1, 2, 0, -1, -1]


def test_half_of_an_object_is_enough_and_less_is_not() -> None:
    whole = square(0, 0, 40)
    objects = Objects([whole, square(35, 0, 10), square(36, 0, 10)])
    parents = find_parents(objects, np.array([2, 0, 0]))
    assert parents.tolist() == [-1, 0, -1]
    assert find_parents(objects, np.array([2, 0, 0]), 0.6).tolist() == [-1, -1, -1]


def test_the_parent_is_the_one_that_covers_most_and_of_equals_the_smaller() -> None:
    more = Objects([square(0, 0, 20), square(0, 13, 20), square(0, 11, 10)])
    assert find_parents(more, np.array([1, 1, 0])).tolist() == [-1, -1, 0]
    same = Objects([square(0, 0, 30), square(0, 0, 20), square(2, 2, 5)])
    assert find_parents(same, np.array([1, 1, 0])).tolist() == [-1, -1, 1]


def test_objects_of_one_level_and_of_other_frames_do_not_hold_each_other() -> None:
    objects = Objects([square(0, 0, 40), square(5, 5, 20), square(6, 6, 5)])
    assert find_parents(objects, np.array([1, 1, 1])).tolist() == [-1] * 3
    apart = objects.with_features(z=[0, 1, 1])
    assert find_parents(apart, np.array([2, 1, 0])).tolist() == [-1, -1, 1]


def test_holes_hold_nothing() -> None:
    ring = square(0, 0, 40).difference(square(10, 10, 20))
    objects = Objects([ring, square(12, 12, 5), square(1, 1, 5)])
    assert find_parents(objects, np.array([2, 0, 0])).tolist() == [-1, -1, 0]


def test_broken_outlines_and_no_objects_are_no_trouble() -> None:
    bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    objects = Objects([square(-5, -5, 30), bow]).with_features(area=[900, 50])
    assert find_parents(objects, np.array([2, 0])).tolist() == [-1, 0]
    assert find_parents(Objects.empty(), np.empty(0, np.int64)).tolist() == []


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_comparing_every_pair_of_pixels_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 50, (60, 2))
    sides = np.r_[[30] * 6, [12] * 18, [4] * 36]
    ranks = np.r_[[2] * 6, [1] * 18, [0] * 36]
    masks = np.zeros((60, 90, 90), bool)
    for mask, (y, x), side in zip(masks, corners, sides, strict=True):
        mask[y : y + side, x : x + side] = True
    polygons = [square(*c, s) for c, s in zip(corners, sides, strict=True)]
    parents = find_parents(Objects(polygons), ranks)
    shared = np.einsum("iyx,jyx->ij", masks.astype(float), masks.astype(float))
    shares = shared / (sides**2)[:, None]
    for row in range(60):
        hosts: list[int] = []
        for rank in range(ranks[row] + 1, 3):
            enough = np.where((ranks == rank) & (shares[row] >= 0.5), shares[row], 0)
            if not hosts and enough.any():
                hosts = np.flatnonzero(enough == enough.max()).tolist()
        assert parents[row] in (hosts or [-1])


def test_ten_thousand_objects_are_not_compared_in_pairs(monkeypatch) -> None:
    count = 0
    intersection = shapely.intersection

    def counted(one, other):
        nonlocal count
        count += len(one)
        return intersection(one, other)

    monkeypatch.setattr(shapely, "intersection", counted)
    places = [(y * 10, x * 10) for y in range(50) for x in range(50)]
    polygons = [square(y, x, 8) for y, x in places]
    polygons += [square(y + d, x + d, 2) for y, x in places for d in (0, 2, 4)]
    ranks = np.r_[np.full(2500, 1), np.zeros(7500, int)]
    parents = find_parents(Objects(polygons), ranks)
    assert (parents[2500:] == np.repeat(np.arange(2500), 3)).all()
    assert count < 20_000

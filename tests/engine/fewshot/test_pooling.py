"""Masks laid over feature cells: by area, aligned, and with nothing lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_sam_suite.engine.fewshot.pooling import (
    cells_per_pixel,
    coverage,
    descriptors,
    pool,
)
from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.models.protocol import Embedding
from napari_sam_suite.engine.tiles import Region


def masks(*boxes: tuple[int, int, int, int], shape=(64, 64)) -> Masks:
    builder = MaskBuilder(shape)
    for y0, x0, y1, x1 in boxes:
        builder.add(np.ones((y1 - y0, x1 - x0), bool), (y0, x0))
    return builder.build()


def columns(size: int = 4) -> np.ndarray:
    """One feature: the number of the column."""
    return np.broadcast_to(np.arange(size, dtype=np.float32), (1, size, size)).copy()


def test_a_mask_of_whole_cells_weighs_one_in_each() -> None:
    weights, first = coverage(np.ones((4, 8), bool), (4, 0), (0.25, 0.25), (4, 4))
    assert first == (1, 0)
    assert weights == pytest.approx(np.ones((1, 2)))


def test_a_mask_between_cells_is_shared_by_area() -> None:
    weights, first = coverage(np.ones((4, 4), bool), (0, 3), (0.25, 0.25), (4, 4))
    assert first == (0, 0)
    assert weights == pytest.approx(np.array([[0.25, 0.75]]))


@pytest.mark.parametrize("scale", [0.03, 0.3, 1.0, 2.7])
def test_the_weights_add_up_to_the_area(scale: float) -> None:
    mask = np.random.default_rng(0).random((9, 11)) > 0.4
    weights, _ = coverage(mask, (5, 7), (scale, scale), (64, 64))
    assert weights.sum() == pytest.approx(mask.sum() * scale**2, rel=1e-4)


def test_a_thin_line_keeps_its_weight() -> None:
    line = np.ones((1000, 1), bool)
    weights, first = coverage(line, (0, 777), (0.004, 0.004), (4, 4))
    assert first == (0, 3)
    assert weights.sum() > 0


def test_cells_of_a_stretched_image_follow_both_its_sides() -> None:
    embedding = Embedding({}, (100, 200), (512, 512))
    assert cells_per_pixel(embedding, (32, 32)) == pytest.approx((0.32, 0.16))


def test_cells_of_a_padded_image_are_square() -> None:
    embedding = Embedding({}, (512, 1024), (512, 1024))
    assert cells_per_pixel(embedding, (64, 64)) == pytest.approx((1 / 16, 1 / 16))


def test_pooling_takes_the_mean_inside_weighted_by_area() -> None:
    # Twelve pixels wide from column 4: cells 1, 2 and 3 whole.
    inside, _ = pool(columns(), masks((0, 4, 16, 16)), (0, 0), (0.25, 0.25))
    assert inside[0, 0] == pytest.approx(2.0)


def test_pooling_looks_around_a_mask_without_the_mask() -> None:
    # The box of cell (0, 1) grows by one cell: (0, 0), (0, 2) and the row below.
    _, around = pool(columns(), masks((0, 4, 4, 8)), (0, 0), (0.25, 0.25))
    assert around[0, 0] == pytest.approx((0 + 2 + 0 + 1 + 2) / 5)


def test_pooling_looks_further_around_a_larger_mask() -> None:
    features, scale = columns(16), (0.25, 0.25)
    small = masks((28, 0, 36, 8), shape=(64, 64))
    large = masks((16, 0, 48, 32), shape=(64, 64))
    assert pool(features, small, (0, 0), scale)[1][0, 0] < 3
    assert pool(features, large, (0, 0), scale)[1][0, 0] > 5


def test_pooling_counts_from_the_corner_of_the_tile() -> None:
    inside, _ = pool(columns(), masks((32, 40, 36, 44)), (32, 32), (0.25, 0.25))
    assert inside[0, 0] == pytest.approx(2.0)


def test_a_mask_without_pixels_has_the_mean_of_the_map() -> None:
    inside, _ = pool(columns(), masks((0, 0, 0, 0)), (0, 0), (0.25, 0.25))
    assert inside[0, 0] == pytest.approx(1.5)


def describe(found: Masks, rgb: np.ndarray) -> np.ndarray:
    embedding = Embedding(
        {"image": torch.zeros(1, 2, 4, 4), "fine": torch.zeros(1, 1, 16, 16)},
        found.shape,
        (64, 64),
    )
    return descriptors(embedding, found, rgb, Region(0, 0, *found.shape))


def test_a_descriptor_holds_all_levels_colours_and_shape() -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    assert describe(masks((0, 0, 8, 8)), rgb).shape == (1, 2 * 2 + 2 * 1 + 9 + 7)


@pytest.mark.parametrize(
    "order",
    [("fine", "middle", "image", "guide"), ("fine", "guide", "image", "middle")],
    ids=["exported", "file"],
)
def test_a_descriptor_is_the_same_in_whatever_order_the_maps_come(order) -> None:
    rng = np.random.default_rng(0)
    sides = {"image": (6, 4), "middle": (4, 8), "fine": (2, 16), "guide": (5, 16)}
    maps = {
        name: rng.random((1, count, side, side), np.float32)
        for name, (count, side) in sides.items()
    }
    found, rgb = masks((4, 4, 30, 20)), np.zeros((64, 64, 3), np.uint8)
    region = Region(0, 0, 64, 64)
    straight, mixed = (
        Embedding({name: maps[name] for name in names}, (64, 64), (64, 64))
        for names in (sides, order)
    )
    vectors = descriptors(mixed, found, rgb, region)
    assert list(mixed.maps()) == list(sides)
    assert (vectors == descriptors(straight, found, rgb, region)).all()
    coarse, _ = pool(mixed.maps()["image"], found, (0, 0), (1 / 16, 1 / 16))
    assert vectors[:, :6] == pytest.approx(coarse)


def test_a_descriptor_tells_colour_from_surroundings() -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[..., 2] = 51
    rgb[20:30, 20:30] = (255, 0, 51)
    mean, contrast, spread = describe(masks((20, 20, 30, 30)), rgb)[0, 6:15].reshape(
        3, 3
    )
    assert mean == pytest.approx([1, 0, 0.2])
    assert contrast == pytest.approx([1, 0, 0], abs=1e-5)
    assert spread == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_descriptor_tells_size_and_shape() -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    area, long, short, elongation, fullness, _, _ = describe(masks((0, 0, 4, 16)), rgb)[
        0, 15:
    ]
    assert area == pytest.approx(np.log(64))
    assert (long, short) == pytest.approx((np.log(16), np.log(4)), abs=0.02)
    assert elongation == pytest.approx(0.25, abs=0.01)
    assert fullness == 1

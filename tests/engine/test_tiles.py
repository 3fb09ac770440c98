from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from engine.fakes import FakeSam, scene
from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.tiles import (
    Region,
    crop_regions,
    join_tiles,
    tile_regions,
)

LARGE = (150, 170)
TILE = 64


def found(image: np.ndarray, **params: object) -> list[tuple[int, ...]]:
    """Boxes that a run finds, from top left to bottom right."""
    values = {"points_per_side": 80, "tile": TILE} | params
    masks = automatic_masks(FakeSam(), image, AutoParams(**values))
    for i in range(len(masks)):
        assert masks.area[i] == masks.crop(i)[0].size, "not a rectangle"
    return sorted(tuple(box) for box in masks.boxes.tolist())


# Where tiles lie


@pytest.mark.parametrize("shape", [(65, 64), (64, 200), (150, 170), (1000, 33)])
@pytest.mark.parametrize("side", [32, 64, 100])
def test_tiles_cover_the_image_and_stay_in_it(
    shape: tuple[int, int], side: int
) -> None:
    covered = np.zeros(shape, int)
    for tile in tile_regions(shape, side, 256):
        assert 0 <= tile.y0 < tile.y1 <= shape[0]
        assert 0 <= tile.x0 < tile.x1 <= shape[1]
        assert tile.shape == (min(side, shape[0]), min(side, shape[1]))
        covered[tile.y0 : tile.y1, tile.x0 : tile.x1] += 1
    assert max(shape) <= side or covered.min() > 0


@pytest.mark.parametrize("length", range(65, 400, 13))
def test_neighbouring_tiles_share_a_quarter(length: int) -> None:
    tiles = tile_regions((40, length), 64, 256)
    starts = [tile.x0 for tile in tiles]
    assert starts == sorted(starts)
    for before, after in pairwise(tiles):
        assert before.x1 - after.x0 >= 15  # a quarter of 64, less what rounding takes


def test_an_image_that_fits_needs_no_tiles() -> None:
    assert tile_regions((64, 64), 64, 256) == []
    assert tile_regions((400, 400), "auto", 256) == []
    assert tile_regions((9000, 9000), "off", 256) == []


def test_automatic_tiles_are_a_little_larger_than_the_models_input() -> None:
    tiles = tile_regions((1000, 1000), "auto", 256)
    assert {tile.shape for tile in tiles} == {(320, 320)}


def test_a_tile_too_small_for_an_object_is_refused() -> None:
    with pytest.raises(ParameterError, match="16 pixels"):
        tile_regions((100, 100), 16, 256)


# Upstream's crops


def test_layer_n_has_four_to_the_n_crops() -> None:
    regions = crop_regions((100, 140), 2, 512 / 1500)
    assert [r.layer for r in regions] == [0] + [1] * 4 + [2] * 16
    assert regions[0].box == (0, 0, 100, 140)


@pytest.mark.parametrize("shape", [(100, 140), (33, 57), (512, 512)])
def test_the_crops_of_every_layer_cover_the_image(shape: tuple[int, int]) -> None:
    regions = crop_regions(shape, 2, 512 / 1500)
    for layer in (0, 1, 2):
        covered = np.zeros(shape, bool)
        for r in regions:
            if r.layer == layer:
                covered[r.y0 : r.y1, r.x0 : r.x1] = True
        assert covered.all()


# What an edge cuts


@pytest.mark.parametrize(
    ("box", "sides"),
    [
        ((30, 40, 50, 60), (False, False, False, False)),
        ((11, 40, 50, 60), (True, False, False, False)),
        ((30, 21, 50, 60), (False, True, False, False)),
        ((30, 40, 90, 60), (False, False, True, False)),
        ((30, 40, 50, 120), (False, False, False, True)),
    ],
)
def test_a_box_at_an_inner_edge_is_cut(
    box: tuple[int, int, int, int], sides: tuple[bool, ...]
) -> None:
    region = Region(10, 20, 90, 120)
    assert region.cut_sides(box, (200, 200), 1) == sides
    assert region.cuts(box, (200, 200), near=1) is any(sides)


def test_the_border_of_the_image_cuts_nothing() -> None:
    region = Region(0, 0, 90, 120)
    assert not region.cuts((0, 0, 90, 120), (90, 120))
    assert region.cut_sides((0, 0, 90, 120), (200, 120), 20) == (
        False,
        False,
        True,
        False,
    )


# Objects in a tiled image


def test_objects_come_out_whole_and_once_wherever_seams_are() -> None:
    boxes = [
        (y, x, y + 10, x + 12) for y in range(2, 138, 15) for x in range(3, 157, 17)
    ]
    assert found(scene(LARGE, *boxes), points_per_side=32) == boxes


@pytest.mark.parametrize("y", range(20, 70, 7))
@pytest.mark.parametrize("x", [30, 45, 52, 61])
def test_an_object_on_a_seam_or_corner_is_one(y: int, x: int) -> None:
    box = (y, x, y + 22, x + 25)
    assert found(scene(LARGE, box)) == [box]


def test_an_object_that_meets_four_tiles_is_one() -> None:
    starts = sorted({(t.y0, t.x0) for t in tile_regions(LARGE, TILE, 256)})
    y, x = starts[-1]
    box = (y - 15, x - 15, y + 20, x + 25)
    tiles = [t for t in tile_regions(LARGE, TILE, 256) if overlaps(t, box)]
    assert len(tiles) >= 4
    assert found(scene(LARGE, box)) == [box]


def overlaps(tile: Region, box: tuple[int, int, int, int]) -> bool:
    return (
        tile.y0 < box[2] and box[0] < tile.y1 and tile.x0 < box[3] and box[1] < tile.x1
    )


@pytest.mark.parametrize(
    "box",
    [(10, 10, 140, 160), (0, 0, 150, 100), (60, 0, 80, 170), (0, 70, 150, 90)],
    ids=["middle", "half", "row", "column"],
)
def test_an_object_larger_than_a_tile_is_one(box: tuple[int, int, int, int]) -> None:
    masks = automatic_masks(
        FakeSam(), scene(LARGE, box), AutoParams(points_per_side=40, tile=TILE)
    )
    assert len(masks) == 1
    truth = np.zeros(LARGE, bool)
    truth[box[0] : box[2], box[1] : box[3]] = True
    drawn = masks.full(0)
    assert (drawn & truth).sum() / (drawn | truth).sum() > 0.95


def test_a_small_object_beside_a_huge_one_keeps_its_detail() -> None:
    huge, small = (0, 0, 150, 90), (100, 120, 106, 127)
    assert small in found(scene(LARGE, huge, small))


def test_objects_at_the_images_border_are_whole() -> None:
    boxes = [(0, 0, 12, 12), (0, 150, 9, 170), (60, 0, 75, 9), (139, 70, 150, 90)]
    assert found(scene(LARGE, *boxes)) == sorted(boxes)


def test_touching_objects_on_a_seam_stay_two() -> None:
    boxes = [(50, 40, 70, 60), (50, 60, 70, 80)]
    assert found(scene(LARGE, *boxes)) == boxes


def test_a_small_image_is_the_same_with_tiles_and_without() -> None:
    image = scene((64, 64), (5, 5, 20, 30), (30, 30, 60, 50))
    with_tiles = automatic_masks(FakeSam(), image, AutoParams(tile=64))
    without = automatic_masks(FakeSam(), image, AutoParams(tile="off"))
    np.testing.assert_array_equal(with_tiles.boxes, without.boxes)
    np.testing.assert_array_equal(with_tiles.scores, without.scores)


def test_pieces_that_go_on_where_nothing_was_found_are_no_object() -> None:
    tiles = [Region(0, x, 64, x + 64, is_crop=False) for x in (0, 48, 96)]
    found = [row_mask(10, 64), row_mask(48, 112), Masks.empty((64, 160))]
    joined = join_tiles(row_mask(10, 150), found, tiles)
    assert joined.boxes.tolist() == [[20, 10, 40, 150]]
    without = join_tiles(Masks.empty((64, 160)), found, tiles)
    assert len(without) == 0


def row_mask(x0: int, x1: int) -> Masks:
    builder = MaskBuilder((64, 160))
    builder.add(np.ones((20, x1 - x0), bool), (20, x0))
    return builder.build()


def test_every_tile_and_the_whole_are_encoded_once() -> None:
    model = FakeSam()
    automatic_masks(model, scene(LARGE), AutoParams(points_per_side=2, tile=TILE))
    tiles = tile_regions(LARGE, TILE, model.input_size)
    assert sorted(model.encoded) == sorted([LARGE, *(t.shape for t in tiles)])


def test_a_tiled_image_with_nothing_in_it_has_no_objects() -> None:
    assert found(scene(LARGE)) == []


def test_a_crop_with_no_points_is_not_embedded() -> None:
    model = FakeSam()
    image = scene((64, 64), (4, 4, 20, 20))
    params = AutoParams(
        points_per_side=8,
        tile="off",
        crop_n_layers=2,
        crop_n_points_downscale_factor=3,
    )
    masks = automatic_masks(model, image, params)
    assert len(masks) == 1
    assert len(model.encoded) == 1 + 4

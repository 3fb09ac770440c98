"""Tiles, points and limits that follow the examples."""

from __future__ import annotations

import numpy as np
import pytest

from engine.fewshot_fakes import RED, ColourSam, dots
from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.fewshot.candidates import deepest, grid_points, peak_points
from napari_sam_suite.engine.fewshot.choose import not_known, resolve
from napari_sam_suite.engine.fewshot.fast import (
    Sizes,
    choose_points,
    expected_points,
    look,
)
from napari_sam_suite.engine.fewshot.guided import guide_odds
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.fewshot.quality import CHOSEN, rating_odds
from napari_sam_suite.engine.fewshot.scorer import Scorer
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.synthetic.scene import synthesize
from napari_sam_suite.engine.tiles import Region

AUTO = FewShotParams()


def masks(*boxes: tuple[int, int, int, int], shape=(64, 64)) -> Masks:
    builder = MaskBuilder(shape)
    for y0, x0, y1, x1 in boxes:
        builder.add(np.ones((y1 - y0, x1 - x0), bool), (y0, x0))
    return builder.build()


def sizes(height: int, width: int) -> Sizes:
    return Sizes.of(masks((0, 0, height, width), shape=(500, 500)))


# Tiles


def test_the_width_is_that_of_the_short_side() -> None:
    assert sizes(4, 20).width == 4
    assert sizes(20, 4).width == 4


def test_large_examples_need_no_tiles() -> None:
    regions = sizes(100, 100).regions((300, 300), ColourSam(), AUTO)
    assert [r.box for r in regions] == [(0, 0, 300, 300)]


def test_small_examples_are_enlarged_in_small_tiles() -> None:
    small = sizes(10, 10).regions((512, 512), ColourSam(), AUTO)
    large = sizes(20, 20).regions((512, 512), ColourSam(), AUTO)
    assert len(small) > len(large) > 1
    side = ColourSam().input_size * 10 / 24
    assert small[0].shape == pytest.approx((side, side), abs=1)


def test_tiles_never_become_smaller_than_a_quarter_of_the_input() -> None:
    regions = sizes(2, 2).regions((512, 512), ColourSam(), AUTO)
    assert regions[0].shape == (64, 64)


def test_a_long_thin_example_fits_the_overlap_of_the_tiles() -> None:
    regions = sizes(40, 3).regions((800, 800), ColourSam(), AUTO)
    starts = sorted({r.y0 for r in regions})
    overlap = regions[0].shape[0] - (starts[1] - starts[0])
    assert overlap >= 40


def test_the_user_decides_about_tiles() -> None:
    off = sizes(5, 5).regions((500, 500), ColourSam(), FewShotParams(tile="off"))
    assert len(off) == 1
    own = sizes(5, 5).regions((500, 500), ColourSam(), FewShotParams(tile=300))
    assert own[0].shape == (300, 300)


# Limits


def test_areas_of_candidates_follow_the_examples() -> None:
    limits = sizes(10, 10).limits(ColourSam(), AUTO)
    assert (limits.smallest, limits.largest) == (25, 400)


def test_the_user_decides_about_areas() -> None:
    params = FewShotParams(min_area=7, max_area=0)
    limits = sizes(10, 10).limits(ColourSam(), params)
    assert (limits.smallest, limits.largest) == (7, 0)


# Points


def test_a_grid_has_its_points_no_further_apart_than_asked() -> None:
    points = grid_points((20, 30), 7)
    rows, columns = (np.unique(points[:, k]) for k in (0, 1))
    assert np.diff(rows).max() <= 7
    assert np.diff(columns).max() <= 7
    assert len(points) == len(rows) * len(columns)


def test_a_grid_is_centred() -> None:
    points = grid_points((10, 10), 5)
    assert points.mean(0) == pytest.approx([4.5, 4.5])


def test_every_point_is_asked_in_the_tile_that_it_lies_deepest_in() -> None:
    tiles = [Region(0, 0, 40, 40, is_crop=False), Region(0, 20, 40, 60, is_crop=False)]
    grid = np.stack(np.meshgrid([5, 20, 38], np.arange(60), indexing="ij"), -1)
    points = grid.reshape(-1, 2)
    mine = [
        points[shown][deepest(points[shown] - t.origin, t, tiles, (40, 60))]
        for t in tiles
        for shown in [(points[:, 1] >= t.x0) & (points[:, 1] < t.x1)]
    ]
    assert mine[0][:, 1].max() == mine[1][:, 1].min() - 1 == 29
    assert sum(map(len, mine)) == len(points)


def test_the_border_of_the_image_is_no_edge_of_a_tile() -> None:
    tile = Region(0, 0, 40, 40, is_crop=False)
    other = Region(0, 10, 40, 50, is_crop=False)
    at_border = np.array([[0.0, 2.0]])
    assert deepest(at_border, tile, [tile, other], (40, 50)).all()


def test_points_are_no_closer_than_feature_cells() -> None:
    embedding = ColourSam().encode([np.zeros((64, 64, 3), np.uint8)])[0]
    anything = Scorer.fit(np.zeros((2, 3)), np.zeros((0, 3)))
    region = Region(0, 0, 64, 64, is_crop=False)
    points = choose_points(embedding, region, sizes(2, 2), anything, AUTO)
    cells = embedding.maps()["image"].shape[1]
    assert len(np.unique(points[:, 0])) <= cells


def test_a_guide_says_where_objects_are_expected() -> None:
    embedding = ColourSam().encode([np.zeros((64, 64, 3), np.uint8)])[0]
    region = Region(0, 0, 64, 64, is_crop=False)
    assert expected_points(embedding, region).shape == (0, 2)
    guide = np.full((1, 5, 16, 16), -9.0, np.float32)
    guide[0, 0, 6:9, 6:9] = 9  # inside an object
    y, x = np.mgrid[6:9, 6:9]
    guide[0, 2:4, 6:9, 6:9] = (7 - np.stack([y, x])) / 8
    guide[0, 4, 6:9, 6:9] = np.log(3 / 8)
    embedding.features["guide"] = guide
    points = expected_points(embedding, region)
    assert points == pytest.approx(np.array([[30, 30]]), abs=2)


def test_what_the_model_finds_by_itself_counts_more() -> None:
    scene = synthesize("touching nuclei", (200, 200), 3, diameter=26)
    rgb = compose(open_image(scene.image, axes="YX").frame(FrameIndex()))
    nano = load_model("sam2-nano", device="cpu", precision="float32")
    region = Region(0, 0, 200, 200, is_crop=False)
    embedding = nano.encode([rgb])[0]
    cells = np.zeros((2, len(embedding.maps()["image"])))
    anything = Scorer.fit(cells, cells[:0])
    size = sizes(26, 26)
    seen = look(nano, rgb, region, embedding, size, anything, AUTO, lambda: False)
    found = automatic_masks(nano, rgb, AutoParams(tile="off", overlap="allow"))
    assert 0 < seen.chosen.sum() < len(seen.masks)
    for i in np.flatnonzero(seen.chosen):
        shared = [seen.masks.intersection(i, j, found) for j in range(len(found))]
        assert max(shared) == seen.masks.area[i]
    rest = rating_odds(seen.masks, nano.spec.auto)
    rest += guide_odds(embedding, seen.masks, region)
    assert seen.odds - rest == pytest.approx(CHOSEN * seen.chosen)


def test_peaks_are_the_highest_cells_of_their_surroundings() -> None:
    likeness = np.zeros((8, 8))
    likeness[2, 3] = 1.0
    likeness[2, 4] = 0.9
    likeness[6, 6] = 0.3
    points = peak_points(likeness, 0.5, (0.25, 0.25))
    assert points == pytest.approx(np.array([[9.5, 13.5]]))


def test_points_are_asked_only_where_the_features_may_be_an_examples() -> None:
    image = dots((64, 64), (16, 16, RED), (48, 48, RED))
    embedding = ColourSam().encode([image])[0]
    red, black = np.eye(1, 3), np.zeros((20, 3))
    likeness = Scorer.fit(np.repeat(red, 4, 0), black)
    region = Region(0, 0, 64, 64, is_crop=False)
    few = choose_points(embedding, region, sizes(8, 8), likeness, AUTO)
    everywhere = grid_points((64, 64), 4)
    assert 0 < len(few) < len(everywhere) / 2
    for middle in (16, 48):
        assert (np.abs(few - middle).max(1) < 4).any()


# Which candidates are one object


def test_a_known_object_its_parts_and_its_whole_are_not_found_again() -> None:
    known = masks((10, 10, 20, 20))
    found = masks(
        (10, 10, 20, 20),  # itself
        (12, 12, 16, 16),  # a part
        (5, 5, 30, 30),  # with surroundings
        (19, 19, 29, 29),  # a neighbour that touches
        (40, 40, 50, 50),
    )
    assert not_known(found, known).tolist() == [3, 4]


def test_of_nested_candidates_the_best_is_kept() -> None:
    nested = masks((10, 10, 30, 30), (12, 12, 20, 20), (40, 40, 50, 50))
    part = resolve(nested, np.array([0.5, 0.9, 0.1]))
    assert part.tolist() == [1, 2]
    whole = resolve(nested, np.array([0.9, 0.5, 0.1]))
    assert whole.tolist() == [0, 2]

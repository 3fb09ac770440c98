from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from scipy import ndimage
from shapely import MultiPolygon, Polygon
from skimage.draw import disk, ellipse
from skimage.measure import find_contours

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.polygons import (
    limit_tolerance,
    polygonise,
    rasterise,
)


def box_mask(rows: slice, columns: slice, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[rows, columns] = True
    return mask


def disc_mask(radius: float, size: int) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[disk((size / 2 - 0.5, size / 2 - 0.5), radius, shape=mask.shape)] = True
    return mask


def blobs(count: int, seed: int = 0, size: int = 48) -> list[np.ndarray]:
    """Wobbly discs without holes, well inside the image."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((size, size)) - size / 2
    found = []
    while len(found) < count:
        bumps = ndimage.gaussian_filter(rng.standard_normal((size, size)), size / 8)
        height = 1 - np.hypot(rows, columns) / (size * 0.35) + 0.2 * bumps / bumps.std()
        labels, parts = ndimage.label(height > 0)
        mask = ndimage.binary_fill_holes(labels == 1)
        inside = not (mask[0].any() or mask[-1].any() or mask[:, [0, -1]].any())
        if parts and inside and mask.sum() > 50:
            found.append(mask)
    return found


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def round_trip(mask: np.ndarray, **options: object) -> np.ndarray:
    traced = polygonise(mask, **options)
    return rasterise(traced.polygon, mask.shape)


HOLED = box_mask(slice(4, 16), slice(4, 16)) & ~box_mask(slice(8, 12), slice(8, 12))
CASES = {
    "whole image": np.ones((20, 20), dtype=bool),
    "top half": box_mask(slice(0, 10), slice(None)),
    "corner": box_mask(slice(0, 5), slice(0, 6)),
    "other corner": box_mask(slice(15, 20), slice(14, 20)),
    "left edge": box_mask(slice(7, 12), slice(0, 6)),
    "right edge": box_mask(slice(7, 12), slice(14, 20)),
    "bottom edge": box_mask(slice(14, 20), slice(3, 9)),
    "object with a hole": HOLED,
    "whole image with a hole": ~box_mask(slice(8, 12), slice(8, 12)),
    "one pixel": box_mask(slice(7, 8), slice(9, 10)),
    "one pixel in the corner": box_mask(slice(0, 1), slice(0, 1)),
    "row of pixels": box_mask(slice(3, 4), slice(2, 17)),
    "column on the border": box_mask(slice(None), slice(19, 20)),
    "diagonal": np.eye(20, dtype=bool),
    "ring closed at a corner": np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]], dtype=bool),
    "only pixel of the image": np.ones((1, 1), dtype=bool),
}


@pytest.mark.parametrize("name", CASES)
def test_round_trip_is_exact(name):
    mask = CASES[name]
    traced = polygonise(mask, smoothing=0)
    assert isinstance(traced.polygon, Polygon)
    assert traced.polygon.is_valid
    assert (traced.dropped_parts, traced.filled_holes) == (0, 0)
    np.testing.assert_array_equal(rasterise(traced.polygon, mask.shape), mask)


@pytest.mark.parametrize("seed", range(5))
def test_round_trip_of_noise_is_exact_with_all_parts(seed):
    rng = np.random.default_rng(seed)
    for _ in range(60):
        mask = rng.random(rng.integers(1, 16, size=2)) < rng.random()
        traced = polygonise(mask, smoothing=0, parts="all")
        np.testing.assert_array_equal(rasterise(traced.polygon, mask.shape), mask)
        assert traced.polygon is None or traced.polygon.is_valid


@pytest.mark.parametrize("smoothing", [0.3, 1.0, 3.0])
def test_smoothed_noise_stays_valid(smoothing):
    rng = np.random.default_rng(7)
    for _ in range(60):
        mask = rng.random((15, 17)) < rng.random()
        traced = polygonise(mask, smoothing=smoothing, parts="all")
        assert traced.polygon is None or traced.polygon.is_valid


def test_largest_part_is_kept_and_the_rest_is_counted():
    mask = box_mask(slice(8, 18), slice(8, 18))
    mask[1, 1] = mask[1, 18] = mask[2, 18] = True
    traced = polygonise(mask, smoothing=0)
    assert (traced.dropped_parts, traced.dropped_pixels) == (2, 3)
    assert rasterise(traced.polygon, mask.shape).sum() == 100


def test_noise_loses_nothing_uncounted():
    rng = np.random.default_rng(3)
    for _ in range(60):
        mask = rng.random((12, 12)) < 0.4
        traced = polygonise(mask, smoothing=0)
        kept = rasterise(traced.polygon, mask.shape)
        assert kept.sum() + traced.dropped_pixels == mask.sum()
        assert not (kept & ~mask).any()


def test_pixels_touching_at_a_corner_are_one_part():
    traced = polygonise(np.eye(6, dtype=bool))
    assert traced.dropped_parts == 0
    assert isinstance(traced.polygon, Polygon)


def test_all_parts_come_as_one_multipolygon():
    mask = HOLED | box_mask(slice(9, 11), slice(9, 11))
    traced = polygonise(mask, smoothing=0, parts="all")
    assert isinstance(traced.polygon, MultiPolygon)
    assert len(traced.polygon.geoms) == 2


def test_the_main_parts_are_all_but_specks():
    mask = box_mask(slice(18), slice(18), 40) | box_mask(slice(25, 27), slice(8), 40)
    speck = box_mask(slice(39, 40), slice(39, 40), 40)
    traced = polygonise(mask | speck, smoothing=0, parts="main")
    np.testing.assert_array_equal(rasterise(traced.polygon, mask.shape), mask)
    assert (traced.dropped_parts, traced.dropped_pixels) == (1, 1)
    assert traced.pixels == mask.sum() + 1


def test_small_islands_that_are_much_together_are_main_parts():
    mask = np.zeros((20, 20), dtype=bool)
    mask[::2, ::2] = True
    traced = polygonise(mask, smoothing=0, parts="main")
    assert len(traced.polygon.geoms) == mask.sum()


def test_an_island_in_a_hole_is_another_part():
    mask = HOLED | box_mask(slice(9, 11), slice(9, 11))
    traced = polygonise(mask, smoothing=0)
    assert (traced.dropped_parts, traced.dropped_pixels) == (1, 4)
    np.testing.assert_array_equal(rasterise(traced.polygon, mask.shape), HOLED)


def test_small_holes_are_filled_when_asked_and_counted():
    mask = HOLED.copy()
    mask[5, 5] = False
    traced = polygonise(mask, smoothing=0, min_hole=5)
    assert (traced.filled_holes, traced.filled_pixels) == (1, 1)
    np.testing.assert_array_equal(rasterise(traced.polygon, mask.shape), HOLED)
    solid = polygonise(mask, smoothing=0, min_hole=math.inf)
    assert (solid.filled_holes, solid.filled_pixels) == (2, 17)
    assert len(solid.polygon.interiors) == 0


def test_an_empty_mask_says_so():
    traced = polygonise(np.zeros((4, 4), dtype=bool))
    assert traced.polygon is None
    assert traced.reason == "empty"


def test_origin_moves_the_outline_to_its_place_in_the_image():
    mask = CASES["one pixel"]
    moved = polygonise(mask[5:10, 6:12], (5, 6), smoothing=0).polygon
    assert moved.equals(polygonise(mask, smoothing=0).polygon)
    np.testing.assert_array_equal(rasterise(moved, (5, 6), (5, 6)), mask[5:10, 6:12])


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_same_vertices_as_simplified_skimage_contour_on_plain_blobs(smoothing):
    for mask in blobs(20):
        (contour,) = find_contours(mask.astype(float), 0.5)
        expected = Polygon(contour).simplify(smoothing, preserve_topology=True)
        found = polygonise(mask, smoothing=smoothing).polygon
        if smoothing == 0:
            expected = Polygon(contour)
        assert found.equals_exact(expected, 0)


def test_default_smoothing_changes_almost_no_pixel():
    scores = [iou(round_trip(mask), mask) for mask in blobs(40, seed=1)]
    assert np.mean(scores) >= 0.999


def test_default_smoothing_needs_far_fewer_vertices():
    for mask in blobs(10, seed=2):
        full = shapely.get_num_coordinates(polygonise(mask, smoothing=0).polygon)
        assert shapely.get_num_coordinates(polygonise(mask).polygon) < full / 2


@pytest.mark.parametrize("radius", [1, 1.5, 2, 3, 5, 8, 10, 20, 40])
def test_strong_smoothing_leaves_discs_their_form(radius):
    mask = disc_mask(radius, int(2 * radius) + 8)
    assert iou(round_trip(mask, smoothing=3), mask) >= 0.9


def test_strong_smoothing_leaves_thin_ellipses_their_form():
    mask = np.zeros((60, 60), dtype=bool)
    mask[ellipse(30, 30, 25, 3, rotation=0.6)] = True
    assert iou(round_trip(mask, smoothing=3), mask) >= 0.9


def test_tolerance_is_only_limited_where_the_object_is_small():
    assert limit_tolerance(shapely.Point(0, 0).buffer(5), 0.3) == 0.3
    assert limit_tolerance(shapely.Point(0, 0).buffer(10), 3) == pytest.approx(
        0.8, 0.02
    )
    assert limit_tolerance(shapely.Point(0, 0).buffer(100), 3) == 3


@pytest.mark.parametrize("padding", [2, -2])
def test_padding_changes_the_area_by_outline_times_width(padding):
    mask = disc_mask(15, 60)
    plain = polygonise(mask, smoothing=0).polygon
    padded = polygonise(mask, padding=padding).polygon
    change = plain.length * padding + math.pi * padding**2
    assert padded.area - plain.area == pytest.approx(change, rel=0.15)


def test_shrinking_can_remove_an_object_and_says_so():
    traced = polygonise(disc_mask(5, 20), padding=-20)
    assert traced.polygon is None
    assert traced.reason == "padding"


def test_shrinking_counts_what_falls_off():
    dumbbell = box_mask(slice(2, 18), slice(1, 8)) | box_mask(
        slice(5, 14), slice(12, 19)
    )
    dumbbell |= box_mask(slice(9, 10), slice(5, 15))
    traced = polygonise(dumbbell, padding=-1.5)
    assert isinstance(traced.polygon, Polygon)
    assert traced.dropped_parts == 1
    assert traced.dropped_pixels > 10


def test_growing_stops_at_the_border_of_the_image():
    traced = polygonise(CASES["corner"], padding=5, shape=(20, 20))
    assert traced.polygon.bounds[:2] == (-0.5, -0.5)
    assert rasterise(traced.polygon, (20, 20))[:5, :6].all()


def test_growing_over_a_hole_is_counted():
    traced = polygonise(HOLED, padding=3)
    assert len(traced.polygon.interiors) == 0
    assert traced.filled_holes == 1


@pytest.mark.parametrize(
    "options",
    [{"smoothing": -1}, {"smoothing": math.nan}, {"padding": math.inf}, {"parts": "b"}],
)
def test_senseless_parameters_are_refused(options):
    with pytest.raises(ParameterError):
        polygonise(HOLED, **options)


def test_a_stack_is_not_a_mask():
    with pytest.raises(ParameterError, match="two dimensions"):
        polygonise(np.ones((2, 3, 3), dtype=bool))

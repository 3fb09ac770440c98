from __future__ import annotations

import numpy as np
import shapely
from shapely import Polygon
from skimage.draw import polygon as draw_polygon

from napari_sam_suite.engine import raster
from napari_sam_suite.engine.raster import (
    count_pixels,
    draw_labels,
    pixel_window,
    rasterise,
)


def test_filling_agrees_with_geos_on_every_pixel_centre_even_on_edges():
    rng = np.random.default_rng(0)
    compared = 0
    for round_ in range(600):
        points = rng.uniform(-3, 16, (rng.integers(3, 9), 2))
        polygon = Polygon(np.round(points) if round_ % 2 else points)
        if polygon.is_valid:
            rows, columns = np.indices((13, 12)).reshape(2, -1)
            expected = shapely.intersects_xy(polygon, rows, columns).reshape(13, 12)
            np.testing.assert_array_equal(rasterise(polygon, (13, 12)), expected)
            compared += 1
    assert compared > 100


def test_filling_includes_the_edge_like_skimage():
    square = shapely.box(10, 10, 20, 20)
    expected = np.zeros((30, 30), dtype=bool)
    expected[draw_polygon([10, 20, 20, 10], [10, 10, 20, 20])] = True
    np.testing.assert_array_equal(rasterise(square, (30, 30)), expected)
    assert expected.sum() == 121


def test_an_edge_of_a_hole_belongs_to_the_object():
    frame = shapely.box(0, 0, 8, 8).difference(shapely.box(2, 2, 6, 6))
    assert rasterise(frame, (9, 9)).sum() == 81 - 9


def test_many_are_drawn_as_each_alone_in_the_smallest_crop(monkeypatch):
    monkeypatch.setattr(raster, "_BATCH", 200)
    rng = np.random.default_rng(1)
    polygons = [
        shapely.Point(rng.uniform(-4, 34, 2)).buffer(rng.uniform(0.1, 9))
        for _ in range(40)
    ]
    polygons.append(shapely.MultiPolygon([polygons[0], shapely.box(20, 20, 28, 28)]))
    drawn = list(raster.rasterise_each(polygons, (30, 28)))
    assert len(drawn) == len(polygons)
    for polygon, (mask, (top, left)) in zip(polygons, drawn, strict=True):
        whole = np.zeros((30, 28), dtype=bool)
        whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
        np.testing.assert_array_equal(whole, rasterise(polygon, (30, 28)))
        if mask.size:
            assert all(edge.any() for edge in (mask[0], mask[-1], *mask.T[[0, -1]]))
    assert not list(raster.rasterise_each([], (30, 28)))


def test_window_holds_all_pixels_and_is_cut_at_the_image():
    rows, columns = pixel_window(shapely.box(-3, 15.5, 12, 40), (20, 20))
    assert (rows, columns) == (slice(0, 13), slice(16, 20))
    assert pixel_window(shapely.box(30, 30, 40, 40), (20, 20)) is None
    assert pixel_window(Polygon(), (20, 20)) is None


def test_nothing_is_drawn_for_nothing():
    assert not rasterise(None, (4, 4)).any()
    assert not rasterise(Polygon(), (4, 4)).any()
    assert not draw_labels([], np.zeros(0, dtype=int), (4, 4)).any()


def test_offset_moves_the_window_over_the_polygon():
    square = shapely.box(100, 200, 104, 203)
    whole = rasterise(square, (120, 220))
    part = rasterise(square, (10, 12), (98, 195))
    np.testing.assert_array_equal(part, whole[98:108, 195:207])
    assert count_pixels(square, (120, 220)) == part.sum() == 20
    assert count_pixels(square, (103, 220)) == 12


def test_labels_are_drawn_one_over_the_other(monkeypatch):
    rng = np.random.default_rng(4)
    corners = rng.integers(-5, 40, (60, 2))
    polygons = [shapely.box(y, x, y + 9, x + 7) for y, x in corners.tolist()]
    polygons.insert(30, Polygon())
    numbers = rng.permutation(len(polygons)) + 1
    expected = np.zeros((40, 42), dtype=int)
    for polygon, number in zip(polygons, numbers, strict=True):
        expected[rasterise(polygon, expected.shape)] = number
    for batch in (2**23, 150):
        monkeypatch.setattr(raster, "_BATCH", batch)
        found = draw_labels(polygons, numbers, expected.shape)
        np.testing.assert_array_equal(found, expected)

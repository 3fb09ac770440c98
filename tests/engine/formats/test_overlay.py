from __future__ import annotations

import numpy as np
import pytest
import shapely
from PIL import Image

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.formats.colours import (
    neighbour_colours,
    palette_colour,
    tag_colour,
)
from napari_sam_suite.engine.formats.overlay import draw_overlay, write_overlay
from napari_sam_suite.engine.objects import Objects

GREY = np.full((40, 60, 3), 90, dtype=np.uint8)
SQUARE = shapely.box(9.5, 19.5, 29.5, 39.5)
RING = SQUARE.difference(shapely.box(15.5, 25.5, 23.5, 33.5))


def test_the_outline_lies_on_the_edge_and_the_rest_stays_as_it_was():
    picture = draw_overlay(GREY, Objects([SQUARE]), fill_alpha=0, width=2)
    changed = np.abs(picture.astype(int) - GREY).sum(axis=2) > 0
    assert not changed[13:27, 23:37].any()
    assert not changed[:6].any()
    assert not changed[:, 44:].any()
    edge = picture[9:11, 25:35].reshape(-1, 3)
    # Lines are placed to a quarter of a pixel.
    colour = np.array(palette_colour(0))
    assert (np.abs(edge - colour) <= np.abs(90 - colour) * 0.6).all()
    assert (GREY == 90).all()


def test_the_inside_is_tinted_and_a_hole_is_not():
    picture = draw_overlay(GREY, Objects([RING]), fill_alpha=0.5, width=1)
    expected = (np.array(palette_colour(0)) + 90) / 2
    np.testing.assert_allclose(picture[12, 22], expected, atol=1)
    assert (picture[19, 29] == 90).all()


def test_zoom_enlarges_image_and_outline_together():
    picture = draw_overlay(GREY, Objects([SQUARE]), fill_alpha=1, zoom=3)
    assert picture.shape == (120, 180, 3)
    assert tuple(picture[60, 90]) == palette_colour(0)
    tinted = (picture[60] == palette_colour(0)).all(axis=1).sum()
    assert 58 <= tinted <= 62


def test_neighbours_have_different_colours():
    polygons = [
        shapely.box(y, x, y + 9, x + 9) for y in range(0, 90, 10) for x in (0, 10)
    ]
    colours = neighbour_colours(polygons, 5)
    for one, other in zip(*np.triu_indices(len(polygons), 1), strict=True):
        if polygons[one].distance(polygons[other]) < 5:
            assert colours[one] != colours[other]
    assert neighbour_colours([], 5) == []


def test_crowded_objects_are_still_coloured():
    assert len(neighbour_colours([SQUARE] * 30, 5)) == 30


def test_tags_have_one_colour_each():
    boxes = [shapely.box(y, 5, y + 10, 50) for y in (1, 14, 27)]
    objects = Objects(boxes).with_tags(["a", "b", "a"])
    picture = draw_overlay(GREY, objects, fill_alpha=1, width=1)
    colours = [tuple(picture[row, 30].tolist()) for row in (6, 19, 32)]
    assert colours == [tag_colour("a"), tag_colour("b"), tag_colour("a")]
    assert tag_colour("a") != tag_colour("b")


def test_smaller_objects_are_drawn_on_top():
    inner = shapely.box(15, 25, 24, 34)
    picture = draw_overlay(GREY, Objects([inner, SQUARE]), fill_alpha=1, width=1)
    inner_colour, _ = neighbour_colours([inner, SQUARE], 5)
    assert tuple(picture[20, 30]) == inner_colour


def test_no_objects_and_objects_outside_leave_the_image():
    outside = Objects([shapely.box(100, 100, 110, 110)])
    for objects in (Objects.empty(), outside):
        np.testing.assert_array_equal(draw_overlay(GREY, objects), GREY)


def test_only_8_bit_rgb_is_drawn_on():
    for image in (GREY[..., 0], GREY.astype(float), GREY[..., :2]):
        with pytest.raises(ParameterError, match="8-bit RGB"):
            draw_overlay(image, Objects.empty())


def test_small_images_are_enlarged_in_the_file(tmp_path):
    write_overlay(tmp_path / "a.png", GREY, Objects([SQUARE]))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (240, 160)
        assert picture.mode == "RGB"
    write_overlay(tmp_path / "b.png", GREY, Objects([SQUARE]), zoom=1)
    with Image.open(tmp_path / "b.png") as picture:
        assert picture.size == (60, 40)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.prompts.prompt import Prompt
from napari_sam_suite.widgets.aim import Aim, with_box, with_point

ROWS, COLUMNS = 40, 60
TURNED: dict[str, Any] = {
    "scale": (0.5, 0.25),
    "translate": (100, -30),
    "rotate": 30,
    "shear": [0.2],
}


def aim_at(*sizes: int, letters: str = "YX", **options: Any) -> Aim:
    return Aim(Image(np.zeros((*sizes, ROWS, COLUMNS)), **options), letters)


def test_a_click_is_a_place_in_pixels_wherever_the_image_lies() -> None:
    aim = aim_at(**TURNED)
    world = aim.layer.data_to_world((12, 34))
    np.testing.assert_allclose(aim.point(world), (12, 34))


def test_a_box_on_a_turned_image_has_the_axes_of_the_image() -> None:
    aim = aim_at(**TURNED)
    one, other = (aim.layer.data_to_world(p) for p in ((30, 5), (12, 34)))
    np.testing.assert_allclose(aim.box(one, other), (12, 5, 30, 34))


def test_axes_that_only_other_layers_have_say_nothing() -> None:
    assert aim_at().point((7.0, 3.0, 12.0, 34.0)) == (12, 34)


def test_a_click_is_in_the_frame_that_was_in_view() -> None:
    aim = aim_at(2, 3, letters="TZYX", scale=(1, 4, 1, 1))
    assert aim.frame((1, 8, 0, 0)) == FrameIndex(time=1, z=2)


def test_half_a_pixel_beyond_the_last_centre_is_inside() -> None:
    assert aim_at().point((ROWS - 0.6, -0.4)) == (ROWS - 1, 0)
    with pytest.raises(ParameterError, match="outside the image"):
        aim_at().point((ROWS - 0.4, 5))


def test_a_box_ends_where_the_image_ends() -> None:
    assert aim_at().box((-9, 10), (20, 900)) == (0, 10, 20, COLUMNS - 1)
    with pytest.raises(ParameterError, match="too small"):
        aim_at().box((5, 5), (5.5, 30))


def test_the_size_of_a_pyramid_is_that_of_its_finest_level() -> None:
    levels = [np.zeros((ROWS, COLUMNS)), np.zeros((ROWS // 2, COLUMNS // 2))]
    aim = Aim(Image(levels, multiscale=True), "YX")
    assert aim.nearest((99, 99)) == (ROWS - 1, COLUMNS - 1)


def test_a_colour_is_no_column() -> None:
    aim = Aim(Image(np.zeros((ROWS, COLUMNS, 3)), rgb=True), "YX")
    assert aim.nearest((99, 99)) == (ROWS - 1, COLUMNS - 1)


def test_what_does_not_belong_needs_something_that_does() -> None:
    with pytest.raises(ParameterError, match="Click the object first"):
        with_point(Prompt(), (1, 2), inside=False)
    boxed = with_box(Prompt(), (0, 0, 5, 5))
    assert with_point(boxed, (1, 2), inside=False).outside == ((1, 2),)

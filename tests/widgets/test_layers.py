from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.errors import ImageError
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.widgets.layers import (
    build_picture,
    current_frame,
    guess_axes,
)

RNG = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 1000, shape).astype(np.uint16)


@pytest.mark.parametrize(
    ("labels", "letters"),
    [
        (["y", "x"], "YX"),
        (["-3", "-2", "-1"], "ZYX"),
        (["0", "1", "y", "x"], "TZYX"),
        (["a", "b", "c?", "y", "x"], "PTZYX"),
        (["Time", "-3", "y", "x"], "TZYX"),
        (["z", "t", "y", "x"], "ZTYX"),
        (["c", "frame", "y", "x"], "CTYX"),
        (["Scene", "T", "Z", "Channel", "y", "x"], "PTZCYX"),
    ],
)
def test_axes_are_known_by_label_and_else_guessed(
    labels: list[str], letters: str
) -> None:
    assert guess_axes(labels) == letters


def test_too_many_axes_are_refused() -> None:
    with pytest.raises(ImageError, match="7 axes"):
        guess_axes(["?"] * 7)


def test_layers_are_channels_with_their_own_look() -> None:
    red = Image(pixels(6, 8), colormap="red", contrast_limits=(100, 900), name="a")
    green = Image(pixels(6, 8), colormap="green", gamma=0.5, visible=False, name="b")
    for layer in (red, green):
        layer.blending = "additive"
    picture = build_picture([red, green], "YX")
    assert picture.image.sizes.channel == 2
    assert picture.image.channel_names == ("a", "b")
    first, second = picture.composite.channels
    assert (first.color, first.limits, first.mode) == (
        "#ff0000",
        (100.0, 900.0),
        "absolute",
    )
    assert (second.color, second.gamma, second.visible) == ("#00ff00", 0.5, False)
    assert picture.composite.blend == "add"
    np.testing.assert_array_equal(
        picture.image.frame(FrameIndex()).planes, [red.data, green.data]
    )


def test_layers_that_cover_each_other_are_lightened() -> None:
    layers = [Image(pixels(6, 8), blending="translucent") for _ in range(2)]
    assert build_picture(layers, "YX").composite.blend == "lighten"


@pytest.mark.parametrize("colormap", ["viridis", "gray_r", "gray"])
def test_a_colormap_that_is_not_one_colour_counts_as_grey(colormap: str) -> None:
    picture = build_picture([Image(pixels(6, 8), colormap=colormap)], "YX")
    assert picture.composite.channels[0].color == "#ffffff"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_colour_image_is_seen_as_it_is(dtype: type) -> None:
    top = 255 if dtype is np.uint8 else 1
    data = (RNG.random((6, 8, 3)) * top).astype(dtype)
    picture = build_picture([Image(data, rgb=True)], "YX")
    seen = compose(picture.image.frame(FrameIndex()), picture.composite)
    assert np.abs(seen / 255 * top - data).max() <= top / 255


def test_a_pyramid_is_read_at_its_finest_level() -> None:
    data = pixels(64, 64)
    layer = Image([data, data[::2, ::2]], multiscale=True)
    picture = build_picture([layer], "YX")
    np.testing.assert_array_equal(picture.image.frame(FrameIndex()).planes[0], data)


def test_only_the_frame_that_is_asked_for_is_read() -> None:
    read = []

    def load(block_info: dict | None = None) -> np.ndarray:
        read.append(block_info[None]["chunk-location"])
        return np.full((1, 1, 4, 4), sum(read[-1]), np.uint16)

    data = da.map_blocks(
        load, chunks=((1,) * 3, (1,) * 5, 4, 4), dtype=np.uint16, meta=np.empty(0)
    )
    layers = [
        Image(data, contrast_limits=(0, 9), name=str(i), blending="additive")
        for i in range(2)
    ]
    read.clear()
    picture = build_picture(layers, "TZYX")
    assert picture.image.sizes[:4] == (1, 3, 5, 2)
    assert not read
    planes = picture.image.frame(FrameIndex(0, 2, 4)).planes
    assert set(read) == {(2, 4, 0, 0)}
    assert (planes == 6).all()


def test_five_axes_keep_their_place_scale_and_names() -> None:
    layer = Image(
        pixels(2, 3, 4, 6, 8),
        scale=(1, 10, 2, 0.5, 0.25),
        translate=(0, 0, 0, 7, 8),
        units=("pixel", "s", "um", "um", "um"),
        axis_labels=("p", "t", "z", "y", "x"),
    )
    picture = build_picture([layer], guess_axes(layer.axis_labels))
    assert picture.image.sizes == (2, 3, 4, 1, 6, 8)
    assert picture.image.scale == (2, 0.5, 0.25)
    assert picture.image.units == "micrometer"
    placement = picture.placement
    assert placement.axes == "PTZYX"
    assert placement.at(FrameIndex(1, 2, 3)) == (1, 2, 3)
    assert placement.frame((1.0, 2.2, 2.9)) == FrameIndex(1, 2, 3)
    for name, value in placement.options.items():
        there = [str(v) if name == "units" else v for v in getattr(layer, name)]
        assert list(value) == there


def test_results_are_turned_like_the_image() -> None:
    turned = {"rotate": 30, "shear": [0, 0, 0, 0, 0, 0.3]}
    layer = Image(pixels(2, 3, 6, 8), **turned, affine=np.diag([1, 1, 2, 2, 1]))
    picture = build_picture([layer], "CZYX")
    options = picture.placement.options
    np.testing.assert_allclose(options["rotate"], layer.rotate[1:, 1:])
    np.testing.assert_allclose(options["affine"], np.diag([1, 2, 2, 1]))
    flat = Image(pixels(6, 8), **picture.placement.flat())
    for corner in ([0, 0], [5, 7]):
        there = layer.data_to_world([0, 0, *corner])[2:]
        np.testing.assert_allclose(flat.data_to_world(corner), there)


def test_a_channel_axis_in_front_is_left_out_of_the_results() -> None:
    layer = Image(pixels(2, 3, 6, 8), axis_labels=("c", "z", "y", "x"))
    picture = build_picture([layer], "CZYX")
    assert picture.image.sizes.channel == 2
    assert picture.placement.axes == "ZYX"
    assert picture.placement.at(FrameIndex(z=2)) == (2,)


def test_a_channel_axis_further_in_keeps_results_on_the_channel_shown() -> None:
    picture = build_picture([Image(pixels(3, 2, 6, 8))], "ZCYX", channel=1)
    assert picture.placement.at(FrameIndex(z=2)) == (2, 1)


def test_the_sliders_say_which_frame_is_shown() -> None:
    viewer = ViewerModel()
    layer = viewer.add_image(pixels(3, 4, 6, 8), scale=(10, 2, 0.5, 0.5))
    viewer.dims.set_current_step((0, 1), (2, 3))
    assert current_frame(layer, "TZYX", viewer.dims.point) == (FrameIndex(0, 2, 3), 0)
    assert current_frame(layer, "ZCYX", viewer.dims.point) == (FrameIndex(z=2), 3)


@pytest.mark.parametrize(
    ("shapes", "rgb", "message"),
    [
        ([(4, 4), (4, 5)], False, "different shapes: 4 × 4, 4 × 5"),  # noqa: RUF001
        ([(4, 4, 3), (4, 4, 3)], True, "colour image"),
        ([], False, "No image"),
    ],
)
def test_layers_that_do_not_fit_are_refused(
    shapes: list[tuple[int, ...]], rgb: bool, message: str
) -> None:
    layers = [Image(np.zeros(shape, np.uint8), rgb=rgb) for shape in shapes]
    with pytest.raises(ImageError, match=message):
        build_picture(layers, "YX")

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError

from napari_sam_suite.engine.composite import Channel, Composite, compose
from napari_sam_suite.engine.errors import ImageError, ParameterError
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import Frame, open_image

if TYPE_CHECKING:
    from pathlib import Path


def frame(*planes: Any, dtype: Any = None) -> Frame:
    return Frame(np.stack([np.atleast_2d(np.asarray(p, dtype)) for p in planes]))


def grey(values: Any, *, dtype: Any = None, **channel: Any) -> list[int]:
    """Grey levels of one row of pixels."""
    settings = {"mode": "absolute", "limits": (0, 100), **channel}
    composite = Composite(channels=(Channel(index=0, **settings),))
    rgb = compose(frame(values, dtype=dtype), composite)
    assert rgb.shape == (1, len(values), 3)
    assert (rgb == rgb[..., :1]).all()
    return rgb[0, :, 0].tolist()


def absolute(index: int, color: str, low: float, high: float, **more: Any) -> Channel:
    return Channel(
        index=index, color=color, limits=(low, high), mode="absolute", **more
    )


# The formulas


@pytest.mark.parametrize(
    ("blend", "shares"),
    [
        ("lighten", [[0.25, 0.5, 0], [0.5, 0.25098039, 0]]),
        ("add", [[0.25, 0.62549020, 0], [0.5, 0.50098039, 0]]),
        ("screen", [[0.25, 0.56274510, 0], [0.5, 0.43823529, 0]]),
    ],
)
def test_two_channels_blend_as_computed_by_hand(
    blend: Any, shares: list[list[float]]
) -> None:
    # orange 1/4 with green 2/4, and orange 2/4 with green 1/4
    composite = Composite(
        channels=(absolute(0, "#ff8000", 0, 4), absolute(1, "#00ff00", 0, 4)),
        blend=blend,
    )
    rgb = compose(frame([1, 2], [2, 1], dtype=np.uint16), composite)
    assert rgb.dtype == np.uint8
    np.testing.assert_allclose(rgb[0], np.array(shares) * 255, atol=0.5001)


@pytest.mark.parametrize("blend", ["lighten", "add", "screen"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_blending_agrees_with_the_formulas_written_plainly(
    blend: Any, dtype: str
) -> None:
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 127, (3, 40, 50)).astype(dtype)
    channels = [
        absolute(0, "orange", 10, 100, gamma=0.5),
        absolute(1, "#123456", 0, 90),
        absolute(2, "white", 50, 60, gamma=2.2),
    ]
    shares = np.stack(
        [
            (
                ((planes[c.index] - c.limits[0]) / (c.limits[1] - c.limits[0])).clip(
                    0, 1
                )
            )[..., None]
            ** c.gamma
            * np.array(c.weights)
            for c in channels
        ]
    )
    expected = {
        "lighten": shares.max(0),
        "add": shares.sum(0).clip(0, 1),
        "screen": 1 - (1 - shares).prod(0),
    }[blend]
    rgb = compose(Frame(planes), Composite(channels=tuple(channels), blend=blend))
    np.testing.assert_allclose(rgb, expected * 255, atol=0.501)


def test_levels_are_rounded_not_cut() -> None:
    assert grey([0.0, 0.19, 0.2, 49.9, 50.0, 99.79, 99.81, 100.0]) == [
        0, 0, 1, 127, 128, 254, 255, 255,
    ]  # fmt: skip


def test_percentiles_are_those_of_the_plane() -> None:
    values = np.arange(0, 1001, dtype=np.uint16).reshape(7, 143)
    composite = Composite(channels=(Channel(index=0, limits=(10, 60)),))
    rgb = compose(Frame(values[None]), composite)
    fixed = Composite(channels=(absolute(0, "white", 100, 600),))
    np.testing.assert_array_equal(rgb, compose(Frame(values[None]), fixed))


def test_gamma_bends_the_middle_and_keeps_the_ends() -> None:
    assert grey([0, 25, 100], gamma=0.5) == [0, 128, 255]
    assert grey([0, 50, 100], gamma=2) == [0, 64, 255]


# Which plane is shown


def test_every_entry_shows_the_plane_it_names() -> None:
    planes = frame([100, 0, 0], [0, 100, 0], [0, 0, 100])
    composite = Composite(
        channels=(absolute(2, "blue", 0, 100), absolute(0, "red", 0, 100))
    )
    assert compose(planes, composite)[0].tolist() == [
        [255, 0, 0],
        [0, 0, 0],  # channel 1 has no entry, and no other takes its place
        [0, 0, 255],
    ]


def test_hidden_channels_are_left_out() -> None:
    planes = frame([100, 0], [0, 100])
    composite = Composite(
        channels=(
            absolute(0, "red", 0, 100, visible=False),
            absolute(1, "lime", 0, 100),
            absolute(7, "blue", 0, 100, visible=False),
        )
    )
    assert compose(planes, composite)[0].tolist() == [[0, 0, 0], [0, 255, 0]]


@pytest.mark.parametrize(
    "channels", [(), (Channel(index=0, visible=False),)], ids=["none", "hidden"]
)
def test_no_visible_channel_is_an_error(channels: tuple[Channel, ...]) -> None:
    composite = Composite(channels=channels)
    with pytest.raises(ParameterError, match="No channel is visible"):
        compose(frame([1, 2]), composite)
    with pytest.raises(ParameterError, match="No channel is visible"):
        composite.resolve(open_image(np.zeros((4, 4))))


def test_a_channel_the_image_lacks_is_an_error() -> None:
    composite = Composite(channels=(Channel(index=0), Channel(index=2)))
    with pytest.raises(ParameterError, match="Channel 3 is not in the image"):
        compose(frame([1, 2], [1, 2]), composite)
    with pytest.raises(ParameterError, match="Channel 3 is not in the image"):
        composite.resolve(open_image(np.zeros((2, 4, 4)), axes="CYX"))


# Awkward values


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
def test_a_plane_of_one_value_is_black(dtype: str) -> None:
    assert (
        grey([7, 7, 7], dtype=dtype, mode="percentile", limits=(0.1, 99.9)) == [0] * 3
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_equal_limits_separate_below_from_above(dtype: str) -> None:
    assert grey([6, 7, 8], dtype=dtype, limits=(7, 7)) == [0, 0, 255]


def test_a_few_bright_spots_on_black_keep_their_shades() -> None:
    values = np.zeros((1500, 1500), np.uint16)
    values[3, 5], values[700, 801] = 1000, 2000  # fewer than 0.1 percent
    rgb = compose(Frame(values[None]))
    assert rgb[3, 5, 0] == 128
    assert rgb[700, 801, 0] == 255
    assert np.count_nonzero(rgb[..., 0]) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", ["absolute", "percentile"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_pixels_without_a_value_are_black_and_spoil_nothing(
    bad: float, mode: str, dtype: str
) -> None:
    limits = (0, 100)
    levels = grey([bad, 0, 50, 100], dtype=dtype, mode=mode, limits=limits)
    assert levels == [0, 0, 128, 255]


def test_one_value_among_nans_is_found() -> None:
    values = np.full((1300, 1300), np.nan, np.float32)
    values[1, 1] = 5
    values[3, 3] = 6
    assert compose(Frame(values[None])).max() == 255


@pytest.mark.parametrize("mode", ["absolute", "percentile"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_frame_without_any_value_is_an_error(mode: Any, bad: float) -> None:
    composite = Composite(channels=(Channel(index=0, limits=(0, 1), mode=mode),))
    with pytest.raises(ImageError, match="nothing but NaN"):
        compose(frame([bad, bad]), composite)


def test_an_empty_channel_beside_a_good_one_is_black() -> None:
    rgb = compose(frame([np.nan, np.nan], [0.0, 1.0]))
    assert rgb[0].tolist() == [[0, 0, 0], [0, 255, 0]]


def test_twelve_bits_in_sixteen_are_not_dark() -> None:
    values = np.linspace(0, 4095, 5000).astype(np.uint16).reshape(50, 100)
    rgb = compose(Frame(values[None]))
    assert rgb.max() == 255
    assert 120 < np.median(rgb) < 136


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int32", [-500, 0, 128, 300, 70000]),
        ("int64", [-(2**40), 0, 128, 300, 2**40]),
        ("uint16", [0, 0, 128, 300, 65535]),
        ("int16", [-32768, 0, 128, 300, 32767]),
        ("float32", [-0.1, 0, 128, 1e9, 1e30]),
    ],
)
def test_values_beyond_the_limits_do_not_wrap(dtype: str, values: list[float]) -> None:
    assert grey(values, dtype=dtype, limits=(0, 256)) == [0, 0, 128, 255, 255]


def test_eight_bits_with_a_sign_are_read_with_it() -> None:
    assert grey([-128, -1, 0, 127], dtype="int8", limits=(-128, 127)) == [
        0,
        127,
        128,
        255,
    ]


def test_a_float_slightly_above_one_changes_nothing_else() -> None:
    plain = grey([0.0, 0.5, 1.0, 1.0], limits=(0, 1))
    assert grey([0.0, 0.5, 1.0, 1.01], limits=(0, 1)) == plain == [0, 128, 255, 255]


def test_booleans_are_black_and_white() -> None:
    rgb = compose(frame([False, True, False]))
    assert rgb[0, :, 0].tolist() == [0, 255, 0]
    assert compose(frame([True, True]))[0, :, 0].tolist() == [255, 255]


def test_the_input_is_not_changed() -> None:
    planes = np.array([[[np.nan, 0.0, 5.0]]])
    compose(Frame(planes))
    np.testing.assert_array_equal(planes, [[[np.nan, 0.0, 5.0]]])


def test_many_rows_are_composed_like_few() -> None:
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 255, (2, 1500, 700), dtype=np.uint8)
    composite = Composite(
        channels=(absolute(0, "red", 0, 255), absolute(1, "cyan", 0, 255))
    )
    rgb = compose(Frame(planes), composite)
    np.testing.assert_array_equal(rgb, np.stack([planes[0], planes[1], planes[1]], -1))


# Colour images


def test_eight_bit_rgb_passes_untouched() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    image = open_image(pixels, axes="YXS")
    shown = image.frame(FrameIndex())
    np.testing.assert_array_equal(compose(shown), pixels)
    np.testing.assert_array_equal(compose(shown, Composite.default(image)), pixels)


def test_sixteen_bit_rgb_keeps_its_hues() -> None:
    pixels = np.zeros((30, 40, 3), np.uint16)
    pixels[...] = np.linspace(0, 1, 40)[:, None] * [4000, 2000, 1000]
    rgb = compose(open_image(pixels, axes="YXS").frame(FrameIndex()))
    assert rgb[..., 0].max() == 255
    np.testing.assert_allclose(rgb[:, 20:, 1] / rgb[:, 20:, 0], 0.5, atol=0.01)
    np.testing.assert_allclose(rgb[:, 20:, 2] / rgb[:, 20:, 0], 0.25, atol=0.01)


def test_rgb_takes_one_entry_for_all_its_colours() -> None:
    pixels = np.full((4, 4, 3), 51, np.uint8)
    shown = open_image(pixels, axes="YXS").frame(FrameIndex())
    brighter = Composite(channels=(absolute(0, "white", 0, 102),))
    assert (compose(shown, brighter) == 128).all()
    wrong = Composite(channels=(Channel(index=0), Channel(index=1)))
    with pytest.raises(ParameterError, match="RGB"):
        compose(shown, wrong)


# Defaults and limits of a whole image


@pytest.mark.parametrize("count", range(1, 7))
def test_default_channels_have_colours_of_their_own(count: int) -> None:
    image = open_image(np.zeros((count, 4, 4)), axes="CYX")
    composite = Composite.default(image)
    assert [channel.index for channel in composite.channels] == list(range(count))
    assert len({channel.color for channel in composite.channels}) == count
    if count == 1:
        assert composite.channels[0].color == "#ffffff"
    assert Composite.default(image.frame(FrameIndex())) == composite


def test_limits_of_the_image_keep_a_time_lapse_from_flickering() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 1000, (20, 20), dtype=np.uint16)
    movie = np.stack([base, base // 2, base // 4])
    image = open_image(movie, axes="TYX")
    loose = Composite.default(image)
    fixed = loose.resolve(image)
    assert fixed.channels[0].mode == "absolute"
    flicker = [compose(image.frame(i), loose).mean() for i in image.frames()]
    steady = [compose(image.frame(i), fixed).mean() for i in image.frames()]
    assert flicker[0] == pytest.approx(flicker[2], rel=0.02)
    assert steady[0] == pytest.approx(4 * steady[2], rel=0.02)


def test_limits_come_from_the_chosen_frames_only() -> None:
    movie = np.stack([np.arange(16).reshape(4, 4) * 10**k for k in range(3)])
    image = open_image(movie, axes="TYX")
    composite = Composite(channels=(Channel(index=0, limits=(0, 100)),))
    fixed = composite.resolve(image, [FrameIndex(time=1)])
    assert fixed.channels[0].limits == (0, 150)


def test_few_frames_are_read_for_the_limits_of_a_long_movie() -> None:
    movie = np.arange(1000)[:, None, None] * np.ones((1, 4, 4), int)
    read = []

    class Counting:
        shape, dtype = movie.shape, movie.dtype

        def __getitem__(self, key: Any) -> Any:
            read.append(key[0])
            return movie[key]

    image = open_image(Counting(), axes="TYX")
    fixed = Composite.default(image).resolve(image)
    assert len(read) == 8
    assert (read[0], read[-1]) == (0, 999)
    assert fixed.channels[0].limits == pytest.approx((0, 999), abs=2)


def test_absolute_limits_and_the_rest_survive_resolving() -> None:
    image = open_image(np.arange(32.0).reshape(2, 4, 4), axes="CYX")
    composite = Composite(
        channels=(
            absolute(1, "red", 3, 4, gamma=2),
            Channel(index=0, color="cyan", gamma=0.5, limits=(0, 100)),
            Channel(index=9, visible=False),
        ),
        blend="screen",
    )
    fixed = composite.resolve(image)
    assert fixed.blend == "screen"
    assert fixed.channels[0] == composite.channels[0]
    assert fixed.channels[1] == absolute(0, "cyan", 0, 15, gamma=0.5)
    assert fixed.channels[2] == composite.channels[2]
    assert fixed.resolve(image).channels[:2] == fixed.channels[:2]


def test_frames_without_values_do_not_count_for_the_limits() -> None:
    movie = np.full((3, 4, 4), np.nan)
    image = open_image(movie, axes="TYX")
    composite = Composite(channels=(Channel(index=0, limits=(0, 100)),))
    with pytest.raises(ImageError, match="nothing but NaN"):
        composite.resolve(image)
    movie[1] = np.arange(16).reshape(4, 4)
    assert composite.resolve(image).channels[0].limits == (0, 15)


@pytest.mark.parametrize("damaged", [(0,), (1, 2), (0, 2), (0, 1, 2)])
def test_damaged_frames_do_not_count_for_the_limits(damaged: tuple[int, ...]) -> None:
    movie = np.arange(16).reshape(1, 4, 4) * np.ones((3, 1, 1), np.uint16)

    class Damaged:
        shape, dtype = movie.shape, movie.dtype

        def __getitem__(self, key: Any) -> Any:
            if key[0] in damaged:
                raise OSError(f"plane {key[0]} is not whole")
            return movie[key]

    image = open_image(Damaged(), axes="TYX")
    composite = Composite(channels=(Channel(index=0, limits=(0, 100)),))
    if len(damaged) == 3:
        with pytest.raises(ImageError, match="plane 2 is not whole"):
            composite.resolve(image)
    else:
        assert composite.resolve(image).channels[0].limits == (0, 15)


# The models


@pytest.mark.parametrize(
    ("color", "kept"),
    [
        ("red", "#ff0000"),
        ("Green", "#008000"),
        ("#F80", "#ff8800"),
        ("#ABCDEF", "#abcdef"),
    ],
)
def test_colours_are_css_names_or_hex(color: str, kept: str) -> None:
    assert Channel(index=0, color=color).color == kept


@pytest.mark.parametrize(
    "wrong",
    [
        {"color": "reddish"},
        {"color": "#ff000080"},
        {"color": ""},
        {"index": -1},
        {"limits": (2, 1)},
        {"limits": (-1, 50)},
        {"limits": (0, 101)},
        {"limits": (0, np.nan), "mode": "absolute"},
        {"limits": (0, np.inf), "mode": "absolute"},
        {"mode": "minmax"},
        {"gamma": 0},
        {"gamma": -1},
        {"contrast": 1},
    ],
)
def test_channels_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Channel(**{"index": 0, **wrong})


def test_an_unknown_blend_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"lighten.*add.*screen"):
        Composite(channels=(), blend="multiply")


def test_a_composite_survives_json() -> None:
    composite = Composite(
        channels=(absolute(1, "orange", 3, 4.5, gamma=2), Channel(index=0)), blend="add"
    )
    assert Composite.model_validate_json(composite.model_dump_json()) == composite


# Speed


def test_a_large_plane_is_composed_quickly() -> None:
    rng = np.random.default_rng(0)
    large = Frame(rng.integers(0, 256, (1, 2341, 3293), dtype=np.uint8))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        compose(large)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.6  # 0.05 s on an idle core; others may share it


def test_shared_images_use_the_whole_range(shared_data: Path) -> None:
    for path in sorted(shared_data.glob("dev_*/img_000.*")):
        image = open_image(path)
        fixed = Composite.default(image).resolve(image)
        shown = image.frame(next(image.frames()))
        for composite in (Composite.default(image), fixed):
            rgb = compose(shown, composite)
            assert rgb.shape == (image.sizes.y, image.sizes.x, 3), path
            assert rgb.max() > 200, path
            assert rgb.min() < 60, path

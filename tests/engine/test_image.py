from __future__ import annotations

import csv
import gc
import logging
import struct
import threading
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_sam_suite.engine.errors import FrameError, ImageError, OutOfMemory
from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.engine.image import ImageSource, open_image
from napari_sam_suite.engine.readers.whole import listening


class Recording:
    """An array that remembers which parts of it were asked for."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype
        self.keys: list[Any] = []

    def __getitem__(self, key: Any) -> np.ndarray:
        self.keys.append(key)
        return self.array[key]


def numbered(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


# Arrays


def test_two_dimensions_need_no_axes() -> None:
    pixels = numbered(5, 7)
    image = open_image(pixels, name="cells")
    assert image.name == "cells"
    assert image.sizes == Sizes(y=5, x=7)
    assert (image.rgb, image.dtype, image.path) == (False, np.uint16, None)
    assert (image.scale, image.units) == ((1, 1, 1), "pixel")
    frame = image.frame(FrameIndex())
    assert frame.shape == (5, 7)
    np.testing.assert_array_equal(frame.planes, pixels[np.newaxis])


@pytest.mark.parametrize(
    ("shape", "example"),
    [
        ((3, 5, 7), "ZYX"),
        ((5, 7, 3), "YXS"),
        ((5, 7, 4), "YXS"),
        ((2, 3, 5, 7), "TCYX"),
        ((2, 2, 3, 5, 7), "TZCYX"),
    ],
)
def test_more_dimensions_without_axes_are_ambiguous(
    shape: tuple[int, ...], example: str
) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(np.zeros(shape, np.uint8))
    assert str(shape) in caught.value.message
    assert f'"{example}"' in caught.value.hint
    assert open_image(np.zeros(shape, np.uint8), axes=example).frame(FrameIndex())


@pytest.mark.parametrize("axes", ["PTZCYX", "ptzcyx", "XYCZTP", "CTYPXZ"])
def test_axes_may_come_in_any_order(axes: str) -> None:
    lengths = {"P": 2, "T": 3, "Z": 4, "C": 5, "Y": 6, "X": 7}
    pixels = numbered(*(lengths[letter] for letter in axes.upper()))
    image = open_image(pixels, axes=axes)
    assert image.sizes == Sizes(2, 3, 4, 5, 6, 7)
    expected = pixels.transpose([axes.upper().index(letter) for letter in "PTZCYX"])
    planes = image.frame(FrameIndex(position=1, time=2, z=3)).planes
    np.testing.assert_array_equal(planes, expected[1, 2, 3])


def test_frames_go_through_time_fastest() -> None:
    image = open_image(np.zeros((2, 2, 3, 4, 4)), axes="PZTYX")
    frames = list(image.frames())
    assert len(frames) == 12
    assert frames[:4] == [
        FrameIndex(0, 0, 0),
        FrameIndex(0, 1, 0),
        FrameIndex(0, 2, 0),
        FrameIndex(0, 0, 1),
    ]


@pytest.mark.parametrize("samples", [3, 4])
def test_samples_make_a_colour_image_without_alpha(samples: int) -> None:
    pixels = numbered(2, 5, 7, samples, dtype="uint8")
    image = open_image(pixels, axes="TYXS")
    assert image.rgb
    assert image.sizes.channel == 3
    assert image.channel_names == ("red", "green", "blue")
    frame = image.frame(FrameIndex(time=1))
    assert frame.rgb
    np.testing.assert_array_equal(frame.planes, pixels[1].transpose(2, 0, 1)[:3])


@pytest.mark.parametrize(
    ("dtype", "channels", "rgb"),
    [("uint8", 3, True), ("uint8", 4, False), ("uint16", 3, False)],
)
def test_channels_last_are_colours_only_if_three_in_eight_bits(
    dtype: str, channels: int, rgb: bool
) -> None:
    image = open_image(np.zeros((5, 7, channels), dtype), axes="YXC")
    assert image.rgb is rgb
    assert image.sizes.channel == channels
    assert not open_image(np.zeros((channels, 5, 7), dtype), axes="CYX").rgb


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "uint16", "int32", "float16", "float32", ">u2"]
)
def test_values_stay_as_stored(dtype: str) -> None:
    pixels = (numbered(4, 6) % 2).astype(dtype)
    image = open_image(pixels)
    planes = image.frame(FrameIndex()).planes
    assert planes.dtype == image.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(planes[0], pixels)


def test_only_the_asked_frame_of_an_array_is_read() -> None:
    source = Recording(numbered(3, 2, 4, 5))
    image = open_image(source, axes="TCYX")
    assert source.keys == []
    image.frame(FrameIndex(time=2))
    assert [source.array[key].shape for key in source.keys] == [(2, 4, 5)]


def test_only_the_asked_chunks_of_a_dask_array_are_computed() -> None:
    blocks = []

    def block(block_info: Any = None) -> np.ndarray:
        blocks.append(block_info[None]["chunk-location"])
        return np.full((1, 4, 5), len(blocks))

    pixels = da.map_blocks(block, chunks=((1,) * 6, (4,), (5,)), dtype=int, meta=0)
    image = open_image(pixels, axes="ZYX")
    assert blocks == []
    assert image.frame(FrameIndex(z=4)).planes.shape == (1, 4, 5)
    assert blocks == [(4, 0, 0)]


def test_a_three_gigabyte_array_costs_one_frame() -> None:
    pixels = np.broadcast_to(np.uint8(7), (300, 3200, 3400))
    image = open_image(pixels, axes="TYX")
    tracemalloc.start()
    try:
        image.frame(FrameIndex(time=299))
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_an_image_source_is_returned_as_it_is() -> None:
    image = open_image(np.zeros((4, 4)))
    assert open_image(image) is image


@pytest.mark.parametrize(
    ("shape", "axes", "says"),
    [
        ((3, 5, 7), "YX", "2 of its 3"),
        ((5, 7), "ZYX", "too long"),
        ((3, 5, 7), "YYX", "repeats"),
        ((3, 5, 7), "ZTX", "lacks Y or X"),
        ((3, 5, 7), "QYX", "'Q' is not known"),
        ((3, 5, 7), "Y X", "' ' is not known|lacks"),
        ((5, 7, 5), "YXS", "5 colour samples"),
        ((2, 5, 7, 3), "CYXS", "2 channels that are RGB"),
        ((5,), None, "shape"),
        ((), None, "shape"),
        ((0, 7), None, "empty"),
        ((0, 5, 7), "TYX", "empty"),
    ],
)
def test_wrong_axes_and_empty_images_are_explained(
    shape: tuple[int, ...], axes: str | None, says: str
) -> None:
    with pytest.raises(ImageError, match=says) as caught:
        open_image(np.zeros(shape), axes=axes)
    assert caught.value.hint


@pytest.mark.parametrize("axes", [5, b"YX", ("Y", "X")])
def test_axes_that_are_no_text_are_refused(axes: Any) -> None:
    with pytest.raises(ImageError, match=r"axes=.* is not understood"):
        open_image(numbered(4, 5), axes=axes)


def test_a_meaningless_dimension_of_length_one_is_ignored() -> None:
    image = open_image(numbered(1, 5, 7), axes="QYX")
    assert image.sizes == Sizes(y=5, x=7)
    assert image.frame(FrameIndex()).planes.shape == (1, 5, 7)


@pytest.mark.parametrize(
    "source",
    [
        [[1, 2], [3, 4]],
        None,
        np.zeros((4, 4), complex),
        np.array([["a"]]),
        da.from_array(np.arange(16).reshape(4, 4))[da.arange(4) > 1],
    ],
)
def test_what_is_not_an_image_is_refused(source: Any) -> None:
    with pytest.raises(ImageError):
        open_image(source)


@pytest.mark.parametrize("index", [(0, 2, 0), (0, 0, -1), (1, 0, 0), (0, 0), 3])
def test_a_frame_outside_the_image_is_refused(index: Any) -> None:
    image = open_image(np.zeros((2, 4, 4)), axes="TYX")
    with pytest.raises(FrameError):
        image.frame(index)


# TIFF


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("TZCYX", (2, 3, 2, 5, 7)), ("ZYX", (4, 5, 7)), ("CYX", (3, 5, 7))],
)
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".tif", {}),
        (".tiff", {"compression": "zlib"}),
        (".tif", {"imagej": True}),
        (".ome.tif", {}),
        (".OME.TIFF", {"ome": True, "compression": "zlib"}),
    ],
)
def test_tiff_stacks_that_name_their_axes_open(
    tmp_path: Path, axes: str, shape: tuple[int, ...], suffix: str, options: dict
) -> None:
    path = tmp_path / f"cells{suffix}"
    pixels = numbered(*shape)
    tifffile.imwrite(
        path, pixels, metadata={"axes": axes}, photometric="minisblack", **options
    )
    image = open_image(path)
    assert image.name == "cells"
    assert image.path == path
    assert image.sizes == open_image(pixels, axes=axes).sizes
    last = list(image.frames())[-1]
    expected = open_image(pixels, axes=axes).frame(last).planes
    np.testing.assert_array_equal(image.frame(last).planes, expected)


def test_a_tiff_stack_without_axes_is_ambiguous(tmp_path: Path) -> None:
    path = tmp_path / "plain.tif"
    pixels = numbered(6, 5, 7)
    tifffile.imwrite(path, pixels, metadata=None)
    with pytest.raises(ImageError, match=r"'plain.tif' has shape \(6, 5, 7\)"):
        open_image(path)
    image = open_image(str(path), axes="TYX")
    assert image.sizes == Sizes(time=6, y=5, x=7)
    planes = image.frame(FrameIndex(time=3)).planes
    np.testing.assert_array_equal(planes[0], pixels[3])


def test_axes_overrule_what_a_tiff_says(tmp_path: Path) -> None:
    path = tmp_path / "z.ome.tif"
    tifffile.imwrite(path, numbered(6, 5, 7), metadata={"axes": "ZYX"})
    assert open_image(path).sizes.z == 6
    assert open_image(path, axes="TYX").sizes.time == 6


@pytest.mark.parametrize(
    ("shape", "options", "channels", "rgb"),
    [
        ((5, 7, 3), {"photometric": "rgb"}, 3, True),
        ((5, 7, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, 3, True),
        ((3, 5, 7), {"photometric": "rgb", "planarconfig": "separate"}, 3, True),
        ((5, 7, 3), {"photometric": "minisblack", "planarconfig": "contig"}, 3, False),
        (
            (5, 7, 2),
            {
                "photometric": "minisblack",
                "planarconfig": "contig",
                "extrasamples": ["unassalpha"],
            },
            1,
            False,
        ),
    ],
)
def test_tiff_samples_are_colours_only_where_the_file_says_so(
    tmp_path: Path, shape: tuple[int, ...], options: dict, channels: int, rgb: bool
) -> None:
    path = tmp_path / "samples.tif"
    pixels = numbered(*shape, dtype="uint8")
    tifffile.imwrite(path, pixels, metadata=None, **options)
    image = open_image(path)
    assert (image.rgb, image.sizes) == (rgb, Sizes(channel=channels, y=5, x=7))
    first = pixels if options.get("planarconfig") == "separate" else pixels.T
    first = first[0] if shape[0] == 3 else first[0].T
    np.testing.assert_array_equal(image.frame(FrameIndex()).planes[0], first)


def test_ome_tiff_scenes_are_positions_with_names_and_scale(tmp_path: Path) -> None:
    path = tmp_path / "scenes.ome.tif"
    pixels = numbered(3, 2, 5, 7)
    metadata = {
        "axes": "CYX",
        "Channel": {"Name": ["DAPI", "actin"]},
        "PhysicalSizeX": 250,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "\u00b5m",
        "PhysicalSizeZ": 0.002,
        "PhysicalSizeZUnit": "mm",
    }
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for scene in pixels:
            tiff.write(scene, metadata=metadata, photometric="minisblack")
    image = open_image(path)
    assert image.sizes == Sizes(position=3, channel=2, y=5, x=7)
    assert image.channel_names == ("DAPI", "actin")
    assert image.scale == pytest.approx((2, 0.5, 0.25))
    assert image.units == "micrometer"
    np.testing.assert_array_equal(image.frame(FrameIndex(position=2)).planes, pixels[2])
    with pytest.raises(ImageError, match="positions of its own"):
        open_image(path, axes="PYX")


def test_imagej_calibration_is_read_and_a_printers_resolution_is_not(
    tmp_path: Path,
) -> None:
    pixels = np.zeros((2, 5, 7), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels,
        imagej=True,
        resolution=(4, 2),
        metadata={"axes": "ZYX", "unit": "um", "spacing": 3.0},
    )
    image = open_image(tmp_path / "a.tif")
    assert (image.scale, image.units) == (pytest.approx((3, 0.5, 0.25)), "micrometer")
    tifffile.imwrite(
        tmp_path / "b.tif", pixels[0], resolution=(72, 72), resolutionunit="inch"
    )
    assert open_image(tmp_path / "b.tif").units == "pixel"
    tifffile.imwrite(
        tmp_path / "c.tif", pixels[0], resolution=(1e4, 2e4), resolutionunit=3
    )
    assert open_image(tmp_path / "c.tif").scale == pytest.approx((1, 0.5, 1))


@pytest.mark.parametrize(
    ("said", "scale"),
    [
        ("unit=micron", (2, 0.5, 0.25)),
        ("unit=um", (2, 0.5, 0.25)),
        ("unit=\u00b5m", (2, 0.5, 0.25)),
        ("unit=\u03bcm", (2, 0.5, 0.25)),
        ("unit=\\u00B5m", (2, 0.5, 0.25)),
        ("unit=nm", (0.002, 0.0005, 0.00025)),
        ("unit=mm", (2000, 500, 250)),
        ("unit=micron\nyunit=mm\nzunit=nm", (0.002, 500, 0.25)),
        ("unit=micron\nzunit=furlong", (1, 0.5, 0.25)),
    ],
)
@pytest.mark.parametrize("coding", ["utf-8", "latin-1"])
def test_imagej_units_are_read_however_they_are_spelled(
    tmp_path: Path, said: str, scale: tuple[float, ...], coding: str
) -> None:
    path = tmp_path / "a.tif"
    text = f"ImageJ=1.54f\n{said}\nspacing=2.0\n"
    raw = text.encode("utf-8" if "\u03bc" in said else coding)
    pixels = np.zeros((5, 7), np.uint8)
    tifffile.imwrite(path, pixels, description=raw, resolution=(4, 2), metadata=None)
    image = open_image(path)
    assert (image.scale, image.units) == (pytest.approx(scale), "micrometer")


@pytest.mark.parametrize("unit", ["inch", "pixel", "", "furlong"])
def test_an_imagej_unit_that_is_no_measure_is_pixels(tmp_path: Path, unit: str) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.zeros((5, 7), np.uint8),
        imagej=True,
        resolution=(72, 72),
        metadata={"unit": unit},
    )
    image = open_image(tmp_path / "a.tif")
    assert (image.scale, image.units) == ((1, 1, 1), "pixel")


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("\u00b5m", 1), ("um", 1), ("nm", 1e-3), ("mm", 1e3), (None, 1), ("pixel", None)],
)
def test_ome_units_are_read(
    tmp_path: Path, unit: str | None, factor: float | None
) -> None:
    path = tmp_path / "a.ome.tif"
    metadata: dict[str, object] = {"axes": "YX"}
    for axis, size in (("X", 0.25), ("Y", 0.5)):
        metadata[f"PhysicalSize{axis}"] = size
        if unit is not None:
            metadata[f"PhysicalSize{axis}Unit"] = unit
    tifffile.imwrite(path, np.zeros((5, 7), np.uint8), metadata=metadata)
    image = open_image(path)
    if factor is None:
        assert (image.scale, image.units) == ((1, 1, 1), "pixel")
    else:
        assert image.scale == pytest.approx((1, 0.5 * factor, 0.25 * factor))
        assert image.units == "micrometer"


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg", "a.ome.tif"])
def test_a_file_without_a_byte_is_called_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ImageError, match="is empty: the file has no bytes"):
        open_image(tmp_path / name)


def test_metadata_that_makes_no_sense_does_not_keep_the_pixels_away(
    tmp_path: Path,
) -> None:
    path = tmp_path / "odd.ome.tif"
    metadata = {"axes": "ZYX", "PhysicalSizeX": -1.0, "PhysicalSizeXUnit": "furlong"}
    tifffile.imwrite(path, numbered(4, 5, 7), metadata=metadata)
    image = open_image(path)
    assert image.sizes == Sizes(z=4, y=5, x=7)
    assert (image.units, image.channel_names) == ("pixel", ("channel 1",))

    path.write_bytes(path.read_bytes().replace(b"<Channel ", b"<Chunnel "))
    with pytest.raises(ImageError, match="nothing says which axis is which"):
        open_image(path)
    assert open_image(path, axes="ZYX").sizes == Sizes(z=4, y=5, x=7)


def test_a_reduced_copy_in_a_tiff_is_not_another_position(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "thumb.tif") as tiff:
        tiff.write(np.zeros((64, 64), np.uint8), metadata=None)
        tiff.write(np.zeros((8, 8), np.uint8), metadata=None, subfiletype=1)
    assert open_image(tmp_path / "thumb.tif").sizes == Sizes(y=64, x=64)


def test_a_tiff_of_images_that_differ_is_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "two.tif") as tiff:
        tiff.write(np.zeros((64, 64), np.uint8))
        tiff.write(np.zeros((8, 8), np.uint8))
    with pytest.raises(ImageError, match=r"differ.*\(64, 64\).*number 2.*\(8, 8\)"):
        open_image(tmp_path / "two.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_one_frame_of_a_huge_tiff_stays_small(
    tmp_path: Path, compression: str | None
) -> None:
    path = tmp_path / "huge.tif"
    if compression:
        pages = (np.full((512, 512), i % 256, np.uint8) for i in range(400))
        tifffile.imwrite(
            path, pages, shape=(400, 512, 512), dtype="uint8", compression="zlib",
            metadata={"axes": "TYX"},
        )  # fmt: skip
        limit = 20e6
    else:
        # the file system keeps no space for what was never written
        tifffile.imwrite(
            path, shape=(300, 3200, 3400), dtype="uint8", metadata={"axes": "TYX"}
        )
        limit = 80e6
    open_image(path).frame(FrameIndex())  # imports are not what is measured
    tracemalloc.start()
    try:
        image = open_image(path)
        value = image.frame(FrameIndex(time=250)).planes.max()
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()
    assert value == (250 if compression else 0)


def test_a_forgotten_tiff_leaves_no_open_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, numbered(4, 4))
    image: ImageSource | None = open_image(path)
    image.frame(FrameIndex())
    image = None
    gc.collect()  # an open file would warn, which is an error here
    opened = Path("/proc/self/fd")
    if opened.exists():
        links = [link.resolve() for link in opened.iterdir() if link.exists()]
        assert path not in links


# OME-Zarr


def write_zarr(folder: Path, pixels: np.ndarray, axes: str, version: str) -> None:
    scale = [{"T": 1, "C": 1, "Z": 2000.0, "Y": 500.0, "X": 250.0}[a] for a in axes]
    unit = {"Z": "nanometer", "Y": "nanometer", "X": "nanometer"}
    ome = {
        "multiscales": [
            {
                "version": version,
                "axes": [
                    {"name": a.lower(), **({"unit": unit[a]} if a in unit else {})}
                    for a in axes
                ],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": scale}
                        ],
                    }
                ],
            }
        ],
        "omero": {"channels": [{"label": "DAPI"}, {"label": "actin"}]},
    }
    write_group(folder, ome, version)
    group = zarr.open_group(folder, mode="a")
    group.create_array("0", data=pixels, chunks=(1,) * (pixels.ndim - 2) + (4, 4))


def write_group(folder: Path, ome: dict, version: str) -> None:
    group = zarr.open_group(folder, mode="a", zarr_format=3 if version == "0.5" else 2)
    group.attrs.update(
        {"ome": {"version": version, **ome}} if version == "0.5" else ome
    )


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_opens_with_names_and_scale(tmp_path: Path, version: str) -> None:
    pixels = numbered(3, 2, 2, 9, 7)
    write_zarr(tmp_path / "cells.ome.zarr", pixels, "TCZYX", version)
    image = open_image(str(tmp_path / "cells.ome.zarr"))
    assert image.name == "cells"
    assert image.sizes == Sizes(1, 3, 2, 2, 9, 7)
    assert image.channel_names == ("DAPI", "actin")
    assert image.scale == pytest.approx((2, 0.5, 0.25))
    assert image.units == "micrometer"
    planes = image.frame(FrameIndex(time=2, z=1)).planes
    np.testing.assert_array_equal(planes, pixels[2, :, 1])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_fields_of_a_plate_are_positions(tmp_path: Path, version: str) -> None:
    folder = tmp_path / "plate.ome.zarr"
    write_group(
        folder, {"plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}}, version
    )
    for number, well in enumerate(["A/1", "B/2"]):
        images = [{"path": "0"}, {"path": "1"}]
        write_group(folder / well, {"well": {"images": images}}, version)
        for field in (0, 1):
            pixels = np.full((2, 9, 7), 10 * number + field, np.uint8)
            write_zarr(folder / well / str(field), pixels, "CYX", version)
    image = open_image(folder)
    assert image.sizes == Sizes(position=4, channel=2, y=9, x=7)
    values = [int(image.frame(index).planes.max()) for index in image.frames()]
    assert values == [0, 1, 10, 11]


def test_series_of_a_converted_file_are_positions(tmp_path: Path) -> None:
    folder = tmp_path / "series.zarr"
    write_group(folder, {"bioformats2raw.layout": 3}, "0.4")
    for number in (0, 1, 10):
        pixels = np.full((2, 9, 7), number, np.uint8)
        write_zarr(folder / str(number), pixels, "CYX", "0.4")
    image = open_image(folder)
    values = [int(image.frame(index).planes.max()) for index in image.frames()]
    assert values == [0, 1, 10]


def test_a_series_of_images_that_differ_is_refused_where_it_differs(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "series.zarr"
    write_group(folder, {"bioformats2raw.layout": 3}, "0.4")
    write_zarr(folder / "0", numbered(2, 9, 7), "CYX", "0.4")
    write_zarr(folder / "1", numbered(2, 9, 8), "CYX", "0.4")
    image = open_image(folder)
    image.frame(FrameIndex())
    with pytest.raises(ImageError, match="differ"):
        image.frame(FrameIndex(position=1))


def test_a_zarr_without_ome_metadata_is_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "bare.zarr", mode="w")
    with pytest.raises(ImageError, match="no OME-Zarr metadata"):
        open_image(tmp_path / "bare.zarr")


def test_one_frame_of_a_huge_zarr_stays_small(tmp_path: Path) -> None:
    folder = tmp_path / "huge.ome.zarr"
    write_zarr(folder, np.zeros((1, 8, 8), np.uint8), "TYX", "0.5")
    group = zarr.open_group(folder, mode="a")
    group.create_array(
        "0", shape=(400, 4096, 2048), chunks=(1, 1024, 1024), dtype="u1", overwrite=True
    )
    image = open_image(folder)
    image.frame(FrameIndex())
    tracemalloc.start()
    try:
        assert image.frame(FrameIndex(time=399)).planes.nbytes == 8 * 2**20
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()


# PNG and JPEG


@pytest.mark.parametrize(
    ("mode", "channels", "dtype"),
    [("L", 1, "uint8"), ("RGB", 3, "uint8"), ("RGBA", 3, "uint8"), ("LA", 1, "uint8"),
     ("1", 1, "bool"), ("I;16", 1, "uint16")],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".png", ".PNG"])
def test_png_opens_in_every_mode(
    tmp_path: Path, mode: str, channels: int, dtype: str, suffix: str
) -> None:
    rng = np.random.default_rng(0)
    if mode == "I;16":
        picture = Image.fromarray(rng.integers(0, 4096, (5, 7), dtype=np.uint16))
    else:
        picture = Image.fromarray(rng.integers(0, 255, (5, 7, 4), dtype=np.uint8))
        picture = picture.convert(mode)
    picture.save(tmp_path / f"a{suffix}")
    image = open_image(tmp_path / f"a{suffix}")
    assert image.rgb is (channels == 3)
    assert image.sizes == Sizes(channel=channels, y=5, x=7)
    assert image.dtype == np.dtype(dtype)
    stored = np.asarray(picture).reshape(5, 7, -1)[..., :channels]
    planes = image.frame(FrameIndex()).planes
    np.testing.assert_array_equal(planes, stored.transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
def test_jpeg_opens(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (7, 5), "red").save(tmp_path / f"a{suffix}", "jpeg")
    image = open_image(tmp_path / f"a{suffix}")
    assert image.rgb
    assert image.sizes == Sizes(channel=3, y=5, x=7)
    assert image.frame(FrameIndex()).planes[:, 2, 2] == pytest.approx(
        [254, 0, 0], abs=2
    )


def test_a_palette_becomes_the_colours_it_stands_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (5, 7, 3), dtype=np.uint8))
    indexed = picture.quantize(16)
    indexed.save(tmp_path / "a.png")
    indexed.save(tmp_path / "b.png", transparency=0)
    expected = np.asarray(indexed.convert("RGB")).transpose(2, 0, 1)
    for name in ("a.png", "b.png"):
        image = open_image(tmp_path / name)
        assert image.rgb
        planes = image.frame(FrameIndex()).planes
        np.testing.assert_array_equal(planes, expected)


@pytest.mark.parametrize(("kind", "samples"), [(2, 3), (4, 2), (6, 4)])
def test_colours_of_sixteen_bits_are_not_silently_cut(
    tmp_path: Path, kind: int, samples: int
) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        sum_ = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", sum_)

    header = struct.pack(">IIBBBBB", 2, 1, 16, kind, 0, 0, 0)
    rows = zlib.compress(b"\0" + np.arange(2 * samples, dtype=">u2").tobytes())
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match="16 bits"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize(("kind", "name"), [("jpeg", "a.png"), ("png", "a.jpg")])
def test_the_content_of_a_picture_counts_not_its_suffix(
    tmp_path: Path, kind: str, name: str
) -> None:
    Image.new("L", (7, 5), 100).save(tmp_path / name, kind)
    planes = open_image(tmp_path / name).frame(FrameIndex()).planes
    assert planes.shape == (1, 5, 7)
    assert (planes == 100).all()


def test_a_picture_is_not_turned_by_its_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (7, 5)).save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").sizes == Sizes(y=5, x=7)


def test_a_large_scan_is_not_taken_for_an_attack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (70, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert open_image(tmp_path / "a.png").sizes == Sizes(y=50, x=70)


def test_a_printers_jpeg_is_not_taken_for_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (7, 5)).save(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="CMYK"):
        open_image(tmp_path / "a.jpg")


# Files that are no good


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.png", "a.jpg", "a.zarr"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match=name):
        open_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.png", "a.jpg"])
@pytest.mark.parametrize("content", [b"", b"II*\0 rubbish", b"rubbish" * 100])
def test_an_unreadable_file_is_named_in_one_sentence(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError) as caught:
        open_image(tmp_path / name)
    assert repr(name) in caught.value.message
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["a.txt", "a", "a.czi"])
def test_an_unknown_kind_of_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("hello")
    with pytest.raises(ImageError, match=r"not an image this can read.*Convert it"):
        open_image(tmp_path / name)


def test_a_plain_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder"):
        open_image(tmp_path)


def test_a_cut_off_tiff_names_the_frame_it_misses(tmp_path: Path) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, numbered(6, 32, 32), metadata={"axes": "ZYX"})
    path.write_bytes(path.read_bytes()[:-2500])
    with pytest.raises(ImageError, match=r"Z 6 of 6 of 'cut\.tif' cannot be read"):
        open_image(path).frame(FrameIndex(z=5))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.tif", {"imagej": True}, "is cut off: it holds 1 of 20 frames"),
        ("a.ome.tif", {}, "is damaged or cut off: 1 frame can be found"),
        ("a.ome.tif", {"compression": "zlib"}, "cut off: 1[0-9] frames can be found"),
        ("b.tif", {"metadata": None}, "is damaged or cut off: 1 frame can be found"),
    ],
)
def test_a_cut_off_stack_is_not_taken_for_a_shorter_one(
    tmp_path: Path, name: str, options: dict[str, Any], words: str
) -> None:
    path = tmp_path / name
    pixels = np.random.default_rng(0).integers(0, 60000, (20, 64, 64), np.uint16)
    settings = {"photometric": "minisblack", "metadata": {"axes": "TYX"}}
    if "imagej" in options:
        del settings["photometric"]
    tifffile.imwrite(path, pixels, **(settings | options))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    for axes in (None, "TYX"):
        with pytest.raises(ImageError, match=words) as caught:
            open_image(path, axes=axes)
        assert "Copy it again" in caught.value.hint


def test_what_tifffile_complains_of_in_a_whole_file_does_no_harm(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.tif"
    pixels = numbered(6, 32, 32)
    code, text = 65000, b"x" * 40
    tifffile.imwrite(
        path, pixels, imagej=True, metadata={"axes": "TYX"},
        extratags=[(code, "s", len(text), text, True)],
    )  # fmt: skip
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].tags[code].offset
    content = bytearray(path.read_bytes())
    content[offset + 8 : offset + 12] = b"\xff" * 4
    path.write_bytes(content)
    with listening() as said:
        assert open_image(path).sizes.time == 6
        assert "invalid value offset" in said[0]


def test_errors_of_another_thread_are_not_of_this_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, numbered(32, 32))
    log = logging.getLogger("tifffile")
    with listening() as said:
        other = threading.Thread(target=log.error, args=("invalid page offset 7",))
        other.start()
        other.join()
        assert said == []
        log.error("invalid page offset 7")
        assert said == ["invalid page offset 7"]
    assert open_image(path).sizes.frame_count == 1


def test_a_damaged_page_spares_the_others(tmp_path: Path) -> None:
    path = tmp_path / "hurt.tif"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60000, (6, 32, 32), dtype=np.uint16)
    tifffile.imwrite(path, pixels, metadata={"axes": "ZYX"}, compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[3].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[start : start + 500] = bytes(500)
    path.write_bytes(content)
    image = open_image(path)
    np.testing.assert_array_equal(image.frame(FrameIndex(z=2)).planes[0], pixels[2])
    with pytest.raises(ImageError, match=r"Z 4 of 6 of 'hurt.tif' cannot be read"):
        image.frame(FrameIndex(z=3))


@pytest.mark.parametrize("axes", ["YXS", "ZZYX", "TYX"])
def test_axes_that_do_not_fit_a_file_are_refused(tmp_path: Path, axes: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", numbered(5, 7))
    Image.new("L", (7, 5)).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        with pytest.raises(ImageError, match=name):
            open_image(tmp_path / name, axes=axes)


def test_the_colours_of_a_picture_are_not_taken_for_columns(tmp_path: Path) -> None:
    pixels = np.zeros((32, 48, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        with pytest.raises(ImageError, match="colour image: axis 3 of 'TYX'") as caught:
            open_image(tmp_path / name, axes="TYX")
        assert '"YXS"' in caught.value.hint
        assert open_image(tmp_path / name, axes="YXS").rgb


def test_three_frames_that_a_file_calls_colours_may_be_frames(tmp_path: Path) -> None:
    planes = np.zeros((3, 32, 48), np.uint8)
    path = tmp_path / "b.tif"
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    assert open_image(path, axes="TYX").sizes.time == 3


def test_planes_that_tifffile_calls_colours_are_told(tmp_path: Path) -> None:
    path = tmp_path / "b.tif"
    tifffile.imwrite(path, numbered(3, 32, 48), photometric="rgb")
    image = open_image(path)
    assert image.rgb
    assert "3 planes of uint16" in image.notices[0]
    assert "`axes`" in image.notices[0]
    assert open_image(path, axes="TYX").notices == ()
    for shape, options in (
        ((3, 32, 48), {"dtype": "uint8"}),
        ((32, 48, 3), {"dtype": "uint16"}),
    ):
        tifffile.imwrite(path, numbered(*shape, **options), photometric="rgb")
        assert open_image(path).rgb
        assert open_image(path).notices == ()


def test_a_frame_that_does_not_fit_into_the_memory_is_one_sentence() -> None:
    class Vast:
        shape = (2, 10**6, 10**6)
        dtype = np.dtype(np.float64)

        def __getitem__(self, key: Any) -> Any:
            raise MemoryError

    image = open_image(Vast(), axes="TYX", name="vast")
    with pytest.raises(OutOfMemory, match=r"Time 2 of 2 of 'vast'.*1000000 x 1000000"):
        image.frame(FrameIndex(time=1))


# The shared images


def test_every_shared_image_opens_as_its_manifest_says(shared_data: Path) -> None:
    seen = 0
    for manifest in sorted(shared_data.glob("dev_*/manifest.csv")):
        for row in csv.DictReader(manifest.read_text().splitlines()):
            path = manifest.parent / row["image"]
            shape = [int(length) for length in row["shape"].split("x")]
            length = dict(zip(row["axes"], shape, strict=True))
            expected = Sizes(
                time=length.get("T", 1),
                z=length.get("Z", 1),
                channel=length.get("C", 1),
                y=length["Y"],
                x=length["X"],
            )
            for axes in (None, row["axes"]):
                image = open_image(path, axes=axes)
                assert image.sizes == expected, path
                assert image.rgb is (row["axes"] == "YXC"), path
                assert image.dtype == row["dtype"], path
            seen += 1
    assert seen > 90

from __future__ import annotations

import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import shapely
import tifffile

from napari_sam_suite.engine.errors import ImageError, ParameterError
from napari_sam_suite.engine.formats.label_writer import LabelWriter
from napari_sam_suite.engine.formats.labels import read_labels, write_labels
from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.objects import Objects

STACK = Sizes(time=2, z=3, y=12, x=15)


def random_labels(highest: int, seed: int = 0, shape=(12, 15)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, highest + 1, shape)


@pytest.mark.parametrize(
    ("highest", "dtype"),
    [(1, np.uint16), (65535, np.uint16), (65536, np.uint32), (2**32 - 1, np.uint32)],
)
def test_numbers_keep_their_value_and_never_get_8_bits(tmp_path, highest, dtype):
    labels = random_labels(highest)
    labels[0, 0] = highest
    write_labels(tmp_path / "a.tif", labels)
    found = read_labels(tmp_path / "a.tif")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, labels)


def test_frames_come_in_any_order_and_the_others_are_zero(tmp_path):
    frames = [FrameIndex(0, t, z) for z, t in product((2, 0), (1, 0))]
    with LabelWriter(tmp_path / "a.tif", STACK) as writer:
        for number, frame in enumerate(frames, start=1):
            writer.write(frame, np.full((12, 15), number))
    found = read_labels(tmp_path / "a.tif")
    assert found.shape == (2, 3, 12, 15)
    assert found[:, :, 5, 5].tolist() == [[4, 0, 2], [3, 0, 1]]


def test_a_frame_that_comes_again_replaces_the_first(tmp_path):
    with LabelWriter(tmp_path / "a.tif", STACK) as writer:
        writer.write(FrameIndex(), np.full((12, 15), 1))
        writer.write(FrameIndex(), np.full((12, 15), 2))
    assert read_labels(tmp_path / "a.tif")[0, 0].max() == 2


def test_one_large_number_makes_all_frames_32_bits(tmp_path):
    with LabelWriter(tmp_path / "a.tif", STACK) as writer:
        writer.write(FrameIndex(0, 0, 0), np.full((12, 15), 300))
        writer.write(FrameIndex(0, 1, 2), np.full((12, 15), 70000))
    found = read_labels(tmp_path / "a.tif")
    assert found.dtype == np.uint32
    assert found[[0, 0, 1], [0, 1, 2], 0, 0].tolist() == [300, 0, 70000]


@pytest.mark.parametrize(
    ("sizes", "axes"),
    [
        (Sizes(y=12, x=15), "YX"),
        (Sizes(z=3, y=12, x=15), "ZYX"),
        (Sizes(time=2, y=12, x=15), "TYX"),
        (STACK, "TZYX"),
        (Sizes(position=2, z=3, y=12, x=15), "PZYX"),
    ],
)
def test_axes_are_in_the_file(tmp_path, sizes, axes):
    with LabelWriter(tmp_path / "a.tif", sizes) as writer:
        writer.write(FrameIndex(), random_labels(9))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.series[0].axes == axes
        assert len(tiff.pages) == sizes.frame_count
        assert tiff.is_imagej == ("P" not in axes)


def test_fiji_finds_pixel_size_and_brightness(tmp_path):
    scale = (2.0, 0.5, 0.25)
    with LabelWriter(tmp_path / "a.tif", STACK, scale=scale, units="um") as writer:
        writer.write(FrameIndex(), np.full((12, 15), 40))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        tags = tiff.pages[0].tags
        found = tiff.imagej_metadata
        assert tags["XResolution"].value == (4, 1)
        assert tags["YResolution"].value == (2, 1)
    assert (found["spacing"], found["unit"], found["max"]) == (2.0, "micron", 40.0)
    assert (found["frames"], found["slices"]) == (2, 3)


@pytest.mark.parametrize("highest", [40, 70_000])
@pytest.mark.parametrize("positions", [1, 2])
def test_every_kind_of_file_keeps_the_pixel_size(tmp_path, highest, positions):
    path, sizes = tmp_path / "a.tif", STACK._replace(position=positions)
    scale = (2000.0, 500.0, 250.0)
    with LabelWriter(path, sizes, scale=scale, units="nanometer") as writer:
        writer.write(FrameIndex(), np.full((12, 15), highest))
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages[0].tags
        if not tiff.is_imagej:  # what QuPath and Bio-Formats look at then
            assert tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
            assert tags["XResolution"].value == (40_000, 1)
    source = Objects.load(path).source
    for found, units in (
        (open_image(path).scale, open_image(path).units),
        (source["scale"], source["units"]),
    ):
        assert (found, units) == (pytest.approx((2, 0.5, 0.25)), "micrometer")


@pytest.mark.parametrize("highest", [40, 70_000])
@pytest.mark.parametrize(
    ("scale", "units"),
    [((1, 1, 1), "pixel"), ((2, 1, 1), "\u96f7"), ((1, 0, 0), "um"), ((1, 1, 1), "")],
)
def test_without_a_pixel_size_none_is_made_up(tmp_path, highest, scale, units):
    path = tmp_path / "a.tif"
    with LabelWriter(path, STACK, scale=scale, units=units) as writer:
        writer.write(FrameIndex(), np.full((12, 15), highest))
    assert (open_image(path).scale, open_image(path).units) == ((1, 1, 1), "pixel")
    assert Objects.load(path).source["units"] == "pixel"


def test_reading_needs_no_compiled_codecs(tmp_path):
    labels = random_labels(500)
    write_labels(tmp_path / "a.tif", labels)
    code = (
        "import sys; sys.modules['imagecodecs'] = None; import tifffile;"
        f"print(tifffile.imread({str(tmp_path / 'a.tif')!r}).sum())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == labels.sum()


def test_files_are_small(tmp_path):
    labels = np.kron(np.arange(64).reshape(8, 8), np.ones((64, 64), dtype=int))
    write_labels(tmp_path / "a.tif", labels)
    assert (tmp_path / "a.tif").stat().st_size < labels.size * 2 / 20


def test_nothing_is_there_before_the_end_or_after_an_error(tmp_path):
    path = tmp_path / "a.tif"
    with LabelWriter(path, STACK) as writer:
        writer.write(FrameIndex(), random_labels(3))
        assert not list(tmp_path.iterdir())
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), LabelWriter(path, STACK) as writer:
        writer.write(FrameIndex(), random_labels(9))
        raise ZeroDivisionError
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_labels_that_do_not_fit_are_refused(tmp_path):
    with LabelWriter(tmp_path / "a.tif", STACK) as writer:
        with pytest.raises(ParameterError, match=r"\(3, 3\).*\(12, 15\)"):
            writer.write(FrameIndex(), np.zeros((3, 3), dtype=int))
        with pytest.raises(ParameterError, match="z 4 of 3"):
            writer.write(FrameIndex(0, 0, 3), random_labels(3))
        with pytest.raises(ImageError, match="float64"):
            writer.write(FrameIndex(), np.zeros((12, 15)))
        with pytest.raises(ImageError, match="negative numbers"):
            writer.write(FrameIndex(), np.full((12, 15), -1))
        with pytest.raises(ParameterError, match="too large"):
            writer.write(FrameIndex(), np.full((12, 15), 2**32))
    with pytest.raises(ParameterError, match="two dimensions"):
        write_labels(tmp_path / "b.tif", np.zeros((2, 3, 3), dtype=int))


def test_what_is_no_label_image_is_refused(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_labels(tmp_path / "none.tif")
    (tmp_path / "text.tif").write_text("hello")
    with pytest.raises(ImageError, match=r"text\.tif cannot be read"):
        read_labels(tmp_path / "text.tif")
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((4, 4), dtype=np.float32))
    with pytest.raises(ImageError, match="float32"):
        read_labels(tmp_path / "float.tif")
    rgb = np.zeros((8, 8, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", rgb, photometric="rgb")
    with pytest.raises(ImageError, match="not a label image"):
        read_labels(tmp_path / "rgb.tif")


def test_cut_off_files_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    write_labels(path, random_labels(60000, shape=(200, 200)))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ImageError, match="cannot be read"):
        read_labels(path)


def test_cut_off_stacks_of_others_are_not_one_frame(tmp_path):
    path = tmp_path / "a.tif"
    frames = np.ones((6, 64, 64), np.uint16)
    tifffile.imwrite(path, frames, imagej=True, metadata={"axes": "TYX"})
    path.write_bytes(path.read_bytes()[:30000])
    with pytest.raises(ImageError, match=r"a\.tif is cut off: it holds 1 of 6 frames"):
        read_labels(path)


def test_objects_of_many_frames_go_to_a_file_and_back(tmp_path):
    squares = [
        shapely.box(1, 1, 4, 5),
        shapely.box(6, 6, 9, 9),
        shapely.box(2, 2, 5, 5),
    ]
    objects = Objects(squares, source={"sizes": STACK._asdict()}).with_features(
        time=[0, 0, 1], z=[0, 0, 2]
    )
    objects.save(tmp_path / "a.tif")
    found = read_labels(tmp_path / "a.tif")
    assert found.shape == (2, 3, 12, 15)
    loaded = Objects.load(tmp_path / "a.tif")
    assert loaded.frames() == objects.frames()
    assert loaded.features["area"].tolist() == [20, 16, 16]
    assert loaded.source["sizes"] == STACK._asdict()
    for frame in objects.frames():
        again = loaded.at(frame).to_labels((12, 15))
        np.testing.assert_array_equal(again, found[frame.time, frame.z])


def write_series(path, *stacks):
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for stack in stacks:
            axes = "TYX"[-stack.ndim :]
            tiff.write(stack, photometric="minisblack", metadata={"axes": axes})


def test_every_image_of_a_file_is_a_position(tmp_path):
    stacks = np.zeros((3, 2, 20, 30), np.uint16)
    for number, stack in enumerate(stacks, start=1):
        stack[1, 2:8, 3 : 3 + 2 * number] = number
    path = tmp_path / "plate.ome.tif"
    write_series(path, *stacks)
    assert open_image(path).sizes == Sizes(3, 2, y=20, x=30)
    np.testing.assert_array_equal(read_labels(path), stacks)
    found = Objects.load(path)
    assert found.frames() == [FrameIndex(position, 1, 0) for position in range(3)]
    assert found.features["area"].tolist() == [12, 24, 36]
    assert len(found.searched()) == 6


def test_images_of_a_file_that_differ_are_refused(tmp_path):
    path = tmp_path / "mixed.ome.tif"
    write_series(path, np.ones((20, 30), np.uint16), np.ones((2, 9, 9), np.uint16))
    with pytest.raises(ImageError, match=r"number 2 \(2, 9, 9\) and TYX"):
        read_labels(path)


def test_objects_of_an_unknown_image_size_cannot_be_labels(tmp_path):
    with pytest.raises(ParameterError, match="size of the image"):
        Objects([shapely.box(0, 0, 3, 3)]).save(tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())


def test_the_file_says_which_pages_were_looked_at(tmp_path):
    for sizes, key in (
        (Sizes(time=6, y=4, x=5), "imagej_metadata"),
        (Sizes(position=2, time=3, y=4, x=5), "shaped_metadata"),
    ):
        path = tmp_path / f"{key}.tif"
        with LabelWriter(path, sizes) as writer:
            for page in (1, 2, 5):
                position, time = divmod(page, sizes.time)
                empty = np.zeros((4, 5), np.uint16)
                writer.write(FrameIndex(position=position, time=time), empty)
        with tifffile.TiffFile(path) as tiff:
            told = getattr(tiff, key)
        told = told if isinstance(told, dict) else told[0]
        assert told["pages_segmented"] == "2-3, 6"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("empty.tif", r"empty\.tif is empty"),
        ("empty.geojson", r"empty\.geojson is empty"),
        ("folder.tif", r"folder\.tif is a folder"),
        ("folder", "folder is a folder"),
        ("no.tif", r"no\.tif does not exist"),
        ("text.tif", r"text\.tif cannot be read as a TIFF"),
    ],
)
def test_what_holds_no_objects_is_named(tmp_path, name, told):
    (tmp_path / "empty.tif").touch()
    (tmp_path / "empty.geojson").touch()
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.tif").write_text("hello")
    with pytest.raises((ImageError, ParameterError), match=told):
        Objects.load(tmp_path / name)

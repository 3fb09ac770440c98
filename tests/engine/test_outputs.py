from __future__ import annotations

import errno
import gc
import json
import os
import resource
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image
from shapely import box

from napari_sam_suite.engine.errors import MissingExtra, OutputError, ParameterError
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import ImageSource, open_image
from napari_sam_suite.engine.losses import Losses
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.outputs import (
    FORMATS,
    ImageOutput,
    check_folder,
    parse_formats,
)
from napari_sam_suite.engine.run import FrameResult

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APART = [name for name in FORMATS if name != "zarr-inside"]
"""Formats with files of their own; `test_zarr_inside` has the other."""

SHAPE = (30, 40)


def image(frames: int = 1, path: Path | None = None) -> ImageSource:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (frames, *SHAPE), dtype=np.uint8)
    if path is None:
        return open_image(pixels, axes="TYX", name="cells")
    tifffile.imwrite(path, pixels, metadata={"axes": "TYX"})
    return open_image(path)


def result(time: int = 0, count: int = 2) -> FrameResult:
    """Squares of 4 pixels side by side; their first row tells the frame."""
    objects = Objects([box(time, 5 * i, time + 3, 5 * i + 3) for i in range(count)])
    frame = FrameIndex(time=time)
    return FrameResult(frame, objects.with_features(time=time), Losses())


def content(path: Path) -> dict[Path, bytes]:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return {file: file.read_bytes() for file in files if file.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def full_disk(room: int = 0) -> Iterator[None]:
    """No file may grow beyond `room` bytes, as on a disk without more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# What to write


def test_formats_are_a_list_of_names() -> None:
    assert parse_formats("labels,geojson") == ("labels", "geojson")
    assert parse_formats(" overlay , labels ,") == ("overlay", "labels")
    assert parse_formats("labels,labels") == ("labels",)


@pytest.mark.parametrize("text", ["svg", "labels,svg", "", " , "])
def test_other_formats_are_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_formats(text)
    assert all(name in caught.value.hint for name in FORMATS)


def test_every_format_makes_a_file_named_after_the_image(tmp_path: Path) -> None:
    output = ImageOutput(tmp_path / "out", image(), APART)
    output.add(result())
    output.close()
    expected = [
        "cells.annotations.geojson",
        "cells.coco-rle.json",
        "cells.coco.json",
        "cells.csv",
        "cells.geojson",
        "cells.labels.ome.zarr",
        "cells.nimbus.json",
        "cells.parquet",
        "cells.rois.zip",
        "cells.tif",
        "cells_overlay.png",
    ]
    assert names(tmp_path / "out") == expected
    assert sorted(path.name for path in output.files) == expected
    assert (output.frames, output.found) == (1, 2)


def test_names_may_be_given(tmp_path: Path) -> None:
    given = {"labels": "a", "overlay": "b"}
    output = ImageOutput(tmp_path, image(), ["labels", "overlay"], names=given)
    output.add(result())
    output.close()
    assert names(tmp_path) == ["a.tif", "b.png"]


def test_labels_have_the_images_size_and_the_objects_places(tmp_path: Path) -> None:
    output = ImageOutput(tmp_path, image(), ["labels"])
    output.add(result(count=3))
    output.close()
    labels = tifffile.imread(tmp_path / "cells.tif")
    assert labels.shape == SHAPE
    assert labels.dtype == np.uint16
    assert np.bincount(labels.ravel())[1:].tolist() == [16, 16, 16]
    assert labels[0, 5] == 2


def test_labels_are_those_of_their_frame_whatever_the_order(tmp_path: Path) -> None:
    output = ImageOutput(tmp_path, image(5), ["labels"])
    for time in (3, 0, 4):
        output.add(result(time))
    output.close()
    labels = tifffile.imread(tmp_path / "cells.tif")
    assert labels.shape == (5, *SHAPE)
    first = [np.flatnonzero(page.any(1))[:1].tolist() for page in labels]
    assert first == [[0], [], [], [3], [4]]


def test_one_geojson_holds_all_frames(tmp_path: Path) -> None:
    output = ImageOutput(tmp_path, image(3), ["geojson"])
    for time in range(3):
        output.add(result(time))
    output.close()
    objects = Objects.load(tmp_path / "cells.geojson")
    assert objects.features["time"].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("name", ["coco", "rois"])
def test_one_file_of_other_programs_holds_all_frames(tmp_path: Path, name: str) -> None:
    output = ImageOutput(tmp_path, image(3), [name])
    for time in range(3):
        output.add(result(time))
    output.close()
    [path] = output.files
    assert Objects.load(path).features["time"].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("formats", "kept"),
    [(("labels", "overlay", "csv", "zarr"), False), (("labels", "geojson"), True)],
)
def test_objects_are_kept_only_for_files_of_all_frames(
    tmp_path: Path, formats: tuple[str, ...], kept: bool
) -> None:
    output = ImageOutput(tmp_path, image(2), formats)
    refs = []
    for time in range(2):
        taken = result(time, count=time + 1)
        refs.append(weakref.ref(taken.objects))
        output.add(taken)
        del taken
    gc.collect()
    assert [ref() is not None for ref in refs] == [kept, kept]
    assert (output.frames, output.found) == (2, 3)
    output.close()
    assert len(output.files) == len(formats) + ("overlay" in formats)


def test_a_package_that_is_missing_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "roifile", None)
    with pytest.raises(MissingExtra, match="package roifile"):
        ImageOutput(tmp_path, image(), ["labels", "rois"])
    assert names(tmp_path) == []


def test_each_frame_has_an_overlay_that_says_which(tmp_path: Path) -> None:
    output = ImageOutput(tmp_path, image(2), ["overlay"])
    output.add(result(0))
    output.add(result(1))
    output.close()
    assert names(tmp_path) == ["cells_overlay_t1.png", "cells_overlay_t2.png"]
    with Image.open(tmp_path / "cells_overlay_t1.png") as picture:
        assert picture.size[0] >= SHAPE[1]


def test_overlays_of_many_frames_sort_by_time(tmp_path: Path) -> None:
    output = ImageOutput(tmp_path, image(12), ["overlay"])
    for time in (1, 10):
        output.add(result(time))
    assert names(tmp_path) == ["cells_overlay_t02.png", "cells_overlay_t11.png"]


def test_a_frame_without_objects_has_empty_files(tmp_path: Path) -> None:
    output = ImageOutput(tmp_path, image(), APART)
    output.add(FrameResult(FrameIndex(), Objects.empty(), Losses()))
    output.close()
    assert not tifffile.imread(tmp_path / "cells.tif").any()
    content = json.loads((tmp_path / "cells.geojson").read_text())
    assert content["features"] == []


def test_without_a_frame_there_are_no_files(tmp_path: Path) -> None:
    output = ImageOutput(tmp_path, image(), APART)
    output.close()
    assert names(tmp_path) == []


# Nothing half-written


def test_discarding_leaves_nothing_behind(tmp_path: Path) -> None:
    output = ImageOutput(tmp_path, image(), ["labels", "geojson"])
    output.add(result())
    output.discard()
    output.discard()
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", APART)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, name: str
) -> None:
    output = ImageOutput(tmp_path, image(), [name])
    with pytest.raises(OutputError, match="room"), full_disk():
        output.add(result())
        output.close()
    output.discard()
    assert names(tmp_path) == []


def test_frames_before_a_full_disk_can_still_be_closed(tmp_path: Path) -> None:
    output = ImageOutput(tmp_path, image(3), ["labels", "geojson"])
    output.add(result(0))
    with pytest.raises(OutputError, match="room"), full_disk():
        output.add(result(1))
    output.add(result(2))
    output.close()
    assert (output.frames, output.found) == (2, 4)
    labels = tifffile.imread(tmp_path / "cells.tif")
    assert [bool(page.any()) for page in labels] == [True, False, True]
    times = Objects.load(tmp_path / "cells.geojson").features["time"]
    assert sorted(set(times)) == [0, 2]


def test_a_file_that_cannot_be_written_does_not_take_the_others_along(
    tmp_path: Path,
) -> None:
    (tmp_path / "cells.geojson").mkdir()
    output = ImageOutput(tmp_path, image(), ["labels", "geojson"])
    output.add(result())
    with pytest.raises(OutputError, match=r"cells\.geojson"):
        output.close()
    assert [path.name for path in output.files] == ["cells.tif"]
    assert tifffile.imread(tmp_path / "cells.tif").max() == 2


@pytest.mark.parametrize("name", APART)
def test_a_disk_that_fills_up_at_the_end_keeps_the_old_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ImageOutput(tmp_path, image(), [name])
    first.add(result(count=1))
    first.close()
    old = content(first.files[0])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    again = ImageOutput(tmp_path, image(), [name])
    with pytest.raises(OutputError, match="room"):
        again.add(result(count=5))
        again.close()
    assert names(tmp_path) == [first.files[0].name]
    assert content(first.files[0]) == old


@pytest.mark.parametrize("name", ["labels", "overlay"])
def test_a_file_in_the_folders_place_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="out"):
        output = ImageOutput(tmp_path / "out", image(), [name])
        output.add(result())
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "word"), [(errno.EROFS, "ead-only"), (errno.ENOSPC, "o space left")]
)
def test_a_folder_that_cannot_be_written_to_is_found_out_first(
    tmp_path: Path, number: int, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(OutputError, match=word) as caught:
        check_folder(tmp_path / "out")
    assert "--out" in caught.value.hint


def test_the_check_of_a_folder_makes_it_and_leaves_it_empty(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    check_folder(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []


def test_runs_into_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check_folder, [tmp_path / "out"] * 400))
    assert names(tmp_path / "out") == []


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="a file of that name is in the way"):
            check_folder(folder)


def test_the_name_of_a_file_is_no_folder_unless_there_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "cells.geojson"
    with pytest.raises(OutputError, match=r"cells\.geojson is the name of a file"):
        check_folder(folder)
    assert not folder.exists()
    folder.mkdir()
    check_folder(folder)


def test_the_labels_never_overwrite_the_image(tmp_path: Path) -> None:
    path = tmp_path / "cells.tif"
    source = image(path=path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="overwrite the input"):
        ImageOutput(tmp_path, source, ["labels"])
    os.symlink(tmp_path, tmp_path / "link")
    with pytest.raises(OutputError, match="overwrite the input"):
        ImageOutput(tmp_path / "link", source, ["labels"])
    assert path.read_bytes() == before
    ImageOutput(tmp_path, source, ["geojson"]).close()


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("labels", ".tif"),
        ("geojson", ".geojson"),
        ("overlay", "_overlay_t2.png"),
        ("coco", ".coco.json"),
        ("rois", ".rois.zip"),
    ],
)
def test_no_file_overwrites_another_image_of_the_run(
    tmp_path: Path, name: str, suffix: str
) -> None:
    other = tmp_path / f"cells{suffix}"
    other.write_bytes(b"pixels")
    with pytest.raises(OutputError, match=f"cells{suffix} would overwrite the input"):
        ImageOutput(tmp_path, image(2), [name], inputs=[other])
    assert other.read_bytes() == b"pixels"
    # what a run before has written may be replaced
    other.unlink()
    for count in (1, 2):
        before = other.read_bytes() if other.exists() else b""
        output = ImageOutput(tmp_path, image(2), [name])
        output.add(result(1, count))
        output.close()
        assert other.read_bytes() != before


def test_a_given_name_does_not_lead_to_the_image(tmp_path: Path) -> None:
    source = image(path=tmp_path / "cells.tif")
    path = tmp_path / "mine.png"
    os.link(tmp_path / "cells.tif", path)
    with pytest.raises(OutputError, match="overwrite the input"):
        ImageOutput(tmp_path, source, ["overlay"], names={"overlay": "mine"})


# Whose results there are


def test_label_and_geojson_files_of_another_capability_are_not_replaced(
    tmp_path: Path,
) -> None:
    written(tmp_path, "auto")
    for name in ("labels", "geojson"):
        with pytest.raises(OutputError) as caught:
            ImageOutput(tmp_path, image(), [name], capability="prompt")
        assert "holds what segment found, and prompt would" in caught.value.message
        assert "--out" in caught.value.hint
    again = written(tmp_path, "auto", count=3)
    assert len(Objects.load(again / "cells.geojson")) == 3


def test_32_bit_labels_and_stacks_also_say_who_found_them(tmp_path: Path) -> None:
    source = open_image(np.zeros((2, 2, *SHAPE), np.uint8), axes="PTYX", name="cells")
    output = ImageOutput(tmp_path, source, ["labels"], capability="few-shot")
    output.add(result())
    output.close()
    ImageOutput(tmp_path, source, ["labels"], capability="few-shot").discard()
    with pytest.raises(OutputError, match="what few-shot found, and segment would"):
        ImageOutput(tmp_path, source, ["labels"], capability="auto")


def test_32_bit_labels_and_stacks_also_say_of_which_image_they_are(
    tmp_path: Path,
) -> None:
    sources = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "µ = \udcff.tif"
        tifffile.imwrite(path, np.zeros((2, 2, *SHAPE), np.uint8))
        sources.append(open_image(path, axes="PTYX"))
    output = ImageOutput(tmp_path, sources[0], ["labels"], capability="auto")
    output.add(result())
    output.close()
    ImageOutput(tmp_path, sources[0], ["labels"], capability="auto").discard()
    with pytest.raises(OutputError) as caught:
        ImageOutput(tmp_path, sources[1], ["labels"], capability="auto")
    assert f"of another image, {sources[0].path}" in caught.value.message


@pytest.mark.parametrize("capability", ["auto", ""])
@pytest.mark.parametrize("name", ["cells.tif", "cells.geojson"])
def test_what_was_made_elsewhere_is_not_replaced(
    tmp_path: Path, name: str, capability: str
) -> None:
    path = tmp_path / name
    if path.suffix == ".tif":
        tifffile.imwrite(path, np.ones(SHAPE, np.uint16), imagej=True)
    else:
        path.write_text('{"type": "FeatureCollection", "features": []}')
    before = path.read_bytes()
    with pytest.raises(OutputError, match=f"{name} was not written by napari-sam"):
        ImageOutput(tmp_path, image(), ["labels", "geojson"], capability=capability)
    assert path.read_bytes() == before
    path.write_bytes(b"")
    ImageOutput(tmp_path, image(), ["labels", "geojson"]).discard()


def test_files_that_do_not_say_who_found_the_objects_may_be_replaced(
    tmp_path: Path,
) -> None:
    written(tmp_path, "")
    document = json.loads((tmp_path / "cells.geojson").read_text())
    document["napari_sam_suite"].pop("source")
    # as an editor that sorts the keys leaves it
    text = json.dumps(document, indent=1, sort_keys=True)
    (tmp_path / "cells.geojson").write_text(text)
    written(tmp_path, "prompt")


def test_objects_of_several_capabilities_are_replaced_by_none(tmp_path: Path) -> None:
    both = [Objects.empty({"capability": name}) for name in ("auto", "prompt")]
    Objects.concat(both).save(tmp_path / "cells.geojson")
    for name, other in (("auto", "prompt"), ("prompt", "segment")):
        with pytest.raises(OutputError, match=f"holds what {other} found"):
            ImageOutput(tmp_path, image(), ["geojson"], capability=name)


def written(folder: Path, capability: str, count: int = 2) -> Path:
    """A folder with the labels and the GeoJSON of a capability."""
    output = ImageOutput(folder, image(), ["labels", "geojson"], capability=capability)
    found = result(count=count)
    source = {"capability": capability} if capability else {}
    objects = Objects(found.objects.polygons, found.objects.features, source)
    output.add(FrameResult(found.frame, objects, Losses()))
    output.close()
    return folder

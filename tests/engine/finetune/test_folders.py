"""Which labels belong to which image, and what is told about the others."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from PIL import Image

from napari_sam_suite.engine.composite import Channel, Composite
from napari_sam_suite.engine.errors import ImageError, ParameterError
from napari_sam_suite.engine.finetune.data import (
    Sample,
    gather_samples,
    hash_samples,
    split_samples,
)
from napari_sam_suite.engine.finetune.folders import read_folders
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.pairing import pair_names

if TYPE_CHECKING:
    from pathlib import Path

RING = np.zeros((32, 32), np.uint8)
RING[4:24, 4:24] = 1
RING[10:16, 10:16] = 0
TWO = RING.copy()
TWO[26:30, 2:8] = 2


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for name in ("a", "b"):
        grey = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)
        Image.fromarray(grey).save(images / f"{name}.png")
    return images, labels


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("cell_1", "cell_1"),
        ("img_001", "lab_001"),
        ("cell", "cell_masks"),
        ("cell_img", "cell_cp_masks"),
        ("Cell-2", "mask_cell-2"),
    ],
)
def test_names_are_paired_without_the_usual_words(image: str, labels: str) -> None:
    assert pair_names([image, "other"], ["third", labels]) == {image: labels}


def test_names_that_fit_several_are_not_paired() -> None:
    assert pair_names(["cell"], ["cell_mask", "cell_labels"]) == {}


def test_labels_that_fit_several_images_are_not_paired() -> None:
    assert pair_names(["img_1", "raw_1", "img_2"], ["lab_1", "lab_2"]) == {
        "img_2": "lab_2"
    }


def test_labels_lie_beside_their_images_however_the_folder_is_written(
    folders: tuple[Path, Path],
) -> None:
    images, labels = folders
    Objects.from_labels(TWO).save(images / "a.geojson")
    tifffile.imwrite(images / "b_labels.tif", TWO)
    for same in (images, labels / ".." / "images"):
        found = read_folders(images, same)
        assert [s.name for s in found.samples] == ["a", "b"]
        assert found.notices == []


def test_what_teaches_nothing_is_listed(folders: tuple[Path, Path]) -> None:
    images, labels = folders
    speck = TWO.copy()
    speck[0, 0] = 3
    tifffile.imwrite(labels / "a.tif", np.stack([speck, TWO]), metadata={"axes": "ZYX"})
    Objects.from_labels(TWO).save(labels / "a.geojson")
    tifffile.imwrite(labels / "b.tif", TWO * 0)
    found = read_folders(images, labels)
    assert [len(s.masks) for s in found.samples] == [2]
    names, empty, lost = found.notices
    assert "a.geojson" in names
    assert empty == "Labels without objects are left out: b."
    assert "3 in a" in lost


def test_label_stacks_without_axes_have_those_of_their_image(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (5, 32, 32)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "cells.tif", stack)
    tifffile.imwrite(tmp_path / "cells_labels.tif", np.stack([TWO] * 5))
    found = read_folders(tmp_path, tmp_path, axes="TYX")
    assert [s.frame.time for s in found.samples] == list(range(5))
    assert all((s.masks.full(0) == (TWO == 1)).all() for s in found.samples)
    with pytest.raises(ImageError, match="axes"):
        read_folders(tmp_path / "cells.tif", tmp_path / "cells_labels.tif")


def test_labels_geojson_and_pictures_are_read_with_holes_and_all_parts(
    folders: tuple[Path, Path],
) -> None:
    images, labels = folders
    tifffile.imwrite(labels / "a_labels.tif", TWO)
    Objects.from_labels(TWO).save(labels / "b.geojson")
    found = read_folders(images, labels)
    assert [s.name for s in found.samples] == ["a", "b"]
    for one in found.samples:
        assert len(one.masks) == 2
        assert (one.masks.full(0) == (TWO == 1)).all()
    assert found.notices == []


def test_a_binary_mask_is_split_into_its_islands(folders: tuple[Path, Path]) -> None:
    images, labels = folders
    Image.fromarray(np.where(TWO > 0, 255, 0).astype(np.uint8)).save(labels / "a.png")
    found = read_folders(images, labels)
    assert len(found.samples[0].masks) == 2
    assert "each of its 2 islands" in " ".join(found.notices)
    assert "left out: b" in " ".join(found.notices)


def test_folders_of_dataloop_are_read_polygons_and_masks(
    folders: tuple[Path, Path],
) -> None:
    images, labels = folders
    ring = [{"x": x, "y": y} for y, x in ((4, 4), (4, 20), (20, 20), (20, 4))]
    polygon = {"type": "segment", "label": "cell", "coordinates": [ring]}
    (labels / "a.json").write_text(json.dumps({"annotations": [polygon]}))
    file = io.BytesIO()
    Image.fromarray(np.where(TWO > 0, 255, 0).astype(np.uint8)).save(file, "PNG")
    said = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    mask = {"type": "binary", "label": "cell", "coordinates": said}
    (labels / "b.json").write_text(json.dumps({"annotations": [mask]}))
    found = read_folders(images, labels)
    square, islands = found.samples
    expected = np.zeros((32, 32), bool)
    expected[4:21, 4:21] = True
    assert (square.masks.full(0) == expected).all()
    assert [islands.masks.full(k).sum() for k in range(2)] == [
        (TWO == 1).sum(),
        (TWO == 2).sum(),
    ]
    assert "each of its 2 islands" in " ".join(found.notices)


def test_masks_of_another_size_than_their_image_are_refused(
    folders: tuple[Path, Path],
) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(file, "PNG")
    said = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    mask = {"type": "binary", "label": "cell", "coordinates": said}
    (folders[1] / "a.json").write_text(json.dumps({"annotations": [mask]}))
    with pytest.raises(ParameterError, match="9 x 9 pixels"):
        read_folders(*folders)


def test_outlines_on_an_image_of_another_size_are_refused(
    folders: tuple[Path, Path],
) -> None:
    source = {"sizes": {"y": 96, "x": 128}}
    table = pd.DataFrame([FrameIndex()._asdict()])
    drawn = Objects([shapely.box(4, 4, 19, 19)], table, source)
    drawn.save(folders[1] / "a.geojson")
    with pytest.raises(ParameterError, match=r"96 x 128 .* 32 x 32"):
        read_folders(*folders)


def coco_of(path: Path, *images: tuple[str, int, int]) -> Path:
    """A COCO file: names of images, their sides and those of their only squares."""
    document = {
        "images": [
            {"id": k, "file_name": name, "height": size, "width": size}
            for k, (name, size, _) in enumerate(images)
        ],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {
                "id": k,
                "image_id": k,
                "category_id": 1,
                "segmentation": [[2, 2, 2 + side, 2, 2 + side, 2 + side, 2, 2 + side]],
            }
            for k, (_, _, side) in enumerate(images)
        ],
    }
    path.write_text(json.dumps(document))
    return path


def test_images_of_a_coco_file_have_sizes_of_their_own(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    path = coco_of(tmp_path / "all.json", ("a.png", 32, 4), ("x.png", 640, 5))
    assert [s.name for s in read_folders(folders[0], path).samples] == ["a"]
    coco_of(path, ("a.png", 32, 4), ("b.png", 640, 5))
    with pytest.raises(ParameterError, match=r"640 x 640 .*'b' has 32 x 32"):
        read_folders(folders[0], path)


def test_a_coco_file_saved_again_before_sizes_were_kept_names_its_images(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    path = coco_of(tmp_path / "all.json", ("a.png", 32, 4), ("b.png", 32, 5))
    objects = Objects.load(path)
    objects.source.pop("shapes", None)
    objects.save(tmp_path / "again.geojson")
    found = read_folders(folders[0], tmp_path / "again.geojson")
    assert [s.masks.area.tolist() for s in found.samples] == [[16], [25]]


def test_images_of_equal_names_in_a_coco_file_are_told_apart_by_their_folders(
    tmp_path: Path,
) -> None:
    named = ("train/1.png", 32, 4), ("val/1.png", 32, 5), ("val/2.png", 32, 6)
    path = coco_of(tmp_path / "all.json", *named)
    for folder in ("train", "val", "other"):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "1.tif", RING)
    for folder, area, spare in (
        ("train", 16, "val/1.png, val/2.png"),
        ("val", 25, "train/1.png, val/2.png"),
    ):
        found = read_folders(tmp_path / folder, path)
        assert [s.masks.area.tolist() for s in found.samples] == [[area]]
        assert found.notices == [f"Labels without an image are left out: {spare}."]
    with pytest.raises(ParameterError, match=r"may be 1\.tif: train/1.png, val/1.png"):
        read_folders(tmp_path / "other", path)
    path = coco_of(path, ("1.png", 32, 4), ("1.tif", 32, 5), ("val/1.tif", 32, 6))
    found = read_folders(tmp_path / "other", path)
    assert [s.masks.area.tolist() for s in found.samples] == [[25]]
    coco_of(path, ("1.png", 32, 4), ("1.png", 32, 5))
    with pytest.raises(ParameterError, match=r"1\.png, 1\.png"):
        read_folders(tmp_path / "other", path)


def test_a_coco_file_of_many_images_names_them(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    box = [[2, 2, 12, 2, 12, 12, 2, 12]]
    size = {"height": 32, "width": 32}
    rows = [("x.png", 0), ("b.png", 1), ("a.png", 2)]
    document = {
        "images": [{"id": k, "file_name": name, **size} for name, k in rows],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 1, "segmentation": box}
            for k in (0, 2)
        ],
    }
    path = tmp_path / "all.json"
    path.write_text(json.dumps(document))
    found = read_folders(folders[0], path)
    assert [s.name for s in found.samples] == ["a"]
    assert found.samples[0].masks.area.tolist() == [100]
    assert "x.png" in " ".join(found.notices)


def test_one_image_takes_its_own_objects_from_a_coco_file_of_several(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    size = {"height": 32, "width": 32}
    document = {
        "images": [
            {"id": k, "file_name": name, **size}
            for k, name in enumerate(("a.png", "b.png"))
        ],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {
                "id": k,
                "image_id": k,
                "category_id": 1,
                "segmentation": [[2, 2, 2 + side, 2, 2 + side, 2 + side, 2, 2 + side]],
            }
            for k, side in enumerate((20, 10))
        ],
    }
    path = tmp_path / "all.json"
    path.write_text(json.dumps(document))
    found = read_folders(folders[0] / "b.png", path)
    assert [s.name for s in found.samples] == ["b"]
    assert found.samples[0].masks.area.tolist() == [100]


def test_channels_are_shown_as_asked_with_limits_of_all_frames(
    tmp_path: Path,
) -> None:
    stack = np.zeros((2, 32, 32), np.uint16)
    stack[0], stack[1] = np.arange(1024).reshape(32, 32), 4000
    tifffile.imwrite(tmp_path / "cells.tif", stack, metadata={"axes": "ZYX"})
    labels = np.zeros((2, 32, 32), np.uint8)
    labels[0] = TWO
    tifffile.imwrite(tmp_path / "cells_labels.tif", labels, metadata={"axes": "ZYX"})
    files = tmp_path / "cells.tif", tmp_path / "cells_labels.tif"
    (usual,) = read_folders(*files).samples
    assert usual.rgb.max() < 80, "the bright frame without objects counts"
    red = Composite(
        channels=(Channel(index=0, color="#ff0000", limits=(0, 1023), mode="absolute"),)
    )
    (asked,) = read_folders(*files, composite=lambda _: red).samples
    assert asked.rgb[..., 0].max() == 255
    assert not asked.rgb[..., 1:].any()


def test_empty_labels_are_said_to_be_empty(folders: tuple[Path, Path]) -> None:
    tifffile.imwrite(folders[1] / "a.tif", np.zeros((32, 32), np.uint8))
    with pytest.raises(ParameterError, match="no object"):
        read_folders(*folders)


def test_frames_are_split_by_lot_and_never_all_held_out(
    folders: tuple[Path, Path],
) -> None:
    tifffile.imwrite(folders[1] / "a.tif", TWO)
    tifffile.imwrite(folders[1] / "b.tif", RING * 3)
    samples = read_folders(*folders).samples
    many = [replace(sample, image="") for sample in samples * 5]
    train, held = split_samples(many, 0.2, seed=1)
    assert (len(train), len(held)) == (8, 2)
    assert split_samples(many, 0.2, seed=1)[1] == held
    assert [len(part) for part in split_samples(samples, 0.9, 0)] == [1, 1]
    assert [len(part) for part in split_samples(samples[:1], 0.2, 0)] == [1, 0]
    assert [len(part) for part in split_samples(samples, 0, 0)] == [2, 0]
    assert hash_samples(samples) != hash_samples(samples[:1])


def frames_of(*images: str) -> list[Sample]:
    """A frame for each name, with a few squares of some size."""
    rng, shape = np.random.default_rng(0), (40, 40)
    samples = []
    for number, image in enumerate(images):
        builder = MaskBuilder(shape)
        for side in rng.integers(3, 15, int(rng.integers(1, 6))):
            builder.add(np.ones((side, side), bool), (5, 5))
        rgb = np.zeros((*shape, 3), np.uint8)
        frame = FrameIndex(time=images[:number].count(image))
        samples.append(Sample(f"{number}", rgb, builder.build(), frame, image))
    return samples


@pytest.mark.parametrize("alone", ["", "a path of its own"])
def test_the_lot_of_images_with_one_frame_has_not_changed(alone: str) -> None:
    samples = frames_of(*(alone and f"{alone} {n}" for n in range(12)))
    samples[4] = replace(samples[4], masks=MaskBuilder((40, 40)).build())
    filled = [i for i in range(12) if i != 4]
    sizes = [np.log(sample.masks.area) / 2 for sample in samples]
    usual = np.quantile(np.concatenate(sizes), (0.25, 0.5, 0.75))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        lots = []
        for _ in range(50):
            lot = rng.permutation(filled)[:3].tolist()
            areas = np.concatenate([sizes[i] for i in lot])
            off = np.abs(np.quantile(areas, (0.25, 0.5, 0.75)) - usual).mean()
            lots.append((float(off + 0.5 / np.sqrt(len(areas))), lot))
        _, expected = min(lots, key=lambda one: one[0])
        train, held = split_samples(samples, 0.25, seed)
        assert [int(sample.name) for sample in held] == sorted(expected)
        assert len(train) == 9


@pytest.mark.parametrize("seed", range(5))
def test_movies_teach_or_judge_as_a_whole(seed: int) -> None:
    samples = frames_of(*"aaaabbbbccccdddd", "e", "f")
    train, held = split_samples(samples, 0.2, seed)
    assert not {one.image for one in train} & {one.image for one in held}
    assert 2 <= len(held) <= 6, "near 4 of 18"
    train, held = split_samples(frames_of(*"aaabbb"), 0.9, seed)
    assert Counter(one.image for one in train) in ({"a": 3}, {"b": 3})


@pytest.mark.parametrize("names", ["a" * 12, "a" * 8 + "bcde"])
@pytest.mark.parametrize("seed", range(5))
def test_a_single_movie_is_judged_by_frames_in_a_row(names: str, seed: int) -> None:
    train, held = split_samples(frames_of(*names), 0.3, seed)
    assert (len(train), len(held)) == (8, 4)
    times = [one.frame.time for one in held if one.image == "a"]
    assert times == list(range(times[0], times[-1] + 1)) if times else names != "a" * 12


def test_frames_of_a_movie_know_that_they_are_of_one(tmp_path: Path) -> None:
    movie = np.zeros((2, 3, 32, 32), np.uint8)
    movie[:, :, 4:20, 4:20] = 9
    image = open_image(movie, axes="PTYX", name="movie")
    box = shapely.box(4, 4, 19, 19)
    table = pd.DataFrame([frame._asdict() for frame in image.frames()])
    samples = gather_samples(image, Objects([box] * 6, table))
    counts = Counter(sample.image for sample in samples)
    assert sorted(counts.values()) == [3, 3], "two positions"


def test_frames_for_validation_have_objects_of_the_usual_size(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for name, side, count in (("a", 4, 8), ("b", 9, 8), ("c", 9, 1), ("d", 20, 8)):
        drawn = np.zeros((100, 200), np.uint8)
        for k in range(count):
            y, x = 25 * (k // 4), 25 * (k % 4)
            drawn[y : y + side, x : x + side] = k + 1
        tifffile.imwrite(labels / f"{name}.tif", drawn)
        tifffile.imwrite(images / f"{name}.tif", drawn)
    samples = read_folders(images, labels).samples
    for seed in range(5):
        _, (held,) = split_samples(samples, 0.2, seed)
        assert held.name.startswith("b"), "neither of another size nor of few objects"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_intensities_and_empty_files_for_labels_are_told_of_the_labels(
    folders: tuple[Path, Path], suffix: str
) -> None:
    path = folders[1] / f"a{suffix}"
    grey = np.random.default_rng(0).integers(0, 255, TWO.shape, np.uint8)
    Image.fromarray(grey).save(path)
    with pytest.raises(ImageError, match=r"Labels of 'a': a.* look like a label image"):
        read_folders(*folders)
    path.write_bytes(b"")
    with pytest.raises(ImageError, match=r"Labels of 'a': .* is empty"):
        read_folders(*folders)

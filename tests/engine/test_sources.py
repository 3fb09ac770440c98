from __future__ import annotations

from pathlib import Path

import pytest

from napari_sam_suite.engine.errors import ImageError, OutputError
from napari_sam_suite.engine.sources import check_apart, find_images, name_images


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_means_its_images_in_the_order_of_their_numbers(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "w10.tif", "w9.TIF", "notes.txt", ".hidden.tif", "deep/x.tif")
    assert [p.name for p in find_images([str(tmp_path)])] == ["w9.TIF", "w10.tif"]


def test_a_pattern_may_go_through_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.tif", "b/c/y.tif", "b/c/y.txt", "z.png")
    found = find_images([str(tmp_path / "**" / "*.tif")])
    assert [p.name for p in found] == ["x.tif", "y.tif"]


def test_an_ome_zarr_is_one_image_and_not_a_folder_of_some(tmp_path: Path) -> None:
    (tmp_path / "a.ome.zarr" / "0").mkdir(parents=True)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / ".zattrs").touch()
    names = [str(tmp_path / "a.ome.zarr"), str(tmp_path / "plain")]
    assert [str(p) for p in find_images(names)] == names


def test_a_file_named_twice_is_one(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "b.tif")
    found = find_images([str(tmp_path / "b.tif"), str(tmp_path), str(tmp_path)])
    assert [p.name for p in found] == ["b.tif", "a.tif"]


def test_a_name_with_brackets_is_the_file_if_there_is_one(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].tif", "a1.tif")
    assert [p.name for p in find_images([str(tmp_path / "a[1].tif")])] == ["a[1].tif"]


@pytest.mark.parametrize("name", ["*.tif", "."])
def test_nothing_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="no image at"):
        find_images([str(tmp_path / name)])
    with pytest.raises(ImageError, match="No image was given"):
        find_images([])


@pytest.mark.parametrize(
    ("name", "out", "form"),
    [
        (".", ".", "labels"),
        (".", "link", "overlay"),
        ("link", ".", "zarr"),
        ("*.png", ".", "overlay"),
        ("**/*.tif", "out/deep", "labels"),
        ("*/*.tif", "out", "labels"),
        ("x_*.*", ".", "geojson,zarr"),
    ],
)
def test_results_must_not_be_found_as_images(
    tmp_path: Path, name: str, out: str, form: str
) -> None:
    touch(tmp_path, "x_1.png", "x_2.tif", "plate/x_3.tif")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="taken for images"):
        check_apart([str(tmp_path / name)], tmp_path / out, form.split(","))


@pytest.mark.parametrize(
    ("name", "out", "form"),
    [
        (".", ".", "geojson,coco,csv,zarr-inside"),
        (".", "out", "labels,overlay"),
        ("x_1.png", ".", "labels,overlay"),
        ("*.png", ".", "labels"),
        ("*.tif", "out", "labels"),
        ("plate/**/*.tif", ".", "labels,overlay,zarr"),
        ("none/*.tif", ".", "labels"),
    ],
)
def test_results_may_be_where_they_are_not_found_as_images(
    tmp_path: Path, name: str, out: str, form: str
) -> None:
    touch(tmp_path, "x_1.png", "x_2.tif", "plate/x_3.tif")
    check_apart([str(tmp_path / name)], tmp_path / out, form.split(","))


def test_every_image_has_a_name_of_its_own() -> None:
    paths = [Path("/a/x.tif"), Path("/b/x.tif"), Path("/b/X.png"), Path("/b/y.ome.tif")]
    named = name_images(paths)
    assert list(named.values()) == [str(p) for p in paths]
    assert len({name.lower() for name in named}) == 4 and "y" in named


def test_names_stay_when_images_come_later() -> None:
    first = name_images([Path("/a/x.tif")])
    both = name_images([Path("/a/x.tif"), Path("/b/x.tif")], first)
    assert both["x"] == "/a/x.tif" and len(both) == 2

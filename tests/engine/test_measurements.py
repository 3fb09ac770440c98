from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import shapely
from skimage.measure import regionprops_table

from engine.formats.cases import SHAPE, draw_blobs
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.formats import measurements
from napari_sam_suite.engine.formats.labels import read_labels
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import ImageSource, open_image
from napari_sam_suite.engine.measurements import measure
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.polygons import polygonise


def image(scale: tuple[float, float] = (1, 1), unit: str = "pixel") -> ImageSource:
    pixels = np.random.default_rng(0).integers(0, 4000, (2, 2, *SHAPE), np.uint16)
    opened = open_image(pixels, axes="TCYX", name="cells")
    known = {"scale": (1.0, *scale), "units": unit, "channel_names": ("DAPI", "GFP")}
    return ImageSource(**(opened.__dict__ | known))


def blobs() -> tuple[Objects, list[np.ndarray]]:
    masks = draw_blobs(30, seed=3)
    polygons = [polygonise(m, smoothing=0, parts="all").polygon for m in masks]
    return Objects(polygons).with_features(time=[0, 1] * 15), masks


@pytest.mark.parametrize(
    ("scale", "unit"), [((1, 1), "pixel"), ((0.25, 0.25), "micrometer")]
)
def test_every_number_is_that_of_regionprops(scale, unit) -> None:
    objects, masks = blobs()
    source = image(scale, unit)
    table = measure(objects, source)
    names = ("area", "perimeter", "centroid", "num_pixels")
    names += tuple(f"intensity_{s}" for s in ("mean", "min", "max", "std"))
    for row, mask in enumerate(masks):
        planes = source.frame(FrameIndex(time=row % 2)).planes
        theirs = regionprops_table(
            mask.astype(np.uint8),
            np.moveaxis(planes, 0, -1),
            properties=names,
            spacing=scale,
        )
        ours = table.iloc[row]
        pairs = {
            "num_pixels": "area_px",
            "area": "area",
            "perimeter": "perimeter",
            "centroid-0": "centroid_y",
            "centroid-1": "centroid_x",
        }
        for statistic in ("mean", "min", "max", "std"):
            for number, channel in enumerate(("DAPI", "GFP")):
                name = f"intensity_{statistic}"
                pairs[f"{name}-{number}"] = f"{name}_{channel}"
        for name, mine in pairs.items():
            assert ours[mine] == pytest.approx(theirs[name][0], rel=1e-12), name
    assert set(table["unit"]) == {unit}


def test_pixels_that_are_not_square_have_an_area_but_no_perimeter() -> None:
    objects = Objects([shapely.box(2, 3, 5, 8)])
    row = measure(objects, image((2, 0.5), "um")).iloc[0]
    assert (row["area_px"], row["area"]) == (24, 24)
    assert (row["centroid_y"], row["centroid_x"]) == (7, 2.75)
    assert np.isnan(row["perimeter"])


def test_pixels_that_are_square_but_for_rounding_have_a_perimeter() -> None:
    objects = Objects([shapely.box(2, 3, 8, 8)])
    exact = measure(objects, image((0.325, 0.325), "um")).iloc[0]
    row = measure(objects, image((0.325, 0.32499998), "um")).iloc[0]
    assert row["perimeter"] == pytest.approx(exact["perimeter"], rel=1e-6)


def test_without_an_image_the_source_says_the_scale() -> None:
    source = {"scale": [3, 0.5, 0.5], "units": "um", "sizes": {"y": 30, "x": 40}}
    objects = Objects([shapely.box(0, 0, 3, 3)], source=source)
    row = measure(objects).iloc[0]
    assert (row["area_px"], row["area"], row["unit"]) == (16, 4, "um")
    assert not [name for name in row.index if name.startswith("intensity")]
    assert measure(Objects(objects.polygons)).iloc[0]["unit"] == "pixel"


def test_other_features_and_places_are_kept_and_areas_are_not_mixed_up() -> None:
    objects = Objects(
        [shapely.box(0, 0, 3, 3)], pd.DataFrame({"tag": ["a"], "track": [5], "z": [2]})
    )
    table = measure(objects)
    first = ["id", "label", "image", "tag", "position", "time", "z"]
    assert table.columns[:7].tolist() == first
    assert (table["track"][0], table["z"][0]) == (5, 2)
    assert table.columns.is_unique


def test_an_object_without_a_pixel_has_no_place() -> None:
    objects = Objects([shapely.box(0.2, 0.2, 0.4, 0.4), shapely.box(90, 90, 95, 95)])
    table = measure(objects, image())
    assert table["area_px"].tolist() == [0, 0]
    assert table["centroid_y"].isna().all() and table["perimeter"].isna().all()
    assert table["intensity_mean_DAPI"].isna().all()


def test_channels_of_one_name_are_told_apart() -> None:
    names = {"channel_names": ("a", "a")}
    twice = ImageSource(**(image().__dict__ | names))
    table = measure(Objects([shapely.box(0, 0, 3, 3)]), twice)
    assert {"intensity_mean_a", "intensity_mean_a_2"} <= set(table.columns)


def test_no_objects_have_the_same_columns() -> None:
    some, none = Objects([shapely.box(0, 0, 3, 3)]), Objects.empty()
    assert list(measure(none, image())) == list(measure(some, image()))


def test_a_table_is_read_by_pandas_but_not_as_objects(tmp_path) -> None:
    objects = Objects([shapely.box(0, 0, 3, 3)]).with_tags("π, b")
    measurements.write(objects, tmp_path / "a.csv", image())
    table = pd.read_csv(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(
        table[["id", "tag"]], objects.features[["id", "tag"]], check_dtype=False
    )
    assert table["intensity_mean_GFP"].notna().all()
    objects.save(tmp_path / "b.csv")
    assert pd.read_csv(tmp_path / "b.csv")["area_px"].tolist() == [16]
    with pytest.raises(ParameterError, match="no outlines"):
        Objects.load(tmp_path / "a.csv")


@pytest.mark.parametrize("tracked", [False, True, "some"])
def test_a_table_is_joined_to_the_label_image_of_a_movie(tmp_path, tracked) -> None:
    boxes = [shapely.box(x, 3, x + 2 + t, 9) for t in range(2) for x in (2, 12, 25)]
    movie = image()
    source = {"image": "cells", "sizes": movie.sizes._asdict()}
    features = pd.DataFrame({"time": [0, 0, 0, 1, 1, 1]})
    if tracked:
        features["track"] = [7, 8, 9, 9, 8, 7]
    if tracked == "some":
        features["track"] = [7, 0, 7, np.nan, 8, np.nan]
    objects = Objects(boxes, features, source)
    for number, given in enumerate((None, movie)):
        measurements.write(objects, tmp_path / f"{number}.csv", given)
        objects.save(tmp_path / "labels.tif")
        table = pd.read_csv(tmp_path / f"{number}.csv")
        drawn = read_labels(tmp_path / "labels.tif")
        pairs = zip(table["time"], table["label"], strict=True)
        areas = [int((drawn[time] == label).sum()) for time, label in pairs]
        assert table["area_px"].tolist() == areas == [21, 21, 21, 28, 28, 28]
        assert set(table["image"]) == {"cells"}
        assert not table.duplicated(["image", "time", "label"]).any()


def test_numbers_of_a_label_image_that_was_read_are_kept() -> None:
    drawn = np.zeros(SHAPE, np.uint16)
    drawn[2:5, 2:5], drawn[9:12, 9:12] = 4, 9
    table = measure(Objects.from_labels(drawn))
    assert table["label"].tolist() == [1, 2]
    assert table["label_read"].tolist() == [4, 9]

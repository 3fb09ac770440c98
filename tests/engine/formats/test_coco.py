from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd
import pytest
import shapely
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from engine.formats.cases import SHAPE, draw_blobs, make_objects
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.formats import coco, rle
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.polygons import polygonise
from napari_sam_suite.engine.raster import rasterise

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

IMAGE = {"id": 7, "file_name": "a.png", "height": SHAPE[0], "width": SHAPE[1]}
SQUARE = [2, 3, 2, 8, 9, 8, 9, 3]


def traced(masks, smoothing=0.3):
    polygons = [
        polygonise(mask, smoothing=smoothing, parts="all").polygon for mask in masks
    ]
    return Objects(polygons, source={"sizes": {"y": SHAPE[0], "x": SHAPE[1]}})


def drawn(objects):
    return [rasterise(polygon, SHAPE) for polygon in objects.polygons]


def document(*segmentations, **more):
    annotations = [
        {"id": n, "image_id": 7, "category_id": 1, "segmentation": s, **more}
        for n, s in enumerate(segmentations, 1)
    ]
    categories = [{"id": 1, "name": "cell"}]
    return {"images": [IMAGE], "annotations": annotations, "categories": categories}


def load(path, content):
    path = path / "a.coco.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return Objects.load(path)


def test_all_is_the_same_after_saving_and_loading(tmp_path):
    objects = make_objects()
    objects.save(tmp_path / "cells.coco.json")
    loaded = Objects.load(tmp_path / "cells.coco.json")
    pd.testing.assert_frame_equal(loaded.features, objects.features)
    assert loaded.source == objects.source
    for mine, theirs in zip(objects.polygons, loaded.polygons, strict=True):
        assert mine.normalize().equals_exact(theirs.normalize(), 0)


def test_the_coco_api_draws_exactly_our_pixels(tmp_path):
    objects = traced(draw_blobs(150))
    objects.save(tmp_path / "a.json", "coco")
    theirs = COCO(tmp_path / "a.json")
    assert len(theirs.anns) == 150
    for mask, annotation in zip(drawn(objects), theirs.anns.values(), strict=True):
        np.testing.assert_array_equal(theirs.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum()
        box = coco_mask.toBbox(theirs.annToRLE(annotation))
        np.testing.assert_array_equal(annotation["bbox"], box)


def test_holes_are_run_lengths_and_all_else_polygons(tmp_path):
    objects = make_objects()
    coco.write(objects, tmp_path / "a.json")
    annotations = json.loads((tmp_path / "a.json").read_text())["annotations"]
    kinds = [type(one["segmentation"]) for one in annotations]
    assert kinds == [dict, list, list]
    assert len(annotations[1]["segmentation"]) == 2


def test_frames_are_images_and_tags_are_categories(tmp_path):
    coco.write(make_objects(), tmp_path / "a.json")
    theirs = COCO(tmp_path / "a.json")
    names = [image["file_name"] for image in theirs.imgs.values()]
    assert names == ["a_p1_t1_z1.tif", "a_p1_t3_z1.tif", "a_p4_t3_z8.tif"]
    assert {(i["height"], i["width"]) for i in theirs.imgs.values()} == {SHAPE}
    assert theirs.getCatIds(catNms=["cell"]) == [1]
    [annotation] = theirs.loadAnns(theirs.getAnnIds(imgIds=[3]))
    assert theirs.cats[annotation["category_id"]]["name"] == "Tumor/π: Positive"
    assert annotation["score"] == 1 / 3


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_of_the_coco_api_are_read_exactly(tmp_path, compressed):
    masks = draw_blobs(60, seed=1)
    codes = [coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in masks]
    if compressed:
        codes = [code | {"counts": code["counts"].decode()} for code in codes]
    else:
        flat = [np.r_[0, mask.T.ravel(), 0] for mask in masks]
        cuts = [np.flatnonzero(np.diff(one)) for one in flat]
        counts = [np.diff(np.r_[0, cut, masks[0].size]).tolist() for cut in cuts]
        codes = [{"size": list(SHAPE), "counts": one} for one in counts]
    loaded = load(tmp_path, document(*codes))
    for mask, ours in zip(masks, drawn(loaded), strict=True):
        np.testing.assert_array_equal(ours, mask)


def test_run_lengths_are_written_as_the_coco_api_does():
    for mask in [*draw_blobs(60, seed=2), np.ones(SHAPE, bool), np.zeros(SHAPE, bool)]:
        theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        code = rle.encode(mask, (0, 0), SHAPE)
        assert code == theirs | {"counts": theirs["counts"].decode()}


def test_a_polygon_of_others_counts_from_the_corner(tmp_path):
    loaded = load(tmp_path, document([SQUARE]))
    assert loaded.polygons[0].bounds == (2.5, 1.5, 7.5, 8.5)
    theirs = coco_mask.decode(coco_mask.frPyObjects([SQUARE], *SHAPE))[..., 0]
    np.testing.assert_array_equal(drawn(loaded)[0], theirs)
    assert loaded.features["tag"].tolist() == ["cell"]
    assert loaded.source["sizes"]["y"] == SHAPE[0]


def test_polygons_of_one_object_are_put_together(tmp_path):
    other = [value + 3 for value in SQUARE]
    apart = [value + 15 for value in SQUARE]
    loaded = load(tmp_path, document([SQUARE, other, apart]))
    assert loaded.polygons[0].area == 35 + 35 - 4 * 2 + 35


def test_images_of_others_become_positions(tmp_path):
    content = document([SQUARE], [SQUARE])
    content["images"] = [IMAGE | {"id": 3}, IMAGE]
    content["annotations"][0]["image_id"] = 3
    loaded = load(tmp_path, content)
    assert loaded.frames() == [FrameIndex(0), FrameIndex(1)]
    assert loaded.source["sizes"]["position"] == 2


def test_further_values_of_others_are_kept(tmp_path):
    more = {"score": 0.5, "attributes": {"dead": 1}, "iscrowd": 1, "area": 42.4}
    table = load(tmp_path, document([SQUARE], **more)).features
    row = table.iloc[0]
    assert (row["score"], row["dead"], row["iscrowd"], row["area"]) == (0.5, 1, 1, 42)


def test_what_another_program_changed_counts(tmp_path):
    coco.write(make_objects(), tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    content["annotations"][2]["segmentation"] = [[0, 0, 0, 3, 3, 3, 3, 0]]
    content["categories"][0]["name"] = "nucleus"
    loaded = load(tmp_path, content)
    assert loaded.polygons[2].bounds == (-0.5, -0.5, 2.5, 2.5)
    assert loaded.polygons[0].equals(make_objects().polygons[0])
    assert loaded.features["tag"][0] == "nucleus"


@pytest.mark.parametrize("theirs", [80, 3600])
def test_the_area_is_that_of_a_shape_which_another_program_changed(tmp_path, theirs):
    squares = [shapely.box(0, 0, 9, 9), shapely.box(20, 20, 29, 29)]
    objects = Objects(squares, source={"sizes": {"y": 80, "x": 80}})
    coco.write(objects.with_features(area=80), tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    larger = {"segmentation": [[0, 0, 0, 60, 60, 60, 60, 0]], "area": theirs}
    content["annotations"][0] |= larger
    assert load(tmp_path, content).features["area"].tolist() == [3600, 80]
    del content["annotations"][0]["napari_sam_suite"]["of"]
    assert load(tmp_path, content).features["area"].tolist() == [80, 80]


def test_an_object_outside_the_image_has_no_pixels_and_keeps_its_outline(tmp_path):
    outside = shapely.box(100, 100, 110, 110)
    objects = Objects([outside], source={"sizes": {"y": 30, "x": 40}})
    objects.save(tmp_path / "a.coco.json")
    theirs = COCO(tmp_path / "a.coco.json")
    assert not theirs.annToMask(theirs.anns[1]).any()
    assert Objects.load(tmp_path / "a.coco.json").polygons[0].equals(outside)


def test_without_sizes_the_image_is_as_large_as_its_objects(tmp_path):
    Objects([shapely.box(2, 3, 5, 9)]).save(tmp_path / "a.coco.json")
    [image] = json.loads((tmp_path / "a.coco.json").read_text())["images"]
    assert (image["height"], image["width"]) == (6, 10)


def test_no_objects_are_a_valid_file(tmp_path):
    Objects.empty({"image": "a"}).save(tmp_path / "a.coco.json")
    assert COCO(tmp_path / "a.coco.json").anns == {}
    loaded = Objects.load(tmp_path / "a.coco.json")
    assert (len(loaded), loaded.source) == (0, {"image": "a"})


def test_what_has_no_area_is_left_out_and_told(tmp_path, caplog):
    nothing = {"size": list(SHAPE), "counts": [SHAPE[0] * SHAPE[1]]}
    content = document([SQUARE], [], [[1, 1, 1, 1, 1, 1]], nothing, None)
    with caplog.at_level(logging.WARNING):
        loaded = load(tmp_path, content)
    assert (len(loaded), loaded.source["skipped"]) == (1, 4)
    assert "4 annotations" in caplog.text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (document([SQUARE]), True),
        (document(), True),
        (document([]), False),
        ({"type": "FeatureCollection", "features": []}, False),
        ({"images": [], "annotations": [1]}, False),
        ([1], False),
    ],
)
def test_files_with_outlines_are_known_from_others(content, expected):
    assert coco.is_coco(content) is expected


def test_images_without_objects_are_there(tmp_path):
    objects = make_objects().with_searched(
        [FrameIndex(), FrameIndex(0, 1), FrameIndex(0, 2), FrameIndex(3, 2, 7)]
    )
    coco.write(objects, tmp_path / "a.json")
    theirs = COCO(tmp_path / "a.json")
    names = [image["file_name"] for image in theirs.imgs.values()]
    assert names[1] == "a_p1_t2_z1.tif" and len(names) == 4
    assert [len(theirs.getAnnIds(imgIds=[n])) for n in (1, 2, 3, 4)] == [1, 0, 1, 1]
    assert coco.read(tmp_path / "a.json").searched() == objects.searched()


def test_images_of_others_without_objects_are_known_as_searched(tmp_path):
    content = document([SQUARE])
    content["images"].append(IMAGE | {"id": 8, "file_name": "b.png"})
    loaded = load(tmp_path, content)
    assert loaded.frames() == [FrameIndex(0)]
    assert loaded.searched() == [FrameIndex(0), FrameIndex(1)]


def test_all_objects_may_be_run_lengths(tmp_path):
    objects = traced(draw_blobs(40))
    objects.save(tmp_path / "a.json", "coco-rle")
    theirs = COCO(tmp_path / "a.json")
    for mask, annotation in zip(drawn(objects), theirs.anns.values(), strict=True):
        assert isinstance(annotation["segmentation"], dict)
        np.testing.assert_array_equal(theirs.annToMask(annotation), mask)
    loaded = Objects.load(tmp_path / "a.json", "coco-rle")
    for before, after in zip(objects.polygons, loaded.polygons, strict=True):
        assert before.equals(after)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not COCO"),
        ({"images": [], "annotations": 3}, "not COCO"),
        (document([[1, 2, 3, 4, 5]]), "makes sense"),
        (document([["a", 2, 3, 4, 5, 6]]), "makes sense"),
        (document([[1, 2, 3, 4, 5, float("nan")]]), "finite"),
        (document({"size": list(SHAPE), "counts": "zz"}), "mean nothing"),
        (document({"size": list(SHAPE), "counts": "1"}), "do not fill"),
        (document({"size": list(SHAPE), "counts": [5, 9]}), "do not fill"),
        (document({"size": [5, 5], "counts": [25]}), "30 x 40"),
        (document({"counts": None}), "30 x 40"),
        (document({"size": list(SHAPE)}), "no runs"),
        (document([SQUARE]) | {"images": []}, "it has no 7"),
        (document([SQUARE]) | {"images": [{"id": 7}]}, "it has no 'height'"),
    ],
)
def test_damaged_files_are_one_clear_sentence(tmp_path, content, message):
    with pytest.raises(ParameterError, match=message):
        load(tmp_path, content)


def test_a_file_that_is_no_json_or_missing_is_named(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ParameterError, match="not valid JSON"):
        Objects.load(tmp_path / "bad.json", "coco")
    with pytest.raises(ParameterError, match=r"none\.json cannot be read"):
        Objects.load(tmp_path / "none.json", "coco")

"""Dataloop's JSON of one image: polygons with holes, masks, and what is left out."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 20


def corners(y0: int, x0: int, y1: int, x1: int) -> list[dict[str, int]]:
    return [{"x": x, "y": y} for y, x in ((y0, x0), (y0, x1), (y1, x1), (y1, x0))]


def png(mask: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def load(folder: Path, *annotations: dict[str, Any]) -> Objects:
    path = folder / "cells.json"
    path.write_text(json.dumps({"filename": "/cells.png", "annotations": annotations}))
    return Objects.load(path)


def test_polygons_keep_their_labels_and_holes(tmp_path: Path) -> None:
    rings = [corners(2, 3, 12, 15), corners(5, 6, 8, 9)]
    found = load(
        tmp_path,
        {"type": "segment", "label": "cell", "coordinates": rings},
        {"type": "segment", "label": "", "coordinates": corners(14, 1, 18, 4)},
    )
    assert found.features["tag"].tolist() == ["cell", "unassigned"]
    assert [p.area for p in found.polygons] == [10 * 12 - 9, 12]
    assert found.polygons[0].bounds == (2, 3, 12, 15)  # (y, x)


@pytest.mark.parametrize("wrapped", [False, True])
def test_masks_are_their_pixels_in_all_their_parts(
    tmp_path: Path, *, wrapped: bool
) -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2:9, 3:12] = True
    mask[4:6, 5:7] = False
    mask[12:15, 1:4] = True
    said = {"data": png(mask)} if wrapped else png(mask)
    found = load(tmp_path, {"type": "binary", "label": "cell", "coordinates": said})
    assert len(found) == 1
    assert ((found.to_labels(mask.shape) > 0) == mask).all()
    assert found.source["sizes"] == {"y": SIDE, "x": SIDE}


def test_what_has_no_outline_is_left_out_and_counted(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        {"type": "box", "label": "a", "coordinates": corners(1, 1, 5, 5)[::2]},
        {"type": "point", "label": "a", "coordinates": {"x": 1, "y": 2}},
        {"type": "segment", "label": "a", "coordinates": [corners(1, 1, 5, 5)]},
        {"type": "segment", "label": "a", "coordinates": []},
        {"type": "binary", "label": "a", "coordinates": png(np.zeros((9, 9), bool))},
    )
    assert len(found) == 1
    assert found.source["skipped"] == 4


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"type": "binary", "coordinates": "data:image/png;base64,abc"}, "no PNG"),
        ({"type": "binary", "coordinates": 7}, "no sense"),
        ({"type": "segment", "coordinates": [[{"x": 1}, {"y": 2}]]}, "has no 'y'"),
    ],
)
def test_annotations_that_make_no_sense_are_refused(
    tmp_path: Path, annotation: dict[str, Any], words: str
) -> None:
    with pytest.raises(ParameterError, match=words):
        load(tmp_path, annotation)


def test_a_file_without_annotations_has_no_objects(tmp_path: Path) -> None:
    assert len(load(tmp_path)) == 0

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engine.fakes import FakeSam, scene
from napari_sam_suite.engine.errors import CheckpointMissing, ImageError, ModelError
from napari_sam_suite.engine.generator import (
    SIZES,
    SamGenerator,
    build_sam_generator,
)
from napari_sam_suite.engine.models import load
from napari_sam_suite.engine.models.registry import MODELS
from napari_sam_suite.engine.params import AutoParams

if TYPE_CHECKING:
    from pathlib import Path

BOXES = [(4, 6, 20, 30), (30, 10, 60, 50)]
KEYS = {
    "segmentation",
    "area",
    "bbox",
    "predicted_iou",
    "point_coords",
    "stability_score",
    "crop_box",
}


def generator(**params: Any) -> SamGenerator:
    values = {"points_per_side": 8, "overlap": "allow"} | params
    return SamGenerator(FakeSam(), AutoParams(**values))


def test_a_record_describes_its_mask_as_sam_does() -> None:
    records = generator().generate(scene((64, 64), *BOXES))
    assert len(records) == 2
    for record, (y0, x0, y1, x1) in zip(records, BOXES, strict=True):
        assert set(record) == KEYS
        mask = record["segmentation"]
        assert mask.shape == (64, 64) and mask.dtype == bool
        assert mask.sum() == record["area"] == (y1 - y0) * (x1 - x0)
        assert mask[y0:y1, x0:x1].all()
        # between the centres of the outer pixels
        assert record["bbox"] == [x0, y0, x1 - x0 - 1, y1 - y0 - 1]
        [[x, y]] = record["point_coords"]
        assert mask[int(y), int(x)]
        assert record["predicted_iou"] == pytest.approx(0.95)
        assert record["stability_score"] == 1
        assert record["crop_box"] == [0, 0, 64, 64]


def test_points_and_boxes_are_x_before_y() -> None:
    image = scene((64, 128), (4, 100, 20, 120))
    [record] = generator().generate(image)
    assert record["bbox"][:2] == [pytest.approx(100, abs=2), pytest.approx(4, abs=2)]
    assert record["point_coords"][0][0] > 64


def test_a_float_image_is_the_same_as_its_bytes() -> None:
    image = scene((64, 64), *BOXES)
    one = generator().generate(image)
    for kind in (np.float32, np.float64):
        two = generator().generate((image / 255).astype(kind))
        assert [r["bbox"] for r in one] == [r["bbox"] for r in two]


def test_nothing_found_is_an_empty_list() -> None:
    assert generator().generate(scene((64, 64))) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((3, 64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((0, 64, 3), np.uint8),
        np.full((64, 64, 3), 1.01),
        np.full((64, 64, 3), -0.01),
        np.full((64, 64, 3), np.nan),
        np.full((64, 64, 3), 4095, np.uint16),
    ],
    ids=["2d", "channels first", "alpha", "empty", "above", "below", "nan", "uint16"],
)
def test_an_image_that_is_not_rgb_is_refused_not_wrapped(image: Any) -> None:
    with pytest.raises(ImageError) as caught:
        generator().generate(image)
    assert caught.value.hint


# The builder


def test_the_builder_has_the_defaults_people_know() -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(build_sam_generator).parameters.items()
    }
    assert (
        defaults
        | {
            "model_size": "large",
            "points_per_side": 32,
            "points_per_batch": 64,
            "pred_iou_thresh": 0.7,
            "stability_score_thresh": 0.92,
            "box_nms_thresh": 0.7,
            "crop_n_layers": 1,
            "stability_score_offset": 0.7,
        }
        == defaults
    )


def test_what_is_given_to_the_builder_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(
        load, "load_model", lambda spec, **options: loaded.append(spec) or FakeSam()
    )
    built = build_sam_generator("base_plus", 5, 6, 0.1, 0.2, 0.3, crop_n_layers=2)
    p = built.params
    assert [spec.id for spec in loaded] == ["sam2.1_hiera_base_plus"]
    assert (p.points_per_side, p.points_per_batch, p.crop_n_layers) == (5, 6, 2)
    assert (p.pred_iou_thresh, p.stability_score_thresh) == (0.1, 0.2)
    assert p.box_nms_thresh == 0.3
    assert (p.overlap, p.tile) == ("allow", "off")


def test_no_device_is_the_one_that_suits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        load, "load_model", lambda _, **options: asked.append(options) or FakeSam()
    )
    build_sam_generator("nano", device=None)
    assert asked[0]["device"] == "auto"


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_a_model_there_is(size: str) -> None:
    assert SIZES[size] in MODELS


@pytest.mark.parametrize("size", ["huge", "", "Large", None])
def test_an_unknown_size_is_answered_with_the_sizes(size: Any) -> None:
    with pytest.raises(ModelError) as caught:
        build_sam_generator(size)
    assert all(name in caught.value.hint for name in SIZES)


def test_a_missing_checkpoint_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissing) as caught:
        build_sam_generator("large", folder=tmp_path)
    assert "sam2.1_hiera_large" in caught.value.message
    assert "models download sam2.1_hiera_large" in caught.value.hint


def test_without_sam2_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "sam2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sam2", None)
    with pytest.raises(ModelError, match=r"SAM 2 is not installed.*pip install sam2"):
        build_sam_generator("tiny", random_weights=True)


def test_the_embedded_model_generates_without_a_download() -> None:
    built = build_sam_generator("nano", points_per_side=4, device="cpu")
    image = scene((96, 96), (20, 20, 60, 70))
    image[20:60, 20:70] = 230
    assert isinstance(built.generate(image), list)

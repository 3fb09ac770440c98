"""A run filtered again is the run that would have been made."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from engine.fakes import FakeSam, scene
from napari_sam_suite.engine import auto
from napari_sam_suite.engine.auto import Automatic, automatic_masks
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.filters import Candidates, refilter
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.masks import Masks
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.synthetic.scene import synthesize

PLAIN = AutoParams(points_per_side=8, tile="off")
TILES = AutoParams(points_per_side=8, tile=160)
CROPS = AutoParams(points_per_side=6, tile="off", crop_n_layers=1)

LOW = 0.8 * find_model("sam2-nano").auto.pred_iou_thresh
"""Below the model's own threshold, above where candidates end."""

OTHERS: list[dict[str, Any]] = [
    {"pred_iou_thresh": LOW},
    {"pred_iou_thresh": 0.6, "stability_score_thresh": 0.8},
    {"stability_score_thresh": 0.4, "box_nms_thresh": 0.7, "overlap": "allow"},
    {"min_area": 60, "max_area": 900},
    {"crop_nms_thresh": 0.2, "min_mask_region_area": 20},
    {"pred_iou_thresh": 0.99},
]


@pytest.fixture(scope="module")
def nano() -> Any:
    return load_model("sam2-nano", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    image = synthesize("touching nuclei", (256, 256), seed=5, diameter=24).image
    return np.ascontiguousarray(np.broadcast_to(image[..., None], (256, 256, 3)))


def keep(model: Any, image: np.ndarray, params: AutoParams) -> tuple[Masks, Candidates]:
    finder = Automatic(params, keep_candidates=True)
    found = finder(
        model, image, FrameIndex(), report=lambda *_: None, stop=lambda: False
    )
    assert isinstance(found.candidates, Candidates)
    return found.masks, found.candidates


def assert_same(found: Masks, expected: Masks) -> None:
    names = ("boxes", "area", "scores", "stability", "level", "points", "crops")
    for name in names:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for bits, wanted in zip(found.packed, expected.packed, strict=True):
        np.testing.assert_array_equal(bits, wanted)


@pytest.mark.parametrize("params", [PLAIN, TILES, CROPS], ids=["one", "tiles", "crops"])
def test_other_settings_give_the_masks_of_a_new_run(
    nano: Any, cells: np.ndarray, params: AutoParams
) -> None:
    first, candidates = keep(nano, cells, params)
    assert_same(first, automatic_masks(nano, cells, params))
    assert_same(refilter(candidates, params), first)
    counts = set()
    for other in OTHERS:
        expected = automatic_masks(nano, cells, params.with_(**other))
        assert_same(refilter(candidates, params.with_(**other)), expected)
        counts.add(len(expected))
    assert len(counts) > 2


def test_refined_masks_are_filtered_by_their_second_score(
    nano: Any, cells: np.ndarray
) -> None:
    params = AutoParams(points_per_side=5, tile="off", refine=True)
    _, candidates = keep(nano, cells, params)
    for least in (LOW, 0.5, 0.7):
        other = params.with_(pred_iou_thresh=least)
        assert_same(refilter(candidates, other), automatic_masks(nano, cells, other))


# What was kept


BOXES = ((4, 4, 20, 20), (30, 10, 50, 40), (40, 44, 60, 60))
FEW = AutoParams(points_per_side=16, tile="off")


def scored(token: int, colour: np.ndarray) -> float:
    """The blobs of `BOXES` are worse and worse."""
    return (0.9, 0.7, 0.5)[int(colour[2]) - 1]


def test_masks_below_what_was_kept_need_another_run() -> None:
    masks, candidates = keep(FakeSam(score=scored), scene((64, 64), *BOXES), FEW)
    assert len(masks) == 1
    assert candidates.lowest.pred_iou_thresh == pytest.approx(0.6)
    assert len(refilter(candidates, FEW.with_(pred_iou_thresh=0.6))) == 2
    with pytest.raises(ParameterError, match=r"cannot be 0\.5 now.*Run again"):
        refilter(candidates, FEW.with_(pred_iou_thresh=0.5))


@pytest.mark.parametrize(
    ("name", "value"),
    [("points_per_side", 8), ("mask_threshold", 1.0), ("crop_n_layers", 1)],
)
def test_what_the_model_would_have_to_draw_needs_another_run(
    name: str, value: float
) -> None:
    _, candidates = keep(FakeSam(), scene((64, 64), *BOXES), FEW)
    with pytest.raises(ParameterError, match=f"{name} was .* Run again"):
        refilter(candidates, FEW.with_(**{name: value}))


def test_how_polygons_are_drawn_and_the_batch_may_change() -> None:
    masks, candidates = keep(FakeSam(), scene((64, 64), *BOXES), FEW)
    others = FEW.with_(smoothing=2, parts="all", points_per_batch=3)
    assert_same(refilter(candidates, others), masks)


def test_nothing_is_kept_unless_asked() -> None:
    found = Automatic(FEW)(
        FakeSam(),
        scene((64, 64), *BOXES),
        FrameIndex(),
        report=lambda *_: None,
        stop=lambda: False,
    )
    assert found.candidates is None
    assert not found.columns


def test_when_candidates_become_too_many_those_that_pass_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auto, "_MOST", 1000)
    model = FakeSam(score=scored)
    masks, candidates = keep(model, scene((64, 64), *BOXES), FEW)
    assert_same(masks, automatic_masks(model, scene((64, 64), *BOXES), FEW))
    assert candidates.lowest.pred_iou_thresh == 0.8
    assert all((found.scores > 0.8).all() for found in candidates.found)
    assert_same(refilter(candidates, FEW), masks)


# Masks that are known again


def test_the_same_pixels_have_the_same_id_after_filtering_again() -> None:
    model, image = FakeSam(score=scored), scene((64, 64), *BOXES)
    masks, candidates = keep(model, image, FEW.with_(pred_iou_thresh=0.6))
    more = refilter(candidates, FEW.with_(pred_iou_thresh=0.46))
    assert len(more) == 3
    assert candidates.ids(more)[: len(masks)] == candidates.ids(masks)
    assert len(set(candidates.ids(more))) == 3


def test_masks_of_the_same_pixels_have_ids_of_their_own() -> None:
    masks, candidates = keep(FakeSam(), scene((64, 64), *BOXES), FEW)
    twice = Masks.concat([masks, masks])
    ids = candidates.ids(twice)
    assert len(set(ids)) == len(ids) == 2 * len(masks)
    assert ids[: len(masks)] == candidates.ids(masks)


def test_objects_of_a_run_carry_these_ids_and_another_run_others() -> None:
    image = scene((64, 64), *BOXES)
    finders = [Automatic(FEW, keep_candidates=True) for _ in range(2)]
    finds = [
        finder(FakeSam(), image, frame, report=lambda *_: None, stop=lambda: False)
        for finder in finders
        for frame in (FrameIndex(), FrameIndex(time=1))
    ]
    ids = [one for found in finds for one in found.columns["id"]]
    assert len(set(ids)) == len(ids) == 4 * 3


def test_filtering_again_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from napari_sam_suite.engine.filters import Candidates, refilter\n"
        "from napari_sam_suite.engine.masks import Masks\n"
        "from napari_sam_suite.engine.params import AutoParams\n"
        "from napari_sam_suite.engine.tiles import Region\n"
        "p = AutoParams(pred_iou_thresh=0.5, stability_score_thresh=0.5,\n"
        "               stability_score_offset=1, box_nms_thresh=0.5)\n"
        "found = (Masks.empty((9, 9)),)\n"
        "refilter(Candidates((Region(0, 0, 9, 9),), found, p, p), p)\n"
        "print('torch' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"

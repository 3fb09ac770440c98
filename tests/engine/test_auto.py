"""Automatic masks: upstream's masks, and what upstream does not do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from segment_anything import SamAutomaticMaskGenerator

from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.synthetic.scene import synthesize

EVERYTHING = {
    "pred_iou_thresh": 0.0,
    "stability_score_thresh": 0.0,
    "box_nms_thresh": 1.0,
    "crop_nms_thresh": 1.0,
}


def photo(shape=(200, 300)) -> np.ndarray:
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut()[: shape[0], : shape[1]])


@pytest.fixture(scope="module")
def random_nano():
    return load_model("sam2-nano", device="cpu", random_weights=True)


@pytest.fixture(scope="module")
def nano():
    return load_model("sam2-nano", device="cpu", precision="float32")


def upstream(model, image, **settings):
    """The records of the generator that the model's authors wrote."""
    if model.spec.family == "sam1":
        return SamAutomaticMaskGenerator(model.network, **settings).generate(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # upstream uses torch.jit
        generator = SAM2AutomaticMaskGenerator(model.network, **settings)
    side = model.input_size
    # Upstream has the feature sizes of a 1024 px input built in.
    generator.predictor._bb_feat_sizes = [(side // n, side // n) for n in (4, 8, 16)]
    return generator.generate(image)


def compare(model, image, **settings) -> int:
    """Assert mask-for-mask equality; returns how many masks there were.

    A pixel may differ where its logit is zero but for rounding: fewer than one in a
    hundred thousand of all pixels compared.
    """
    expected = upstream(model, image, **settings)
    ours = dict(settings)
    ours["refine"] = ours.pop("use_m2m", False)
    ours["multimask"] = ours.pop("multimask_output", True)
    masks = automatic_masks(
        model, image, AutoParams(search="grid", tile="off", overlap="allow", **ours)
    )
    assert len(masks) == len(expected)
    different = 0
    for i, record in enumerate(expected):
        different += int((record["segmentation"] != masks.full(i)).sum())
        assert masks.scores[i] == pytest.approx(record["predicted_iou"], abs=1e-5)
        if not np.isnan(record["stability_score"]):
            assert masks.stability[i] == pytest.approx(
                record["stability_score"], abs=1e-3
            )
        x, y = record["point_coords"][0]
        assert masks.points[i] == pytest.approx([y, x], abs=1e-3)
        x, y, width, height = record["crop_box"]
        assert masks.crops[i].tolist() == [y, x, y + height, x + width]
    assert different <= 1e-5 * image.shape[0] * image.shape[1] * max(len(masks), 1)
    return len(masks)


@pytest.mark.parametrize("shape", [(200, 300), (97, 31), (512, 512), (300, 700)])
def test_same_masks_as_sam2_for_any_shape(random_nano, shape):
    assert compare(random_nano, photo(shape), points_per_side=3, **EVERYTHING) == 27


@pytest.mark.parametrize(
    "settings",
    [
        {"points_per_side": 6, "multimask_output": False} | EVERYTHING,
        {"points_per_side": 3, "use_m2m": True} | EVERYTHING,
        {"points_per_side": 3, "crop_n_layers": 1} | EVERYTHING,
        {
            "points_per_side": 4,
            "crop_n_layers": 2,
            "crop_n_points_downscale_factor": 2,
            "pred_iou_thresh": 0.0,
            "stability_score_thresh": 0.2,
            "stability_score_offset": 0.02,
            "box_nms_thresh": 0.9,
        },
        {"points_per_side": 5, "pred_iou_thresh": 0.48, "stability_score_thresh": 0.0},
    ],
    ids=["single", "refine", "crops", "deep crops", "thresholds"],
)
def test_same_masks_as_sam2_for_every_setting(random_nano, settings):
    assert compare(random_nano, photo(), **settings) > 0


def test_same_masks_as_sam2_with_the_embedded_weights(nano):
    scene = synthesize("nuclei", (256, 256), seed=5)
    image = np.ascontiguousarray(np.broadcast_to(scene.image[..., None], (256, 256, 3)))
    settings = {
        "pred_iou_thresh": 0.5,
        "stability_score_thresh": 0.5,
        "stability_score_offset": 1.0,
        "box_nms_thresh": 0.7,
    }
    assert compare(nano, image, points_per_side=12, **settings) > 3


def test_a_stability_just_at_the_threshold_passes_as_upstream(random_nano):
    image = photo((512, 512))
    settings = EVERYTHING | {"points_per_side": 4, "stability_score_offset": 0.02}
    everything = automatic_masks(
        random_nano,
        image,
        AutoParams(search="grid", tile="off", overlap="allow", **settings),
    )
    middle = float(np.sort(everything.stability)[len(everything) // 2])
    # The next number above it is the same one in float32, in which upstream compares.
    settings["stability_score_thresh"] = float(np.nextafter(middle, 1.0))
    assert 0 < compare(random_nano, image, **settings) < len(everything)


@pytest.mark.slow
def test_same_masks_as_sam2_tiny():
    model = load_model("sam2.1_hiera_tiny", device="cpu", random_weights=True)
    assert compare(model, photo(), points_per_side=2, **EVERYTHING) == 12


@pytest.mark.slow
def test_same_masks_as_sam1():
    model = load_model("sam_vit_b_01ec64", device="cpu", random_weights=True)
    assert compare(model, photo(), points_per_side=2, **EVERYTHING) == 12


def test_batch_size_changes_nothing(random_nano):
    settings = AutoParams(points_per_side=4, overlap="allow", **EVERYTHING)
    one = automatic_masks(random_nano, photo(), settings.with_(points_per_batch=1))
    all_ = automatic_masks(random_nano, photo(), settings.with_(points_per_batch=16))
    assert len(one) == len(all_)
    assert np.allclose(one.scores, all_.scores, atol=1e-5)


def test_memory_that_runs_out_once_halves_the_batch(random_nano, monkeypatch):
    settings = AutoParams(
        points_per_side=4, points_per_batch=16, overlap="allow", **EVERYTHING
    )
    expected = automatic_masks(random_nano, photo(), settings)
    decode = random_nano.decode
    sizes = []

    def scarce(embedding, prompts, **options):
        sizes.append(len(prompts))
        if len(prompts) > 8:
            raise torch.OutOfMemoryError("out of memory")
        return decode(embedding, prompts, **options)

    monkeypatch.setattr(random_nano, "decode", scarce)
    monkeypatch.setattr(random_nano, "batch", random_nano.batch)
    found = automatic_masks(random_nano, photo(), settings)
    assert sizes == [16, 8, 8]
    assert len(found) == len(expected)
    assert np.array_equal(found.boxes, expected.boxes)


def test_stopping_takes_effect_before_the_next_batch(random_nano):
    batches = []

    def report(done, total, text):
        batches.append(done)

    with pytest.raises(Cancelled):
        automatic_masks(
            random_nano,
            photo(),
            AutoParams(points_per_side=8, points_per_batch=8),
            report=report,
            stop=lambda: len(batches) >= 3,
        )
    assert batches[-1] < 64


def test_nothing_found_is_an_empty_result(random_nano):
    masks = automatic_masks(
        random_nano, photo(), AutoParams(points_per_side=2, pred_iou_thresh=1.0)
    )
    assert len(masks) == 0
    assert masks.shape == (200, 300)


def test_a_large_image_keeps_memory_small(random_nano):
    masks = automatic_masks(
        random_nano,
        photo((512, 512)).repeat(3, 0).repeat(3, 1),
        AutoParams(points_per_side=1, tile=512, **EVERYTHING),
    )
    assert masks.shape == (1536, 1536)
    assert masks.nbytes < 4 * 1536 * 1536


def test_exclusive_objects_share_no_pixel(random_nano):
    masks = automatic_masks(
        random_nano, photo(), AutoParams(points_per_side=4, **EVERYTHING)
    )
    assert len(masks) > 1
    assert sum(masks.full(i).astype(int) for i in range(len(masks))).max() == 1


def scene_and_image(kind: str, side: int, seed: int):
    scene = synthesize(kind, (side, side), seed=seed)
    pixels = np.broadcast_to(scene.image[..., None], (side, side, 3))
    return scene, np.ascontiguousarray(pixels)


def f1(masks, truth: np.ndarray) -> float:
    from napari_sam_suite.engine.metrics import evaluate_labels

    labels = np.zeros(masks.shape, np.int32)
    for i in range(len(masks)):
        labels[masks.full(i)] = i + 1
    return evaluate_labels(labels, truth).f1


def test_the_embedded_model_finds_synthetic_nuclei(nano):
    scene, image = scene_and_image("nuclei", 256, 11)
    masks = automatic_masks(nano, image, AutoParams(points_per_side=32))
    assert f1(masks, scene.labels) > 0.7


def test_small_objects_are_looked_at_in_finer_tiles(nano):
    scene, image = scene_and_image("touching nuclei", 334, 90002)
    told: list[tuple[int, int]] = []
    found = automatic_masks(
        nano,
        image,
        AutoParams(),
        report=lambda done, total, _: told.append((done, total)),
    )
    usual, finer = (
        automatic_masks(nano, image, AutoParams(tile=tile)) for tile in ("off", 150)
    )
    assert len(found) == len(finer)
    assert all(np.array_equal(found.full(i), finer.full(i)) for i in range(len(found)))
    assert f1(found, scene.labels) > f1(usual, scene.labels) + 0.05
    parts = [done / total for done, total in told]
    assert parts == sorted(parts)
    assert parts[-1] == 1


@pytest.mark.parametrize(
    ("kind", "side", "seed"),
    [
        ("cells", 334, 90000),  # large objects
        ("touching nuclei", 300, 90002),  # an image no larger than a tile
    ],
)
def test_other_images_are_looked_at_as_ever(nano, kind, side, seed):
    _, image = scene_and_image(kind, side, seed)
    found = automatic_masks(nano, image, AutoParams())
    usual = automatic_masks(nano, image, AutoParams(tile="off"))
    assert len(found) == len(usual) > 0
    assert all(np.array_equal(found.full(i), usual.full(i)) for i in range(len(found)))


@pytest.mark.parametrize(
    "settings",
    [
        {"pred_iou_thresh": 0.99},
        {"pred_iou_thresh": 0.1, "stability_score_thresh": 0.1},
        {"min_area": 300},
        {"max_area": 60},
    ],
)
def test_filters_do_not_tell_how_large_objects_are(nano, settings):
    for kind, tile in (("touching nuclei", 150), ("cells", "off")):
        seed = {"touching nuclei": 90002, "cells": 90000}[kind]
        _, image = scene_and_image(kind, 334, seed)
        params = AutoParams(**settings)
        found = automatic_masks(nano, image, params)
        same = automatic_masks(nano, image, params.with_(tile=tile))
        assert len(found) == len(same)
        assert all(
            np.array_equal(found.full(i), same.full(i)) for i in range(len(same))
        )


@pytest.mark.parametrize("settings", [{"pred_iou_thresh": 0.9}, {"min_area": 150}])
def test_moved_filters_give_what_a_new_run_would_in_finer_tiles(nano, settings):
    from napari_sam_suite.engine.auto import Automatic
    from napari_sam_suite.engine.filters import refilter
    from napari_sam_suite.engine.frames import FrameIndex

    _, image = scene_and_image("touching nuclei", 334, 90002)
    find = Automatic(AutoParams(), keep_candidates=True)
    first = find(nano, image, FrameIndex(), report=lambda *_: None, stop=lambda: False)
    params = AutoParams(**settings)
    moved = refilter(first.candidates, params.resolved(nano.spec))
    again = automatic_masks(nano, image, params)
    assert 0 < len(moved) == len(again) < len(first.masks)
    assert all(np.array_equal(moved.full(i), again.full(i)) for i in range(len(again)))


def test_few_objects_tell_nothing_of_their_size(nano, monkeypatch):
    _, image = scene_and_image("touching nuclei", 334, 90002)
    usual = automatic_masks(nano, image, AutoParams(tile="off"))
    monkeypatch.setattr("napari_sam_suite.engine.auto._FEW", len(usual) + 1)
    assert len(automatic_masks(nano, image, AutoParams())) == len(usual)


def test_a_grid_knows_nothing_of_small_objects(nano):
    _, image = scene_and_image("touching nuclei", 334, 90002)
    params = AutoParams(search="grid", points_per_side=8)
    found = automatic_masks(nano, image, params)
    assert len(found) == len(automatic_masks(nano, image, params.with_(tile="off")))

"""Tiles that follow the sizes that a guide tells."""

from __future__ import annotations

import numpy as np
import pytest

from engine.guides import discs, perfect_guide
from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.metrics import evaluate_labels
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.protocol import Embedding
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.scale import looked_at, suited, told_sizes
from napari_sam_suite.engine.synthetic.scene import synthesize
from napari_sam_suite.engine.tiles import tile_regions


def test_sizes_are_those_of_the_objects_in_pixels_of_the_image():
    labels = discs((16, 16, 6), (44, 40, 12))
    shape = (labels.shape[0] * 2, labels.shape[1] * 2)
    embedding = Embedding({"guide": perfect_guide(labels)[None]}, shape, (512, 512))
    found = sorted(told_sizes(embedding))
    true = sorted(2 * np.sqrt(np.bincount(labels.ravel())[1:]))
    assert found == pytest.approx(true, rel=0.02)


def test_a_model_without_a_guide_tells_no_sizes():
    features = {"image": np.zeros((1, 4, 8, 8), np.float32)}
    assert len(told_sizes(Embedding(features, (64, 64), (64, 64)))) == 0


@pytest.mark.parametrize(
    ("size", "tile"),
    [(0.1, 0.6), (0.04, 0.6), (0.024, 0.3), (0.004, 0.25)],
    ids=["large", "a little small", "small", "tiny"],
)
def test_only_small_objects_make_tiles_smaller(size, tile):
    assert suited(np.full(9, size), 0.6) == pytest.approx(tile)


def test_a_few_objects_are_not_believed():
    assert suited(np.full(4, 0.01), 0.6) == 0.6


def test_a_few_regions_are_looked_at_all_over_the_image():
    regions = tile_regions((1000, 1000), 128, 512)
    chosen = looked_at(regions)
    assert len(chosen) == 4
    places = [regions.index(region) for region in chosen]
    assert np.diff(places).max() - np.diff(places).min() <= 1
    assert looked_at(regions[:2]) == regions[:2]


def test_small_objects_are_found_better_than_in_tiles_of_one_size():
    scene = synthesize("touching nuclei", (256, 256), 5, diameter=9, noise=0.02)
    rgb = np.repeat(scene.image[..., None], 3, 2)
    model = load_model("sam2-nano", device="cpu", precision="float32")
    scores = [
        evaluate_labels(painted(automatic_masks(model, rgb, params)), scene.labels)
        for params in (AutoParams(), AutoParams(tile=300))
    ]
    assert scores[0].f1 > scores[1].f1 + 0.02


def test_progress_is_known_from_the_beginning():
    scene = synthesize("touching nuclei", (256, 256), 5, diameter=9, noise=0.02)
    rgb = np.repeat(scene.image[..., None], 3, 2)
    model = load_model("sam2-nano", device="cpu", precision="float32")
    told: list[tuple[int, int]] = []
    automatic_masks(
        model,
        rgb,
        AutoParams(),
        report=lambda done, total, _: told.append((done, total)),
    )
    assert min(total for _, total in told) > 0
    done = [done for done, _ in told]
    assert done == sorted(done)
    assert told[-1][0] == told[-1][1]


def painted(masks) -> np.ndarray:
    labels = np.zeros(masks.shape, int)
    for i in range(len(masks)):
        labels[masks.full(i)] = i + 1
    return labels

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.synthetic.scene import KINDS, synthesize


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_draws_objects_and_ground(kind):
    scene = synthesize(kind, (128, 160), seed=3, diameter=24)
    assert scene.labels.shape == (128, 160)
    assert scene.image.shape[:2] == (128, 160)
    assert scene.image.dtype == np.uint8
    assert scene.labels.max() >= 2
    assert scene.image.std() > 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_pixels_and_another_seed_does_not(kind):
    first, second = synthesize(kind, (64, 64), 5), synthesize(kind, (64, 64), 5)
    other = synthesize(kind, (64, 64), 6)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_gapless_and_every_object_is_one_piece(kind):
    labels = synthesize(kind, (160, 160), seed=1, diameter=22).labels
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))
    for value in range(1, int(labels.max()) + 1):
        assert ndimage.label(labels == value)[1] == 1


def test_bright_nuclei_lie_where_the_labels_say():
    scene = synthesize("nuclei", (200, 200), seed=2, diameter=30, noise=0)
    inside = scene.image[scene.labels > 0].astype(float)
    outside = scene.image[scene.labels == 0].astype(float)
    assert np.percentile(inside, 10) > np.percentile(outside, 75)


def test_touching_nuclei_touch():
    labels = synthesize("touching nuclei", (200, 200), seed=4, diameter=24).labels
    left, right = labels[:, :-1], labels[:, 1:]
    assert np.any((left != right) & (left > 0) & (right > 0))


def test_parts_lie_inside_their_objects():
    scene = synthesize("cells", (200, 200), seed=0, diameter=40)
    assert scene.parts is not None
    where = scene.parts > 0
    assert where.any()
    np.testing.assert_array_equal(scene.parts[where], scene.labels[where])


@pytest.mark.parametrize("diameter", [8, 20, 60])
def test_objects_have_the_diameter_asked_for(diameter):
    labels = synthesize("nuclei", (320, 320), seed=9, diameter=diameter).labels
    whole = labels[8:-8, 8:-8]
    areas = np.bincount(whole.ravel())[1:]
    middle = np.median(2 * np.sqrt(areas[areas > 0] / np.pi))
    assert 0.6 * diameter < middle < 1.5 * diameter


def test_deep_images_use_their_range():
    image = synthesize("nuclei", (96, 96), seed=0, bits=12).image
    assert image.dtype == np.uint16
    assert 1000 < image.max() < 4096


def test_stained_scenes_are_colour_images():
    assert synthesize("stained", (64, 64), seed=0).image.shape == (64, 64, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "unicorns"},
        {"kind": "nuclei", "shape": (8, 64)},
        {"kind": "nuclei", "diameter": 2},
        {"kind": "nuclei", "bits": 32},
    ],
)
def test_wrong_requests_are_refused(wrong):
    with pytest.raises(ParameterError):
        synthesize(**wrong)


@pytest.mark.parametrize("seed", range(4))
def test_large_bacteria_and_many_small_ones_are_drawn(seed: int) -> None:
    for side, diameter in ((64, 45), (128, 90), (700, 6)):
        scene = synthesize("colony", (side, side), seed, diameter=diameter)
        assert scene.labels.shape == (side, side)
    assert scene.labels.max() == len(np.unique(scene.labels)) - 1

"""Centres of objects from what a guide says of every place."""

from __future__ import annotations

import numpy as np
import pytest

from engine.guides import PLACES, discs, perfect_guide
from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.errors import ModelError
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.proposals import UNIT, propose
from napari_sam_suite.engine.synthetic.scene import synthesize


def test_one_point_for_each_object_at_its_centre():
    given = [(10, 12, 3), (30, 40, 9), (52, 20, 6)]
    points = propose(perfect_guide(discs(*given)), (PLACES, PLACES))
    expected = np.array([(y, x) for y, x, _ in given])
    distance = np.abs(points[:, None] - expected).max(2)
    assert distance.shape == (3, 3)
    assert (distance.min(1) < 1).all()
    assert (distance.min(0) < 1).all()


def test_touching_objects_are_two():
    labels = discs((32, 26, 7), (32, 40, 7))
    assert len(propose(perfect_guide(labels), (PLACES, PLACES))) == 2
    assert len(propose(perfect_guide(np.minimum(labels, 1)), (PLACES, PLACES))) == 1


def test_points_are_in_pixels_of_the_image():
    guide = perfect_guide(discs((16, 48, 5)))
    ((y, x),) = propose(guide, (640, 128))
    assert y == pytest.approx(16.5 * 10 - 0.5, abs=10)
    assert x == pytest.approx(48.5 * 2 - 0.5, abs=2)


@pytest.mark.parametrize("side", [PLACES // 2, PLACES, 3 * PLACES, 8 * PLACES])
def test_a_point_lies_in_the_place_where_the_votes_gather(side):
    guide = np.zeros((5, PLACES, PLACES), np.float32)
    guide[0] = -6
    guide[0, 30:33, 40:43] = 6
    guide[2:4, 30:33, 40:43] = (
        np.array([[31], [41]]) - np.mgrid[30:33, 40:43].reshape(2, 9)
    ).reshape(2, 3, 3) / UNIT
    guide[4] = np.log(3 / UNIT)
    ((y, x),) = propose(guide, (side, side))
    scale = side / PLACES
    assert (y, x) == pytest.approx((31.5 * scale - 0.5, 41.5 * scale - 0.5))


def test_background_and_a_lost_speck_ask_nothing():
    guide = perfect_guide(discs((20, 20, 6)))
    guide[0, 50, 50] = 6  # one place that believes in a large object far away
    guide[4, 50, 50] = np.log(40 / UNIT)
    points = propose(guide, (PLACES, PLACES))
    assert len(points) == 1
    empty = propose(np.full((5, PLACES, PLACES), -6, np.float32), (9, 9))
    assert empty.shape == (0, 2)


def test_votes_beyond_the_image_count_at_its_border():
    guide = perfect_guide(discs((3, 3, 3)))
    guide[2:4] -= 1
    ((y, x),) = propose(guide, (PLACES, PLACES))
    assert 0 <= y < 2
    assert 0 <= x < 2


class Counting:
    """A model that counts its prompts."""

    def __init__(self, model):
        self._model, self.prompts = model, 0

    def __getattr__(self, name):
        return getattr(self._model, name)

    def decode(self, embedding, prompts, **options):
        self.prompts += len(prompts)
        return self._model.decode(embedding, prompts, **options)


@pytest.fixture(scope="module")
def nano():
    return load_model(find_model("sam2-nano"), device="cpu")


@pytest.fixture(scope="module")
def scene():
    return synthesize("nuclei", (192, 192), 5, diameter=24)


def rgb(scene):
    image = scene.image
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def test_a_guided_search_asks_less_and_finds_as_much(nano, scene):
    found, asked = {}, {}
    for search in ("grid", "guided", "auto"):
        model = Counting(nano)
        found[search] = automatic_masks(model, rgb(scene), AutoParams(search=search))
        asked[search] = model.prompts
    assert asked["guided"] < asked["grid"] / 2
    assert asked["auto"] == asked["guided"]
    count = scene.labels.max()
    assert abs(len(found["guided"]) - count) <= abs(len(found["grid"]) - count) + 1


def test_progress_ends_at_its_total_and_never_goes_back(nano, scene):
    seen = []
    automatic_masks(
        nano,
        rgb(scene),
        AutoParams(tile=96),
        report=lambda done, total, _: seen.append((done, total)),
    )
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert seen[-1][0] == seen[-1][1] > 0


def test_an_empty_field_asks_nothing_and_ends(nano):
    model = Counting(nano)
    seen = []
    masks = automatic_masks(
        model,
        np.zeros((64, 64, 3), np.uint8),
        AutoParams(),
        report=lambda done, total, _: seen.append((done, total)),
    )
    assert len(masks) == 0
    assert model.prompts < 32 * 32 // 2


def test_a_model_without_a_guide_says_so():
    model = load_model(find_model("sam2-nano"), device="cpu", random_weights=True)
    image = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(ModelError, match=r"sam2-nano has no guide") as refused:
        automatic_masks(model, image, AutoParams(search="guided"))
    assert "grid" in str(refused.value.hint)
    counting = Counting(model)
    automatic_masks(counting, image, AutoParams(points_per_side=3))
    assert counting.prompts == 9

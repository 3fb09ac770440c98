"""What is learnt from is what is looked at later, and variants stay true."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from engine.finetune.tiny import Heard, sample, tiny_model
from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.finetune.lessons import Lessons
from napari_sam_suite.engine.finetune.trainee import Trainee
from napari_sam_suite.engine.finetune.views import (
    HARDLY,
    Scene,
    View,
    inference_views,
    show,
    vary,
)
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.tiles import Region

if TYPE_CHECKING:
    from pathlib import Path


def test_training_gives_the_encoder_the_images_that_segmenting_gives_it(
    tmp_path: Path,
) -> None:
    one = sample(shape=(150, 140))
    segmenting, training = tiny_model(), tiny_model()
    automatic_masks(segmenting, one.rgb, AutoParams(points_per_side=4))
    views = inference_views([one], training.spec, "auto")
    heard = Heard()
    Lessons(Trainee(training), [one], views, tmp_path, report=heard.report, stop=bool)
    assert len(views) > 4
    assert len(segmenting.seen) == len(training.seen) == len(views)
    for a, b in zip(segmenting.seen, training.seen, strict=True):
        assert (a == b).all()


@pytest.mark.parametrize("turn", range(8))
def test_objects_turn_with_their_pixels(turn: int) -> None:
    one = sample()
    view = View(0, Region(4, 2, 60, 50), turn)
    scene, pixels = Scene(view, one), show(view, one.rgb)
    assert scene.shape == pixels.shape[:2] == scene.owner.shape
    bright = pixels[..., 0] > 100
    for number in range(len(scene)):
        assert bright[scene.mask(number)].all()
    assert (bright == (scene.owner != -1)).all()


def test_variants_are_of_about_the_same_scale_and_inside_the_frame() -> None:
    samples = [sample(shape=(150, 140))]
    views = inference_views(samples, tiny_model().spec, "auto")
    drawn = vary(views, samples, 3, seed=1)
    assert len(drawn) == 3 * len(views)
    assert drawn == vary(views, samples, 3, seed=1)
    for view, first in zip(drawn, np.repeat(np.arange(len(views)), 3), strict=True):
        region, own = view.region, views[first].region
        assert 0 <= region.y0 < region.y1 <= 150
        assert 0 <= region.x0 < region.x1 <= 140
        assert 0.4 < np.prod(region.shape) / np.prod(own.shape) < 2.3


def test_an_object_of_which_little_is_seen_is_neither_asked_for_nor_background() -> (
    None
):
    one = sample()
    y0, x0 = (int(v) for v in one.masks.boxes[0][:2])
    scene = Scene(View(0, Region(0, 0, y0 + 2, x0 + 2)), one)
    assert len(scene) == 0
    assert (scene.owner == HARDLY).sum() == 4


def test_embeddings_that_do_not_fit_in_memory_come_from_files(tmp_path: Path) -> None:
    one, model, heard = sample(shape=(150, 140)), tiny_model(), Heard()
    views = inference_views([one], model.spec, "auto")
    args = Trainee(model), [one], views, tmp_path
    lessons = Lessons(*args, report=heard.report, stop=bool, room=100_000)
    encoded = len(model.seen)
    first = [lessons[k].embedding.features["image"] for k in range(len(lessons))]
    again = [lessons[k].embedding.features["image"] for k in range(len(lessons))]
    assert len(model.seen) == encoded, "nothing is encoded twice"
    assert len(list(tmp_path.iterdir())) == len(views)
    assert all(bool((a == b).all()) for a, b in zip(first, again, strict=True))

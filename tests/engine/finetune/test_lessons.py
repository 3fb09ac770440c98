"""What the encoder said about views, and where answers to them are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.finetune.tiny import Heard, masks_of, sample, square, tiny_model
from napari_sam_suite.engine.embed import EmbeddingCache, Remembering
from napari_sam_suite.engine.finetune.data import Sample
from napari_sam_suite.engine.finetune.drawing import draw_clicks, draw_corrections
from napari_sam_suite.engine.finetune.lessons import Lesson, Lessons
from napari_sam_suite.engine.finetune.trainee import Trainee
from napari_sam_suite.engine.finetune.views import Scene, View, inference_views
from napari_sam_suite.engine.models.protocol import Embedding
from napari_sam_suite.engine.tiles import Region

if TYPE_CHECKING:
    from pathlib import Path

SIDE, LOW = 128, 32


def test_lessons_are_the_same_whether_embeddings_are_remembered_on_disk_or_not(
    tmp_path: Path,
) -> None:
    samples, heard = [sample()], Heard()
    remembering = Remembering(tiny_model(), EmbeddingCache(folder=tmp_path / "kept"))
    found = []
    for model in (tiny_model(), remembering):
        trainee = Trainee(model)
        views = inference_views(samples, trainee.spec, "off")
        lessons = Lessons(
            trainee, samples, views, tmp_path, report=heard.report, stop=bool
        )
        found.append(lessons[0].embedding.features)
    first, second = found
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (tmp_path / "kept").exists(), "views of a training crowd nothing out"


def test_corrections_fall_on_the_view_and_not_on_what_it_is_padded_with() -> None:
    # SAM 1 scales the longer side to its input and pads the other one.
    shape = (32, 64)
    mask = square(shape, 22, 40, 8)
    rgb = np.zeros((*shape, 3), np.uint8)
    view = View(0, Region(0, 0, *shape))
    scene = Scene(view, Sample("wide", rgb, masks_of(shape, mask)))
    lesson = Lesson(Embedding({}, shape, (64, 128), padded=True), scene)

    logits = torch.full((1, LOW, LOW), -9.0)
    logits[:, LOW // 2 :] = 9.0  # the padding is taken for an object
    wrong = lesson.find_errors([0], logits, SIDE)
    assert wrong.shape == (1, 16, 32)
    assert wrong.any()

    rng = np.random.default_rng(0)
    clicks = draw_clicks(scene, 3, rng)
    one = clicks.select([clicks.objects.index(0)])
    for _ in range(5):
        again = draw_corrections(scene, one, logits[:, None], wrong, rng)
        y, x = np.round(again.prompts.points[0, 1]).astype(int)
        assert mask[y, x]
        assert again.prompts.labels[0, 1] == 1

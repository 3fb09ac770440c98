"""The scripts of `training/` speak of the same things as the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.guides import PLACES, discs, perfect_guide
from napari_sam_suite.engine import guidance
from napari_sam_suite.engine.models.protocol import Decoded, Embedding, Prompts

SCRIPTS = Path(__file__).resolve().parents[1] / "training"
SIDE = 4 * PLACES


@pytest.fixture
def leaning(monkeypatch):
    """`training/leaning.py`, with the fence around boxes that the engine has."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import leaning

    monkeypatch.setattr(leaning, "_FENCE", guidance._NEVER)
    monkeypatch.setattr(guidance, "filling", lambda *_: 0.0)
    return leaning


PROMPTS = {
    "a click": ([[[70.0, 120.5]], [[168.0, 130.0]]], [[1], [1]]),
    "several clicks": (
        [[[70, 120], [160, 130], [20, 20]], [[168, 130], [80, 90], [175, 120.0]]],
        [[1, 0, 1], [1, 1, 0]],
    ),
    "a box": ([[[52, 92.0], [124, 164]], [[122, 91], [198.5, 165]]], [[2, 3], [2, 3]]),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_answers_lean_in_training_as_they_do_in_use(leaning, name):
    rng = np.random.default_rng(3)
    guide = perfect_guide(discs((32, 22, 9), (32, 40, 9)))
    guide += rng.normal(0, 0.3, guide.shape).astype(np.float32)
    logits = rng.normal(0, 2, (2, 3, PLACES, PLACES)).astype(np.float32)
    points, kinds = (np.array(part) for part in PROMPTS[name])
    if name == "a box":
        boxes = points[..., ::-1].reshape(2, 4)
        prompts = Prompts(np.zeros((2, 0, 2)), np.zeros((2, 0), int), boxes)
    else:
        prompts = Prompts(points[..., ::-1], kinds)
    embedding = Embedding({"guide": guide[None]}, (SIDE, SIDE), (512, 512))
    answers = Decoded(
        logits.reshape(6, PLACES, PLACES),
        np.full(6, 0.5, np.float32),
        np.repeat([0, 1], 3),
        np.tile([1, 2, 3], 2),
    )
    found = guidance.Guidance.of(embedding)
    assert found is not None
    wanted = found.lean(answers, prompts).logits
    tensors = (torch.tensor(a)[None] for a in (logits, guide, points, kinds))
    had = leaning.lean(*tensors).numpy().reshape(wanted.shape)
    assert had == pytest.approx(wanted, abs=1e-4)
    assert abs(wanted - answers.logits).max() > 1

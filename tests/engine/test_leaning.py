"""Answers lean in training as they do in use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.guides import PLACES, discs, perfect_guide
from napari_sam_suite.engine import guidance
from napari_sam_suite.engine.models.protocol import Decoded, Embedding, Prompts

SIDE = 4 * PLACES
SCRIPTS = Path(__file__).resolve().parents[2] / "training"


@pytest.fixture
def leaning(monkeypatch):
    """`training/leaning.py`, with the fence around boxes that the engine has."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import leaning

    monkeypatch.setattr(leaning, "FENCE", guidance.NEVER)
    for cut in ("filling", "siding"):
        monkeypatch.setattr(guidance, cut, lambda *_: 0.0)
    return leaning


NOTHING = np.zeros((2, 0, 2)), np.zeros((2, 0), int)
SLIM = np.array([[92.0, 60, 164, 61], [120, 122, 121, 123.0]])
BOXES = np.array([[92.0, 52, 164, 124], [91, 122, 165, 198.5]])
PROMPTS = {
    "a click": Prompts(
        np.array([[[120.5, 70.0]], [[130, 168.0]]]), np.ones((2, 1), int)
    ),
    "several clicks": Prompts(
        np.array(
            [[[120, 70], [130, 160], [20, 20]], [[130, 168], [90, 80], [120, 175.0]]]
        ),
        np.array([[1, 0, 1], [1, 1, 0]]),
    ),
    "a box": Prompts(*NOTHING, BOXES),
    "a box of less than a place": Prompts(*NOTHING, SLIM),
}


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (200, 280)])
@pytest.mark.parametrize("name", PROMPTS)
def test_answers_lean_in_training_as_they_do_in_use(leaning, name, shape):
    rng = np.random.default_rng(3)
    guide = perfect_guide(discs((32, 22, 9), (32, 40, 9)))
    guide += rng.normal(0, 0.3, guide.shape).astype(np.float32)
    logits = rng.normal(0, 2, (6, PLACES, PLACES)).astype(np.float32)
    answers = Decoded(
        logits, np.full(6, 0.5, np.float32), np.repeat([0, 1], 3), np.tile([1, 2, 3], 2)
    )
    found = guidance.Guidance.of(Embedding({"guide": guide[None]}, shape, (512, 512)))
    assert found is not None
    prompts = PROMPTS[name]
    wanted = found.lean(answers, prompts).logits
    points, kinds = prompts.points, prompts.labels
    if prompts.boxes is not None:
        points, kinds = prompts.boxes.reshape(2, 2, 2), np.tile([2, 3], (2, 1))
    scale = np.array([PLACES, PLACES]) / shape
    places = torch.tensor((points + 0.5) * scale - 0.5).float()
    had = leaning.lean(
        torch.tensor(logits.reshape(1, 2, 3, PLACES, PLACES), requires_grad=True),
        torch.tensor(guide)[None],
        places[None],
        torch.tensor(kinds)[None],
        tuple(scale),
    )
    assert had.detach().numpy().reshape(wanted.shape) == pytest.approx(wanted, abs=1e-4)
    assert abs(wanted - logits).max() > 1
    assert had.requires_grad

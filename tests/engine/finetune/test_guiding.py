"""What a guide is taught: centres, sizes, and nothing about what is not known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from engine.finetune.tiny import Heard, masks_of, sample, square, tiny_model
from napari_sam_suite.engine.finetune.data import Sample
from napari_sam_suite.engine.finetune.files import read_state, run_folder
from napari_sam_suite.engine.finetune.guiding import guide_loss, guide_targets
from napari_sam_suite.engine.finetune.loop import finetune
from napari_sam_suite.engine.finetune.params import FinetuneParams
from napari_sam_suite.engine.finetune.progress import Progress
from napari_sam_suite.engine.finetune.scoring import Score, _find
from napari_sam_suite.engine.finetune.trainee import Trainee
from napari_sam_suite.engine.finetune.views import HARDLY, Scene, View
from napari_sam_suite.engine.models.nano.config import add_guide
from napari_sam_suite.engine.proposals import propose
from napari_sam_suite.engine.tiles import Region

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (64, 128)
GRID = (32, 32)
RGB = np.zeros((*SHAPE, 3), np.uint8)
PLACES = ((8, 16, 12), (40, 70, 18))
"""Corner and side of two squares."""


def scene(turn: int = 0, *, right: int = SHAPE[1]) -> Scene:
    masks = masks_of(SHAPE, *(square(SHAPE, *place) for place in PLACES))
    return Scene(View(0, Region(0, 0, SHAPE[0], right), turn), Sample("a", RGB, masks))


def sure(targets: np.ndarray) -> np.ndarray:
    """What a guide says that knows the targets."""
    said = targets.copy()
    said[:2] = np.where(targets[:2] > 0, 20.0, -20.0)
    return said


@pytest.mark.parametrize("turn", range(8))
def test_a_guide_that_knows_its_targets_proposes_the_middles_of_objects(
    turn: int,
) -> None:
    one = scene(turn)
    points = propose(sure(guide_targets(one, GRID)[0]), one.shape)
    middles = [np.argwhere(one.mask(k)).mean(0) for k in range(len(one))]
    assert len(points) == len(middles) == 2
    for middle in middles:
        assert np.abs(points - middle).max(1).min() <= 4


def test_the_loss_is_lowest_where_all_is_as_it_should_be() -> None:
    targets, owner = guide_targets(scene(), GRID)
    right = torch.from_numpy(sure(targets))[None]
    assert guide_loss(right, targets, owner, 1.0) < 1e-4
    for channel in range(5):
        wrong = right.clone()
        wrong[:, channel] = wrong[:, channel] + 25 if channel < 2 else 9.0
        assert guide_loss(wrong, targets, owner, 1.0) > 0.1


def test_the_loss_is_its_formula() -> None:
    targets, owner = guide_targets(scene(), GRID)
    said = np.random.default_rng(0).normal(0, 1, (1, 5, *GRID))
    inside = owner >= 0
    weight = np.where(inside, 1.0, 0.1)
    p = 1 / (1 + np.exp(-said[0, :2]))
    entropy = -targets[:2] * np.log(p) - (1 - targets[:2]) * np.log(1 - p)
    first, second = (entropy * weight).mean((1, 2))
    error = np.abs(said[0, 2:] - targets[2:])
    smooth = np.where(error < 0.25, error**2 / 0.5, error - 0.125)
    ways = (smooth * np.array([1, 1, 0.3])[:, None, None]).sum(0)[inside].sum()
    expected = first + 2 * second + ways / inside.sum()
    found = guide_loss(torch.from_numpy(said), targets, owner, 0.1)
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_places_of_an_object_that_is_hardly_seen_are_not_judged() -> None:
    cut = scene(right=73)
    targets, owner = guide_targets(cut, GRID)
    unknown = owner == -2
    assert unknown.any()
    said = torch.zeros(1, 5, *GRID)
    other = said.clone()
    other[0, :, torch.from_numpy(unknown)] = 30.0
    first, second = (guide_loss(s, targets, owner, 1.0) for s in (said, other))
    assert torch.equal(first, second)


@pytest.mark.parametrize("train", ["decoder", "neck", "encoder"])
def test_the_guide_learns_whatever_of_the_encoder_does(
    tmp_path: Path, train: str
) -> None:
    model: Any = tiny_model()
    add_guide(model.network)
    before = {n: t.clone() for n, t in model.network.state_dict().items()}
    params = FinetuneParams(
        train=train,
        epochs=1,
        views=2,
        prompts=2,
        variants=0,
        batch_size=1,
        calibrate=False,
    )
    out = tmp_path / "a.safetensors"
    finetune(model, [sample(0), sample(1)], params, out, Heard())
    found = read_state(run_folder(out) / "last.safetensors")
    assert found is not None
    now = {n.removeprefix("now/"): t for n, t in found[0].items() if "now/" in n}
    changed = {n for n, value in now.items() if not torch.equal(before[n], value)}
    assert {n for n in before if n.startswith("guide.")} <= changed
    learnt = {".".join(n.split(".")[:2]) for n in changed if "image_encoder" in n}
    neck, trunk = "image_encoder.neck", "image_encoder.trunk"
    expected = {"decoder": set(), "neck": {neck}, "encoder": {neck, trunk}}
    assert learnt == expected[train]
    after = model.network.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before), "the base is its own"


def test_what_a_trainee_sees_is_what_inference_sees() -> None:
    model: Any = tiny_model()
    add_guide(model.network)
    rgb = sample().rgb
    trainee = Trainee(model)
    found = trainee.embed(trainee.look(rgb)).features
    for name, value in model.encode([rgb])[0].features.items():
        assert torch.equal(found[name], value)
        assert found[name].requires_grad == (name == "guide")


def test_a_guide_is_judged_by_what_it_proposes() -> None:
    one = scene()
    middles = np.array([np.argwhere(one.mask(k)).mean(0) for k in range(2)])
    assert _find(middles, one) == (2, 2, 2)
    twice_and_beside = np.concatenate([middles[:1], middles[:1] + 1, [[60.0, 120.0]]])
    assert _find(twice_and_beside, one) == (1, 3, 2)
    assert _find(np.zeros((0, 2)), one) == (0, 0, 2)
    cut = scene(right=73)
    unseen = np.argwhere(cut.owner == HARDLY)[:1].astype(float)
    assert _find(unseen, cut) == (0, 0, 1)


def test_a_better_guide_makes_a_better_score() -> None:
    assert Score(0.5, 0.5, 0.5, guide=0.9).value > Score(0.5, 0.5, 0.5).value
    progress = Progress()
    for guide in (0.1, 0.6, 0.3):
        progress.add(1.0, Score(0.5, 0.5, 0.5, guide=guide))
    assert progress.best_epoch == 1
    assert Progress.of(progress.as_dict()).best == progress.best

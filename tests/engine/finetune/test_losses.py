"""The losses are what their formulas say, computed again by numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_sam_suite.engine.finetune.losses import (
    actual_iou,
    instance_loss,
    mask_loss,
    seed_loss,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (5, 4, 16, 16))
IOU = RNG.uniform(0, 1, (5, 4))
SHARE = RNG.uniform(0, 1, (5, 16, 16)) * (RNG.uniform(0, 1, (5, 16, 16)) > 0.6)
SHARE[3:] = 0


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def mask_numbers() -> np.ndarray:
    target = np.clip((SHARE - 0.5) * 2 + 0.5, 0, 1)[:, None]
    chance = sigmoid(LOGITS)
    entropy = -target * np.log(chance) - (1 - target) * np.log(1 - chance)
    area = SHARE.sum((1, 2))[:, None] + 4
    both = chance.sum((2, 3)) + target.sum((2, 3))
    dice = 1 - (2 * (chance * target).sum((2, 3)) + 1) / (both + 1)
    return 0.5 * entropy.sum((2, 3)) / area + dice


def iou_numbers() -> np.ndarray:
    answer, target = sigmoid(2 * LOGITS), SHARE[:, None]
    union = np.maximum(answer, target).sum((2, 3))
    return np.minimum(answer, target).sum((2, 3)) / np.maximum(union, 1)


def test_the_seed_loss_is_entropy_and_a_twentieth_of_the_error_of_the_rating() -> None:
    logits, mask = LOGITS[:, 0], (SHARE > 0.5).astype(float)
    p = sigmoid(logits)
    entropy = -mask * np.log(p + 1e-7) - (1 - mask) * np.log(1 - p + 1e-7)
    inter = (mask * (p > 0.5)).sum((1, 2))
    union = mask.sum((1, 2)) + (p > 0.5).sum((1, 2)) - inter
    expected = entropy.mean((1, 2)) + 0.05 * abs(IOU[:, 0] - inter / (union + 1e-7))
    found = seed_loss(tensor(logits), tensor(IOU[:, 0]), tensor(mask))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_mask_loss_and_iou_are_their_formulas() -> None:
    logits, share = tensor(LOGITS), tensor(SHARE)
    np.testing.assert_allclose(mask_loss(logits, share), mask_numbers(), atol=1e-6)
    np.testing.assert_allclose(actual_iou(logits, share), iou_numbers(), atol=1e-6)


@pytest.mark.parametrize("single", [False, True])
def test_the_loss_of_instances_takes_the_best_of_three_and_rates_all(
    single: bool,
) -> None:
    losses = mask_numbers()
    best = 0.97 * losses[:, 1:].min(1) + 0.03 * losses[:, 1:].mean(1)
    first, three = (1.0, 0.3) if single else (0.3, 1.0)
    real = SHARE.sum((1, 2)) > 0
    truth = iou_numbers() * real[:, None]
    weight = np.array([1, 1, 1, 1, 0.1])
    rating = 3 * ((IOU - truth) ** 2).mean(1) * weight
    expected = (three * best + first * losses[:, 0]) * real + rating
    found = instance_loss(
        tensor(LOGITS), tensor(IOU), tensor(SHARE), tensor(weight), single=single
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_clicks_on_the_background_teach_that_their_answers_are_worth_nothing() -> None:
    iou = tensor(IOU[3:4]).requires_grad_()
    logits = tensor(LOGITS[3:4]).requires_grad_()
    one = torch.ones(1, dtype=torch.float64)
    instance_loss(logits, iou, tensor(SHARE[3:4]), one, single=False).sum().backward()
    assert (iou.grad > 0).all(), "a step lowers every rating"
    assert not logits.grad.any(), "and moves no mask"

"""What an answer to a prompt is worth: masks, and the predicted IoU.

Every function gives one number per prompt, so that a step may be computed in parts of
any size and added up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_TINY = 1e-7
_IOU_WEIGHT = 3.0
_LEAK = 0.03
"""Part of the loss that the two worse of three answers share."""
_SIDE = 0.3
"""Weight of the answers that a prompt does not use."""


def mask_loss(logits: Tensor, share: Tensor) -> Tensor:
    """Entropy over the object's area, plus dice, of M answers to each of B prompts.

    Pixels count one over the object's area, so that a small object weighs what a
    large one does and each wrong pixel of it more; dice is that of Milletari et al.
    2016.

    Parameters
    ----------
    logits : Tensor, shape (B, M, h, w)
    share : Tensor, shape (B, h, w)
        Part of each pixel inside the object, 0..1.

    Returns
    -------
    Tensor, shape (B, M)
    """
    target = sharpened(share)[:, None].expand_as(logits)
    area = share.sum((-2, -1))[:, None] + 4
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    chance = logits.sigmoid()
    common = (chance * target).sum((-2, -1))
    both = chance.sum((-2, -1)) + target.sum((-2, -1))
    dice = 1 - (2 * common + 1) / (both + 1)
    return 0.5 * entropy.sum((-2, -1)) / area + dice


def sharpened(share: Tensor) -> Tensor:
    """Steeper edges at the same outline."""
    return ((share - 0.5) * 2 + 0.5).clamp(0, 1)


def actual_iou(logits: Tensor, share: Tensor) -> Tensor:
    """IoU of answers (B, M, h, w) with objects (B, h, w), pixels at the edge in part.

    Returns (B, M), without gradient.
    """
    with torch.no_grad():
        answer = (logits * 2).sigmoid()
        target = share[:, None]
        common = torch.minimum(answer, target).sum((-2, -1))
        union = torch.maximum(answer, target).sum((-2, -1))
        return common / union.clamp(min=1)


def instance_loss(
    logits: Tensor, iou: Tensor, share: Tensor, weight: Tensor, *, single: bool
) -> Tensor:
    """Loss of the four answers to B prompts: of three the best, and all ratings.

    Parameters
    ----------
    logits : Tensor, shape (B, 4, h, w)
        Of the single answer, then of the three.
    iou : Tensor, shape (B, 4)
        The model's own ratings.
    share : Tensor, shape (B, h, w)
        The object; zeros where the prompt is on the background, whose answers are
        worth nothing: that is what keeps automatic masks from finding things there.
    weight : Tensor, shape (B,)
        Of the ratings.
    single : bool
        Whether such prompts use the single answer (boxes, several clicks).

    Returns
    -------
    Tensor, shape (B,)
    """
    real = (share.sum((-2, -1)) > 0).to(logits.dtype)
    losses = mask_loss(logits, share)
    best = losses[:, 1:].min(1).values
    best = (1 - _LEAK) * best + _LEAK * losses[:, 1:].mean(1)
    first, three = (1.0, _SIDE) if single else (_SIDE, 1.0)
    truth = actual_iou(logits, share) * real[:, None]
    rating = (iou - truth).square().mean(1)
    return (three * best + first * losses[:, 0]) * real + _IOU_WEIGHT * rating * weight


def seed_loss(logits: Tensor, iou: Tensor, mask: Tensor) -> Tensor:
    """The loss of Dataloop's SAM 2 adapter: entropy + 0.05 |predicted IoU - IoU|.

    Parameters
    ----------
    logits : Tensor, shape (B, h, w)
        Of the answer that inference uses.
    iou : Tensor, shape (B,)
        Its rating.
    mask : Tensor, shape (B, h, w)
        0 or 1.

    Returns
    -------
    Tensor, shape (B,)
    """
    # Of the two terms of the entropy one is 0 at each pixel.
    right = (logits * (2 * mask - 1)).sigmoid()
    entropy = -torch.log(right + _TINY)
    with torch.no_grad():
        answer, there = logits > 0, mask > 0
        common = (answer & there).sum((-2, -1))
        union = (answer | there).sum((-2, -1))
        actual = common / (union + _TINY)
    return entropy.mean((-2, -1)) + 0.05 * (iou - actual).abs()

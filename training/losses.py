"""Losses: dense auxiliary targets of the encoder, masks and predicted IoU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STRIDE = 4
OFFSET_UNIT = 32.0


def dense_targets(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Targets of the model's ``Guide`` from (B, Y, X) instance ids.

    Returns
    -------
    targets : (B, 5, Y/4, X/4) float
    ids : (B, Y/4, X/4) int
        Instance ids at the feature positions.
    """
    ids = labels[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].long()
    batch, height, width = ids.shape
    count = int(ids.max()) + 1
    flat = ids + torch.arange(batch, device=ids.device)[:, None, None] * count
    flat = flat.flatten()
    ys, xs = torch.meshgrid(
        torch.arange(height, device=ids.device, dtype=torch.float32),
        torch.arange(width, device=ids.device, dtype=torch.float32),
        indexing="ij",
    )
    area = torch.bincount(flat, minlength=batch * count).clamp(min=1).float()
    offsets = []
    for grid in (ys, xs):
        values = grid.expand(batch, -1, -1).flatten()
        centre = torch.zeros_like(area).index_add_(0, flat, values) / area
        offsets.append((centre[flat] - values).view_as(ids) * STRIDE / OFFSET_UNIT)
    size = (area[flat].view_as(ids).sqrt() * STRIDE / OFFSET_UNIT).log()
    inside = ids > 0
    same = torch.ones_like(inside)
    for axis in (1, 2):
        step = ids.diff(dim=axis) != 0
        edge = torch.zeros_like(inside)
        index = [slice(None)] * 3
        index[axis] = slice(0, -1)
        edge[tuple(index)] |= step
        index[axis] = slice(1, None)
        edge[tuple(index)] |= step
        same &= ~edge
    boundary = inside & ~same
    targets = [inside.float(), boundary.float(), *offsets, size]
    return torch.stack(targets, dim=1), ids


def dense_loss(output: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Foreground and boundary entropy, offset and size error inside objects.

    ``weights`` (B,) scales the background term of images whose truth is partial.
    """
    targets, ids = dense_targets(labels)
    inside = (ids > 0).float()
    pixel = torch.where(ids > 0, 1.0, weights.view(-1, 1, 1))
    logits = F.binary_cross_entropy_with_logits(
        output[:, :2], targets[:, :2], reduction="none"
    )
    entropy = (logits[:, 0] * pixel).mean() + 2 * (logits[:, 1] * pixel).mean()
    error = F.smooth_l1_loss(output[:, 2:], targets[:, 2:], reduction="none", beta=0.25)
    scale = torch.tensor([1.0, 1.0, 0.3], device=output.device).view(1, 3, 1, 1)
    count = inside.sum().clamp(min=1)
    return entropy + ((error * scale).sum(1) * inside).sum() / count

"""Prompts as people give them, and the loss of the answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from leaning import lean

if TYPE_CHECKING:
    from network import Encoded, Trainee, Window

STRIDE = 4
PLAIN = 0.25
"""Share of the loss that looks at answers as the decoder gives them."""


def choose_points(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` click positions on each image.

    Two thirds fall on objects, every object equally likely and half of those near
    its middle; the rest anywhere, as a grid would.

    Parameters
    ----------
    labels : (B, Y, X) int tensor
    count : int
    generator : torch.Generator

    Returns
    -------
    (B, count, 2) long tensor of (y, x) pixels.
    """
    height, width = labels.shape[1:]
    size = torch.tensor([height, width])
    points = (torch.rand(len(labels), count, 2, generator=generator) * size).long()
    aimed = round(count * 0.67)
    for image, ids in zip(points, labels, strict=False):
        counts = torch.bincount(ids.flatten())
        counts[0] = 0
        present = torch.nonzero(counts >= 12).flatten()
        if not len(present):
            continue
        pick = torch.randint(len(present), (aimed,), generator=generator)
        where = torch.nonzero(ids)
        values = ids[where[:, 0], where[:, 1]]
        order = torch.argsort(values, stable=True)
        starts = torch.cumsum(counts, 0) - counts
        for slot, value in enumerate(present[pick].tolist()):
            first, area = int(starts[value]), int(counts[value])
            tries = torch.randint(area, (4,), generator=generator)
            chosen = where[order[first + tries]]
            if slot % 2:
                member = where[order[first : first + area]].float()
                away = (chosen - member.mean(0)).square().sum(1)
                image[slot] = chosen[away.argmin()]
            else:
                image[slot] = chosen[0]
    return points


def pick_ids(labels: Tensor, points: Tensor) -> Tensor:
    """(B, K) id under each of (B, K, 2) points."""
    rows = torch.arange(len(labels), device=labels.device)[:, None]
    return labels[rows, points[..., 0], points[..., 1]].long()


def pooled_masks(labels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of (B, K) ids at full size (bool) and pooled to a quarter (share)."""
    full = (labels[:, None] == ids[..., None, None]) & (ids > 0)[..., None, None]
    quarter = F.avg_pool2d(full.flatten(0, 1).float()[:, None], STRIDE)[:, 0]
    return full, quarter.unflatten(0, ids.shape)


def boxes_of(full: Tensor) -> Tensor:
    """(B, K, 4) boxes x0, y0, x1, y1 (last pixels included) of bool masks."""
    rows, columns = full.any(3).float(), full.any(2).float()
    y0, x0 = rows.argmax(2), columns.argmax(2)
    y1 = full.shape[2] - 1 - rows.flip(2).argmax(2)
    x1 = full.shape[3] - 1 - columns.flip(2).argmax(2)
    return torch.stack([x0, y0, x1, y1], dim=-1).float()


def soft_target(share: Tensor) -> Tensor:
    """Sharpen area shares so that logits are steep but the outline stays put."""
    return ((share - 0.5) * 2 + 0.5).clamp(0, 1)


def mask_losses(logits: Tensor, share: Tensor, balance: float) -> Tensor:
    """Weighted entropy plus dice; (B, K, M) per answer.

    Object pixels weigh one over the object's area. So do the others when ``balance``
    is 0; when it is 1 they weigh one over their own number, which leaves no
    comfortable answer "all background" to get stuck in at the beginning.
    """
    target = soft_target(share)[:, :, None].expand_as(logits)
    area = share.sum((-2, -1))[:, :, None] + 4
    rest = target.shape[-1] * target.shape[-2] - area + 8
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    inside = (entropy * target).sum((-2, -1)) / area
    outside = (entropy * (1 - target)).sum((-2, -1))
    entropy = inside + outside / (area ** (1 - balance) * rest**balance)
    chance = logits.sigmoid()
    common = (chance * target).sum((-2, -1))
    dice = 1 - (2 * common + 1) / (chance.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    return 0.5 * entropy + dice


def actual_iou(logits: Tensor, share: Tensor) -> Tensor:
    """(B, K, M) IoU of the thresholded answers; a softened count of edge pixels."""
    answer = (logits * 2).sigmoid()
    target = share[:, :, None]
    common = torch.minimum(answer, target).sum((-2, -1))
    union = torch.maximum(answer, target).sum((-2, -1))
    return common / union.clamp(min=1)


def _answer_loss(
    logits: Tensor,
    iou: Tensor,
    share: Tensor,
    part: Tensor,
    weights: Tensor,
    leak: float,
    balance: float,
    single: bool,
) -> dict[str, Tensor]:
    """Loss of four answers per prompt: min over the last three, IoU on all.

    ``single`` says that the first answer is the one used for such prompts (boxes,
    several clicks): it then learns most, else the other three do.

    ``share`` is the object's mask, ``part`` an equally good answer where there is
    one (else zeros); prompts on the background have neither.
    """
    real = (share.sum((-2, -1)) > 0).float()
    losses = mask_losses(logits, share, balance)
    best = losses[..., 1:].min(dim=-1).values
    best = (1 - leak) * best + leak * losses[..., 1:].mean(-1)
    has_part = (part.sum((-2, -1)) > 0).float()
    if has_part.any():
        other = mask_losses(logits[..., 1:, :, :], part, balance).min(dim=-1).values
        best = best + has_part * other
    count = real.sum().clamp(min=1)
    shares = (1.0, 0.3) if single else (0.3, 1.0)
    mask_loss = ((shares[1] * best + shares[0] * losses[..., 0]) * real).sum() / count
    with torch.no_grad():
        truth = torch.maximum(actual_iou(logits, share), actual_iou(logits, part))
        truth = truth * torch.maximum(real, has_part)[..., None]
    importance = torch.where(real > 0, 1.0, weights[:, None])[..., None]
    iou_loss = ((iou - truth).square() * importance).mean()
    reached = truth[..., 0] if single else truth[..., 1:].max(-1).values
    return {
        "loss": mask_loss + 3.0 * iou_loss,
        "iou_error": iou_loss,
        "reached": (reached * real).sum() / count,
    }


def correction_points(
    logits: Tensor, full: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One click per prompt where the answer is wrong; a hit on the object if not.

    Half of the time anywhere in the error, else in the middle of a large one.

    Parameters
    ----------
    logits : (B, K, Y/4, X/4) tensor
    full : (B, K, Y, X) bool tensor

    Returns
    -------
    points : (B, K, 1, 2) float tensor, (x, y)
    kinds : (B, K, 1) long tensor
    """
    truth = full[..., STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    wrong = (logits > 0) != truth
    noise = torch.rand(wrong.shape, generator=generator).to(wrong.device)
    weight = wrong.float()
    if torch.rand(1, generator=generator) < 0.5:
        weight = weight * F.avg_pool2d(weight, 7, 1, padding=3) ** 4
    flat = (noise * weight + 1e-9 * noise * truth).flatten(2).argmax(-1)
    width = logits.shape[-1]
    y, x = flat // width, flat % width
    kinds = truth.flatten(2).gather(2, flat[..., None]).long()
    points = torch.stack([x, y], -1)[:, :, None] * STRIDE + STRIDE // 2
    return points.float(), kinds


@dataclass
class Task:
    """What the prompts of one batch ask for."""

    full: Tensor
    share: Tensor
    part: Tensor
    weights: Tensor
    leak: float
    balance: float
    single: bool = False

    def first(self, count: int) -> Task:
        """The first ``count`` prompts of each image, as unambiguous ones."""
        part = torch.zeros_like(self.part[:, :count])
        return replace(
            self,
            full=self.full[:, :count],
            share=self.share[:, :count],
            part=part,
            single=True,
        )

    def loss(self, answers: Answers) -> dict[str, Tensor]:
        """Loss of the answers (B, K, 4, ...) to these prompts.

        Mostly of those that lean on the guide; estimates of IoU are of them.
        """
        leaning = self._loss(answers.leaning, answers.iou)
        plain = self._loss(answers.plain, answers.iou.detach())
        loss = (1 - PLAIN) * leaning["loss"] + PLAIN * plain["loss"]
        return leaning | {"loss": loss, "plain": plain["reached"]}

    def _loss(self, logits: Tensor, iou: Tensor) -> dict[str, Tensor]:
        return _answer_loss(
            logits.float(),
            iou.float(),
            self.share,
            self.part,
            self.weights,
            self.leak,
            self.balance,
            self.single,
        )


@dataclass
class Answers:
    """Answers (B, K, 4, h, w) as the decoder gives them and leaning; their IoU."""

    plain: Tensor
    leaning: Tensor
    iou: Tensor


def noisy_boxes(full: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Boxes of bool masks as two corner points, a tenth of them far off."""
    corners = boxes_of(full)
    size = (corners[..., 2:] - corners[..., :2]).repeat(1, 1, 2)
    sloppy = torch.rand(corners.shape[:2], generator=generator) < 0.1
    spread = torch.where(sloppy, 0.1, 0.02)[..., None].to(size.device) * size
    jitter = torch.randn(corners.shape, generator=generator).to(size.device)
    corners = (corners + jitter * spread.clamp(max=10)).unflatten(-1, (2, 2))
    return corners, torch.tensor([2, 3], device=size.device).expand(corners.shape[:3])


def corrections(
    task: Task, clicks: Tensor, kinds: Tensor, old: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Up to two clicks where the answer ``old`` is wrong, usually with its mask."""
    masks = old.detach().clamp(-32, 32)
    for _ in range(int(torch.randint(0, 3, (1,), generator=generator))):
        more, kind = correction_points(masks, task.full, generator)
        clicks, kinds = torch.cat([clicks, more], 2), torch.cat([kinds, kind], 2)
    bare = torch.rand(1, generator=generator) < 0.25
    return clicks, kinds, None if bare else masks


def prompt_loss(
    network: Trainee,
    encoded: Encoded,
    window: Window,
    labels: Tensor,
    weights: Tensor,
    done: float,
    generator: torch.Generator,
    count: int = 12,
) -> dict[str, Tensor]:
    """Clicks on everything; boxes on half of it; corrections of half, usually.

    ``done`` is the share of the training time gone by: it moves the weights of the
    masks' entropy from balanced to exact, and lets the three answers specialise.
    """
    ids, parts = labels[:, 0], labels[:, 1]
    points = choose_points(ids.cpu(), count, generator).to(ids.device)
    full, share = pooled_masks(ids, pick_ids(ids, points))
    part = torch.zeros_like(share)
    if parts.any():
        part = pooled_masks(parts, pick_ids(parts, points))[1]
    task = Task(
        full,
        share,
        part,
        weights,
        leak=0.1 if done < 0.3 else 0.03,
        balance=float(min(1.0, max(0.0, 1 - (done - 0.08) / 0.4))),
    )
    clicks = points.flip(-1)[:, :, None].float()
    jitter = torch.rand(clicks.shape, generator=generator) - 0.5
    clicks = clicks + jitter.to(clicks.device)
    kinds = torch.ones(clicks.shape[:3], dtype=torch.long, device=clicks.device)

    def ask(points: Tensor, kinds: Tensor, masks: Tensor | None = None) -> Answers:
        plain, iou = network.decode(encoded, window, points, kinds, masks)
        places = ((points + 0.5) / STRIDE - 0.5).flip(-1)
        pixel = (1 / STRIDE, 1 / STRIDE)
        leaning = lean(plain, encoded.dense, places, kinds, pixel)
        return Answers(plain, leaning, iou)

    answers = ask(clicks, kinds)
    parts = task.loss(answers)
    named = {"one_point": parts["reached"], "iou_error": parts["iou_error"]}
    named["plain"] = parts["plain"]
    total = parts["loss"]

    some = task.first(max(4, count // 2))
    boxes, corners = noisy_boxes(some.full, generator)
    answer = some.loss(ask(boxes, corners))
    total = total + 0.7 * answer["loss"]
    named["box"] = answer["reached"]

    if done > 0.1 and torch.rand(1, generator=generator) < 0.8:
        few = task.first(max(4, count // 2))
        size = few.share.shape[1]
        best = answers.iou[:, :size, 1:].argmax(-1)[..., None, None, None]
        best = best.expand(-1, -1, 1, *answers.leaning.shape[-2:])
        old = answers.leaning[:, :size, 1:].gather(2, best)[:, :, 0]
        again = corrections(few, clicks[:, :size], kinds[:, :size], old, generator)
        answer = few.loss(ask(*again))
        total = total + 0.7 * answer["loss"]
        named["corrected"] = answer["reached"]
    return named | {"loss": total}

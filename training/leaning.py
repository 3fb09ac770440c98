"""Answers that lean on the guide as people get them, with gradients.

The formulas of `engine/guidance.py` in torch, for many prompts of one kind. A decoder
that learns through them learns what is missing from the guide's opinion, and the guide
where its opinion misleads. Two things differ: the fence around a box is low, so that a
box that was drawn too small does not dominate, and masks are not cut at the logit that
fills the box or suits the clicks, which is no matter of learning.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_sam_suite.engine import clicked, guidance
from napari_sam_suite.engine.proposals import UNIT

FENCE = -4.0
"""Logit that is added outside a box."""


def lean(
    logits: Tensor,
    guide: Tensor,
    places: Tensor,
    kinds: Tensor,
    pixel: tuple[float, float],
) -> Tensor:
    """Logits that lean on the guide.

    Parameters
    ----------
    logits : Tensor, shape (B, K, M, h, w)
        M answers to each of K prompts on each of B images.
    guide : Tensor, shape (B, 5, h, w)
        Its maps; see `models.nano.guide.Guide`.
    places : Tensor, shape (B, K, P, 2)
        Points (y, x) in places of the maps: the centre of the first is (0, 0).
    kinds : Tensor, shape (B, K, P)
        0 background, 1 object; or 2 and 3 for the corners of a box, nothing else.
    pixel : (float, float)
        Height and width of a pixel of the image, in places.

    Returns
    -------
    Tensor, shape (B, K, M, h, w)
        float32.
    """
    maps = _Maps(guide.float())
    if bool((kinds >= 2).any()):
        meant = maps.boxed(
            places.float(), torch.tensor(pixel, dtype=torch.float32).to(places.device)
        )
    else:
        meant = maps.pointed(places.float(), kinds == 1)
    bound = guidance.SURE
    anyhow = guidance.INSIDE * maps.inside.clamp(-bound, bound)
    return logits.float() + (anyhow[:, None] + meant)[:, :, None]


class _Maps:
    """What the guide says of every place."""

    def __init__(self, guide: Tensor) -> None:
        y, x = (
            torch.arange(n, device=guide.device, dtype=torch.float32)
            for n in guide.shape[-2:]
        )
        self.places = torch.stack(torch.meshgrid(y, x, indexing="ij"))
        self.inside = guide[:, 0]
        self.named = self.places + guide[:, 2:4] * UNIT
        self.size = guide[:, 4].detach().exp() * UNIT

    def pointed(self, places: Tensor, inside: Tensor) -> Tensor:
        """(B, K, h, w) logits in favour of what (B, K, P, 2) points mean.

        Of `inside` (B, K, P), the points on the object, there is at least one.
        """
        last = torch.tensor(self.size.shape[1:], device=places.device) - 1
        index = (places + 0.5).long().clamp(min=0).minimum(last)
        image = torch.arange(len(places), device=places.device)[:, None, None]
        y, x = index.unbind(-1)
        size = self.size[image, y, x].clamp(min=2)
        middle = self.named.detach()[image, :, y, x]
        count = places.shape[2]
        each = [
            torch.where(
                inside[:, :, p, None, None],
                self._near(middle[:, :, p], size[:, :, p]),
                -torch.inf,
            )
            for p in range(count)
        ]
        near = torch.stack(each).amax(0)
        if count == 1:
            return near
        mean = (size * inside).sum(-1) / inside.sum(-1)
        reach = (clicked.AROUND * mean)[..., None, None]
        for p in range(count):
            off = _squares(self.places[None, None], places[:, :, p])
            bump = clicked.CLICK * torch.exp(-off / (2 * reach * reach))
            near = near + torch.where(inside[:, :, p, None, None], bump, -bump)
        return near

    def boxed(self, corners: Tensor, pixel: Tensor) -> Tensor:
        """(B, K, h, w) logits in favour of what is in (B, K, 2, 2) boxes."""
        low, high = corners.amin(2), corners.amax(2)
        first, end = (low - guidance.MARGIN).ceil(), (high + guidance.MARGIN).floor()
        within = torch.ones((), dtype=torch.bool, device=corners.device)
        for axis, along in enumerate(self.places):
            within = within & (along >= first[..., axis, None, None])
            within = within & (along <= end[..., axis, None, None])
        with torch.no_grad():
            middle, size = self._told(within, low, high, pixel)
        near = guidance.BOXED * self._near(middle, size)
        return torch.where(within, near, near + FENCE)

    def _told(
        self, within: Tensor, low: Tensor, high: Tensor, pixel: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Middle (B, K, 2) and size (B, K) of the objects in boxes."""
        middle = (low + high) / 2
        side = (high - low + pixel).clamp(min=1).prod(-1).sqrt()
        size = guidance.FILLED * side
        spread = (guidance.TELLING * side)[..., None, None]
        off = _squares(self.named[:, None], middle)
        weight = within * self.inside.sigmoid()[:, None]
        weight = weight * torch.exp(-off / (2 * spread * spread))
        total = weight.sum((-2, -1))
        known = total >= guidance.LEAST_TOLD
        share = weight / total.clamp(min=1e-9)[..., None, None]
        named = torch.einsum("bkhw,bchw->bkc", share, self.named)
        told = torch.einsum("bkhw,bhw->bk", share, self.size.log())
        return (
            torch.where(known[..., None], (middle + named) / 2, middle),
            torch.where(known, (size * told.exp()).sqrt(), size),
        )

    def _near(self, middle: Tensor, size: Tensor) -> Tensor:
        """(B, K, h, w) logits: high where the middle named is near (B, K, 2) ones."""
        reach = (guidance.REACH * size)[..., None, None]
        near = 1 - _squares(self.named[:, None], middle) / (reach * reach)
        return guidance.STRENGTH * near.clamp(min=-guidance.MOST_AGAINST)


def _squares(places: Tensor, middle: Tensor) -> Tensor:
    """Squared distances of (B, 1, 2, h, w) places to (B, K, 2) middles."""
    y, x = places.unbind(2)
    up, along = middle[..., 0, None, None], middle[..., 1, None, None]
    squares: Tensor = (y - up) ** 2 + (x - along) ** 2
    return squares

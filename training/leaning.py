"""Answers as people get them: leaning on the guide, as `engine/guidance.py` does.

The same formulas for a batch of crops with prompts of one kind, with gradients: what
the decoder learns is then what is missing from the guide's opinion, and the guide
learns where its opinion misleads. Two things differ: the fence around a box is low, so
that a box that was drawn too small does not dominate, and masks are not cut at the
logit that fills the box, which is no matter of learning.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from losses import OFFSET_UNIT, STRIDE

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from napari_sam_suite.engine import guidance

_FENCE = -4.0


def lean(logits: Tensor, dense: Tensor, points: Tensor, kinds: Tensor) -> Tensor:
    """Logits that lean on the guide.

    Parameters
    ----------
    logits : (B, K, M, h, w) tensor
    dense : (B, 5, h, w) tensor
        The guide's maps.
    points : (B, K, P, 2) tensor
        (x, y) in px of the crop, four of them a place.
    kinds : (B, K, P) tensor
        0 background, 1 object; or 2 and 3 for the corners of a box, nothing else.

    Returns
    -------
    (B, K, M, h, w) tensor
    """
    maps = _Maps(dense.float())
    places = ((points.float() + 0.5) / STRIDE - 0.5).flip(-1)
    boxed = bool((kinds >= 2).any())
    meant = maps.boxed(places) if boxed else maps.pointed(places, kinds == 1)
    bound = guidance._SURE
    anyhow = guidance._INSIDE * maps.inside.clamp(-bound, bound)
    return logits.float() + (anyhow[:, None] + meant)[:, :, None]


class _Maps:
    """What the guide says of every place."""

    def __init__(self, dense: Tensor) -> None:
        height, width = dense.shape[-2:]
        y, x = torch.meshgrid(
            torch.arange(height, device=dense.device, dtype=torch.float32),
            torch.arange(width, device=dense.device, dtype=torch.float32),
            indexing="ij",
        )
        self.places = torch.stack([y, x])
        self.inside = dense[:, 0]
        self.named = self.places + dense[:, 2:4] * (OFFSET_UNIT / STRIDE)
        self.size = dense[:, 4].detach().exp() * (OFFSET_UNIT / STRIDE)

    def pointed(self, places: Tensor, inside: Tensor) -> Tensor:
        """(B, K, h, w) logits in favour of what (B, K, P, 2) clicks (y, x) mean."""
        last = torch.tensor(self.size.shape[1:], device=places.device) - 1
        index = (places + 0.5).long().clamp(min=0).minimum(last)
        image = torch.arange(len(places), device=places.device)[:, None, None]
        y, x = index[..., 0], index[..., 1]
        size = self.size[image, y, x].clamp(min=2)
        middle = self.named.detach()[image, :, y, x]
        near = torch.stack(
            [
                torch.where(
                    inside[:, :, p, None, None],
                    self._near(middle[:, :, p], size[:, :, p]),
                    -torch.inf,
                )
                for p in range(places.shape[2])
            ]
        ).amax(0)
        if places.shape[2] == 1:
            return near
        mean = (size * inside).sum(-1) / inside.sum(-1)
        reach = (guidance._AROUND * mean)[..., None, None]
        near = guidance._CORRECTED * near
        for p in range(places.shape[2]):
            off = self._squares(self.places[None, None], places[:, :, p])
            bump = guidance._CLICK * torch.exp(-off / (2 * reach * reach))
            near = near + torch.where(inside[:, :, p, None, None], bump, -bump)
        return near

    def boxed(self, corners: Tensor) -> Tensor:
        """(B, K, h, w) logits in favour of what is in (B, K, 2, 2) boxes."""
        low, high = corners.amin(2), corners.amax(2)
        y, x = self.places
        first, end = (low - guidance._MARGIN).ceil(), (high + guidance._MARGIN).floor()
        within = (y >= first[..., 0, None, None]) & (y <= end[..., 0, None, None])
        within &= (x >= first[..., 1, None, None]) & (x <= end[..., 1, None, None])
        with torch.no_grad():
            middle, size = self._told(within, low, high)
        near = guidance._BOXED * self._near(middle, size)
        return torch.where(within, near, near + _FENCE)

    def _told(self, within: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Middle (B, K, 2) and size (B, K) of the objects in boxes."""
        middle = (low + high) / 2
        side = (high - low + 1 / STRIDE).clamp(min=0).prod(-1).clamp(min=1).sqrt()
        size = guidance._FILLED * side
        spread = (guidance._TELLING * side)[..., None, None]
        off = self._squares(self.named[:, None], middle)
        weight = within * self.inside.sigmoid()[:, None]
        weight = weight * torch.exp(-off / (2 * spread * spread))
        total = weight.sum((-2, -1))
        known = total >= guidance._LEAST_TOLD
        share = weight / total.clamp(min=1e-9)[..., None, None]
        named = torch.einsum("bkhw,bchw->bkc", share, self.named)
        told = torch.einsum("bkhw,bhw->bk", share, self.size.log())
        return (
            torch.where(known[..., None], (middle + named) / 2, middle),
            torch.where(known, (size * told.exp()).sqrt(), size),
        )

    def _near(self, middle: Tensor, size: Tensor) -> Tensor:
        """(B, K, h, w) logits: high where the middle named is near (B, K, 2) ones."""
        reach = (guidance._REACH * size)[..., None, None]
        near = 1 - self._squares(self.named[:, None], middle) / (reach * reach)
        return guidance._STRENGTH * near.clamp(min=-guidance._MOST_AGAINST)

    @staticmethod
    def _squares(places: Tensor, middle: Tensor) -> Tensor:
        """Squared distances of (B, 1, 2, h, w) places to (B, K, 2) ones."""
        y, x = places.unbind(2)
        up, along = middle[..., 0, None, None], middle[..., 1, None, None]
        return (y - up) ** 2 + (x - along) ** 2

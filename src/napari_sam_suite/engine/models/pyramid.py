"""The pyramid of SAM 2's image encoder, with its numbers and without its detours.

Upstream's modules keep images as (B, C, Y, X), while the trunk gives (B, Y, X, C) in
memory: every convolution of one pixel copies its input first. They also compute what
only a video needs, and interpolate the trunk's position embedding anew for each image.
Here a convolution of one pixel is a matrix product on pixels as they lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def pointwise(convolution: Any, features: Tensor) -> Tensor:
    """A convolution of one pixel, of (B, C, Y, X) features that lie channels last."""
    weight = convolution.weight.flatten(1)
    pixels = F.linear(features.permute(0, 2, 3, 1), weight, convolution.bias)
    return pixels.permute(0, 3, 1, 2)


def can_build(neck: Any) -> bool:
    """Whether a ``FpnNeck`` is of the kind that `build` knows: that of all SAM 2."""
    kernels = {tuple(level.conv.kernel_size) for level in neck.convs}
    kind = (neck.fuse_type, neck.fpn_interp_model, kernels)
    return kind == ("sum", "nearest", {(1, 1)})


def build(neck: Any, stages: Sequence[Tensor]) -> list[Tensor]:
    """What a ``FpnNeck`` makes of the trunk's stages, without the positions.

    Parameters
    ----------
    neck : torch.nn.Module
        One for which `can_build` holds.
    stages : sequence of Tensor
        (B, C, Y, X) each, the finest first.

    Returns
    -------
    list of Tensor
        (B, D, Y, X) each, the finest first.
    """
    last = len(stages) - 1
    levels: list[Tensor] = []
    for place in range(last, -1, -1):
        level = pointwise(neck.convs[last - place].conv, stages[place])
        if levels and place in neck.fpn_top_down_levels:
            _add_enlarged(level, levels[0])
        levels.insert(0, level)
    return levels


class Places:
    """The position embedding of a Hiera trunk, kept while nothing learns.

    Parameters
    ----------
    trunk : torch.nn.Module
        The trunk; its ``_get_pos_embed`` is asked.
    """

    def __init__(self, trunk: Any) -> None:
        self._trunk = trunk
        # In one: several threads may ask at once.
        self._kept: tuple[tuple[Any, ...], Tensor] | None = None

    def __call__(self, size: tuple[int, int]) -> Tensor:
        """(1, Y, X, C) for a grid of a size."""
        trunk = self._trunk
        if torch.is_grad_enabled():
            return self._make(size)
        weights = (trunk.pos_embed, trunk.pos_embed_window)
        key = (*size, *((w.data_ptr(), w._version, w.dtype) for w in weights))
        kept = self._kept
        if kept is None or kept[0] != key:
            kept = self._kept = key, self._make(size).contiguous()
        return kept[1]

    def _make(self, size: tuple[int, int]) -> Tensor:
        made: Tensor = type(self._trunk)._get_pos_embed(self._trunk, size)
        return made


def _add_enlarged(level: Tensor, coarser: Tensor) -> None:
    """Add a level of half the size to another, in place."""
    pixels, fewer = level.permute(0, 2, 3, 1), coarser.permute(0, 2, 3, 1)
    b, h, w, c = fewer.shape
    pixels.view(b, h, 2, w, 2, c).add_(fewer.reshape(b, h, 1, w, 1, c))

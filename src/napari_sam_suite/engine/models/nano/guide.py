"""The guide of the embedded model: a small head that says where objects are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from napari_sam_suite.engine.models.pyramid import pointwise

if TYPE_CHECKING:
    from torch import Tensor


class Guide(nn.Module):
    """Five numbers for every place of the finest image features.

    They are the logits of being inside an object and on its boundary, the way (y, x)
    to the centre of the object in units of 32 pixels of the model's input, and the
    logarithm of the object's size: the side of a square of its area, in these units.
    `proposals.propose` makes prompts of them.

    Parameters
    ----------
    width : int
        Channels of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, 48, 1), nn.GELU(), nn.Conv2d(48, 5, 3, padding=1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, Y, X) features to (B, 5, Y, X)."""
        first, activate, last = self.layers
        answer: Tensor = last(activate(pointwise(first, features)))
        return answer

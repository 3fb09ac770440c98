"""What a model's guide should say of a view, and how wrong it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from napari_sam_suite.engine.finetune.views import HARDLY
from napari_sam_suite.engine.proposals import UNIT

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam_suite.engine.finetune.views import Scene

_BOUNDARY = 2.0
"""Weight of the boundary beside the inside."""
_WAYS = (1.0, 1.0, 0.3)
"""Weights of the way (y, x) to the centre and of the logarithm of the size."""
_EXACT = 0.25
"""Error of a way up to which it counts by its square."""


def guide_targets(
    scene: Scene, grid: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """What the guide should say; see `models.nano.guide.Guide`.

    Parameters
    ----------
    scene : Scene
        Objects of the view.
    grid : (int, int)
        Rows and columns of the guide's maps, which cover the view.

    Returns
    -------
    targets : ndarray, shape (5, h, w)
        Inside, boundary, way (y, x) to the centre and size, of what is seen of each
        object; the last three are of no meaning outside of objects.
    owner : ndarray, shape (h, w)
        As that of the scene: -1 for no object, -2 where it is not known.
    """
    rows, columns = (
        ((np.arange(n) + 0.5) * full / n).astype(np.intp)
        for n, full in zip(grid, scene.shape, strict=True)
    )
    owner = scene.owner[np.ix_(rows, columns)]
    targets = np.zeros((5, *grid), np.float32)
    edge = np.zeros(grid, bool)
    for axis in (0, 1):
        step = np.diff(owner, axis=axis) != 0
        before, after = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
        before[axis], after[axis] = (1, 0), (0, 1)
        edge |= np.pad(step, before) | np.pad(step, after)
    targets[0], targets[1] = owner >= 0, (owner >= 0) & edge
    for number in np.unique(owner[owner >= 0]).tolist():
        places = np.nonzero(owner == number)
        for channel, along in enumerate(places, start=2):
            targets[channel][places] = (along.mean() - along) / UNIT
        targets[4][places] = np.log(np.sqrt(len(places[0])) / UNIT)
    return targets, owner


def guide_loss(
    said: Tensor,
    targets: NDArray[np.float32],
    owner: NDArray[np.int32],
    background: float,
) -> Tensor:
    """Entropy of inside and boundary, and the errors of ways and sizes inside.

    Parameters
    ----------
    said : Tensor, shape (1, 5, h, w)
        By the guide.
    targets, owner : ndarray
        From `guide_targets`.
    background : float
        Weight of places without an object.

    Returns
    -------
    Tensor
        One number.
    """
    wanted = torch.from_numpy(targets).to(said)
    inside = wanted[0]
    known = torch.from_numpy(owner != HARDLY).to(said)
    weight = torch.where(inside > 0, inside, background * known)
    entropy = F.binary_cross_entropy_with_logits(
        said[0, :2], wanted[:2], reduction="none"
    )
    entropy = (entropy * weight).mean((-2, -1))
    errors = F.smooth_l1_loss(said[0, 2:], wanted[2:], reduction="none", beta=_EXACT)
    scale = torch.tensor(_WAYS, device=said.device)[:, None, None]
    ways = ((errors * scale).sum(0) * inside).sum() / inside.sum().clamp(min=1)
    return entropy[0] + _BOUNDARY * entropy[1] + ways

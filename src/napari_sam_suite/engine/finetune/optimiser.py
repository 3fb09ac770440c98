"""Steps downhill: Muon for the inner matrices, AdamW for everything else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

_WARM = 0.05
_LEAST = 0.02
_TABLES = ("token", "embed", "rel_pos")
"""Parts of the names of matrices that are tables of vectors."""


def rate_at(done: float, peak: float) -> float:
    """Learning rate after the part `done` of the training: warm-up, then a cosine."""
    warm = min(1.0, (done + 1e-9) / _WARM)
    wave = 0.5 + 0.5 * math.cos(math.pi * min(1.0, done))
    return peak * warm * (_LEAST + (1 - _LEAST) * wave)


class Optimiser:
    """AdamW (Loshchilov and Hutter 2019), for matrices Muon where torch has it (2.9).

    Muon makes each matrix's step orthogonal. Scaled to the size of AdamW's steps (Liu
    et al., "Muon is scalable for LLM training", 2025), one learning rate serves both.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        What learns, by its name in the network.
    decay : float
        Weight decay.
    muon : bool
        Whether matrices get Muon.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], decay: float, *, muon: bool
    ) -> None:
        muon = muon and hasattr(torch.optim, "Muon")
        inner = {
            name
            for name, value in parameters.items()
            if muon and value.ndim == 2 and not any(t in name for t in _TABLES)
        }
        others = [p for name, p in parameters.items() if name not in inner]
        self._all: list[Any] = [torch.optim.AdamW(others, weight_decay=decay)]
        if inner:
            matrices = [parameters[name] for name in parameters if name in inner]
            self._all.append(
                torch.optim.Muon(
                    matrices, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
                )
            )

    def step(self, rate: float) -> None:
        """Use the gradients with a learning rate."""
        for one in self._all:
            for group in one.param_groups:
                group["lr"] = rate
            one.step()

    def state(self) -> dict[str, Tensor]:
        """All that a later step depends on, as tensors by name."""
        return {
            f"{k}.{index}.{name}": torch.as_tensor(value)
            for k, one in enumerate(self._all)
            for index, values in one.state_dict()["state"].items()
            for name, value in values.items()
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on where `state` was taken."""
        for k, one in enumerate(self._all):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                which, index, name = key.split(".", 2)
                if int(which) == k:
                    state.setdefault(int(index), {})[name] = value
            groups = one.state_dict()["param_groups"]
            one.load_state_dict({"state": state, "param_groups": groups})

"""Train the few-shot verifier; see `engine/fewshot/verifier.py`.

The network learns to tell which masks of a scene have an IoU above 0.5, and which of
two masks of the same object is the better, beside examples of the scene. Scenes are
kept in shards under ``--work``, so that a run that was stopped goes on; ``--start``
goes on from weights.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from data import load_real, split
from evaluate import weights_of
from napari_sam_suite.engine.fewshot.verifier import FINE, SIGNS, SUMMARY
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.nano.config import VERIFIER, WEIGHTS
from napari_sam_suite.engine.models.registry import find_model
from scenes import Painter, Scene, gather, load_scenes

if TYPE_CHECKING:
    from torch import Tensor

_STEEP = 12.0
"""What is told is whether the IoU is above 0.5, with this much of a slope."""
_TOGETHER, _EACH = 4, 40
"""Scenes in a step, and candidates of each."""
_BETTER, _PAIRS = 0.1, 0.5
"""Difference of IoUs that is worth telling; weight of telling it."""
_NAMED = slice(FINE + 1, FINE + 3)
"""Channels that say ways, down and across; those of colours come after one more."""
_COLOURS = slice(FINE + 4, FINE + 7)


class Network(nn.Module):
    """`verifier.Verifier` as it is trained; both are compared in the tests."""

    def __init__(self) -> None:
        super().__init__()
        widths = (FINE + 8, 32, 48, 64)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, stride=1 + (k > 0))
            for k, (a, b) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(4, n) for n in widths[1:])
        self.summary = nn.Linear(2 * widths[-1], SUMMARY)
        self.compare = nn.Linear(4 * SUMMARY + SIGNS + 1, 64)
        self.dropout = nn.Dropout(0.15)
        self.decide = nn.Linear(64, 2)

    def sum_up(self, patches: Tensor) -> Tensor:
        """Sum up pictures (N, 24, 24, 24) in (N, 64)."""
        x = patches
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.relu(norm(layer(x)))
        mask = F.avg_pool2d(patches[:, -1:], 4)
        inside = (x * mask).sum((2, 3)) / (mask.sum((2, 3)) + 1e-3)
        return self.summary(torch.cat([x.mean((2, 3)), inside], 1))

    def forward(self, looks: Tensor, examples: Tensor) -> Tensor:
        """Log-odds (N, 2) of masks by looks (N, 70) at them and (n, 70) at examples.

        The first are those of an IoU above 0.5, the second has the IoU as its chance.
        """
        seen, signs = looks[:, :SUMMARY], looks[:, SUMMARY:]
        others, size = examples[:, :SUMMARY], examples[:, SUMMARY]
        off = seen - others.mean(0)
        larger = signs[:, :1] - size.mean()
        unusual = (larger / (size.std() + 0.1)).abs().clip(max=4)
        mean = others.mean(0).expand_as(seen)
        views = [seen, mean, off / (others.std(0) + 0.1), off.abs()]
        hidden = self.compare(torch.cat([*views, signs[:, 1:], larger, unusual], 1))
        return self.decide(self.dropout(F.relu(hidden)))


def turn(patches: Tensor, way: int, invert: bool, grey: bool) -> Tensor:
    """Patches mirrored and turned in one of eight ways, with other colours."""
    if way & 1:
        patches = patches.flip(2)
        patches[:, _NAMED.start] *= -1
    if way & 2:
        patches = patches.flip(3)
        patches[:, _NAMED.start + 1] *= -1
    if way & 4:
        patches = patches.transpose(2, 3).clone()
        patches[:, _NAMED] = patches[:, _NAMED].flip(1)
    if invert:
        patches[:, _COLOURS] *= -1
    if grey:
        patches[:, _COLOURS] = patches[:, _COLOURS].mean(1, keepdim=True)
    return patches


def losses(network: Network, scene: Scene, rng: np.random.Generator) -> Tensor:
    """What is wrong with the answers to some candidates beside some examples."""
    rows = rng.permutation(len(scene.real))[:_EACH]
    few = rng.permutation(len(scene.examples))
    few = few[: int(rng.integers(3, len(few) + 1))]
    patches = np.concatenate([scene.patches[rows], scene.examples[few]])
    bent = turn(
        torch.from_numpy(patches).float(),
        int(rng.integers(8)),
        rng.random() < 0.3,
        rng.random() < 0.2,
    )
    bent[:, :FINE] += 0.15 * torch.randn(1, FINE, 1, 1)
    summary = network.sum_up(bent)
    signs = torch.from_numpy(np.concatenate([scene.signs[rows], scene.sizes[few]]))
    looks = torch.cat([summary, signs], 1)
    said = network(looks[: len(rows)], looks[len(rows) :])
    real = torch.from_numpy(scene.real[rows]).clamp(0, 1)
    right = torch.sigmoid(_STEEP * (real - 0.5))
    which = torch.from_numpy(scene.which[rows])
    ahead = real[:, None] - real[None]
    pairs = (which[:, None] == which[None]) & (which[:, None] > 0) & (ahead > _BETTER)
    better = said.sum(1)
    swapped = F.softplus(better[None] - better[:, None]) * ahead
    return (
        F.binary_cross_entropy_with_logits(said[:, 0], right)
        + F.binary_cross_entropy_with_logits(said[:, 1], real)
        + _PAIRS * swapped[pairs].sum() / (ahead[pairs].sum() + 1)
    )


def fit(
    network: Network, scenes: list[Scene], epochs: float, rate: float, seed: int
) -> None:
    """Train in place; an epoch shows every scene three times, on average."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    _, of, counts = np.unique(
        [s.kind for s in scenes], return_inverse=True, return_counts=True
    )
    shares = 1 / np.sqrt(counts[of])
    steps = int(epochs * len(scenes) * 3 / _TOGETHER)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1)
    recent = 0.0
    network.train()
    for step in range(steps):
        some = rng.choice(len(scenes), _TOGETHER, p=shares / shares.sum())
        loss = sum(losses(network, scenes[i], rng) for i in some) / _TOGETHER
        assert isinstance(loss, torch.Tensor)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        plan.step()
        recent += loss.item() / 200
        if step % 200 == 199:
            print(f"{step + 1} of {steps}: {recent:.4f}", flush=True)
            recent = 0.0


def main() -> None:
    """Gather and train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of shards")
    parser.add_argument("--scenes", type=int, default=1800)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--epochs", type=float, default=7, help="0: only gather")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--out", type=Path, default=VERIFIER)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    spec = find_model(weights_of(args.weights), family="sam2", config="nano")
    model = load_model(spec, device="cpu", precision="float32")
    painter = Painter(split(load_real(args.data))[0], np.random.default_rng(args.seed))
    gather(model, painter, args.work, args.seed, args.scenes)
    if not args.epochs:
        return
    network = Network()
    if args.start:
        network.load_state_dict(load_file(args.start))
    fit(network, load_scenes(args.work), args.epochs, args.rate, args.seed)
    save_file(network.state_dict(), args.out)


if __name__ == "__main__":
    main()

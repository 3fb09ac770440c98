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
from napari_sam_suite.engine.fewshot.verifier import (
    BLEND,
    COARSE,
    FINE,
    HIDDEN,
    SIGNS,
    SUMMARY,
)
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
_BLIND = 0.15
"""Part of the coarse channels that is hidden, and of the scenes where all are."""
_COLOURS = slice(FINE + 4, FINE + 7)


class Network(nn.Module):
    """`verifier.Verifier` as it is trained."""

    def __init__(self) -> None:
        super().__init__()
        widths = (FINE + 8, 32, 48, 64)
        deep = widths[-1] + BLEND
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, stride=1 + (k > 0))
            for k, (a, b) in enumerate(pairwise(widths))
        )
        self.layers.extend(nn.Conv2d(deep, deep, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(
            nn.GroupNorm(4, n) for n in (*widths[1:], deep, deep)
        )
        self.blend = nn.Linear(COARSE, BLEND)
        self.summary = nn.Linear(2 * deep, SUMMARY)
        self.compare = nn.Linear(5 * SUMMARY + SIGNS + 1, HIDDEN)
        self.dropout = nn.Dropout(0.15)
        self.decide = nn.Linear(HIDDEN, 2)

    def sum_up(self, pictures: Tensor, coarse: Tensor) -> Tensor:
        """Sum up pictures (N, 24, 24, 24) and (N, 160, 6, 6) in (N, 96)."""
        x = pictures
        for layer, norm in zip(self.layers[:3], self.norms[:3], strict=True):
            x = F.relu(norm(layer(x)))
        x = torch.cat([x, self.blend(coarse.movedim(1, -1)).movedim(-1, 1)], 1)
        for layer, norm in zip(self.layers[3:], self.norms[3:], strict=True):
            x = x + F.relu(norm(layer(x)))
        mask = F.avg_pool2d(pictures[:, -1:], 4)
        inside = (x * mask).sum((2, 3)) / (mask.sum((2, 3)) + 1e-3)
        return self.summary(torch.cat([x.mean((2, 3)), inside], 1))

    def forward(self, looks: Tensor, examples: Tensor) -> Tensor:
        """Log-odds (N, 2) of masks by looks (N, 102) at them and (n, 102) at examples.

        The first are those of an IoU above 0.5, the second has the IoU as its chance.
        """
        seen, signs = looks[:, :SUMMARY], looks[:, SUMMARY:]
        others, size = examples[:, :SUMMARY], examples[:, SUMMARY]
        off = seen - others.mean(0)
        larger = signs[:, :1] - size.mean()
        unusual = (larger / (size.std() + 0.1)).abs().clip(max=4)
        mean = others.mean(0).expand_as(seen)
        nearest = others[torch.cdist(seen, others).argmin(1)]
        views = [
            seen,
            mean,
            off / (others.std(0) + 0.1),
            off.abs(),
            (seen - nearest).abs(),
        ]
        hidden = self.compare(torch.cat([*views, signs[:, 1:], larger, unusual], 1))
        return self.decide(self.dropout(F.relu(hidden)))


def turn(pictures: Tensor, way: int) -> Tensor:
    """Pictures mirrored and turned in one of eight ways."""
    for axis in (2, 3):
        if way & (axis - 1):
            pictures = pictures.flip(axis)
    return (pictures.transpose(2, 3) if way & 4 else pictures).clone()


def bend(pictures: Tensor, way: int, invert: bool, grey: bool) -> Tensor:
    """Pictures turned, with what they name, and with other colours."""
    pictures = turn(pictures, way)
    for k in (0, 1):
        if way & (k + 1):
            pictures[:, _NAMED.start + k] *= -1
    if way & 4:
        pictures[:, _NAMED] = pictures[:, _NAMED].flip(1)
    if invert:
        pictures[:, _COLOURS] *= -1
    if grey:
        pictures[:, _COLOURS] = pictures[:, _COLOURS].mean(1, keepdim=True)
    return pictures


def losses(network: Network, scene: Scene, rng: np.random.Generator) -> Tensor:
    """What is wrong with the answers to some candidates beside some examples."""
    rows = rng.permutation(len(scene.real))[:_EACH]
    few = rng.permutation(len(scene.examples))
    few = few[: int(rng.integers(3, len(few) + 1))]
    way = int(rng.integers(8))
    pictures, coarse = (
        torch.from_numpy(np.concatenate([mine[rows], others[few]])).float()
        for mine, others in (
            (scene.patches, scene.examples),
            (scene.coarse, scene.around),
        )
    )
    pictures = bend(pictures, way, rng.random() < 0.3, rng.random() < 0.2)
    pictures[:, :FINE] += 0.15 * torch.randn(1, FINE, 1, 1)
    # What is coarse knows much of the kind of image, and shall not be learnt by heart.
    blind = _BLIND if rng.random() > _BLIND else 1.0
    coarse = turn(coarse, way) + 0.1 * torch.randn(1, COARSE, 1, 1)
    coarse *= F.dropout(torch.ones(1, COARSE, 1, 1), blind)
    summary = network.sum_up(pictures, coarse)
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
    parser.add_argument(
        "--start", type=Path, help="weights to begin with, as far as layers are alike"
    )
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
        mine, given = network.state_dict(), load_file(args.start)
        fitting = {k: v for k, v in given.items() if v.shape == mine[k].shape}
        network.load_state_dict({**mine, **fitting})
    fit(network, load_scenes(args.work), args.epochs, args.rate, args.seed)
    save_file(network.state_dict(), args.out)


if __name__ == "__main__":
    main()

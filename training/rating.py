"""Fit the rating of masks that lean on the guide; see `engine/guidance.py`.

Masks of training images, asked as automatic masks are, and their real IoU with the
object that they share most with. Prints the weights for `guidance.RATING`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit

from data import Item, load_real, split
from evaluate import as_rgb, spread, weights_of
from napari_sam_suite.engine.guidance import Guidance
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.nano.config import WEIGHTS
from napari_sam_suite.engine.models.protocol import MULTIMASK, Prompts
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.proposals import propose

_STEEP = 12.0
"""What is told is whether the real IoU is above 0.5, with this much of a slope."""
_SMOOTH = 1e-3
"""Weight of the squares of the fitted weights."""


def cut(item: Item, side: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """A random tile: RGB and labels."""
    height, width = item.labels.shape
    y, x = (int(rng.integers(max(0, n - side) + 1)) for n in (height, width))
    window = np.s_[y : y + side, x : x + side]
    return np.ascontiguousarray(as_rgb(item.image)[window]), item.labels[window]


@torch.inference_mode()
def examples(model, rgb: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Signs (K, 4) of the masks of a tile and their real IoU (K,)."""
    embedding = model.encode([rgb])[0]
    guidance = Guidance.of(embedding)
    points = propose(embedding.maps()["guide"], labels.shape)
    if not len(points):
        return np.zeros((0, 4)), np.zeros(0)
    prompts = Prompts.clicks(points)
    decoded = model.decode(embedding, prompts, tokens=MULTIMASK, min_iou=0.1).numpy()
    masks = guidance.lean(decoded, prompts).logits > 0
    signs = guidance.signs(masks, decoded.iou)
    rows, columns = (
        ((np.arange(n) + 0.5) * side / n).astype(int)
        for n, side in zip(masks.shape[1:], labels.shape, strict=True)
    )
    truth = labels[np.ix_(rows, columns)]
    areas = np.bincount(truth.ravel())
    real = np.zeros(len(masks))
    for k, mask in enumerate(masks):
        shared = np.bincount(truth[mask], minlength=len(areas))
        shared[0] = 0
        real[k] = (shared / np.maximum(mask.sum() + areas - shared, 1)).max()
    return signs, real


def fit(signs: np.ndarray, real: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights (5,) of 1 and of the signs: logistic regression with soft targets."""
    mean, deviation = signs.mean(0), signs.std(0) + 1e-9
    inputs = torch.tensor((signs - mean) / deviation)
    target = torch.tensor(expit(_STEEP * (real - 0.5)))
    share = torch.tensor(weights / weights.sum())
    found = torch.zeros(1 + signs.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([found], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        said = found[0] + inputs @ found[1:]
        each = F.binary_cross_entropy_with_logits(said, target, reduction="none")
        loss = (share * each).sum() + _SMOOTH * (found[1:] ** 2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    slopes = found.detach().numpy()[1:] / deviation
    return np.concatenate([[found.detach().numpy()[0] - slopes @ mean], slopes])


def gather(model, items: list[Item], tile: int) -> tuple[np.ndarray, ...]:
    """Signs, real IoU and weights; an image counts by the root of its masks."""
    rng = np.random.default_rng(0)
    found = [examples(model, *cut(item, tile, rng)) for item in items]
    found = [(signs, real) for signs, real in found if len(real)]
    weights = [np.full(len(real), len(real) ** -0.5) for _, real in found]
    signs, real = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return signs, real, np.concatenate(weights)


def main() -> None:
    """Fit from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--tile", type=int, default=300)
    parser.add_argument("--most", type=int, default=30, help="images of a group")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    spec = find_model(weights_of(args.weights), family="sam2", config="nano")
    model = load_model(spec, device="cpu")
    train, held_out = split(load_real(args.data))
    found = fit(*gather(model, spread(train, args.most), args.tile))
    signs, real, _ = gather(model, held_out, args.tile)
    before, after = expit(signs[:, 0]), expit(found[0] + signs @ found[1:])
    report = {
        "RATING": np.round(found, 3).tolist(),
        "held-out masks": len(real),
        "correlation with the real IoU, before": np.corrcoef(before, real)[0, 1],
        "after": np.corrcoef(after, real)[0, 1],
        "mean error, before": np.abs(before - real).mean(),
        "mean error, after": np.abs(after - real).mean(),
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Compare sizes of the image encoder and ways to train it, by the dense stage alone.

Every variant sees the same number of pixels, and those with the same seed and size of
crops see the same crops. What counts are windows of held-out images, 256 px wide for
all: the loss, whether places are told to be inside an object, and whether
`proposals.propose` names each object once; and the time that the encoder takes for an
image of 512 x 512 px.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crops import loader, make_sample
from data import Item, load_real, load_synthetic, split
from losses import dense_loss, dense_targets
from napari_sam_suite.engine.models.nano.config import Trunk, assemble
from napari_sam_suite.engine.proposals import propose
from network import Average, Trainee, Window
from train import Optimisers, random_window, rate_at

PIXELS = 8 * 256**2
"""Pixels of a step, whatever the size of a crop."""


SHIPPED = Trunk()
NARROW = Trunk(width=24)


@dataclass(frozen=True)
class Variant:
    """A trunk and how it is taught."""

    trunk: Trunk = SHIPPED
    crop: int = 256
    seed: int = 0
    teacher: bool = False


VARIANTS = {
    "shipped": Variant(),
    "shipped, other seed": Variant(seed=1),
    "width 24": Variant(NARROW),
    "width 48": Variant(Trunk(width=48)),
    "4 blocks in stage three": Variant(
        Trunk(blocks=(1, 2, 4, 2), attend_globally=(4, 6))
    ),
    "12 blocks in stage three": Variant(
        Trunk(blocks=(1, 2, 12, 2), attend_globally=(8, 14))
    ),
    "width 24, taught by the shipped weights": Variant(NARROW, teacher=True),
    "crops of 512 px": Variant(crop=512),
    "crops of 128 px": Variant(crop=128),
}


def imitation_loss(output: Tensor, taught: Tensor) -> Tensor:
    """How far ``output`` (B, 5, Y, X) is from a teacher's (Hinton et al. 2015)."""
    chances = taught[:, :2].sigmoid()
    entropy = F.binary_cross_entropy_with_logits(
        output[:, :2], chances, reduction="none"
    )
    inside = chances[:, :1]
    error = F.smooth_l1_loss(output[:, 2:], taught[:, 2:], reduction="none", beta=0.25)
    scale = torch.tensor([1.0, 1.0, 0.3]).view(1, 3, 1, 1)
    told = entropy[:, 0].mean() + 2 * entropy[:, 1].mean()
    return told + (error * scale * inside).sum() / inside.sum().clamp(min=1)


def train(
    variant: Variant,
    items: list[Item],
    steps: int,
    rate: float,
    teacher: Trainee | None,
) -> Trainee:
    """The averaged network after ``steps`` steps of the dense stage."""
    torch.manual_seed(variant.seed)
    network = Trainee(assemble(variant.trunk)).train()
    average = Average(network, decay=0.99)
    settings = argparse.Namespace(stage="dense", rate=rate, optimiser="muon")
    optimiser = Optimisers(network, settings)
    count = PIXELS // variant.crop**2
    batches = iter(loader(items, variant.crop, count, variant.seed, workers=1))
    dice = torch.Generator().manual_seed(variant.seed)
    for step in range(steps):
        images, labels, complete = next(batches)
        window = random_window(variant.crop, dice)
        output = network.encode(images, window).dense
        weights = torch.where(complete, 1.0, 0.3)
        loss = dense_loss(output, labels[:, 0], weights)
        if variant.teacher and teacher is not None:
            with torch.no_grad():
                taught = teacher.encode(images, window).dense
            loss = (loss + imitation_loss(output, taught)) / 2
        network.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step(rate_at(step / steps, rate))
        average.update(network, step)
    return average.network.eval()


@torch.no_grad()
def judge(network: Trainee, held: list[Item], count: int) -> dict[str, float]:
    """Scores on ``count`` windows of 256 px of every group, the mean of groups."""
    rows = {}
    for group in sorted({item.group for item in held}):
        rng = np.random.default_rng(0)
        pool = [item for item in held if item.group == group]
        losses, common, either, hits, told, objects = [], 0, 0, 0, 0, 0
        for index in range(count):
            item = pool[index % len(pool)]
            image, labels = make_sample(rng, item, 256)
            window = Window(128 * (index % 3), 128 * (index // 3 % 3), 256)
            dense = network.encode(image[None], window).dense
            weight = torch.tensor([1.0 if item.complete else 0.3])
            losses.append(float(dense_loss(dense, labels[:1], weight)))
            truth = dense_targets(labels[:1])[0][0, 0].bool()
            inside = dense[0, 0] > 0
            common += int((inside & truth).sum())
            either += int((inside | truth).sum())
            ids = labels[0].numpy()
            points = np.rint(propose(dense[0].numpy(), ids.shape)).astype(int)
            named = ids[points[:, 0], points[:, 1]]
            hits += len(np.unique(named[named > 0]))
            told += len(points)
            objects += len(np.unique(ids[ids > 0]))
        f1 = 2 * hits / max(told + objects, 1)
        rows[group] = (np.mean(losses), common / max(either, 1), f1)
    loss, overlap, f1 = np.mean(list(rows.values()), axis=0)
    scores = {"loss": loss, "inside IoU": overlap, "centres F1": f1}
    scores |= {group: row[2] for group, row in rows.items()}
    return {name: round(float(value), 4) for name, value in scores.items()}


@torch.no_grad()
def speed(trunks: set[Trunk], rounds: int = 7) -> dict[Trunk, float]:
    """Median seconds of one thread for 512 x 512 px, the trunks taking turns."""
    networks = {trunk: Trainee(assemble(trunk)).eval() for trunk in trunks}
    image, window = torch.randn(1, 3, 512, 512), Window(0, 0, 512)
    taken: dict[Trunk, list[float]] = {trunk: [] for trunk in networks}
    for _ in range(rounds):
        for trunk, network in networks.items():
            began = time.process_time()
            network.encode(image, window)
            taken[trunk].append(time.process_time() - began)
    return {trunk: round(statistics.median(row), 4) for trunk, row in taken.items()}


def main() -> None:
    """Compare from the command line; what is in the report already is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pools", type=Path, default=Path("training/runs/nano"))
    parser.add_argument("--teacher", type=Path, help="checkpoint; else not taught")
    parser.add_argument("--out", type=Path, default=Path("training/runs/compare.json"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--crops", type=int, default=60, help="of every group")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    items, held = split(load_real(args.data))
    items += load_synthetic(args.pools)
    teacher = None
    if args.teacher:
        teacher = Trainee(assemble(SHIPPED)).eval()
        state = torch.load(args.teacher, weights_only=True, map_location="cpu")
        teacher.load_state_dict(state["average"])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = json.loads(args.out.read_text()) if args.out.is_file() else {}
    asked = {"steps": args.steps, "rate": args.rate, "crops": args.crops}
    if any({k: row[k] for k in asked} != asked for row in report.values()):
        raise SystemExit(f"{args.out} is of other settings: give another --out.")
    for name in args.only:
        if name in report or (VARIANTS[name].teacher and teacher is None):
            continue
        variant, began = VARIANTS[name], time.process_time()
        network = train(variant, items, args.steps, args.rate, teacher)
        millions = sum(p.numel() for p in network.parameters()) / 1e6
        report[name] = asked | {"parameters, M": round(millions, 2)}
        report[name]["training, CPU s"] = round(time.process_time() - began)
        report[name] |= judge(network, held, args.crops)
        args.out.write_text(json.dumps(report, indent=1))
    seconds = speed({VARIANTS[name].trunk for name in report})
    for name, row in report.items():
        row["encoder, CPU s"] = seconds[VARIANTS[name].trunk]
    args.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

"""Train the embedded model; run with ``--help``.

Two stages: the image encoder with a dense auxiliary head, then everything with
prompts. Both resume from their last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from crops import loader
from data import load_real, load_synthetic, split
from losses import dense_loss
from napari_sam_suite.engine.models.nano.config import build_nano
from network import (
    Average,
    Trainee,
    Window,
    one_thread,
    prime_prompts,
    quicken,
    save_atomic,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection


_MOST_BROKEN = 20
"""Steps in a row without a number, after which there is no hope."""


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["dense", "prompts"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("training/runs/nano"))
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--size", type=int, default=256, help="crop, px (256 or 512)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=14, help="clicks an image")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--optimiser", choices=["adamw", "muon"], default="adamw")
    parser.add_argument("--precision", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="minutes, then faster")
    parser.add_argument("--frozen", type=float, default=0.15, help="share of time")
    parser.add_argument("--prime", action="store_true", help="first prompts run")
    parser.add_argument("--finish", action="store_true", help="settled schedules")
    parser.add_argument("--name", help="of the checkpoint; the stage by default")
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--start", type=Path, help="checkpoint to begin from")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def rate_at(done: float, peak: float) -> float:
    """Learning rate after the share ``done`` of the time: warm-up, then cosine."""
    warm = min(1.0, done / 0.03)
    return peak * warm * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * min(1, done))))


def parameter_groups(network: Trainee, args: argparse.Namespace) -> list[dict]:
    """The encoder learns slower once prompts train, it has a head start."""
    encoder = list(network.model.image_encoder.parameters())
    encoder += list(network.head.parameters())
    known = {id(p) for p in encoder}
    rest = [p for p in network.parameters() if id(p) not in known]
    share = 0.5 if args.stage == "prompts" else 1.0
    return [
        {"params": encoder, "lr": args.rate, "share": share},
        {"params": rest, "lr": args.rate, "share": 1.0},
    ]


class Optimisers:
    """AdamW, or Muon for the inner matrices and AdamW for everything else.

    Muon makes each matrix's step orthogonal; scaled to the size that AdamW's steps
    have, so that one learning rate serves both (Liu et al., "Muon is scalable for
    LLM training", 2025).
    """

    def __init__(self, network: Trainee, args: argparse.Namespace) -> None:
        tables = {
            id(module.weight)
            for module in network.modules()
            if isinstance(module, torch.nn.Embedding)
        }
        matrices, others = [], []
        for group in parameter_groups(network, args):
            parts: tuple[list, list] = ([], [])
            for parameter in group["params"]:
                inner = parameter.ndim == 2 and id(parameter) not in tables
                parts[args.optimiser == "muon" and inner].append(parameter)
            others.append(group | {"params": parts[0]})
            matrices.append(group | {"params": parts[1]})
        self.all = [torch.optim.AdamW(others, weight_decay=0.02, betas=(0.9, 0.98))]
        if args.optimiser == "muon":
            self.all.append(
                torch.optim.Muon(
                    matrices, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
                )
            )

    def step(self, rate: float) -> None:
        """Use the gradients with the learning rate ``rate``."""
        for optimiser in self.all:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["share"]
            optimiser.step()

    def state_dict(self) -> list[dict]:
        """What ``load_state_dict`` needs."""
        return [optimiser.state_dict() for optimiser in self.all]

    def load_state_dict(self, states: list[dict]) -> None:
        """Go on where ``states`` were taken."""
        for optimiser, state in zip(self.all, states, strict=True):
            optimiser.load_state_dict(state)


def random_window(size: int, generator: torch.Generator) -> Window:
    """A place for the crop in the frame, on the trunk's 128-px window grid."""
    steps = (512 - size) // 128 + 1
    y, x = torch.randint(0, steps, (2,), generator=generator).tolist()
    return Window(128 * y, 128 * x, size)


def main() -> None:
    """Set up data, model and optimiser, and run one stage."""
    args = arguments()
    torch.manual_seed(args.seed)
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    train, _ = split(load_real(args.data))
    train += load_synthetic(args.out)
    network = Trainee(build_nano(pretrained=False)).to(device)
    checkpoint = args.out / f"{args.name or args.stage}.pt"
    source = checkpoint if args.resume and checkpoint.is_file() else args.start
    state = None
    if source:
        state = torch.load(source, weights_only=True, map_location="cpu")
    resumed = source == checkpoint and state is not None
    if state:
        network.load_state_dict(state["network" if resumed else "average"])
    if args.stage == "prompts" and args.prime and not resumed:
        prime_prompts(network)
    average = Average(network)
    if args.compile:
        quicken(network)
    if resumed:
        average.network.load_state_dict(state["average"])
    optimiser = Optimisers(network, args)
    if resumed:
        optimiser.load_state_dict(state["optimiser"])
    step = state["step"] if resumed else 0
    spent = state["spent"] if resumed else 0.0
    run(args, device, train, network, average, optimiser, step, spent, checkpoint)


@dataclass(frozen=True)
class Moment:
    """Where the training stands: its step, the share of the time, the window."""

    step: int
    done: float
    window: Window


class Lanes:
    """Splits each batch over processes of one core each and adds up the gradients.

    On a shared CPU this beats threads inside every operation, which wait for the
    slowest core hundreds of times a step instead of once. All have the same weights,
    in shared memory.
    """

    def __init__(self, network: Trainee, losses: Callable, count: int) -> None:
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.losses = losses
        self.helpers = []
        if count > 1:
            network.share_memory()
            one_thread()
        context = torch.multiprocessing.get_context("fork")
        for lane in range(1, count):
            ours, theirs = context.Pipe()
            grads = [torch.zeros_like(p).share_memory_() for p in self.parameters]
            helper = context.Process(
                target=self._serve, args=(ours, theirs, lane, grads), daemon=True
            )
            helper.start()
            theirs.close()
            self.helpers.append((ours, grads))

    def backward(self, moment: Moment, *batch: Tensor) -> dict[str, float]:
        """Fill ``.grad`` with the mean over the lanes; return the named losses."""
        count = 1 + len(self.helpers)
        shares = list(zip(*(part.tensor_split(count) for part in batch), strict=True))
        for (pipe, _), share in zip(self.helpers, shares[1:], strict=True):
            pipe.send((moment, share))
        own, named = self._one(moment, 0, shares[0])
        sums = {name: [value] for name, value in named.items()}
        for pipe, grads in self.helpers:
            reached, named = pipe.recv()
            for index, known in enumerate(reached):
                if known:
                    mine = own[index]
                    own[index] = grads[index] if mine is None else mine + grads[index]
            for name, value in named.items():
                sums.setdefault(name, []).append(value)
        for parameter, grad in zip(self.parameters, own, strict=True):
            parameter.grad = None if grad is None else grad / count
        return {name: sum(v) / len(v) for name, v in sums.items()}

    def _one(self, moment: Moment, lane: int, share: tuple[Tensor, ...]):
        parts = self.losses(moment, lane, *share)
        grads = torch.autograd.grad(parts["loss"], self.parameters, allow_unused=True)
        return list(grads), {name: float(v.detach()) for name, v in parts.items()}

    def _serve(
        self, ours: Connection, pipe: Connection, lane: int, grads: list[Tensor]
    ) -> None:
        """Work for the first lane, in a process of its own, as long as there is one."""
        ours.close()
        for other, _ in self.helpers:
            other.close()
        while True:
            try:
                moment, share = pipe.recv()
            except (EOFError, ConnectionError):
                return
            found, named = self._one(moment, lane, share)
            for grad, new in zip(grads, found, strict=True):
                if new is not None:
                    grad.copy_(new)
            pipe.send(([new is not None for new in found], named))


def run(args, device, train, network, average, optimiser, step, spent, checkpoint):
    """Train until the minutes are used up; a checkpoint every two minutes."""
    if args.stage == "prompts":
        from prompts import prompt_loss
    batches = iter(loader(train, args.size, args.batch, args.seed + step, args.workers))
    generator = torch.Generator().manual_seed(args.seed + step)
    log = checkpoint.with_suffix(".jsonl").open("a")
    usual = "bfloat16" if device == "cuda" else "float32"
    half = (args.precision or usual) == "bfloat16"
    began, saved, sums, count, broken = time.time(), time.time(), {}, 0, 0
    network.train()

    def losses(
        moment: Moment, lane: int, images: Tensor, labels: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        done, window = moment.done, moment.window
        with torch.autocast(device, torch.bfloat16, enabled=half):
            frozen = args.stage == "prompts" and done < args.frozen
            encoded = network.encode(images, window, frozen)
            dense = dense_loss(encoded.dense.float(), labels[:, 0], weights)
            if args.stage == "dense":
                return {"loss": dense}
            seed = (args.seed * 1_000_003 + moment.step) * 16 + lane
            dice = torch.Generator().manual_seed(seed)
            stand = 1.0 if args.finish else done
            parts = prompt_loss(
                network, encoded, window, labels, weights, stand, dice, args.prompts
            )
            return parts | {"loss": 0.3 * dense + parts["loss"], "dense": dense}

    lanes = Lanes(network, losses, args.threads if device == "cpu" else 1)
    while True:
        elapsed = spent + (time.time() - began) / 60
        done = elapsed / args.minutes
        if done >= 1:
            break
        images, labels, complete = next(batches)
        weights = torch.where(complete, 1.0, 0.3)
        moment = Moment(step, done, random_window(args.size, generator))
        parts = lanes.backward(
            moment, images.to(device), labels.to(device), weights.to(device)
        )
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        broken = 0 if torch.isfinite(norm) else broken + 1
        if broken == _MOST_BROKEN:
            raise SystemExit(
                f"The last {broken} losses were no numbers: leave out --compile, or "
                "take a lower --rate."
            )
        if not broken:
            optimiser.step(rate_at(done, args.rate))
            average.update(network, step)
        step, count = step + 1, count + 1
        for name, value in parts.items():
            sums.setdefault(name, []).append(value)
        if count == args.log_every:
            row = {k: round(sum(v) / len(v), 4) for k, v in sums.items()}
            row |= {"step": step, "minutes": round(elapsed, 2)}
            print(json.dumps(row), file=log, flush=True)
            sums, count = {}, 0
        if time.time() - saved > 120:
            saved = time.time()
            save(checkpoint, network, average, optimiser, step, elapsed)
    save(checkpoint, network, average, optimiser, step, args.minutes)


def save(checkpoint, network, average, optimiser, step, elapsed) -> None:
    """Write everything that ``--resume`` needs."""
    save_atomic(
        {
            "network": network.state_dict(),
            "average": average.network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
            "spent": elapsed,
        },
        checkpoint,
    )


if __name__ == "__main__":
    main()

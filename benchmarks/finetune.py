"""Fine-tuning on a few images: how much better the others are segmented then.

    python benchmarks/finetune.py DATA --out runs --group bacteria,chloroplast

DATA holds the folders ``dev_bacteria_omnipose``, ``dev_em_chloroplast``,
``dev_usiigaci_phase`` and ``dev_dsb2018``, of which the Pap images are taken. Of every
kind, up to five images train and validate, and the others, which training never sees,
are segmented with the base model and with the tuned one, each with its own thresholds
and tiles: F1 at IoU 0.5, and seconds. ``--epoch`` compares one pass over one image with
the way of Dataloop's adapter, which encodes the image for every object in every epoch,
on the same model: with the same prompts and loss, and ours with as many clicks as there
are objects, boxes and corrections beside them. The usual 12 clicks are timed too, but
they are one view of the 32 or more of an epoch, and not all objects.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.finetune.calibrate import to_labels
from napari_sam_suite.engine.finetune.data import Sample, gather_samples
from napari_sam_suite.engine.finetune.lessons import Lesson
from napari_sam_suite.engine.finetune.loop import start_finetune
from napari_sam_suite.engine.finetune.optimiser import Optimiser
from napari_sam_suite.engine.finetune.params import FinetuneParams
from napari_sam_suite.engine.finetune.teaching import Teacher
from napari_sam_suite.engine.finetune.trainee import Trainee
from napari_sam_suite.engine.finetune.views import Scene, View
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.jobs import Engine
from napari_sam_suite.engine.metrics import Scores, evaluate_labels
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.tiles import Region

if TYPE_CHECKING:
    from napari_sam_suite.engine.models.protocol import Embedding, SamModel

_SMALLEST = 20
"""Objects below this many pixels do not count, as in the scorer."""
_LEARNT_FROM = 5


@dataclass(frozen=True)
class Group:
    """A folder, which of its images, and how many of them are learnt from."""

    folder: str
    note: str = ""
    stack: bool = False


GROUPS = {
    "bacteria": Group("dev_bacteria_omnipose"),
    "chloroplast": Group("dev_em_chloroplast", stack=True),
    "phase": Group("dev_usiigaci_phase"),
    "pap": Group("dev_dsb2018", note="Pap"),
}


def read_group(data: Path, group: Group) -> list[Sample]:
    """Frames with objects; of stacks all planes, of other images the only one."""
    folder = data / group.folder
    with (folder / "manifest.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if group.note in r["note"]]
    samples: list[Sample] = []
    for row in rows:
        truth = tifffile.imread(folder / row["image"].replace("img", "lab"))
        if (truth.ndim == 3) != group.stack:
            continue
        image = open_image(folder / row["image"])
        objects = Objects.concat(
            [
                Objects.from_labels(plane, frame)
                for plane, frame in zip(
                    truth.reshape(-1, *truth.shape[-2:]), image.frames(), strict=True
                )
            ]
        )
        samples += gather_samples(image, objects)
    return samples


def divide(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Five images to learn from, fewer where that would leave less than a third."""
    count = min(_LEARNT_FROM, round(len(samples) * 2 / 3))
    return samples[:count], samples[count:]


def judge(model: SamModel, samples: list[Sample], points: int) -> Scores:
    """Automatic masks against the truth, with the model's own settings."""
    total = Scores()
    for sample in samples:
        params = AutoParams(points_per_side=points, search="auto")
        masks = automatic_masks(model, sample.rgb, params)
        truth = to_labels(sample.masks)
        total += evaluate_labels(to_labels(masks), truth, min_area=_SMALLEST)
    return total


def run_group(name: str, args: argparse.Namespace) -> dict[str, object]:
    """Train on some images of a kind, judge both models on the others."""
    train, test = divide(read_group(args.data, GROUPS[name]))
    test = test[: args.test]
    params = FinetuneParams(
        train=args.train,
        epochs=args.epochs,
        views=args.views,
        prompts=args.prompts,
        variants=args.variants,
        patience=args.epochs,
    )
    base = judge(load_model(args.model, device=args.device), test, args.points)
    print(f"{name}: base F1 {base.f1:.3f}", flush=True)
    out = args.out / f"{name}.safetensors"
    began, clock = time.process_time(), time.monotonic()
    with Engine(args.model, device=args.device) as engine:
        job = start_finetune(engine, train, params, out=out)
        job.found.connect(lambda epoch: print(f"  {epoch}", flush=True))
        outcome = job.result()
    seconds, wall = time.process_time() - began, time.monotonic() - clock
    tuned = judge(load_model(str(out), device=args.device), test, args.points)
    return {
        "group": name,
        "learnt_from": len(train),
        "tested_on": len(test),
        "objects": base.truth,
        "base_f1": float(np.nan_to_num(base.f1)),
        "tuned_f1": float(np.nan_to_num(tuned.f1)),
        "base_ap": float(np.nan_to_num(base.ap)),
        "tuned_ap": float(np.nan_to_num(tuned.ap)),
        "best_epoch": outcome.best_epoch,
        "cpu_seconds": round(seconds),
        "seconds": round(wall),
        "validation": outcome.card.get("automatic"),
        "recommended": outcome.card["recommended"],
    }


def epoch_times(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of CPU for one pass over an image, both ways; see above."""
    sample = read_group(args.data, GROUPS[args.group.split(",")[0]])[0]
    whole = View(0, Region(0, 0, *sample.shape))
    scene = Scene(whole, sample)
    # How long it takes does not depend on the weights.
    trained = args.model == "sam2-nano"
    model = load_model(args.model, device=args.device, random_weights=not trained)
    trainee = Trainee(model)

    def teach(embedding: Embedding, count: int, teacher: Teacher) -> None:
        optimiser = Optimiser(trainee.parameters, 4e-5, muon=False)
        trainee.forget_gradients()
        teacher.teach(Lesson(embedding, scene), np.random.default_rng(count), 1.0)
        optimiser.step(1e-5)
        trainee.refresh()

    # One prompt of ten points for each object, and a step after each.
    one = Teacher(trainee, FinetuneParams(loss="seed", prompts=1), most=1)
    few = min(len(scene), args.objects)
    start = time.process_time()
    for number in range(few):
        teach(trainee.look(sample.rgb), number, one)
    seeds = (time.process_time() - start) / few * len(scene)
    known = trainee.look(sample.rgb)
    row = {"objects": float(len(scene)), "adapter": seeds}
    # The same prompts and loss; our own with as many clicks; one view as usual.
    every = min(len(scene), 256)
    for name, params in (
        ("same", FinetuneParams(loss="seed", prompts=every)),
        ("ours_all", FinetuneParams(prompts=every)),
        ("ours", FinetuneParams(prompts=12)),
    ):
        ours = Teacher(trainee, params, most=model.batch)
        start = time.process_time()
        teach(known, 0, ours)
        row[name] = time.process_time() - start
        row[f"{name}_ratio"] = seeds / row[name]
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    """Run over the groups that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="sam2-nano")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--group", default=",".join(GROUPS))
    parser.add_argument(
        "--train", choices=("decoder", "neck", "encoder"), default="decoder"
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--views", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--variants", type=int, default=2)
    parser.add_argument("--points", type=int, default=32, help="of automatic masks")
    parser.add_argument("--test", type=int, default=100, help="most test images")
    parser.add_argument("--epoch", action="store_true", help="time of one pass only")
    parser.add_argument("--objects", type=int, default=8, help="to time the adapter by")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.epoch:
        rows: list[object] = [epoch_times(args)]
    else:
        rows = []
        for name in args.group.split(","):
            rows.append(run_group(name, args))
            print(json.dumps(rows[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

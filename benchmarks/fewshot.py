"""Few-shot on images whose truth is known: the fast mode beside the exact one.

    python benchmarks/fewshot.py DATA --model sam2-nano

DATA holds the folders ``dev_dsb2018``, ``dev_usiigaci_phase``, ``dev_em_chloroplast``
and ``dev_bbbc007_sparse``. For every group of images, ``--repeats`` times: a seed draws
``--images`` images of one size and ``--examples`` objects in them, and everything else
in these images is looked for. Examples count neither as found nor as missed. Prints F1
at IoU 0.5
(recall where not every object is in the truth), with the suggested threshold and with
the best one that the truth could show, and the calls of encoder and decoder.

The exact mode gets the same images and examples, ``--points`` points per side and no
limit of area beyond what it learns from the examples, so that it is at its best.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.fewshot.examples import Examples, choose_examples
from napari_sam_suite.engine.fewshot.finder import FewShot
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import ImageSource, open_image
from napari_sam_suite.engine.metrics import Scores, evaluate_labels
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.protocol import SamModel

_SMALLEST = 20
"""Objects below this many pixels do not count, as in the scorer."""
_SPARSE = ("dev_bbbc007_sparse", "dev_usiigaci_phase")
"""Folders whose truth leaves objects out: recall says more than F1."""
_THRESHOLDS = {"fast": np.arange(0.1, 1.0, 0.1), "exact": np.arange(0.5, 1.0, 0.05)}


@dataclass
class Sample:
    """One image and its true objects."""

    name: str
    rgb: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass
class Counted:
    """A model that counts what it is asked."""

    model: SamModel
    encoded: int = 0
    decoded: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Any:
        """Count the images."""
        self.encoded += len(images)
        return self.model.encode(images)

    def decode(self, embedding: Any, prompts: Any, **options: Any) -> Any:
        """Count the prompts."""
        self.decoded += len(prompts)
        return self.model.decode(embedding, prompts, **options)


@dataclass
class Tally:
    """Results of one group and mode over all repeats."""

    suggested: list[Scores] = field(default_factory=list)
    best: list[Scores] = field(default_factory=list)
    encoded: int = 0
    decoded: int = 0
    seconds: float = 0.0
    images: int = 0

    def row(self, measure: str) -> dict[str, float]:
        """Means over the repeats."""
        n = max(self.images, 1)
        return {
            measure: _mean(self.suggested, measure),
            "best": _mean(self.best, measure),
            "precision": _mean(self.suggested, "precision"),
            "recall": _mean(self.suggested, "recall"),
            "encoded": self.encoded / n,
            "decoded": self.decoded / n,
            "cpu_seconds": self.seconds / n,
        }


def _mean(scores: list[Scores], measure: str) -> float:
    return float(np.mean([np.nan_to_num(getattr(s, measure)) for s in scores]))


def read_groups(data: Path, largest: int) -> dict[str, list[Sample]]:
    """Images of all groups, the first plane of stacks."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    folders = ("dsb2018", "usiigaci_phase", "em_chloroplast", "bbbc007_sparse")
    for folder in (data / f"dev_{name}" for name in folders):
        with (folder / "manifest.csv").open() as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            frame = open_image(folder / row["image"]).frame(FrameIndex())
            labels = tifffile.imread(folder / row["image"].replace("img", "lab"))
            flat = labels.reshape(-1, *labels.shape[-2:])[0].astype(np.int64)
            kind = row["note"] if folder.name == "dev_dsb2018" else ""
            name = f"{folder.name} {kind}".strip()
            rgb, flat = _middle(compose(frame), flat, largest)
            groups[name].append(Sample(row["image"], rgb, flat))
    return groups


def _middle(
    rgb: NDArray[np.uint8], labels: NDArray[np.int64], largest: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    y, x = (max(0, (n - largest) // 2) for n in labels.shape)
    window = np.s_[y : y + largest, x : x + largest]
    return np.ascontiguousarray(rgb[window]), labels[window]


@dataclass
class Task:
    """Images as time points of one, its examples, and the truth without them."""

    image: ImageSource
    examples: Examples
    truth: list[NDArray[np.int64]]

    @classmethod
    def draw(
        cls, samples: list[Sample], count: int, most: int, rng: np.random.Generator
    ) -> Task:
        """Draw images and examples; half of these at most come from one image."""
        order = [samples[i] for i in rng.permutation(len(samples))]
        alike = [s for s in order if s.labels.shape == order[0].labels.shape][:most]
        shapes, truth, left = [], [], count
        for k, sample in enumerate(alike):
            found = Objects.from_labels(sample.labels, FrameIndex(time=k), tag="object")
            large = (found.features["area"] >= _SMALLEST).to_numpy()
            share = left if len(alike) == 1 else min(left, (count + 1) // 2)
            rows = rng.permutation(np.flatnonzero(large))[:share]
            left -= len(rows)
            shapes.append(found.select(rows))
            without = sample.labels.copy()
            without[np.isin(without, shapes[-1].features["label"])] = 0
            truth.append(without)
        stack = np.stack([s.rgb for s in alike])
        image = open_image(stack, axes="TYXC", name="images")
        examples = choose_examples(image, Objects.concat(shapes), ["object"])
        return cls(image, examples, truth)

    def score(self, found: list[Masks]) -> Scores:
        """Compare masks of all frames with the truth; examples do not count."""
        total = Scores()
        for k, (masks, truth) in enumerate(zip(found, self.truth, strict=True)):
            drawn, _ = self.examples.masks(FrameIndex(time=k))
            labels = to_labels(masks)
            for i in range(len(drawn)):
                labels[drawn.full(i)] = 0
            total += evaluate_labels(labels, truth, min_area=_SMALLEST)
        return total


def to_labels(masks: Masks) -> NDArray[np.int32]:
    """Label image of masks that do not overlap."""
    labels = np.zeros(masks.shape, np.int32)
    for i in range(len(masks)):
        crop, (y0, x0) = masks.crop(i)
        window = labels[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]]
        window[crop] = i + 1
    return labels


def run(model: Counted, task: Task, params: FewShotParams, tally: Tally) -> None:
    """One repeat of one mode: learn from the examples, search all images."""
    model.encoded = model.decoded = 0
    start = time.process_time()
    known = task.examples.objects
    finder = FewShot(params, task.examples, known=known, keep=True)
    frames = list(task.image.frames())
    found = [
        finder(
            model, compose(task.image.frame(f)), f, report=_silent, stop=_never
        ).masks
        for f in frames
    ]
    tally.seconds += time.process_time() - start
    tally.encoded += model.encoded
    tally.decoded += model.decoded
    tally.images += len(frames)
    suggested = task.score(found)
    tries = [
        task.score([finder.filter(f, float(t)).masks for f in frames])
        for t in _THRESHOLDS[params.mode]
    ]
    tally.suggested.append(suggested)
    tally.best.append(max([suggested, *tries], key=lambda s: np.nan_to_num(s.f1)))


def _silent(*_: object) -> None:
    """Nobody listens."""


def _never() -> bool:
    return False


def main() -> None:
    """Run over the groups that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="sam2-nano")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--group", default="", help="only groups with this in the name")
    parser.add_argument("--modes", default="fast,exact")
    parser.add_argument("--examples", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=3, help="per group and repeat")
    parser.add_argument("--points", type=int, default=32, help="of the exact mode")
    parser.add_argument("--largest", type=int, default=1024, help="side, from middle")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = Counted(load_model(args.model, device=args.device, precision="float32"))
    settings = {
        "fast": FewShotParams(),
        "exact": FewShotParams(
            mode="exact", points_per_side=args.points, max_area=0, tile="auto"
        ),
    }
    table: dict[str, dict[str, float]] = {}
    for name, samples in read_groups(args.data, args.largest).items():
        if args.group not in name:
            continue
        measure = "recall" if name.startswith(_SPARSE) else "f1"
        for mode in args.modes.split(","):
            tally = Tally()
            for seed in range(args.repeats):
                rng = np.random.default_rng(seed)
                task = Task.draw(samples, args.examples, args.images, rng)
                run(model, task, settings[mode], tally)
            table[f"{name}: {mode}"] = tally.row(measure)
            cells = [f"{k} {v:.3f}" for k, v in tally.row(measure).items()]
            print(f"{name}: {mode}: " + ", ".join(cells), flush=True)
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()

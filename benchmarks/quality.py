"""How well a model segments images whose truth is known.

    python benchmarks/quality.py DATA [DATA ...] --model sam2-nano

DATA is a folder of ``img_XXX.*`` and ``lab_XXX.tif`` (instance ids) with an optional
``manifest.csv`` whose ``note`` names the kind of image. Prints, per folder and kind:
F1 at IoU 0.5, precision, recall and AP of automatic masks with one setting, the mean
IoU of one box, one point (best of three) and three clicks per true object, and
seconds. Folders of stacks and images above ``--largest`` pixels are skipped aloud.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, find_objects

from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.metrics import Scores, evaluate_labels
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.protocol import MULTIMASK, SINGLE, Prompts
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.resample import Enlargement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.protocol import Embedding, SamModel

_SMALLEST = 20
"""Objects below this many pixels do not count, as in the scorer."""


@dataclass
class Tally:
    """Results of one group of images."""

    scores: Scores = field(default_factory=Scores)
    box: list[float] = field(default_factory=list)
    point: list[float] = field(default_factory=list)
    clicks: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def row(self) -> dict[str, float]:
        """Means over all images and objects."""
        s = self.scores
        return {
            "images": s.images,
            "objects": s.truth,
            "found": s.predicted,
            "f1": s.f1,
            "precision": s.precision,
            "recall": s.recall,
            "ap": s.ap,
            "box": _mean(self.box),
            "point": _mean(self.point),
            "three_clicks": _mean(self.clicks),
            "seconds": self.seconds / max(s.images, 1),
        }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def pairs(folder: Path) -> Iterator[tuple[Path, NDArray[np.int64], str]]:
    """Image file, label image and kind of every 2-D pair in a folder."""
    import tifffile

    manifest = folder / "manifest.csv"
    kinds = {}
    if manifest.exists():
        with manifest.open() as file:
            kinds = {row["id"]: row.get("note", "") for row in csv.DictReader(file)}
    for truth in sorted(folder.glob("lab_*.tif")):
        stem = truth.stem.removeprefix("lab_")
        labels = tifffile.imread(truth)
        image = next(folder.glob(f"img_{stem}.*"), None)
        if image is None or labels.ndim != 2:
            print(f"skipped: {truth} (not a 2-D pair)")
            continue
        yield image, labels.astype(np.int64), kinds.get(stem, "") or folder.name


def to_labels(masks: Masks) -> NDArray[np.int32]:
    """Label image of masks that do not overlap."""
    labels = np.zeros(masks.shape, np.int32)
    for i in range(len(masks)):
        crop, (y0, x0) = masks.crop(i)
        window = labels[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]]
        window[crop] = i + 1
    return labels


class Prompted:
    """Answers to prompts taken from the truth of one image."""

    def __init__(
        self, model: SamModel, rgb: NDArray[np.uint8], labels: NDArray[np.int64]
    ) -> None:
        self.model = model
        self.embedding: Embedding = model.encode([rgb])[0]
        boxes = find_objects(labels)
        self.truth = [
            (labels == number, window)
            for number, window in enumerate(boxes, start=1)
            if window is not None and (labels[window] == number).sum() >= _SMALLEST
        ]
        side = model.input_size // 4
        self.enlargement = Enlargement.of(
            side,
            model.input_size,
            self.embedding.scaled,
            self.embedding.shape,
            padded=self.embedding.padded,
        )

    def box(self) -> list[float]:
        """IoU of the single answer to each object's box."""
        boxes = np.array(
            [[w[0].start, w[1].start, w[0].stop, w[1].stop] for _, w in self.truth],
            np.float64,
        )
        none = np.zeros((len(boxes), 0, 2)), np.zeros((len(boxes), 0), np.int64)
        prompts = Prompts(*none, boxes=boxes)
        return [answer.iou for answer in self._decode(prompts, SINGLE)]

    def point(self) -> list[float]:
        """Best IoU of the three answers to the innermost point of each object."""
        clicks = Prompts.clicks(np.array([_middle(mask) for mask, _ in self.truth]))
        return [answer.iou for answer in self._decode(clicks, MULTIMASK)]

    def three_clicks(self) -> list[float]:
        """IoU after one click and two corrections of what is most wrong.

        Each correction goes with the logits of the answer that it corrects, as when
        a person clicks.
        """
        points = np.array([[_middle(mask)] for mask, _ in self.truth], np.float64)
        kinds = np.ones(points.shape[:2], np.int64)
        answers = self._decode(Prompts(points, kinds), MULTIMASK)
        for _ in range(2):
            corrections = [
                _correction(mask, answer.mask)
                for (mask, _), answer in zip(self.truth, answers, strict=True)
            ]
            more = np.array([c[0] for c in corrections], np.float64)
            points = np.concatenate([points, more[:, None]], 1)
            kind = np.array([c[1] for c in corrections], np.int64)
            kinds = np.concatenate([kinds, kind[:, None]], 1)
            low = torch.from_numpy(np.stack([a.logits for a in answers])[:, None])
            again = Prompts(points, kinds, masks=low.clamp(-32, 32))
            answers = self._decode(again, SINGLE)
        return [answer.iou for answer in answers]

    def _decode(self, prompts: Prompts, tokens: tuple[int, ...]) -> list[Answer]:
        """The best of the answers to each prompt, judged by the truth."""
        best: list[Answer] = []
        side = self.enlargement.low
        for start in range(0, len(prompts), 16):
            part = prompts[start : start + 16]
            decoded = self.model.decode(self.embedding, part, tokens=tokens)
            logits = decoded.logits.cpu().numpy()
            for k, several in enumerate(logits.reshape(len(part), -1, side, side)):
                truth = self.truth[start + k][0]
                found = [self.enlargement.enlarge(one) > 0 for one in several]
                ious = [_iou(truth, one) for one in found]
                chosen = int(np.argmax(ious))
                best.append(Answer(ious[chosen], found[chosen], several[chosen]))
        return best


@dataclass
class Answer:
    """A mask, its logits at low resolution, and its IoU with the truth."""

    iou: float
    mask: NDArray[np.bool_]
    logits: NDArray[np.float32]


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def _middle(mask: NDArray[np.bool_]) -> tuple[float, float]:
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), mask.shape)
    return float(y), float(x)


def _correction(
    truth: NDArray[np.bool_], found: NDArray[np.bool_]
) -> tuple[tuple[float, float], int]:
    """The innermost wrong pixel, and whether it belongs to the object."""
    missed, extra = truth & ~found, found & ~truth
    inside = missed.sum() >= extra.sum()
    wrong = missed if inside else extra
    return _middle(wrong if wrong.any() else truth), int(inside)


def main() -> None:
    """Run over the folders that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--model", default="sam2-nano")
    parser.add_argument("--points", type=int, default=32)
    parser.add_argument("--largest", type=int, default=2_000_000, help="pixels")
    parser.add_argument("--no-prompts", action="store_true")
    parser.add_argument("--no-auto", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = load_model(args.model, precision="float32")
    table: dict[str, dict[str, float]] = {}
    for folder in args.data:
        groups: dict[str, Tally] = defaultdict(Tally)
        for path, labels, kind in pairs(folder):
            if labels.size > args.largest:
                print(f"skipped: {path} ({labels.size} pixels)")
                continue
            rgb = compose(open_image(path).frame(FrameIndex()))
            both = [groups["all"]] + ([groups[kind]] if kind != folder.name else [])
            if not args.no_auto:
                start = time.perf_counter()
                masks = automatic_masks(
                    model, rgb, AutoParams(points_per_side=args.points)
                )
                took = time.perf_counter() - start
                scores = evaluate_labels(to_labels(masks), labels)
                for tally in both:
                    tally.scores, tally.seconds = (
                        tally.scores + scores,
                        tally.seconds + took,
                    )
            if not args.no_prompts and labels.any():
                prompted = Prompted(model, rgb, labels)
                box, point = prompted.box(), prompted.point()
                clicks = prompted.three_clicks()
                for tally in both:
                    tally.box += box
                    tally.point += point
                    tally.clicks += clicks
        for kind, tally in groups.items():
            table[f"{folder.name}: {kind}"] = tally.row()
            print(_line(f"{folder.name}: {kind}", tally.row()), flush=True)
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


def _line(name: str, row: dict[str, float]) -> str:
    whole = {"images", "objects", "found"}
    cells = [f"{k} {v:.0f}" if k in whole else f"{k} {v:.3f}" for k, v in row.items()]
    return f"{name}: " + ", ".join(cells)


if __name__ == "__main__":
    main()

"""Measure the model: prompts from the truth, and automatic masks.

By default on the images of ``train_*`` that training holds out. ``--calibrate``
searches one setting of the automatic masks there; ``--folder`` measures others.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from skimage.io import imread

from data import Item, load_real, split
from napari_sam_suite.engine.auto import Automatic
from napari_sam_suite.engine.embed import EmbeddingCache, Remembering
from napari_sam_suite.engine.filters import Candidates, refilter
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.metrics import Scores, evaluate_labels
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.nano.config import WEIGHTS, build_nano
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.prompts.answers import Answer, answer
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.engine.prompts.prompt import Prompt
from network import Trainee, export

PROMPTS = ("point", "chosen", "box", "three")
GRID = {
    "pred_iou": (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7),
    "stability": (0.3, 0.5, 0.65, 0.8),
    "nms": (0.2, 0.4),
}


@dataclass(frozen=True)
class Setting:
    """Thresholds of the automatic masks."""

    pred_iou: float = 0.5
    stability: float = 0.5
    nms: float = 0.5


def as_rgb(image: np.ndarray) -> np.ndarray:
    """(Y, X, 3) uint8 as the composite shows it (0.1 to 99.9 percentile)."""
    if image.ndim == 3:
        return np.ascontiguousarray(image[..., :3])
    low, high = np.percentile(image, [0.1, 99.9])
    grey = (image - float(low)) / max(float(high - low), 1e-6) * 255
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def candidates(model, rgb: np.ndarray, tile: int | str) -> Candidates:
    """Everything the grid finds, with almost no threshold."""
    params = AutoParams(
        pred_iou_thresh=GRID["pred_iou"][0],
        stability_score_thresh=GRID["stability"][0],
        stability_score_offset=1.0,
        box_nms_thresh=GRID["nms"][-1],
        tile=tile,
    )
    find = Automatic(params, keep_candidates=True)
    found = find(model, rgb, FrameIndex(), report=lambda *_: None, stop=lambda: False)
    return found.candidates


def paint(found: Candidates, setting: Setting, shape: tuple[int, int]) -> np.ndarray:
    """Labels of what a run with ``setting`` gives."""
    masks = refilter(
        found,
        found.params.with_(
            pred_iou_thresh=setting.pred_iou,
            stability_score_thresh=setting.stability,
            box_nms_thresh=setting.nms,
        ),
    )
    labels = np.zeros(shape, np.uint16)
    for i in range(len(masks)):
        crop, (y, x) = masks.crop(i)
        labels[y : y + crop.shape[0], x : x + crop.shape[1]][crop] = i + 1
    return labels


def calibrate(found: list[tuple[Item, Candidates]]) -> tuple[Setting, dict[str, float]]:
    """The setting with the best mean F1 over groups."""
    table = {}
    for choice in itertools.product(*GRID.values()):
        setting = Setting(*choice)
        totals = automatic_scores(found, setting)
        table[choice] = float(np.mean([s.f1 for s in totals.values()]))
    best = max(table, key=table.__getitem__)
    return Setting(*best), {str(k): round(v, 4) for k, v in table.items()}


def automatic_scores(
    found: list[tuple[Item, Candidates]], setting: Setting
) -> dict[str, Scores]:
    """Scores of automatic masks per group."""
    totals: dict[str, Scores] = {}
    for item, masks in found:
        labels = paint(masks, setting, item.labels.shape)
        scores = evaluate_labels(labels, item.labels)
        totals[item.group] = totals.get(item.group, Scores()) + scores
    return totals


def _iou(found: Answer, truth: np.ndarray) -> float:
    """IoU of an answer with a mask of the whole image."""
    (y, x), (h, w) = found.origin, found.crop.shape
    common = int((truth[y : y + h, x : x + w] & found.crop).sum())
    return common / max(int(found.crop.sum()) + int(truth.sum()) - common, 1)


def _deepest(mask: np.ndarray) -> tuple[float, float]:
    """The pixel (y, x) of a mask that is farthest from its outside."""
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    depth = ndimage.distance_transform_edt(np.pad(mask[box], 1))[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return float(y + box[0].start), float(x + box[1].start)


def prompt_scores(model, item: Item, limit: int = 20) -> dict[str, list[float]]:
    """IoU of one point (best of three, and as chosen), a box, three clicks.

    As the engine answers, each in the view that suits it.
    """
    areas = np.bincount(item.labels.ravel())
    ids = np.flatnonzero(areas >= 20)
    ids = np.random.default_rng(0).permutation(ids[ids > 0])[:limit]
    truth = [item.labels == i for i in ids]
    rgb, eyes = as_rgb(item.image), Remembering(model, EmbeddingCache())
    ask = partial(answer, eyes, rgb, params=PromptParams(answers="all"))
    said = [Prompt(inside=(_deepest(mask),)) for mask in truth]
    found = ask(said, keep_logits=True)
    each = [
        [_iou(a, t) for a in ranked] for ranked, t in zip(found, truth, strict=True)
    ]
    scores = {"point": [max(row) for row in each], "chosen": [row[0] for row in each]}
    for _ in range(2):
        earlier = {k: ranked[0] for k, ranked in enumerate(found)}
        said = [
            _corrected(prompt, earlier[k], truth[k]) for k, prompt in enumerate(said)
        ]
        found = ask(said, earlier=earlier, keep_logits=True)
    scores["three"] = [_iou(a[0], t) for a, t in zip(found, truth, strict=True)]
    boxes = ask([Prompt(box=_box(mask)) for mask in truth])
    scores["box"] = [_iou(a[0], t) for a, t in zip(boxes, truth, strict=True)]
    return scores


def _corrected(prompt: Prompt, found: Answer, truth: np.ndarray) -> Prompt:
    """The prompt with one more click, in the middle of the largest error."""
    full = np.zeros_like(truth)
    (y, x), (h, w) = found.origin, found.crop.shape
    full[y : y + h, x : x + w] = found.crop
    if not (full != truth).any():
        return prompt
    place = _deepest(full != truth)
    if truth[int(place[0]), int(place[1])]:
        return replace(prompt, inside=(*prompt.inside, place))
    return replace(prompt, outside=(*prompt.outside, place))


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    ys, xs = np.nonzero(mask)
    return float(ys.min()), float(xs.min()), float(ys.max()), float(xs.max())


def side_or_word(text: str) -> int | str:
    """A number of pixels, or a word such as ``auto``."""
    return int(text) if text.isdigit() else text


def weights_of(path: Path) -> Path:
    """A safetensors file for ``path``, exported if it is a training checkpoint."""
    if path.suffix != ".pt":
        return path
    network = Trainee(build_nano(pretrained=False))
    state = torch.load(path, weights_only=True, map_location="cpu")
    network.load_state_dict(state["average"])
    target = Path(tempfile.mkdtemp()) / WEIGHTS.name
    export(network, target)
    return target


def read_folder(folder: Path) -> list[Item]:
    """Images of a measuring folder; its groups are the notes of its manifest."""
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    items = []
    for row in rows:
        image = np.asarray(imread(folder / row["image"]))
        labels = np.asarray(imread(folder / f"lab_{row['id']}.tif"))
        group = row.get("note") or folder.name
        items.append(Item(image, labels.astype(np.uint16), group, name=row["image"]))
    return items


def spread(items: list[Item], most: int) -> list[Item]:
    """At most ``most`` items of each group, evenly spread."""
    chosen = []
    for group in sorted({item.group for item in items}):
        own = [item for item in items if item.group == group]
        count = min(most, len(own))
        chosen += [own[i * len(own) // count] for i in range(count)]
    return chosen


def report(
    model,
    items: list[Item],
    setting: Setting | None,
    tile: int | str,
    only_auto: bool = False,
) -> dict:
    """Scores per group; calibrates if no setting is given."""
    found, prompts, seconds = [], {}, 0.0
    for item in items:
        began = time.perf_counter()
        found.append((item, candidates(model, as_rgb(item.image), tile)))
        seconds += time.perf_counter() - began
        own = prompts.setdefault(item.group, {k: [] for k in PROMPTS})
        if only_auto:
            continue
        for name, values in prompt_scores(model, item).items():
            own[name] += values
    table: dict[str, float] = {}
    if setting is None:
        setting, table = calibrate(found)
    scores = {
        group: {
            "images": total.images,
            "f1": round(total.f1, 3),
            "precision": round(total.precision, 3),
            "recall": round(total.recall, 3),
            **{k: round(float(np.mean(v)), 3) for k, v in prompts[group].items() if v},
        }
        for group, total in automatic_scores(found, setting).items()
    }
    return {
        "setting": vars(setting) | {"tile": tile},
        "scores": scores,
        "seconds_per_image": round(seconds / len(items), 2),
        "calibration": table,
    }


def markdown(result: dict) -> str:
    """The scores as a table."""
    names = ["images", "f1", "precision", "recall", *PROMPTS]
    lines = ["| group | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for group, row in result["scores"].items():
        lines.append(f"| {group} | {' | '.join(str(row.get(n, '')) for n in names)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Report from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="parent of the train_* folders")
    parser.add_argument("--folder", type=Path, help="one folder to measure instead")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, default=Path("training/runs/report.json"))
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--only-auto", action="store_true", help="no prompts")
    parser.add_argument("--setting", type=float, nargs=3, help="IoU, stability, NMS")
    parser.add_argument("--tile", default=256, type=side_or_word, help="px, or auto")
    parser.add_argument("--most", type=int, default=1000, help="images of a group")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    items = read_folder(args.folder) if args.folder else split(load_real(args.data))[1]
    setting = None if args.calibrate else Setting(*(args.setting or ()))
    spec = find_model(weights_of(args.weights), family="sam2", config="nano")
    model = load_model(spec, device="cpu")
    result = report(model, spread(items, args.most), setting, args.tile, args.only_auto)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    args.out.with_suffix(".md").write_text(markdown(result), encoding="utf-8")
    sys.stdout.write(json.dumps(result["setting"]) + "\n" + markdown(result))


if __name__ == "__main__":
    main()

"""Measure the model: prompts from the truth, and automatic masks.

By default on the images of ``train_*`` that training holds out; writes a JSON and
a Markdown report. ``--calibrate`` searches one setting of the automatic masks.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from torchvision.ops import batched_nms

from data import MEAN, STD, Item, load_real, split

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from napari_sam_suite.engine.models.nano.config import WEIGHTS, build_nano

FRAME = 512
PROMPTS = ("point", "chosen", "box", "three")


@dataclass
class Setting:
    """Thresholds of the automatic masks."""

    pred_iou: float = 0.6
    stability: float = 0.6
    nms: float = 0.5
    points_per_side: int = 32


@dataclass
class Proposals:
    """Candidate masks of one image at a quarter of the model's frame."""

    logits: torch.Tensor
    iou: torch.Tensor
    stability: torch.Tensor
    boxes: torch.Tensor


def as_rgb(item: Item) -> np.ndarray:
    """(Y, X, 3) uint8 as the composite would show it (0.1 to 99.9 percentile)."""
    if item.image.ndim == 3:
        return item.image[..., :3]
    low, high = np.percentile(item.image, [0.1, 99.9])
    grey = (item.image - float(low)) / max(float(high - low), 1e-6) * 255
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@torch.inference_mode()
def embed(model, rgb: np.ndarray):
    """Image embedding and the two high-resolution feature maps."""
    pixels = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None] / 255
    pixels = F.interpolate(
        pixels, (FRAME, FRAME), mode="bilinear", antialias=True, align_corners=False
    )
    features = model.forward_image((pixels - MEAN) / STD)["backbone_fpn"]
    return features[2] + model.no_mem_embed.view(1, -1, 1, 1), features[:2]


@torch.inference_mode()
def decode(model, features, points, kinds, masks=None):
    """Logits (N, 4, 128, 128) and IoU (N, 4) of (N, P, 2) prompts in model px."""
    prompts = model.sam_prompt_encoder
    sparse = prompts._embed_points(points, kinds, pad=True)
    if masks is None:
        dense = prompts.no_mask_embed.weight.view(1, -1, 1, 1).expand(
            len(points), -1, 32, 32
        )
    else:
        dense = prompts._embed_masks(masks[:, None])
    logits, iou, _, _ = model.sam_mask_decoder.predict_masks(
        image_embeddings=features[0],
        image_pe=prompts.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=True,
        high_res_features=features[1],
    )
    return logits, iou


def to_model(points: np.ndarray, shape: tuple[int, int]) -> torch.Tensor:
    """(N, P, 2) (y, x) pixel centres to (x, y) of the model's frame."""
    size = np.array(shape[:2])
    scaled = (points + 0.5) * FRAME / size - 0.5
    return torch.from_numpy(scaled[..., ::-1].astype(np.float32).copy())


@torch.inference_mode()
def propose(model, rgb: np.ndarray, points_per_side: int, least: float) -> Proposals:
    """Masks of a grid of points whose predicted IoU is at least ``least``."""
    features = embed(model, rgb)
    places = (np.arange(points_per_side) + 0.5) / points_per_side * FRAME - 0.5
    grid = torch.tensor(list(itertools.product(places, places)), dtype=torch.float32)
    kept = []
    for batch in grid.flip(1).split(32):
        kinds = torch.ones(len(batch), 1, dtype=torch.long)
        logits, iou = decode(model, features, batch[:, None], kinds)
        logits, iou = logits[:, 1:].flatten(0, 1), iou[:, 1:].flatten()
        good = (iou >= least) & (logits > 0).any(-1).any(-1)
        kept.append((logits[good].half(), iou[good]))
    logits = torch.cat([k[0] for k in kept])
    iou = torch.cat([k[1] for k in kept])
    outer = (logits > -1).sum((-2, -1)).float()
    stability = (logits > 1).sum((-2, -1)).float() / outer.clamp(min=1)
    boxes = torch.zeros(len(logits), 4)
    if len(logits):
        rows, columns = (logits > 0).any(2).float(), (logits > 0).any(1).float()
        low = [columns.argmax(1), rows.argmax(1)]
        high = [128 - m.flip(1).argmax(1) for m in (columns, rows)]
        boxes = torch.stack(low + high, 1).float()
    return Proposals(logits, iou, stability, boxes)


def paint(found: Proposals, setting: Setting, shape: tuple[int, int]) -> np.ndarray:
    """Labels of the masks that pass, better masks on top."""
    good = (found.iou >= setting.pred_iou) & (found.stability >= setting.stability)
    index = torch.nonzero(good).flatten()
    boxes, scores = found.boxes[index], found.iou[index]
    index = index[batched_nms(boxes, scores, torch.zeros(len(index)), setting.nms)]
    labels = np.zeros(shape, np.uint16)
    count = 0
    for value in index.tolist():
        logits = found.logits[value].float()[None, None]
        mask = F.interpolate(logits, shape, mode="bilinear")[0, 0].numpy() > 0
        free = mask & (labels == 0)
        if free.sum() < max(12, 0.5 * mask.sum()):
            continue
        count += 1
        labels[free] = count
    return labels


def iou_matrix(truth: np.ndarray, answer: np.ndarray, least: int = 20) -> np.ndarray:
    """(objects, answers) IoU of two label images; smaller ones than ``least`` out."""
    n, m = int(truth.max()) + 1, int(answer.max()) + 1
    joint = np.bincount(
        truth.ravel().astype(np.int64) * m + answer.ravel(), minlength=n * m
    ).reshape(n, m)
    rows, columns = joint.sum(1), joint.sum(0)
    iou = joint / np.maximum(rows[:, None] + columns[None] - joint, 1)
    keep = [np.flatnonzero(a >= least) for a in (rows, columns)]
    keep = [k[k > 0] for k in keep]
    return iou[np.ix_(*keep)]


def matches(iou: np.ndarray) -> int:
    """Pairs at IoU 0.5."""
    if not iou.size:
        return 0
    rows, columns = linear_sum_assignment(-iou)
    return int((iou[rows, columns] >= 0.5).sum())


def counts_of(truth: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Matched, objects, answers."""
    iou = iou_matrix(truth, answer)
    return np.array([matches(iou), *iou.shape])


def f1(counts: np.ndarray) -> float:
    """F1 of ``counts_of`` totals."""
    return float(2 * counts[0] / max(counts[1] + counts[2], 1))


def _iou_of(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    full = F.interpolate(logits, truth.shape[1:], mode="bilinear") > 0
    common = (full & truth[:, None]).sum((-2, -1)).float()
    return common / (full | truth[:, None]).sum((-2, -1)).clamp(min=1)


@torch.inference_mode()
def prompt_scores(model, item: Item, limit: int = 24) -> dict[str, list[float]]:
    """IoU of one point (best of three, and as chosen), a box, three clicks."""
    rng = np.random.default_rng(0)
    features = embed(model, as_rgb(item))
    scores: dict[str, list[float]] = {k: [] for k in PROMPTS}
    ids = [i for i, b in enumerate(ndimage.find_objects(item.labels), 1) if b]
    ids = [i for i in ids if (item.labels == i).sum() >= 20]
    if not ids:
        return scores
    ids = rng.permutation(ids)[:limit]
    shape = item.labels.shape
    truth = np.stack([item.labels == i for i in ids])
    inner = [ndimage.distance_transform_edt(np.pad(t, 1))[1:-1, 1:-1] for t in truth]
    clicks = np.stack([np.unravel_index(d.argmax(), shape) for d in inner])[:, None]
    masks = torch.from_numpy(truth)
    points = to_model(clicks, shape)
    kinds = torch.ones(len(ids), 1, dtype=torch.long)
    logits, iou = decode(model, features, points, kinds)
    each = _iou_of(logits[:, 1:], masks)
    best = iou[:, 1:].argmax(1)
    rows = torch.arange(len(ids))
    scores["point"] = each.max(1).values.tolist()
    scores["chosen"] = each[rows, best].tolist()
    low = logits[rows, 1 + best]
    for _ in range(2):
        full = F.interpolate(low[:, None], shape, mode="bilinear")[:, 0].numpy() > 0
        wrong = full != truth
        where, sign = [], []
        for error, mask in zip(wrong, truth, strict=True):
            depth = ndimage.distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1]
            y, x = np.unravel_index(depth.argmax(), shape)
            where.append((y, x))
            sign.append(int(mask[y, x]))
        points = torch.cat([points, to_model(np.array(where)[:, None], shape)], 1)
        kinds = torch.cat([kinds, torch.tensor(sign)[:, None]], 1)
        logits, _ = decode(model, features, points, kinds, low.clamp(-32, 32))
        low = logits[:, 0]
    scores["three"] = _iou_of(low[:, None], masks)[:, 0].tolist()
    corners = []
    for mask in truth:
        ys, xs = np.nonzero(mask)
        corners.append([[ys.min(), xs.min()], [ys.max(), xs.max()]])
    kinds = torch.tensor([[2, 3]]).repeat(len(ids), 1)
    logits, _ = decode(model, features, to_model(np.array(corners), shape), kinds)
    scores["box"] = _iou_of(logits[:, :1], masks)[:, 0].tolist()
    return scores


def load_model(path: Path):
    """The packaged weights, a safetensors file, or a training checkpoint."""
    if path.suffix != ".pt":
        return build_nano(weights=path)
    model = build_nano(pretrained=False)
    state = torch.load(path, weights_only=True)["average"]
    prefix = "model."
    state = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    model.load_state_dict(state)
    return model


def calibrate(found: list[tuple[Item, Proposals]]) -> tuple[Setting, dict]:
    """The setting with the best mean F1 over groups on ``found``."""
    table = {}
    grid = itertools.product(
        (0.5, 0.6, 0.65, 0.7, 0.75, 0.8), (0.4, 0.6, 0.75, 0.85), (0.3, 0.5, 0.7)
    )
    for choice in grid:
        setting = Setting(*choice)
        totals: dict[str, np.ndarray] = {}
        for item, proposals in found:
            labels = paint(proposals, setting, item.labels.shape)
            counts = counts_of(item.labels, labels)
            totals[item.group] = totals.get(item.group, 0) + counts
        table[choice] = float(np.mean([f1(v) for v in totals.values()]))
    best = max(table, key=table.__getitem__)
    return Setting(*best), {str(k): round(v, 4) for k, v in table.items()}


def report(model, items: list[Item], setting: Setting | None) -> dict:
    """Scores per group; calibrates if no setting is given."""
    found, prompts, began = [], {}, time.time()
    for item in items:
        rgb = as_rgb(item)
        found.append((item, propose(model, rgb, 32, 0.4)))
        for name, values in prompt_scores(model, item).items():
            prompts.setdefault(item.group, {}).setdefault(name, []).extend(values)
    seconds = (time.time() - began) / len(items)
    table = {}
    if setting is None:
        setting, table = calibrate(found)
    groups: dict[str, np.ndarray] = {}
    for item, proposals in found:
        counts = counts_of(item.labels, paint(proposals, setting, item.labels.shape))
        groups[item.group] = groups.get(item.group, 0) + counts
    scores = {
        group: {
            "auto_f1": round(f1(counts), 3),
            **{k: round(float(np.mean(v)), 3) for k, v in prompts[group].items()},
        }
        for group, counts in groups.items()
    }
    return {
        "setting": vars(setting),
        "scores": scores,
        "seconds_per_image": round(seconds, 2),
        "calibration": table,
    }


def main() -> None:
    """Report from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, default=Path("training/runs/report.json"))
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--images", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    _, held = split(load_real(args.data))
    step = max(1, len(held) // args.images)
    setting = None if args.calibrate else Setting()
    result = report(load_model(args.weights), held[::step], setting)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    result.pop("calibration")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

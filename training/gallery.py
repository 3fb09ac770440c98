"""Good and bad cases of the model on synthetic scenes that it never saw.

For every kind, scenes with new seeds are segmented with the settings of the card; the
best and the worst of each are drawn beside each other, truth green and found yellow.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage.segmentation import find_boundaries

from evaluate import as_rgb, weights_of
from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.metrics import Scores, evaluate_labels
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.nano.config import WEIGHTS
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.synthetic.scene import KINDS, synthesize

SIDE = 256
SEED = 900_000
TRUTH, FOUND = (0, 220, 90), (255, 220, 0)
COLUMNS = 5


def segment(model, rgb: np.ndarray) -> np.ndarray:
    """Labels of automatic masks."""
    masks = automatic_masks(model, rgb, AutoParams(overlap="exclusive"))
    labels = np.zeros(rgb.shape[:2], np.uint16)
    for i in range(len(masks)):
        crop, (y, x) = masks.crop(i)
        labels[y : y + crop.shape[0], x : x + crop.shape[1]][crop] = i + 1
    return labels


def draw(rgb: np.ndarray, truth: np.ndarray, found: np.ndarray, text: str) -> Image:
    """Both outlines on a picture of twice the size, and a line below it."""
    large = rgb.repeat(2, 0).repeat(2, 1)
    for labels, colour in ((truth, TRUTH), (found, FOUND)):
        twice = labels.repeat(2, 0).repeat(2, 1)
        large[find_boundaries(twice, mode="inner")] = colour
    picture = Image.new("RGB", (2 * SIDE, 2 * SIDE + 22), "white")
    picture.paste(Image.fromarray(large), (0, 0))
    ImageDraw.Draw(picture).text((6, 2 * SIDE + 5), text, fill="black")
    return picture


def sheet(pictures: list, path: Path) -> None:
    """Pictures in rows of `COLUMNS`, at half the size."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    for i, picture in enumerate(pictures):
        page.paste(picture, (i % COLUMNS * width, i // COLUMNS * height))
    page = page.resize((page.width // 2, page.height // 2), Image.LANCZOS)
    page.quantize(256).save(path, optimize=True)


def main() -> None:
    """Draw from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--count", type=int, default=8, help="scenes of a kind")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    weights = weights_of(args.weights)
    name = "sam2-nano" if weights == WEIGHTS else weights
    model = load_model(find_model(name, family="sam2", config="nano"), device="cpu")
    scores, good, bad = {}, [], []
    for kind in KINDS:
        cases, total = [], Scores()
        for seed in range(SEED, SEED + args.count):
            scene = synthesize(kind, (SIDE, SIDE), seed)
            rgb = as_rgb(scene.image)
            found = segment(model, rgb)
            score = evaluate_labels(found, scene.labels)
            total += score
            case = (rgb, scene.labels, found, f"{kind}: F1 {score.f1:.2f}")
            cases.append((score.f1, seed, case))
        cases.sort(key=lambda case: case[:2])
        bad.append(draw(*cases[0][2]))
        good.append(draw(*cases[-1][2]))
        scores[kind] = round(total.f1, 2)
    sheet(good, args.out / "model_good.png")
    sheet(bad, args.out / "model_bad.png")
    sys.stdout.write(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Masks in bfloat16 and float16 against those in float32, with real weights.

    python benchmarks/agreement.py --model sam2-nano --size 512 --points 16

Prints, as a table, for each precision how many masks there are, how many more or fewer
than in float32, and the share of them that have a mask of float32 with an IoU of at
least 0.95. Weights that are not on this machine have to be downloaded first.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from auto import picture
from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.params import AutoParams

if TYPE_CHECKING:
    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.protocol import Precision

SAME = 0.95
"""IoU from which two masks are the same."""


def best_iou(masks: Masks, others: Masks) -> np.ndarray:
    """IoU of every mask with the most similar one of others, (n,)."""
    best = np.zeros(len(masks))
    for i, box in enumerate(masks.boxes):
        apart = (others.boxes[:, :2] >= box[2:]) | (others.boxes[:, 2:] <= box[:2])
        for j in np.flatnonzero(~apart.any(1)):
            shared = masks.intersection(i, int(j), others)
            either = masks.area[i] + others.area[j] - shared
            best[i] = max(best[i], shared / either)
    return best


def main() -> None:
    """Compare the precisions that the arguments name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sam2-nano")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--points", type=int, default=32)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--precisions", nargs="+", default=["bfloat16", "float16"], metavar="NAME"
    )
    args = parser.parse_args()
    image = picture(args.size)
    params = AutoParams(
        search="grid", points_per_side=args.points, tile="off", overlap="allow"
    )

    def find(precision: Precision) -> Masks:
        model = load_model(args.model, device=args.device, precision=precision)
        return automatic_masks(model, image, params)

    exact = find("float32")
    print(f"| precision | masks | more or fewer | IoU of {SAME} or more |")
    print("|---|---|---|---|")
    print(f"| float32 | {len(exact)} | | |")
    for precision in args.precisions:
        masks = find(precision)
        same = (best_iou(masks, exact) >= SAME).mean() if len(masks) else 1.0
        more = len(masks) - len(exact)
        print(f"| {precision} | {len(masks)} | {more:+d} | {same:.1%} |")


if __name__ == "__main__":
    main()

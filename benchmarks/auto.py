"""Automatic masks against the upstream generators: time, memory, and the same masks.

    python benchmarks/auto.py --model sam2.1_hiera_tiny --size 1024 --points 32
    python benchmarks/auto.py --rows all --json rows.jsonl     # the table of the docs
    python benchmarks/auto.py --rows sam2-nano:512:16
    python benchmarks/auto.py --table rows.jsonl               # the same, from a file

Each row is one process: the same network and image, upstream and ours in turn. Models
without weights run on a synthetic scene (see scene.py), the embedded one on its own
answers. Prints seconds (wall and CPU), the ratio, the peak memory above the loaded
model, and how many masks and pixels differ. agreement.py compares precisions.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cost import Cost, measure
from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.synthetic.scene import synthesize
from scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROWS = [
    *(("sam2-nano", size, points) for size in (512, 1024) for points in (16, 32)),
    *(
        ("sam2.1_hiera_tiny", size, points)
        for size in (512, 1024, 2048)
        for points in (16, 32)
    ),
    *(("sam_vit_b_01ec64", size, 16) for size in (512, 1024, 2048)),
]
"""Model, size of the image and points per side of every row of the docs."""


def upstream(model: Any, params: AutoParams) -> Callable[[np.ndarray], Any]:
    """The generator that the model's authors wrote, around the same network."""
    settings: dict[str, Any] = {
        "points_per_side": params.points_per_side,
        "pred_iou_thresh": params.pred_iou_thresh,
        "stability_score_thresh": params.stability_score_thresh,
        "stability_score_offset": params.stability_score_offset,
        "box_nms_thresh": params.box_nms_thresh,
        "output_mode": "uncompressed_rle",
    }
    if model.spec.family == "sam1":
        from segment_anything import SamAutomaticMaskGenerator

        generate = SamAutomaticMaskGenerator(model.network, **settings).generate

        def with_their_attention(image: np.ndarray) -> Any:
            attentions = [b.attn for b in model.network.image_encoder.blocks]
            fused = [attention.__dict__.pop("forward") for attention in attentions]
            try:
                return generate(image)
            finally:
                for attention, forward in zip(attentions, fused, strict=True):
                    attention.forward = forward

        return with_their_attention
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        generator = SAM2AutomaticMaskGenerator(model.network, **settings)
    side = model.input_size
    generator.predictor._bb_feat_sizes = [(side // n, side // n) for n in (4, 8, 16)]
    return generator.generate


def differing(records: list[dict[str, Any]], masks: Any) -> tuple[int, int]:
    """Masks missing or extra, and pixels that differ in the others."""
    from sam2.utils.amg import rle_to_mask

    pixels = sum(
        int((rle_to_mask(record["segmentation"]) != masks.full(i)).sum())
        for i, record in enumerate(records[: len(masks)])
    )
    return abs(len(records) - len(masks)), pixels


def picture(size: int) -> np.ndarray:
    """A synthetic field of nuclei, (size, size, 3)."""
    scene = synthesize("nuclei", (512, 512), seed=3)
    repeat = -(-size // 512)
    plane = np.tile(scene.image, (repeat, repeat))[:size, :size]
    return np.ascontiguousarray(np.broadcast_to(plane[..., None], (size, size, 3)))


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Run upstream and ours in turn on one image."""
    trained = args.model == "sam2-nano"
    model = load_model(
        args.model,
        device=args.device,
        precision=args.precision,
        random_weights=not trained,
    )
    image = picture(args.size)
    params = AutoParams(
        search="grid", points_per_side=args.points, tile="off", overlap="allow"
    ).resolved(model.spec)
    theirs = upstream(model, params)
    scene = None if trained else Scene(model)

    def ours() -> Any:
        return automatic_masks(model, image, params)

    costs: dict[str, list[Cost]] = {"upstream": [], "ours": []}
    for _ in range(args.runs):
        records, cost = measure(lambda: theirs(image), model.device, scene)
        costs["upstream"].append(cost)
        masks, cost = measure(ours, model.device, scene)
        costs["ours"].append(cost)
    missing, pixels = differing(records, masks)
    row: dict[str, Any] = {
        "model": args.model,
        "device": str(model.device),
        "precision": args.precision,
        "size": args.size,
        "points": args.points,
        "masks": len(masks),
        "masks_differing": missing,
        "pixels_differing": pixels,
        "keep_rate": round(scene.keep_rate, 3) if scene else None,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    return row | summary(costs)


def summary(costs: dict[str, list[Cost]]) -> dict[str, float | None]:
    """Medians of both and of their ratios; None where ours took nothing."""
    row: dict[str, float | None] = {}
    for name, runs in costs.items():
        for key in asdict(runs[0]):
            median = statistics.median(getattr(run, key) for run in runs)
            row[f"{name}_{key}"] = round(median, 3)
    for key in ("wall", "cpu", "memory"):
        ratios = [
            getattr(a, key) / getattr(b, key)
            for a, b in zip(costs["upstream"], costs["ours"], strict=True)
            if getattr(b, key) > 0
        ]
        row[f"ratio_{key}"] = round(statistics.median(ratios), 2) if ratios else None
    return row


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as the docs show them: seconds of CPU, or of the wall clock on a GPU."""
    lines = [
        "| model | image | points per side | kept | masks | differing | upstream | "
        "ours | ratio | upstream MiB | ours MiB |",
        "|" + "---|" * 11,
    ]
    for row in rows:
        key = "cpu" if row["device"] == "cpu" else "wall"
        kept = "" if row["keep_rate"] is None else f"{row['keep_rate']:.0%}"
        differ = f"{row['masks_differing']} masks, {row['pixels_differing']} px"
        cells = [
            find_model(row["model"]).title,
            row["size"],
            row["points"],
            kept,
            row["masks"],
            differ,
            f"{row[f'upstream_{key}']:.1f} s",
            f"{row[f'ours_{key}']:.1f} s",
            row[f"ratio_{key}"],
            f"{row['upstream_memory']:.0f}",
            f"{row['ours_memory']:.0f}",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def run_rows(wanted: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure each row in a process of its own, so that none inherits memory."""
    rows = (
        ROWS
        if wanted == ["all"]
        else [(m, int(s), int(p)) for m, s, p in (row.split(":") for row in wanted)]
    )
    with tempfile.TemporaryDirectory() as folder:
        file = args.json or Path(folder) / "rows.jsonl"
        first = len(read_rows(file)) if file.exists() else 0
        for model, size, points in rows:
            options = {
                "model": model,
                "size": size,
                "points": points,
                "runs": args.runs,
                "device": args.device,
                "precision": args.precision,
                "json": file,
            }
            flags = [part for k, v in options.items() for part in (f"--{k}", str(v))]
            subprocess.run([sys.executable, __file__, *flags], check=True)
        return read_rows(file)[first:]


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Rows that were written with --json."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def main() -> None:
    """Run the comparison that the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sam2-nano")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--points", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--json", type=Path, help="append rows to this file")
    parser.add_argument("--rows", nargs="+", help="all, or model:size:points")
    parser.add_argument("--table", type=Path, help="print the table of such a file")
    args = parser.parse_args()
    if args.table:
        print(table(read_rows(args.table)))
    elif args.rows:
        print(table(run_rows(args.rows, args)))
    else:
        row = compare(args)
        print(json.dumps(row))
        if args.json:
            with args.json.open("a") as file:
                print(json.dumps(row), file=file)


if __name__ == "__main__":
    main()

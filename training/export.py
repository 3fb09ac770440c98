"""Write a checkpoint's averaged weights and its card into the package."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

from napari_sam_suite.engine.models.nano.config import (
    CARD,
    IMAGE_SIZE,
    WEIGHTS,
    build_nano,
    read_card,
)
from network import Trainee, export

STAGES = ("dense", "prompts", "long", *(f"muon{n}" for n in ("", *range(2, 10))))
"""Names of the checkpoints, one after the other."""


def history(checkpoint: Path) -> dict[str, dict[str, float]]:
    """Steps and minutes of each stage up to this one, from the logs beside it.

    Of a stage whose log is gone, the weights' own card still knows.
    """
    known, stages = read_card()["training"], {}
    for name in STAGES:
        log = checkpoint.with_name(f"{name}.jsonl")
        if log.is_file():
            last = json.loads(log.read_text().splitlines()[-1])
            stages[name] = {"steps": last["step"], "minutes": last["minutes"]}
        elif name in known:
            stages[name] = known[name]
        if name == checkpoint.stem:
            break
    return stages


def write_card(path: Path, network: Trainee, stages: dict, report: dict) -> None:
    """Write ``card.json``: how to feed the model, its scores, its settings."""
    setting = report.get("setting", {})
    card = {
        "name": "sam2-nano",
        "architecture": "SAM2Base, Hiera 32 x (1, 2, 8, 2), decoder width 128",
        "parameters": sum(p.numel() for p in network.model.parameters()),
        "image_size": IMAGE_SIZE,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "weights": "float16",
        "training": stages,
        "recommended": {
            "pred_iou_thresh": setting.get("pred_iou", 0.6),
            "stability_score_thresh": setting.get("stability", 0.6),
            "stability_score_offset": 1.0,
            "box_nms_thresh": setting.get("nms", 0.5),
            "points_per_side": 32,
            "tile": setting.get("tile", 256) / IMAGE_SIZE,
        },
        "scores_held_out": report.get("scores", {}),
    }
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--report", type=Path, help="evaluate.py's JSON")
    args = parser.parse_args()
    report = json.loads(args.report.read_text()) if args.report else {}
    if isinstance(report.get("setting", {}).get("tile"), str):
        raise SystemExit("Give a report that was made with --tile in pixels.")
    state = torch.load(
        args.checkpoint, weights_only=True, mmap=True, map_location="cpu"
    )
    network = Trainee(build_nano(pretrained=False))
    network.load_state_dict(state["average"])
    export(network, WEIGHTS)
    write_card(CARD, network, history(args.checkpoint), report)


if __name__ == "__main__":
    main()

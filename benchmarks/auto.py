"""Automatic masks against the upstream generators: time, memory, and the same masks.

    python benchmarks/auto.py --model sam2.1_hiera_tiny --size 1024 --points 32

One process, the same network and image, upstream and ours in turn. Models without
weights run on a synthetic scene (see scene.py), the embedded one on its own answers.
Prints seconds (wall and CPU), the ratio, the peak memory above the loaded model, and
how many masks and pixels differ.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import threading
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.synthetic import synthesize

if TYPE_CHECKING:
    from collections.abc import Callable
from scene import Scene


@dataclass
class Cost:
    """What one call took: seconds of wall clock and of CPU, and MiB at its peak."""

    wall: float
    cpu: float
    memory: float


def measure(
    call: Callable[[], Any], device: torch.device, scene: Scene | None
) -> tuple[Any, Cost]:
    """Run `call` and watch the clock and the memory, the scene's own time left out."""
    before = scene.spent.copy() if scene else np.zeros(2)
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    with _Watch() as watch:
        wall, cpu = time.perf_counter(), time.process_time()
        value = call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    played = (scene.spent if scene else np.zeros(2)) - before
    peak = watch.peak
    if device.type == "cuda":
        peak = (torch.cuda.max_memory_allocated() - held) / 2**20
    return value, Cost(wall - played[0], cpu - played[1], peak)


class _Watch(threading.Thread):
    """Samples this process's resident memory; `peak` is MiB above the start."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._end = threading.Event()
        self._start = self._highest = _resident()

    @property
    def peak(self) -> float:
        return self._highest - self._start

    def __enter__(self) -> _Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()

    def run(self) -> None:
        while not self._end.wait(0.01):
            self._highest = max(self._highest, _resident())


def _resident() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def upstream(model: Any, params: AutoParams) -> Callable[[np.ndarray], Any]:
    """The generator that the model's authors wrote, around the same network."""
    settings: dict[str, Any] = {
        "points_per_side": params.points_per_side,
        "pred_iou_thresh": params.pred_iou_thresh,
        "stability_score_thresh": params.stability_score_thresh,
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


def main() -> None:
    """Run the comparison that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sam2-nano")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--points", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    trained = args.model == "sam2-nano"
    model = load_model(
        args.model,
        device=args.device,
        precision=args.precision,
        random_weights=not trained,
    )
    image = picture(args.size)
    params = AutoParams(
        points_per_side=args.points, tile="off", overlap="allow"
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
    row = {
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
    for name, runs in costs.items():
        for key in asdict(runs[0]):
            median = statistics.median(getattr(run, key) for run in runs)
            row[f"{name}_{key}"] = round(median, 3)
    for key in ("wall", "cpu", "memory"):
        ratios = [
            getattr(a, key) / max(getattr(b, key), 1e-9)
            for a, b in zip(costs["upstream"], costs["ours"], strict=True)
        ]
        row[f"ratio_{key}"] = round(statistics.median(ratios), 2)
    print(json.dumps(row))
    if args.json:
        with args.json.open("a") as file:
            print(json.dumps(row), file=file)


if __name__ == "__main__":
    main()

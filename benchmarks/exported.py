"""Exported models on onnxruntime against the same models on torch.

    OMP_NUM_THREADS=1 python benchmarks/exported.py sam2-nano sam2.1_hiera_tiny

prints, for every model and precision, how large the files are, how close their answers
are, and the seconds of CPU that encoding an image and answering clicks take with both.
Models whose weights are not here have random ones.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.models.checkpoints import is_installed
from napari_sam_suite.engine.models.exported import ExportedModel
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.protocol import Prompts
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.onnx.export import sample_images, write_model
from napari_sam_suite.engine.onnx.params import ExportParams
from napari_sam_suite.engine.onnx.parity import TOLERANCES, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable

PRECISIONS = ("float32", "float16", "int8")
COLUMNS = (
    "model",
    "precision",
    "MB",
    "embeddings differ",
    "logits differ",
    "masks' IoU",
    "encode: torch",
    "onnxruntime",
    "ratio",
    "decode: torch",
    "onnxruntime",
    "ratio",
)


def seconds(call: Callable[[], Any], runs: int) -> float:
    """Median CPU time of a call, after one that warms up."""
    call()
    spent = []
    for _ in range(runs):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return median(spent)


def costs(model: Any, clicks: int, runs: int) -> tuple[float, float]:
    """Seconds that encoding an image takes, and answering clicks on it."""
    image = sample_images()["immunohistochemistry"]
    encode = seconds(lambda: model.encode([image]), runs)
    (embedding,) = model.encode([image])
    side = int(np.sqrt(clicks))
    line = (np.arange(side) + 0.5) * len(image) / side
    points = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)

    def decode() -> None:
        for start in range(0, len(points), model.batch):
            part = Prompts.clicks(points[start : start + model.batch])
            model.decode(embedding, part)

    return encode, seconds(decode, runs)


def compare(
    name: str, precisions: list[str], clicks: int, runs: int
) -> list[tuple[str, ...]]:
    """One row of the table for every precision of a model."""
    spec = find_model(name)
    model: Any = load_model(spec, device="cpu", random_weights=not is_installed(spec))
    before = costs(model, clicks, runs)
    rows = []
    for precision in precisions:
        params = ExportParams(precision=precision, page=False)
        with tempfile.TemporaryDirectory() as folder:
            done = write_model(model, Path(folder), params)
            exported = ExportedModel(find_model(folder), device="cpu")
            after = costs(exported, clicks, runs)
        times = [
            text
            for old, new in zip(before, after, strict=True)
            for text in (f"{old:.2f} s", f"{new:.2f} s", f"{old / new:.2f}")
        ]
        parity = done.parity
        numbers = (
            f"{sum(done.files.values()) / 1e6:.0f}",
            f"{max(parity.embedding.values()):.1e}",
            f"{parity.logits:.1e}",
            f"{parity.overlap:.4f}",
        )
        rows.append((spec.title, precision, *numbers, *times))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["sam2-nano"])
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--clicks", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    for precision in PRECISIONS:  # the table is to show what is out of tolerance too
        TOLERANCES[precision] = Tolerance(np.inf, np.inf, 0)
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for name in args.models:
        for row in compare(name, args.precisions.split(","), args.clicks, args.runs):
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()

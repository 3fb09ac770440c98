"""Whole experiments: the run of a recipe against a plain loop, and what it costs.

    python benchmarks/batch.py pipeline --frames 12 --size 512     # frames per second
    python benchmarks/batch.py ceiling --frames 12                 # what cores allow
    python benchmarks/batch.py workers --frames 12                 # two against one
    python benchmarks/batch.py frames --frames 10000               # cost of a frame
    python benchmarks/batch.py kills --kills 50                    # none lost or twice

The first three are in `throughput.py`. `frames` and `kills` have a finder in place of a
model that takes no time: what is left is ours.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import tifffile
from scipy import ndimage

from napari_sam_suite.engine.batch import work
from napari_sam_suite.engine.batch.run import open_engine, run_recipe, start_run
from napari_sam_suite.engine.finder import Found
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.models import load
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL, find_model
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.recipe import Recipe
from napari_sam_suite.engine.store.store import Store
from throughput import (
    clock,
    compare_pipeline,
    compare_workers,
    measure_ceiling,
    plain,
    recipe_of,
)

if TYPE_CHECKING:
    from napari_sam_suite.engine.store.images import ImageStore


class Quick:
    """A finder that takes what is bright, at once; and a model for it."""

    name = "auto"
    params = AutoParams()
    spec = find_model(DEFAULT_MODEL)
    identity = "quick"
    input_size = 256

    def __init__(self, pause: float = 0.0) -> None:
        import torch

        self.device = torch.device("cpu")
        self.pause = pause

    def __call__(self, model: Any, rgb: np.ndarray, frame: Any, **_: Any) -> Found:
        """Every blob that is brighter than half."""
        if self.pause:
            time.sleep(self.pause)
        labels, _ = ndimage.label(rgb[..., 0] > 127)
        builder = MaskBuilder(labels.shape)
        for number, window in enumerate(ndimage.find_objects(labels), start=1):
            origin = (window[0].start, window[1].start)
            crop = labels[window] == number
            builder.add(crop, origin, score=0.9, stability=0.9)
        return Found(builder.build())


def quickly(pause: float = 0.0) -> Quick:
    """Let this process run recipes with `Quick`."""
    quick = Quick(pause)
    load.load_model = lambda *_, **__: quick  # type: ignore[assignment]
    work.plan_image = lambda recipe, image, *_: (  # type: ignore[assignment]
        quick,
        work.choose_frames(recipe, image),
        (),
    )
    return quick


def small_stack(path: Path, frames: int) -> Path:
    """A time-lapse of 64 x 64 pixels with two blobs on every frame."""
    pixels = np.zeros((frames, 64, 64), np.uint8)
    for i in range(frames):
        pixels[i, 5 : 15 + i % 20, 8:30] = 255
        pixels[i, 40:60, 40 : 45 + i % 15] = 200
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "TYX"})
    return path


def count_cost(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What a run costs beyond the work itself, in time and memory."""
    path = small_stack(folder / "small.tif", args.frames)
    quick = quickly()
    sample = min(args.frames, 3000)
    alone = small_stack(folder / "sample.tif", sample)

    def work_itself() -> dict[str, float]:
        with clock() as bare:
            plain(quick, alone, quick, None)
        return {k: seconds / sample for k, seconds in bare.items()}

    work_itself()  # imports
    before = work_itself()
    recipe = recipe_of(path, folder / "store")
    process, seen = psutil.Process(), []

    def look(progress: Any) -> None:
        done = progress.done // 100
        if done * 10 // args.frames > len(seen):
            seen.append(round(process.memory_info().rss / 2**20))

    with open_engine(recipe) as engine, clock() as spent:
        job = start_run(engine, recipe)
        job.progressed.connect(look)
        assert job.result().done == args.frames
    with clock() as again:
        assert run_recipe(recipe).skipped == args.frames
    # The machine's pace changes within minutes: so before and after.
    after = work_itself()
    itself = {k: (before[k] + after[k]) / 2 for k in before}
    beyond = {k: spent[k] / args.frames - itself[k] for k in itself}
    return {
        "frames": args.frames,
        "work itself, ms a frame (wall, CPU)": _milliseconds(itself),
        "before and after": [_milliseconds(before), _milliseconds(after)],
        "beyond it, ms a frame (wall, CPU)": _milliseconds(beyond),
        "MiB at every tenth": seen,
        "resumed, s (wall, CPU)": [round(again[k], 2) for k in ("wall", "cpu")],
    }


def _milliseconds(spent: dict[str, float]) -> list[float]:
    return [round(spent[k] * 1e3, 2) for k in ("wall", "cpu")]


def run_quickly(text: str) -> None:
    """One run in a process that may be killed."""
    quickly(0.005)
    run_recipe(Recipe.parse(text))


def count_kills(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kill a run at random moments, then compare with an unbroken one."""
    path = small_stack(folder / "small.tif", args.frames)
    recipe = recipe_of(path, folder / "store")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "napari_sam_suite.engine.batch.run"])
    moments = random.Random(0)
    written: dict[str, int] = {}
    kills = twice = 0
    while kills < args.kills:
        process = context.Process(target=run_quickly, args=(recipe.text(),))
        process.start()
        process.join(moments.uniform(0.2, args.longest))
        if process.exitcode is None:
            process.kill()
            kills += 1
        process.join()
        for file in (folder / "store").rglob("*.parquet"):
            at = file.stat().st_mtime_ns
            twice += written.setdefault(file.name, at) != at
        if len(written) == args.frames:
            break
    rest = context.Process(target=run_quickly, args=(recipe.text(),))
    rest.start()
    rest.join()
    whole = recipe.changed(outputs={"store": str(folder / "whole")})
    unbroken = context.Process(target=run_quickly, args=(whole.text(),))
    unbroken.start()
    unbroken.join()
    one, other = (Store.open(folder / n).image("small") for n in ("store", "whole"))
    frames = sorted(other.done())
    differing = sum(not same(one, other, frame) for frame in frames)
    return {
        "kills": kills,
        "frames": len(frames),
        "lost": len(set(frames) - one.done()),
        "done twice": twice,
        "other than unbroken": differing,
    }


def same(one: ImageStore, other: ImageStore, frame: Any) -> bool:
    """Whether two stores have the same objects and labels of a frame."""
    (a, _), (b, _) = one.read(frame), other.read(frame)
    return (
        [p.wkb for p in a.polygons] == [p.wkb for p in b.polygons]
        and a.features.equals(b.features)
        and bool((one.labels().read(frame) == other.labels().read(frame)).all())
    )


PARTS = {
    "pipeline": compare_pipeline,
    "ceiling": measure_ceiling,
    "workers": compare_workers,
    "frames": count_cost,
    "kills": count_kills,
}


def main() -> None:
    """Run one part and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--points", type=int, help="a grid, points per side")
    parser.add_argument("--upstream", action="store_true", help="their generator too")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest", type=float, default=1.0)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="batch-"))
    try:
        found = PARTS[args.part](args, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    threads = os.environ.get("OMP_NUM_THREADS", "as the system says")
    print(json.dumps({"part": args.part, "threads": threads, **found}, indent=1))


if __name__ == "__main__":
    main()

"""Whole experiments: the run of a recipe against a plain loop, and what it costs.

    python benchmarks/batch.py pipeline --frames 12 --size 512     # frames per second
    python benchmarks/batch.py workers --frames 12                 # two against one
    python benchmarks/batch.py frames --frames 10000               # cost of a frame
    python benchmarks/batch.py kills --kills 50                    # none lost or twice

`pipeline` compares with a loop that reads, segments and writes one frame after the
other, with the embedded model, in turn, in one process: with as many threads as torch
takes by itself, and with one. Objects are looked for as they are for a user who sets
nothing; ``--points 32`` asks a grid. `frames` and `kills` have a finder in place of a
model that takes no time: what is left is ours.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import tifffile
from scipy import ndimage

from napari_sam_suite.engine.auto import Automatic
from napari_sam_suite.engine.batch import work
from napari_sam_suite.engine.batch.run import open_engine, run_recipe, start_run
from napari_sam_suite.engine.composite import Composite
from napari_sam_suite.engine.embed import MEMORY, EmbeddingCache
from napari_sam_suite.engine.finder import Found
from napari_sam_suite.engine.formats.labels import write_labels
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.models import load
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL, find_model
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.recipe import Auto, Outputs, Recipe, Source
from napari_sam_suite.engine.run import describe, find_objects, outline, see_frame
from napari_sam_suite.engine.store.images import ImageStore
from napari_sam_suite.engine.store.store import Store
from napari_sam_suite.engine.synthetic.scene import synthesize

if TYPE_CHECKING:
    from collections.abc import Iterator


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


class Silent:
    """Nobody who listens."""

    def stopping(self) -> bool:
        """Never."""
        return False

    def report(self, done: int, total: int, text: str = "") -> None:
        """Not heard."""

    def notice(self, text: str) -> None:
        """Not heard."""

    def give(self, part: object) -> None:
        """Not taken."""


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


def scenes(path: Path, frames: int, size: int) -> Path:
    """A compressed time-lapse of synthetic nuclei."""
    planes = [synthesize("nuclei", (size, size), seed=n).image for n in range(frames)]
    tifffile.imwrite(
        path,
        np.stack(planes),
        photometric="minisblack",
        compression="zlib",
        metadata={"axes": "TYX"},
    )
    return path


def recipe_of(image: Path, store: Path, **params: Any) -> Recipe:
    """Automatic masks of one image."""
    return Recipe(
        source=Source(images=(str(image),)),
        capability=Auto(params=AutoParams(**params)),
        outputs=Outputs(store=str(store)),
    )


@contextmanager
def clock() -> Iterator[dict[str, float]]:
    """Seconds of wall and CPU, of all threads."""
    found: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield found
    found["wall"] = time.perf_counter() - wall
    found["cpu"] = time.process_time() - cpu


def plain(model: Any, path: Path, finder: Any, folder: Path | None) -> int:
    """Read, segment and write one frame after the other."""
    image = open_image(path)
    frames = list(image.frames())
    composite = Composite.default(image).resolve(image, frames)
    source = describe(image, model, finder, composite)
    count = 0
    for number, frame in enumerate(frames):
        rgb = see_frame(image, frame, composite)
        assert rgb is not None
        found = find_objects(model, rgb, finder, frame, Silent().report, Silent())
        result = outline(found, frame, finder, model=model.spec.id, source=source)
        count += len(result.objects)
        if folder is not None:
            labels = result.objects.to_labels((image.sizes.y, image.sizes.x))
            write_labels(folder / f"{number}.tif", labels)
            result.objects.save(folder / f"{number}.geojson")
    return count


def compare_pipeline(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Frames per second of a run and of plain loops, in turn; the store's share."""
    import torch

    path = scenes(folder / "nuclei.tif", args.frames, args.size)
    recipe = recipe_of(path, folder / "warm", **chosen(args))
    finder = Automatic(recipe.capability.params)
    rows: dict[str, list[dict[str, float]]] = {}
    stored = [0.0]
    write = ImageStore.write

    def timed(self: ImageStore, *arguments: Any, **notes: Any) -> None:
        start = time.thread_time()
        write(self, *arguments, **notes)
        stored[0] += time.thread_time() - start

    ImageStore.write = timed  # type: ignore[method-assign]
    with open_engine(recipe) as engine:
        start_run(engine, recipe).result()
        threads = engine.submit(lambda *_: torch.get_num_threads(), "ask").result()
        for turn in range(args.runs):
            for count in dict.fromkeys((threads, 1)):
                forget(engine)
                out = folder / f"plain{turn}-{count}"
                out.mkdir()

                def loop(model: Any, _: Any, out: Path = out, n: int = count) -> int:
                    torch.set_num_threads(n)
                    found = plain(getattr(model, "model", model), path, finder, out)
                    torch.set_num_threads(threads)
                    return found

                with clock() as spent:
                    engine.submit(loop, "plain").result()
                rows.setdefault(_threads(count), []).append(spent)
            forget(engine)
            stored[0] = 0.0
            there = recipe.changed(outputs={"store": str(folder / f"run{turn}")})
            with clock() as spent:
                start_run(engine, there).result()
            rows.setdefault("run", []).append(spent | {"store": stored[0]})
    middle = {
        name: {k: statistics.median(row[k] for row in found) for k in ("wall", "cpu")}
        for name, found in rows.items()
    }
    pairs = zip(rows[_threads(threads)], rows["run"], strict=True)
    times = [loop["wall"] / run["wall"] for loop, run in pairs]
    shares = [row["store"] / row["cpu"] for row in rows["run"]]
    return {
        "search": "a grid" if args.points else "as a user has it",
        "frames per second": {
            name: round(args.frames / spent["wall"], 3)
            for name, spent in middle.items()
        },
        "CPU s a frame": {
            name: round(spent["cpu"] / args.frames, 2) for name, spent in middle.items()
        },
        "run against the usual loop, times faster": round(statistics.median(times), 2),
        "in each turn": [round(ratio, 2) for ratio in times],
        "store, part of all CPU time": round(statistics.median(shares), 4),
    }


def _threads(count: int) -> str:
    """What a plain loop is called."""
    return f"plain loop, {count} thread{'s' * (count > 1)}"


def chosen(args: argparse.Namespace) -> dict[str, Any]:
    """Parameters: a user's defaults, unless a grid is asked for."""
    return {"points_per_side": args.points} if args.points else {}


def forget(engine: Any) -> None:
    """Nothing is remembered from one turn to the next."""

    def task(model: Any, _: Any) -> None:
        model.cache = EmbeddingCache(MEMORY)

    engine.submit(task, "forget").result()


def compare_workers(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Two local workers against one, without the time until they are there."""
    from napari_sam_suite.engine.cluster import open_cluster, start_cluster_run

    found: dict[str, Any] = {}
    for workers in (1, 2):
        path = scenes(folder / f"w{workers}.tif", args.frames, args.size)
        warm = scenes(folder / f"warm{workers}.tif", 2 * workers, args.size)
        with open_cluster(workers=workers, device="cpu") as client:
            for image in (warm, path):
                store = folder / f"{image.stem}.store"
                recipe = recipe_of(image, store, **chosen(args))
                summary = start_cluster_run(client, recipe).result()
        rate = args.frames / summary.seconds
        found[f"frames per second, {workers} workers"] = round(rate, 3)
    return found


def count_cost(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What a run costs beyond the work itself, in time and memory."""
    path = small_stack(folder / "small.tif", args.frames)
    quick = quickly()
    sample = min(args.frames, 1000)
    with clock() as bare:
        plain(quick, small_stack(folder / "sample.tif", sample), quick, None)
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
    wall = spent["wall"] / args.frames - bare["wall"] / sample
    cpu = spent["cpu"] / args.frames - bare["cpu"] / sample
    return {
        "frames": args.frames,
        "work itself, ms a frame (wall, CPU)": [
            round(bare[k] / sample * 1e3, 2) for k in ("wall", "cpu")
        ],
        "beyond it, ms a frame (wall, CPU)": [
            round(wall * 1e3, 2),
            round(cpu * 1e3, 2),
        ],
        "MiB at every tenth": seen,
        "resumed, s (wall, CPU)": [round(again[k], 2) for k in ("wall", "cpu")],
    }


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

"""Frames per second of a run, of plain loops, and of what the cores allow at most.

The plain loop reads, segments and writes one frame after the other, with the embedded
model, in turn with the run and in one process: with as many threads as torch takes by
itself, and with one. Objects are looked for as they are for a user who sets nothing;
``--points 32`` asks a grid. With ``--upstream``, a grid without tiles, the loop around
the generator that SAM 2's authors wrote is measured too. The ceiling is that of one
process a core, each with a plain loop of one thread over its part of the frames: no
order of work in one process can be faster.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch

from auto import upstream
from napari_sam_suite.engine.auto import Automatic
from napari_sam_suite.engine.batch.run import open_engine, start_run
from napari_sam_suite.engine.composite import Composite
from napari_sam_suite.engine.embed import MEMORY, EmbeddingCache
from napari_sam_suite.engine.formats.labels import write_labels
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.lanes import keep_memory
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.recipe import Auto, Outputs, Recipe, Source
from napari_sam_suite.engine.run import describe, find_objects, outline, see_frame
from napari_sam_suite.engine.store.images import ImageStore
from napari_sam_suite.engine.synthetic.scene import synthesize

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from multiprocessing.synchronize import Barrier
    from pathlib import Path


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


def scenes(path: Path, seeds: range, size: int) -> Path:
    """A compressed time-lapse of synthetic nuclei."""
    planes = [synthesize("nuclei", (size, size), seed=n).image for n in seeds]
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


def theirs(model: Any, path: Path, params: AutoParams, folder: Path) -> int:
    """Read, segment with the generator of SAM 2's authors, and write."""
    from sam2.utils.amg import rle_to_mask

    generate = upstream(model, params.resolved(model.spec))
    image = open_image(path)
    frames = list(image.frames())
    composite = Composite.default(image).resolve(image, frames)
    count = 0
    for number, frame in enumerate(frames):
        records = generate(see_frame(image, frame, composite))
        labels = np.zeros((image.sizes.y, image.sizes.x), np.int32)
        for label, record in enumerate(records, start=1):
            labels[rle_to_mask(record["segmentation"])] = label
        write_labels(folder / f"{number}.tif", labels)
        count += len(records)
    return count


def compare_pipeline(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Frames per second of a run and of plain loops, in turn; the store's share."""
    path = scenes(folder / "nuclei.tif", range(args.frames), args.size)
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
            if args.upstream and turn == 0:

                def other(model: Any, _: Any) -> int:
                    return theirs(
                        getattr(model, "model", model), path, finder.params, folder
                    )

                with clock() as spent:
                    engine.submit(other, "theirs").result()
                rows.setdefault("the loop around SAM 2's generator", []).append(spent)
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
    if args.upstream:
        return {"points_per_side": args.points or 32, "tile": "off", "search": "grid"}
    return {"points_per_side": args.points} if args.points else {}


def forget(engine: Any) -> None:
    """Nothing is remembered from one turn to the next."""

    def task(model: Any, _: Any) -> None:
        model.cache = EmbeddingCache(MEMORY)

    engine.submit(task, "forget").result()


def measure_ceiling(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Plain loops of one process with all threads, and of one process a core."""
    cores = torch.get_num_threads()
    rows: dict[str, list[float]] = {}
    for turn in range(args.runs):
        for processes, threads in dict.fromkeys([(1, cores), (cores, 1), (1, 1)]):
            where = folder / f"{turn}-{processes}-{threads}"
            spent = _loops(where, processes, threads, args)
            name = f"{processes} processes, {threads} threads each"
            rows.setdefault(name, []).append(args.frames / spent)
    usual, most, one = (statistics.median(found) for found in rows.values())
    return {
        "frames per second": {
            name: [round(rate, 3) for rate in found] for name, found in rows.items()
        },
        "the usual loop over one thread": round(usual / one, 2),
        "a process a core over one thread": round(most / one, 2),
        "a process a core over the usual loop": round(most / usual, 2),
    }


def _loops(
    folder: Path, processes: int, threads: int, args: argparse.Namespace
) -> float:
    """Seconds until the slowest of some processes has done its part of the frames."""
    context = multiprocessing.get_context("spawn")
    ready, told = context.Barrier(processes), context.Queue()
    running = []
    for number in range(processes):
        out = folder / str(number)
        out.mkdir(parents=True)
        mine = range(number, args.frames, processes)
        path = scenes(out / "nuclei.tif", mine, args.size)
        rest = path, out, chosen(args), threads, ready, told
        running.append(context.Process(target=_loop, args=rest))
        running[-1].start()
    spent = max(told.get() for _ in running)
    for process in running:
        process.join()
    return float(spent)


def _loop(
    path: Path,
    folder: Path,
    params: dict[str, Any],
    threads: int,
    ready: Barrier,
    told: Any,
) -> None:
    """A plain loop in a process of its own; the first round is not counted."""
    torch.set_num_threads(threads)
    keep_memory()
    model = load_model(DEFAULT_MODEL, device="cpu", precision="float32")
    finder = Automatic(AutoParams(**params))
    for warm in (True, False):
        ready.wait()
        with clock() as spent:
            plain(model, path, finder, folder)
        if not warm:
            told.put(spent["wall"])


def compare_workers(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Two local workers against one, without the time until they are there."""
    from napari_sam_suite.engine.cluster import open_cluster, start_cluster_run

    found: dict[str, Any] = {}
    for workers in (1, 2):
        path = scenes(folder / f"w{workers}.tif", range(args.frames), args.size)
        warm = scenes(folder / f"warm{workers}.tif", range(2 * workers), args.size)
        with open_cluster(workers=workers, device="cpu") as client:
            for image in (warm, path):
                store = folder / f"{image.stem}.store"
                recipe = recipe_of(image, store, **chosen(args))
                summary = start_cluster_run(client, recipe).result()
        rate = args.frames / summary.seconds
        found[f"frames per second, {workers} workers"] = round(rate, 3)
    return found

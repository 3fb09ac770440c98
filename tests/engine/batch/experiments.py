"""Small experiments with the fake model, also in processes of their own."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from engine.fakes import FakeSam
from napari_sam_suite.engine.batch.run import run_recipe
from napari_sam_suite.engine.models import load
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.recipe import Auto, Outputs, Recipe, Source
from napari_sam_suite.engine.store.store import Store

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from multiprocessing.synchronize import Event
    from pathlib import Path

    from napari_sam_suite.engine.batch.summary import Summary

AUTO = Auto(params=AutoParams(points_per_side=8))


def write_stack(path: Path, frames: int, *, first: int = 0) -> Path:
    """A time-lapse in which one box grows; every third frame has a second one."""
    pixels = np.zeros((frames, 64, 64), np.uint16)
    for i in range(frames):
        pixels[i, 10 : 14 + (first + i) % 30, 10:30] = 1000
        if i % 3 == 0:
            pixels[i, 20:50, 40:55] = 500
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "TYX"})
    return path


def recipe_of(*images: Path | str, store: Path | str, **parts: Any) -> Recipe:
    """Automatic masks of some images."""
    names = tuple(str(image) for image in images)
    parts = {"capability": AUTO} | parts
    outputs = Outputs(store=str(store))
    return Recipe(source=Source(images=names), outputs=outputs, **parts)


def contents(store: Path | str) -> dict[str, Any]:
    """All that a store says of its frames: tables, outlines and labels."""
    found: dict[str, Any] = {}
    opened = Store.open(store)
    for name in opened.images:
        image = opened.image(name)
        for frame in sorted(image.done()):
            objects, _ = image.read(frame)
            table = objects.features.drop(columns="run").to_csv()
            outlines = [polygon.wkb_hex for polygon in objects.polygons]
            labels = image.labels(frame.position).read(frame)
            found[f"{name} {tuple(frame)}"] = (table, outlines, labels.tolist())
    return found


def run_slowly(recipe: str, delay: float, begun: Event) -> Summary:
    """Run a recipe with a fake model that takes `delay` seconds for each batch."""
    begun.set()
    load.load_model = lambda spec, **options: FakeSam(delay=delay)  # type: ignore
    return run_recipe(Recipe.parse(recipe))


def start_slowly(recipe: Recipe, delay: float) -> BaseProcess:
    """The same in a process of its own, which has begun and can be killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    begun = context.Event()
    process = context.Process(target=run_slowly, args=(recipe.text(), delay, begun))
    process.start()
    begun.wait()
    return process

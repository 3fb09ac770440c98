"""How long the window stands still: python benchmarks/panel.py.

Prints the longest gap of a 50 Hz timer on the main thread while a 1024 x 1024 image is
segmented, how soon Cancel lets the panel go on, and what 5,000 polygons take to appear
and to step through. Every number comes twice: wall time, and the CPU time of the main
thread, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import napari
import numpy as np
import pandas as pd
import shapely
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.losses import Losses
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.run import FrameResult
from napari_sam_suite.engine.synthetic.scene import synthesize

_PERIOD = 0.02
PARTS = ("runs", "cancel", "shapes")


@dataclass(frozen=True)
class Moment:
    """Three clocks at once, in seconds: the wall's, this thread's, the process's."""

    wall: float
    main: float
    process: float

    @classmethod
    def now(cls) -> Moment:
        """Read the clocks, on the main thread."""
        return cls(time.perf_counter(), time.thread_time(), time.process_time())

    def __sub__(self, other: Moment) -> Moment:
        return Moment(
            self.wall - other.wall,
            self.main - other.main,
            self.process - other.process,
        )

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({self.main:.2f} s of CPU)"


class Pulse:
    """A 50 Hz timer that remembers when it fired."""

    def __init__(self) -> None:
        self.times: list[Moment] = []
        self._timer = QTimer()
        self._timer.setInterval(round(_PERIOD * 1000))
        self._timer.timeout.connect(lambda: self.times.append(Moment.now()))

    def __enter__(self) -> Pulse:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.stop()

    def report(self, what: str) -> None:
        """Print the gaps, and what the CPU did in the longest ones.

        A gap in which the CPU did little is a wait for a core, or for a disk.
        """
        gaps = [after - before for before, after in itertools.pairwise(self.times)]
        walls = np.array([gap.wall for gap in gaps]) * 1000
        mains = np.array([gap.main for gap in gaps]) * 1000
        print(
            f"{what}: longest gap {walls.max():.0f} ms, 99 % under "
            f"{np.percentile(walls, 99):.0f} ms, {(walls > 150).sum()} of "
            f"{len(gaps)} above 150 ms; most CPU of the main thread in one "
            f"{mains.max():.0f} ms, in all {mains.sum() / 1000:.2f} s"
        )
        for row in np.argsort(-walls)[:3]:
            others = (gaps[row].process - gaps[row].main) * 1000
            after = self.times[row].wall - self.times[0].wall
            print(
                f"  {walls[row]:.0f} ms after {after:.1f} s: CPU {mains[row]:.0f} ms on"
                f" the main thread, {others:.0f} ms on others",
                flush=True,
            )


def pump(seconds: float) -> None:
    """Let the window live."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        QApplication.processEvents()
        time.sleep(0.002)


def segment(panel: Any, what: str) -> None:
    """Press Segment, and report the gaps until the objects are there."""
    start = Moment.now()
    with Pulse() as pulse:
        panel.auto.button.click()
        while panel.busy or not panel.results.settled:
            pump(0.05)
        pump(0.5)
    pulse.report(f"{what}, {(Moment.now() - start).wall:.1f} s")
    print(panel.footer.status.text(), flush=True)


def measure_runs(viewer: napari.Viewer, panel: Any, side: int, points: int) -> None:
    """Report the first run, which loads torch and the model, and the second."""
    scene = synthesize("touching nuclei", (side, side), 3, diameter=34)
    viewer.add_image(scene.image, name="nuclei")
    panel.auto.set_params(panel.auto.params().with_(points_per_side=points))
    pump(1)
    segment(panel, "first run")
    segment(panel, "second run")
    viewer.layers.clear()


def measure_cancel(viewer: napari.Viewer, panel: Any, side: int) -> None:
    """Report how long after a press of Cancel the panel can be used again."""
    scene = synthesize("touching nuclei", (side, side), 4, diameter=34)
    viewer.add_image(scene.image[:128, :128], name="small")
    pump(1)
    segment(panel, "a run beforehand, which loads the model")
    viewer.layers.clear()
    viewer.add_image(np.stack([scene.image] * 4), name="stack")
    panel.auto.set_params(panel.auto.params().with_(points_per_side=64))
    panel.auto.batch["z"].text.setText("all")
    for wait in (0.2, 1.0, 3.0):
        while not panel.auto.button.isEnabled():
            pump(0.1)
        panel.auto.button.click()
        pump(wait)
        ended = panel.runner._job
        start = Moment.now()
        panel.footer.cancel.click()
        while panel.busy:
            pump(0.005)
        usable = Moment.now() - start
        while ended is not None and not ended.wait(0):
            pump(0.005)
        engine = Moment.now() - start
        print(
            f"cancelled after {wait} s: the panel goes on after {usable}, the engine "
            f"is free after {engine.wall:.2f} s; {panel.footer.status.text()}",
            flush=True,
        )
    viewer.layers.clear()


def measure_shapes(viewer: napari.Viewer, panel: Any, count: int, planes: int) -> None:
    """Report how long a run's polygons take to appear, and a step through them."""
    from napari_sam_suite.widgets.session import prepare

    prepare()
    stack = np.zeros((planes, 1024, 1024), np.uint8)
    layer = viewer.add_image(stack, name="stack")
    panel.images.choose(layer)
    pump(1)
    objects = make_objects(count, planes)
    results = panel.results
    start = Moment.now()
    with Pulse() as pulse:
        run = results.begin(panel.images.picture(), {}, "new")
        results.add(run, FrameResult(FrameIndex(), objects, Losses()))
        results.finish(run)
        while not results.settled:
            QApplication.processEvents()
            time.sleep(0.002)
        viewer.screenshot(flash=False)
        took = Moment.now() - start
        pump(0.5)
    print(f"{count} polygons: {took}, {took.process:.2f} s of CPU on all threads")
    pulse.report("their gaps")
    print(f"a step in z: {step(viewer, planes)}", flush=True)
    run.layer.visible = False
    print(f"with the polygons hidden: {step(viewer, planes)}", flush=True)


def make_objects(count: int, planes: int) -> Objects:
    """Polygons of 32 corners all over a stack of 1024 x 1024 px."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    circle = np.stack([np.sin(angle), np.cos(angle)], 1)
    polygons = [
        shapely.Polygon(centre + circle * rng.uniform(3, 9, (32, 1)))
        for centre in rng.uniform(0, 1024, (count, 2))
    ]
    return Objects(polygons, pd.DataFrame({"z": rng.integers(0, planes, count)}))


def step(viewer: napari.Viewer, planes: int) -> str:
    """Median milliseconds of a step of the first slider."""
    steps = []
    for plane in range(planes):
        begin = Moment.now()
        viewer.dims.set_current_step(0, plane)
        QApplication.processEvents()
        steps.append(Moment.now() - begin)
    wall = float(np.median([step.wall for step in steps])) * 1000
    main = float(np.median([step.main for step in steps])) * 1000
    return f"{wall:.0f} ms ({main:.0f} ms of CPU)"


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--points", type=int, default=32)
    parser.add_argument("--polygons", type=int, default=5000)
    parser.add_argument("--only", choices=PARTS)
    chosen = parser.parse_args()
    if chosen.only is None:
        for part in PARTS:  # each in a window of its own
            subprocess.run([sys.executable, *sys.argv, "--only", part], check=True)
        return
    viewer = napari.Viewer()
    viewer.window.resize(1500, 950)
    _, panel = viewer.window.add_plugin_dock_widget("napari-sam-suite")
    pump(1)
    print(f"load of this machine: {os.getloadavg()[0]:.1f}", flush=True)
    if chosen.only == "runs":
        measure_runs(viewer, panel, chosen.side, chosen.points)
    if chosen.only == "cancel":
        measure_cancel(viewer, panel, chosen.side)
    if chosen.only == "shapes":
        measure_shapes(viewer, panel, chosen.polygons, 50)
    viewer.close()


if __name__ == "__main__":
    main()

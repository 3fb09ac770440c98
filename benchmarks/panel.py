"""How long the window stands still: python benchmarks/panel.py.

Prints the longest gap of a 50 Hz timer on the main thread while a 1024 x 1024 image is
segmented, and the seconds that 5,000 polygons take to appear and to step through.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import napari
import numpy as np
import pandas as pd
import shapely
from napari.layers import Shapes
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.synthetic import synthesize
from napari_sam_suite.widgets.layers import Placement
from napari_sam_suite.widgets.shapes import layer_options, to_vertices

_PERIOD = 0.02


class Pulse:
    """A 50 Hz timer that remembers when it fired."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._timer = QTimer()
        self._timer.setInterval(round(_PERIOD * 1000))
        self._timer.timeout.connect(lambda: self.times.append(time.perf_counter()))

    def __enter__(self) -> Pulse:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.stop()

    def report(self, what: str) -> None:
        """Print the gaps."""
        gaps = np.diff(self.times) * 1000
        late = int((gaps > 150).sum())
        print(
            f"{what}: longest gap {gaps.max():.0f} ms, 99 % under "
            f"{np.percentile(gaps, 99):.0f} ms, {late} of {len(gaps)} above 150 ms",
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
    start = time.perf_counter()
    with Pulse() as pulse:
        panel.auto.button.click()
        while panel.busy or not panel.results.settled:
            pump(0.05)
        pump(0.5)
    pulse.report(f"{what} ({time.perf_counter() - start:.1f} s)")
    print(panel.footer.status.text(), flush=True)


def measure_runs(viewer: napari.Viewer, side: int, points: int) -> None:
    """Report the first run, which loads torch and the model, and the second."""
    _, panel = viewer.window.add_plugin_dock_widget("napari-sam-suite")
    scene = synthesize("touching nuclei", (side, side), 3, diameter=34)
    viewer.add_image(scene.image, name="nuclei")
    panel.auto.set_params(panel.auto.params().with_(points_per_side=points))
    pump(1)
    segment(panel, "first run")
    segment(panel, "second run")


def measure_shapes(viewer: napari.Viewer, count: int, planes: int) -> None:
    """Report how long polygons take to appear, and a step through them."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    circle = np.stack([np.sin(angle), np.cos(angle)], 1)
    polygons = [
        shapely.Polygon(centre + circle * rng.uniform(3, 9, (32, 1)))
        for centre in rng.uniform(0, 1024, (count, 2))
    ]
    table = pd.DataFrame({"z": rng.integers(0, planes, count)})
    objects = Objects(polygons, table)
    placement = Placement("ZYX", {})
    for layer in viewer.layers:
        layer.visible = False
    viewer.add_image(np.zeros((planes, 1024, 1024), np.uint8))
    pump(1)
    start = time.perf_counter()
    options = layer_options(objects, placement, "objects", {})
    layer = Shapes(to_vertices(objects, placement), **options)
    built = time.perf_counter()
    viewer.add_layer(layer)
    viewer.screenshot(flash=False)
    end = time.perf_counter()
    print(
        f"{count} polygons: {built - start:.2f} s to build beside the window, "
        f"{end - built:.2f} s to add and draw",
        flush=True,
    )
    with_them = step(viewer, planes)
    layer.visible = False
    without = step(viewer, planes)
    print(
        f"a step in z: {with_them:.0f} ms, {without:.0f} ms with the polygons hidden",
        flush=True,
    )


def step(viewer: napari.Viewer, planes: int) -> float:
    """Median milliseconds of a step of the first slider."""
    seconds = []
    for plane in range(planes):
        begin = time.perf_counter()
        viewer.dims.set_current_step(0, plane)
        QApplication.processEvents()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds)) * 1000


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--points", type=int, default=32)
    parser.add_argument("--polygons", type=int, default=5000)
    chosen = parser.parse_args()
    viewer = napari.Viewer()
    viewer.window.resize(1500, 950)
    pump(1)
    measure_runs(viewer, chosen.side, chosen.points)
    measure_shapes(viewer, chosen.polygons, 50)
    viewer.close()


if __name__ == "__main__":
    main()

"""From a click in the viewer to its polygon on the screen: python benchmarks/click.py.

    xvfb-run -a -s "-screen 0 1920x1200x24" python benchmarks/click.py [--side 1024]
        [--model sam2-nano] [--clicks 40] [--json rows.jsonl]

Real mouse events in a real window with the Prompt tab open. Every place is clicked
twice. The second click, whose embedding is there, is measured until the canvas has
drawn the outline. Times come twice: wall time, and CPU time of the whole process.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.samples import demo_image

_LEFT, _NOTHING = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
_LIMIT = 120.0
_PAUSE = 0.3  # s in which what was outlined goes, and the pixel's value is shown


class Window:
    """A viewer with the panel, and a hand with a mouse."""

    def __init__(self, side: int, model: str) -> None:
        self.viewer = napari.Viewer()
        _, self.panel = self.viewer.window.add_plugin_dock_widget("napari-sam-suite")
        self.panel.models.choose(model)
        window = self.panel.window()
        window.resize(1500, 950)
        [self.canvas] = [
            widget
            for widget in window.findChildren(QWidget)
            if type(widget).__name__.startswith("CanvasBackend")
        ]
        self.viewer.add_image(large(side), name="cells")
        self.viewer.reset_view()
        self._answered = self._drawn = False
        scene = self.viewer.window._qt_viewer.canvas._scene_canvas
        scene.events.draw.connect(self._draw, position="last")
        self.panel.prompts.dialogue.changed.connect(self._change)
        self.panel.tabs.setCurrentWidget(self.panel.prompts)
        self.wait(lambda: self.panel.prompts.state.text() == "Ready.")

    def _change(self) -> None:
        """The sketch was drawn anew, after those who listened before."""
        turn = self.panel.prompts.turns.last
        self._answered = turn is not None and turn.answered

    def _draw(self, _: Any) -> None:
        """The canvas was painted."""
        self._drawn = self._answered

    def wait(self, done: Any) -> None:
        """Let the window live until something is so."""
        end = time.perf_counter() + _LIMIT
        while not done():
            QApplication.processEvents()
            time.sleep(0.0005)
            if time.perf_counter() > end:
                raise TimeoutError(self.panel.footer.status.text())

    def at(self, y: float, x: float) -> QPoint:
        """Where a place of the image is on the canvas."""
        camera, size = self.viewer.scene.camera, self.canvas.size()
        dy, dx = (np.array([y, x]) - np.array(camera.center[-2:])) * camera.zoom
        return QPoint(round(size.width() / 2 + dx), round(size.height() / 2 + dy))

    def click(self, y: float, x: float) -> tuple[float, float] | None:
        """Wall and CPU seconds until the outline is drawn; None if there is none."""
        turns, place = self.panel.prompts.turns, self.at(y, x)
        QTest.mouseMove(self.canvas, place)  # a hand is there before it clicks
        self.rest()
        self._answered = self._drawn = False
        start, cpu = time.perf_counter(), time.process_time()
        QTest.mouseClick(self.canvas, _LEFT, _NOTHING, place)
        self.wait(lambda: turns.last is None or turns.last.answered)
        found = turns.last is not None and bool(turns.last.found)
        if found:
            self.wait(lambda: self._drawn)
        took = time.perf_counter() - start, time.process_time() - cpu
        QTest.keyClick(self.canvas, Qt.Key.Key_Escape)
        self.wait(lambda: turns.last is None)
        self.rest()
        return took if found else None

    def rest(self) -> None:
        """Let what the viewer still has to show come to its end."""
        end = time.perf_counter() + _PAUSE
        self.wait(lambda: time.perf_counter() > end)


def large(side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The demo image, repeated to a square."""
    rgb = compose(demo_image().frame(FrameIndex()))
    times = [-(-side // n) for n in rgb.shape[:2]]
    return np.tile(rgb, (*times, 1))[:side, :side]


def main() -> None:
    """Click, and print the median and the 90th percentile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--model", default="sam2-nano")
    parser.add_argument("--clicks", type=int, default=40)
    parser.add_argument("--json", type=Path, help="append the row to this file")
    args = parser.parse_args()
    window = Window(args.side, args.model)
    rng = np.random.default_rng(0)
    places = rng.uniform(40, args.side - 40, (args.clicks, 2)).tolist()
    for place in places:
        window.click(*place)
    took = [one for place in places if (one := window.click(*place)) is not None]
    wall, cpu = 1000 * np.array(took).T
    row = {
        "part": "click on screen",
        "clicks": len(took),
        "median_ms": round(float(np.median(wall)), 1),
        "p90_ms": round(float(np.percentile(wall, 90)), 1),
        "median_cpu_ms": round(float(np.median(cpu)), 1),
        "p90_cpu_ms": round(float(np.percentile(cpu, 90)), 1),
    }
    print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    if args.json:
        with args.json.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"model": args.model, **row}) + "\n")
    window.panel.session.close(timeout=10)
    window.viewer.close()


if __name__ == "__main__":
    main()

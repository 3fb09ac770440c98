"""Make the pictures of the panel in docs/images: python docs/screenshots.py [NAME ...].

Needs a display with OpenGL; ``xvfb-run -s "-screen 0 1920x1200x24"`` is one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from qtpy.QtWidgets import QApplication

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sam_suite.widgets.panel import Panel

FOLDER = Path(__file__).with_name("images")
PLUGIN = "napari-sam-suite"


def pump(seconds: float) -> None:
    """Let the window live for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.02)


def open_panel(sample: str) -> tuple[napari.Viewer, Panel]:
    """Open a viewer with the panel and a sample image."""
    viewer = napari.Viewer()
    viewer.window.resize(1500, 950)
    _, panel = viewer.window.add_plugin_dock_widget(PLUGIN)
    viewer.open_sample(PLUGIN, sample)
    for layer in list(viewer.layers):
        if layer.name.endswith("(truth)"):
            viewer.layers.remove(layer)
    pump(1)
    return viewer, panel


def run(panel: Panel, limit: float = 600) -> None:
    """Press Segment and wait for the end."""
    panel.auto.button.click()
    end = time.monotonic() + limit
    while (panel.busy or not panel.results.settled) and time.monotonic() < end:
        pump(0.1)
    pump(1)


def save(viewer: napari.Viewer, name: str) -> None:
    """Write one picture and close the viewer."""
    pump(0.5)
    viewer.screenshot(str(FOLDER / f"{name}.png"), canvas_only=False, flash=False)
    viewer.close()
    pump(0.5)


def nuclei() -> None:
    """A result on one image."""
    viewer, panel = open_panel("nuclei")
    run(panel)
    save(viewer, "nuclei")


def tags() -> None:
    """Objects with tags."""
    viewer, panel = open_panel("nuclei")
    run(panel)
    panel.tabs.setCurrentWidget(panel.tags)
    tag_by_size(panel)
    save(viewer, "tags")


def tag_by_size(panel: Panel) -> None:
    """Call the smallest and the largest objects so."""
    layer = panel.parts.result_layer()
    if layer is None:
        return
    order = layer.features["area"].to_numpy().argsort()
    for tag, rows in (
        ("small", order[: len(order) // 4]),
        ("large", order[-len(order) // 4 :]),
    ):
        layer.selected_data = set(rows.tolist())
        panel.tags.tag_selection(tag)
    layer.selected_data = set()


def tissue() -> None:
    """A result on a real colour image."""
    viewer, panel = open_panel("ihc")
    run(panel)
    save(viewer, "tissue")


def stack() -> None:
    """What SAM sees of a stack in two colours, and its batch fields."""
    viewer, panel = open_panel("stack")
    panel.auto.batch["z"].text.setText("2-4")
    panel.auto.batch["time"].text.setText("all")
    panel.preview_box.setChecked(True)
    pump(2)
    save(viewer, "stack")


def advanced() -> None:
    """All parameters."""
    viewer, panel = open_panel("phase")
    panel.auto.fold.expand(animate=False)
    save(viewer, "advanced")


def filters() -> None:
    """A result filtered by its sliders."""
    viewer, panel = open_panel("nuclei")
    run(panel)
    panel.auto.filter_fold.expand(animate=False)
    quality = panel.auto.filters.sliders["pred_iou_thresh"]
    quality.setValue((quality.minimum() + 1) / 2)
    pump(1)
    while not panel.auto.live.settled:
        pump(0.1)
    save(viewer, "filters")


def finetune() -> None:
    """A model that is about to be taught tagged objects."""
    viewer, panel = open_panel("nuclei")
    run(panel)
    tag_by_size(panel)
    panel.tabs.setCurrentWidget(panel.finetune)
    save(viewer, "finetune")


def export() -> None:
    """Where results and models are saved."""
    viewer, panel = open_panel("nuclei")
    run(panel)
    panel.tabs.setCurrentWidget(panel.export)
    panel.export.folder.setText("sam-onnx")
    save(viewer, "export")


def download() -> None:
    """A model that is not here yet."""
    viewer, panel = open_panel("tissue")
    panel.models.choose("sam2.1_hiera_small")
    save(viewer, "download")


PICTURES: dict[str, Callable[[], Any]] = {
    f.__name__: f
    for f in (
        *(nuclei, filters, tags, tissue, stack),
        *(finetune, export, advanced, download),
    )
}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for wanted in sys.argv[1:] or PICTURES:
        PICTURES[wanted]()

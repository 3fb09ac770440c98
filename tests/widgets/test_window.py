from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.compat import isalive

from widgets.hands import LIMIT, results

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sam_suite.widgets.panel import Panel
    from widgets.conftest import FakeEngine
    from widgets.hands import Blobs

OPEN = """
import sys, time
import napari
from qtpy.QtWidgets import QApplication
viewer = napari.Viewer()
viewer.add_image(__import__("numpy").zeros((64, 64), "uint8"))
QApplication.processEvents()
dock, panel = viewer.window.add_plugin_dock_widget("napari-sam-suite")
QApplication.processEvents()
assert not {"torch", "sam2", "segment_anything"} & set(sys.modules)
"""

CLOSE = (
    OPEN
    + """
from qtpy.QtCore import QTimer
panel.auto.button.click()

def wait():
    if panel.session._engine is None or not panel.session._engine._current:
        return QTimer.singleShot(50, wait)
    print("running", flush=True)
    viewer.close()

QTimer.singleShot(50, wait)
napari.run()
print("closed", flush=True)
"""
)

IDLE = (
    OPEN
    + """
from napari_sam_suite.widgets.session import is_prepared
while not is_prepared():
    QApplication.processEvents()
    time.sleep(0.01)
print("torch" in sys.modules, is_prepared())
viewer.close()
"""
)

LEAVE = """
import sys
from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.widgets.session import is_prepared, prepare
try:
    prepare(stop=lambda: True)
except Cancelled:
    print("torch" in sys.modules, is_prepared())
"""


def run(code: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=900,  # so that what hangs ends some time
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert "Traceback" not in answer.stderr, answer.stderr
    return answer.stdout


@pytest.mark.slow
def test_the_panel_opens_without_torch() -> None:
    assert run(OPEN + "print(panel.isVisible()); viewer.close()").split() == ["True"]


@pytest.mark.slow
def test_closing_the_window_during_a_run_ends_cleanly() -> None:
    assert run(CLOSE).split() == ["running", "closed"]


@pytest.mark.slow
def test_what_the_first_run_needs_is_imported_once_an_image_is_there() -> None:
    assert run(IDLE).split() == ["True", "True"]


def test_imports_stop_when_the_window_is_closed() -> None:
    assert run(LEAVE).split() == ["False", "False"]


def close_dock(panel: Panel, qtbot: Any) -> None:
    """As the X of the dock does."""
    panel.viewer.window.remove_dock_widget(panel)
    qtbot.waitUntil(lambda: not isalive(panel), timeout=LIMIT)


def test_closing_the_dock_ends_the_run_and_keeps_what_it_has_found(
    viewer: Any,
    panel: Panel,
    qtbot: Any,
    blobs: Blobs,
    fake: dict[str, Any],
    make_engine: Callable[..., FakeEngine],
) -> None:
    fake["delay"] = 0.02
    viewer.add_image(blobs(9), name="cells")
    panel.auto.batch["z"].text.setText("all")
    panel.auto.set_params(panel.auto.params().with_(points_per_batch=32))
    panel.auto.button.click()
    qtbot.waitUntil(lambda: bool(results(panel)), timeout=LIMIT)
    assert panel.busy
    close_dock(panel, qtbot)
    assert panel.session._engine is None
    [layer] = results(panel)
    assert layer.visible and 0 < len(layer.data) < 36
    count = len(layer.data)
    # nothing of it listens any more
    layer.features = layer.features.assign(review="rejected")
    viewer.layers["cells"].name = "nuclei"
    viewer.add_image(blobs(), name="other")
    again = type(panel)(viewer, start=make_engine)
    viewer.window.add_dock_widget(again, name="SAM Suite")
    again.images.choose(viewer.layers["nuclei"])
    assert again.images.layers() == [viewer.layers["nuclei"]]
    assert len(layer.data) == count
    close_dock(again, qtbot)


def test_a_dock_that_is_closed_before_the_run_begins_leaves_no_run(
    viewer: Any,
    panel: Panel,
    qtbot: Any,
    blobs: Blobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_sam_suite.widgets import runner
    from napari_sam_suite.widgets.bridge import Background

    monkeypatch.setattr(runner, "is_prepared", lambda: False)
    imports = Background(lambda *_: None)
    monkeypatch.setattr(panel.session, "prepare", lambda: imports)
    viewer.add_image(blobs())
    panel.auto.button.click()
    assert panel.busy
    close_dock(panel, qtbot)
    with qtbot.waitSignal(imports.done, timeout=LIMIT):
        imports.start()
    assert panel.session._engine is None

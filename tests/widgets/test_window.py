from __future__ import annotations

import subprocess
import sys

import pytest

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

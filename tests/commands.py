"""The command line as tests use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from typer.testing import CliRunner, Result

from napari_sam_suite.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

BOXES = [(4, 6, 20, 30), (30, 10, 60, 50)]
FEW = ("--points-per-side", "8")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def segment(*arguments: object) -> Result:
    return run("segment", *arguments, *FEW)


def answer(result: Result) -> Any:
    """What is on standard output, all of which must be JSON."""
    return json.loads(result.stdout)


def stack(path: Path, frames: int, *, blank: tuple[int, ...] = ()) -> Path:
    """A time-lapse in which one box grows."""
    pixels = np.zeros((frames, 64, 64), np.uint16)
    for i in range(frames):
        if i not in blank:
            pixels[i, 10 : 20 + i % 20, 10:40] = 1000
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "TYX"})
    return path


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def explains(result: Result, *words: str, lines: int = 2) -> None:
    """Exit code 1, and a sentence with a hint that say all the words; no traceback."""
    assert result.exit_code == 1, result.output
    told = result.stderr.strip().splitlines()
    assert told[0].startswith("Error: ")
    assert len(told) <= lines
    assert "Traceback" not in result.output
    assert "`" not in result.stderr
    for word in words:
        assert word in result.stderr


def start(*arguments: object, code: str = "", **options: Any) -> subprocess.Popen[str]:
    """Run a command in a process of its own, after `code`."""
    code += "\nfrom napari_sam_suite.cli.app import app\napp()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def hearing() -> None:
    """A shell that runs the tests in the background makes children deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def loading_for_ever(seen: Path) -> str:
    """Code for `start`: models load for ever; a file appears when they begin."""
    return f"""
import pathlib, time
from napari_sam_suite.engine.models import load
def load_model(*_, **__):
    pathlib.Path({str(seen)!r}).touch()
    time.sleep(6000)
load.load_model = load_model
"""

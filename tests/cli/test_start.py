"""A command that is stopped before it has begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from commands import hearing

KINDS = [signal.SIGINT, signal.SIGTERM]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


def stopped_at(module: str, kind: signal.Signals, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command that is stopped when it imports `module`."""
    code = f"""
import runpy, signal, sys

class Stopping:
    def find_spec(self, name, *_):
        if name == {module!r}:
            signal.raise_signal({int(kind)})

sys.meta_path.insert(0, Stopping())
sys.argv[0] = "napari-sam-suite"
runpy.run_module("napari_sam_suite", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=hearing,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("module", ["typer", "numpy", "napari_sam_suite.cli.run"])
def test_while_packages_are_imported_it_ends_quietly(
    kind: signal.Signals, module: str
) -> None:
    assert stopped_at(module, kind, "models", "list") == (130, "")


@pytest.mark.parametrize("kind", KINDS)
def test_so_it_does_before_a_command_has_read_its_files(kind: signal.Signals) -> None:
    module = "napari_sam_suite.engine.metrics"
    assert stopped_at(module, kind, "evaluate", "a", "b") == (130, "")


def test_who_is_told_to_ignore_a_signal_does() -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    code += "from napari_sam_suite.cli import start\n"
    code += "import sys; sys.argv = ['napari-sam-suite', '--version']\n"
    code += "signal.raise_signal(signal.SIGTERM); start.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("napari-sam-suite")

"""Look at this machine and say what is missing, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import psutil

from napari_sam_suite.engine.models.checkpoints import (
    checkpoint_folder,
    checkpoint_path,
    checkpoint_state,
)
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL, MODELS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Status = Literal["ok", "warn", "fail"]

_GUI_INSTALL = "For napari, run: pip install 'napari-sam-suite[all]'"
_LEAST_PYTHON = (3, 11)
_LEAST_TORCH = (2, 5)
_LEAST_MEMORY_GB = 2.0
_LEAST_DISK_GB = 3.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
        What was looked at.
    status : {"ok", "warn", "fail"}
        ``"fail"`` keeps the engine from working; ``"warn"`` costs a feature or speed.
    detail : str
        What was found.
    todo : str
        What to do about it; empty when nothing is wrong.
    """

    name: str
    status: Status
    detail: str
    todo: str = ""


def diagnose(folder: str | Path | None = None) -> list[Check]:
    """Check everything the engine and the napari panel stand on.

    Parameters
    ----------
    folder : path, optional
        The checkpoint folder to look into, if not the usual one.
    """
    looks: tuple[Callable[[], Check], ...] = (
        _python,
        _torch,
        _accelerator,
        lambda: _package("sam2", "SAM 2 models"),
        lambda: _package("segment-anything", "SAM 1 models"),
        lambda: check_weights(checkpoint_path(MODELS[DEFAULT_MODEL])),
        lambda: _checkpoints(folder),
        lambda: _disk(folder),
        _memory,
        _processors,
        _napari,
        _qt,
        _bermuda,
    )
    return [look() for look in looks]


def _python() -> Check:
    system = f"{platform.system()} {platform.machine()}"
    found = f"{platform.python_version()} on {system}"
    if sys.version_info < _LEAST_PYTHON:
        return Check("Python", "fail", found, "Install Python 3.11 or newer.")
    return Check("Python", "ok", found)


def _torch() -> Check:
    found = _version("torch")
    if found is None:
        return Check("torch", "fail", "not installed", "Run: pip install torch")
    try:
        import torch
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:
        return Check(
            "torch",
            "fail",
            f"torch {found} with torchvision {_version('torchvision')}: {error}",
            "Install a matching pair: pip install --upgrade torch torchvision",
        )
    detail = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    if tuple(int(part) for part in found.split(".")[:2]) < _LEAST_TORCH:
        return Check("torch", "fail", detail, "Run: pip install --upgrade torch")
    return Check("torch", "ok", detail)


def _accelerator() -> Check:
    try:
        import torch
    except (ImportError, OSError):
        return Check("Device", "fail", "torch cannot be loaded", "See torch above.")
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        gigabytes = device.total_memory / 1e9
        return Check("Device", "ok", f"CUDA: {device.name}, {gigabytes:.0f} GB")
    if torch.backends.mps.is_available():
        return Check("Device", "ok", "MPS (Apple GPU)")
    card = shutil.which("nvidia-smi") is not None
    return Check(
        "Device",
        "warn" if card else "ok",
        "an NVIDIA driver is here but torch cannot use it" if card else "CPU only",
        "Install the torch build for your driver." if card else "",
    )


def _package(name: str, purpose: str) -> Check:
    found = _version(name)
    if found is None:
        return Check(
            name, "fail", "not installed", f"For {purpose}: pip install {name}"
        )
    return Check(name, "ok", found)


def check_weights(path: Path) -> Check:
    """Read the embedded model's weights and look for damage.

    Parameters
    ----------
    path : pathlib.Path
        The safetensors file.
    """
    import numpy as np
    from safetensors import SafetensorError, safe_open

    label, todo = "Embedded model", "Reinstall the package."
    values, finite = 0, True
    try:
        with safe_open(path, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 - not a mapping
                tensor = weights.get_tensor(name)
                values += tensor.size
                finite &= bool(np.isfinite(tensor).all())
    except FileNotFoundError:
        return Check(label, "fail", f"{path} is missing", todo)
    except (SafetensorError, OSError) as error:
        return Check(label, "fail", f"{path} is damaged: {error}", todo)
    if not finite:
        return Check(label, "fail", f"{path} holds values that are no numbers", todo)
    megabytes = path.stat().st_size / 1e6
    detail = f"{DEFAULT_MODEL}: {values / 1e6:.1f} M weights, {megabytes:.1f} MB"
    return Check(label, "ok", detail)


def _checkpoints(folder: str | Path | None) -> Check:
    label = "Checkpoints"
    where = checkpoint_folder(folder)
    states = {spec.id: checkpoint_state(spec, where) for spec in MODELS.values()}
    here = [name for name, state in states.items() if state == "installed"]
    bad = [name for name, state in states.items() if state == "damaged"]
    if bad:
        return Check(
            label,
            "warn",
            f"{where}: wrong size of {', '.join(bad)}",
            f"Run: napari-sam-suite models download {bad[0]}",
        )
    return Check(label, "ok", f"{where}: {', '.join(here) or 'no public model yet'}")


def _disk(folder: str | Path | None) -> Check:
    where = checkpoint_folder(folder)
    while not where.exists():
        where = where.parent
    free = shutil.disk_usage(where).free / 1e9
    enough = free >= _LEAST_DISK_GB
    return Check(
        "Disk",
        "ok" if enough else "warn",
        f"{free:.0f} GB free at {where}",
        "" if enough else "Free some space before downloading large models.",
    )


def _memory() -> Check:
    memory = psutil.virtual_memory()
    free, total = memory.available / 1e9, memory.total / 1e9
    enough = free >= _LEAST_MEMORY_GB
    return Check(
        "Memory",
        "ok" if enough else "warn",
        f"{free:.1f} of {total:.1f} GB free",
        "" if enough else f"Close other programs, or stay with {DEFAULT_MODEL}.",
    )


def _processors() -> Check:
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        usable = os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    limit = f", OMP_NUM_THREADS={threads}" if threads else ""
    return Check("Processors", "ok", f"{usable} usable{limit}")


def _napari() -> Check:
    found = _version("napari")
    if found is None:
        return Check("napari", "warn", "not installed", _GUI_INSTALL)
    return Check("napari", "ok", found)


def _qt() -> Check:
    for name in ("PyQt6", "PySide6", "PyQt5", "PySide2"):
        found = _version(name)
        if found is None:
            continue
        if sys.platform == "linux" and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            return Check(
                "Qt",
                "warn",
                f"{name} {found}, no display",
                "Start napari from a desktop session, or under xvfb-run.",
            )
        return Check("Qt", "ok", f"{name} {found}")
    return Check("Qt", "warn", "not installed", _GUI_INSTALL)


def _bermuda() -> Check:
    if find_spec("bermuda") is None:
        return Check(
            "bermuda",
            "warn",
            "not installed: thousands of polygons will draw slowly",
            _GUI_INSTALL,
        )
    return Check("bermuda", "ok", _version("bermuda") or "installed")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""Packages that only some formats need."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from napari_sam_suite.engine.errors import MissingExtra


def load_extra(package: str) -> Any:
    """Import an optional package.

    Raises
    ------
    MissingExtra
        If it is not installed; the hint is the command that installs it.
    """
    if sys.modules.get(package) is None:  # looking for it on the disk takes time
        check_extra(package)
    # Another thread may be importing it just now: this waits for it.
    return import_module(package)


def check_extra(package: str) -> None:
    """Make sure that an optional package is there, without importing it.

    Raises
    ------
    MissingExtra
        If it is not.
    """
    if find_spec(package) is None:
        raise MissingExtra(
            f"This file format needs the package {package}, which is not installed.",
            'Install it: pip install "napari-sam-suite[formats]"',
        )

"""Packages that only some formats, or only large runs, need."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from napari_sam_suite.engine.errors import MissingExtra


def load_extra(package: str, extra: str = "formats") -> Any:
    """Import an optional package.

    Parameters
    ----------
    package : str
        Its name.
    extra : str
        What of napari-sam-suite brings it.

    Raises
    ------
    MissingExtra
        If it is not installed; the hint is the command that installs it.
    """
    if sys.modules.get(package) is None:  # looking for it on the disk takes time
        check_extra(package, extra)
    # Another thread may be importing it just now: this waits for it.
    return import_module(package)


def check_extra(package: str, extra: str = "formats") -> None:
    """Make sure that an optional package is there, without importing it.

    Raises
    ------
    MissingExtra
        If it is not.
    """
    if find_spec(package) is None:
        raise MissingExtra(
            f"This needs the package {package}, which is not installed.",
            f'Install it: pip install "napari-sam-suite[{extra}]"',
        )

"""Load Triton next to Mesa's drivers without a crash.

torchvision imports torch's compiler, and that imports Triton, which carries its own
LLVM. Where Mesa has put another LLVM into the process (software rendering, AMD), the
symbols of the two mix and the process dies. Bound to its own symbols, Triton loads.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

_MAPS = Path("/proc/self/maps")


def load_triton() -> bool:
    """Import Triton bound to its own symbols, if this process needs that.

    Call it before torch is imported, on the thread that will import it.

    Returns
    -------
    bool
        Whether it was needed.
    """
    if "triton" in sys.modules or not _has_foreign_llvm():
        return False
    if importlib.util.find_spec("triton") is None:
        return False
    before = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_LOCAL | os.RTLD_DEEPBIND)
    try:
        importlib.import_module("triton")
    finally:
        sys.setdlopenflags(before)
    return True


def _has_foreign_llvm() -> bool:
    if not hasattr(os, "RTLD_DEEPBIND") or not _MAPS.is_file():
        return False
    return "libLLVM" in _MAPS.read_text(errors="replace")

"""Load compiled libraries so that a window beside survives it, and goes on.

Triton next to Mesa's drivers, without a crash: torchvision imports torch's compiler,
and that imports Triton, which carries its own LLVM. Where Mesa has put another LLVM
into the process (software rendering, AMD), the symbols of the two mix and the process
dies. Bound to its own symbols, Triton loads.

torch without holding up other threads: an import keeps the interpreter to itself while
the system loads a library, which is 0.2 s for torch's, and seconds from a slow disk.
"""

from __future__ import annotations

import ctypes
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


def load_torch_libraries() -> bool:
    """Load what ``import torch`` loads, but let other threads go on meanwhile.

    Only on Linux, where the function that loads libraries can be called like any
    other foreign function. Where it fails, torch loads them itself.

    Returns
    -------
    bool
        Whether they were loaded.
    """
    if "torch" in sys.modules or not sys.platform.startswith("linux"):
        return False
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    folder = Path(found.origin).parent / "lib"
    process = ctypes.CDLL(None)
    if not hasattr(process, "dlopen"):
        return False
    process.dlopen.restype = ctypes.c_void_p
    process.dlopen.argtypes = [ctypes.c_char_p, ctypes.c_int]
    # in torch's own order and modes
    for name, mode in (
        ("libtorch_global_deps.so", os.RTLD_GLOBAL),
        ("libtorch.so", os.RTLD_LOCAL),
    ):
        if not process.dlopen(os.fsencode(folder / name), os.RTLD_NOW | mode):
            return False
    return True


def _has_foreign_llvm() -> bool:
    if not hasattr(os, "RTLD_DEEPBIND") or not _MAPS.is_file():
        return False
    return "libLLVM" in _MAPS.read_text(errors="replace")

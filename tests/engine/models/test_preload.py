from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch")

LIBRARIES = """
import sys
from napari_sam_suite.engine.models.preload import load_torch_libraries
assert load_torch_libraries()
assert "torch" not in sys.modules
assert "libtorch_cpu" in open("/proc/self/maps").read()
import torch
assert (torch.ones(2, 2) @ torch.ones(2, 2)).sum() == 8
assert not load_torch_libraries()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only done on Linux")
def test_torch_works_with_libraries_that_were_there_before_it() -> None:
    subprocess.run([sys.executable, "-c", LIBRARIES], check=True, timeout=300)

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from skimage.data import immunohistochemistry

from napari_sam_suite.engine.errors import MissingExtra
from napari_sam_suite.engine.onnx.export import Exported, export_onnx
from napari_sam_suite.engine.onnx.params import ExportParams

if TYPE_CHECKING:
    from pathlib import Path

TISSUE = np.ascontiguousarray(immunohistochemistry()[:300, :400])


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The embedded model, exported and compared on a piece of tissue."""
    folder = tmp_path_factory.mktemp("exported")
    params = ExportParams(page=False, ort=True)
    return export_onnx("sam2-nano", folder, params, images={"tissue": TISSUE})


@pytest.fixture(scope="session")
def runtime() -> Path:
    """A folder with onnxruntime-web."""
    from napari_sam_suite.engine.onnx.page import find_runtime

    try:
        return find_runtime()
    except MissingExtra as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))

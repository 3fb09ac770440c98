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


@pytest.fixture(scope="session", params=["float16", "int8"])
def smaller(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """The embedded model with a smaller encoder, compared on the usual images.

    One has its weights in files beside it, the other is in the format for browsers.
    """
    folder = tmp_path_factory.mktemp(request.param)
    half = request.param == "float16"
    params = ExportParams(
        page=False,
        precision=request.param,
        ort=not half,
        external_data="always" if half else "auto",
    )
    return export_onnx("sam2-nano", folder, params)


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

"""What exported files say of themselves: all that is needed to use them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_sam_suite import __version__
from napari_sam_suite.engine.models.onnxfile import DECODER, FORMAT
from napari_sam_suite.engine.models.ports import decoders

if TYPE_CHECKING:
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.onnx.params import ExportParams

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of each channel of an image whose values are in 0..1, as all SAM models expect."""


def make_card(
    spec: ModelSpec, params: ExportParams, sha256: str, *, guide: bool
) -> dict[str, Any]:
    """What travels in the metadata of every file: all that is needed to use it.

    `guide` is whether the model has one, which says where objects are.
    """
    sam1 = spec.family == "sam1"
    return {
        "format": FORMAT,
        "model": spec.id,
        "title": spec.title,
        "family": spec.family,
        "config": spec.config,
        "input_size": spec.input_size,
        "mean": list(MEAN),
        "std": list(STD),
        "resize": "longest side" if sam1 else "stretch",
        "interpolation": "bilinear, antialiased",
        "padding": "zeros, right and below" if sam1 else "none",
        "padding_point": "client, where there is no box" if sam1 else "in the decoder",
        "masks": decoders(spec.family, single_mask=params.single_mask)[DECODER],
        "guide": guide,
        "precision": params.precision,
        "opset": params.opset,
        "licence": spec.licence,
        "checkpoint_sha256": sha256,
        "auto": asdict(spec.auto),
        "written_by": f"napari-sam-suite {__version__}",
    }

"""What the exported files are called, take and give, and what they say of themselves.

Names, types and axes are those that samexporter and NimbusImage agree on, so that what
runs their files runs these.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_sam_suite import __version__
from napari_sam_suite.engine.models.onnxfile import DECODER, FORMAT, SINGLE_DECODER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.onnx.networks import Masks
    from napari_sam_suite.engine.onnx.params import ExportParams

Shape = tuple[int | str, ...]
"""Lengths of axes; those with a name may differ from call to call."""

PROMPTS, POINTS = "num_labels", "num_points"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of each channel of an image whose values are in 0..1, as all SAM models expect."""


class Ports(NamedTuple):
    """Inputs and outputs of one file by name, all of them float32."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]


def encoder_ports(family: str, side: int, width: int) -> Ports:
    """Inputs and outputs of an encoder with `width` channels and `side` pixels."""
    image = (1, 3, side, side)
    coarse = (1, width, side // 16, side // 16)
    if family == "sam1":
        return Ports({"input_image": image}, {"image_embeddings": coarse})
    return Ports({"image": image}, {**_fine(side, width), "image_embed": coarse})


def decoder_ports(family: str, side: int, width: int, masks: Masks) -> Ports:
    """Inputs and outputs of a decoder that draws `masks`."""
    low = side // 4
    prompts: dict[str, Shape] = {
        "point_coords": (PROMPTS, POINTS, 2),
        "point_labels": (PROMPTS, POINTS),
        "mask_input": (PROMPTS, 1, low, low),
        "has_mask_input": (PROMPTS,),
    }
    coarse = (1, width, side // 16, side // 16)
    count = {"three": 3, "all": 4}.get(masks, 1)
    iou: dict[str, Shape] = {"iou_predictions": (PROMPTS, count)}
    small = (PROMPTS, count, low, low)
    if family == "sam2":
        features = {"image_embed": coarse, **_fine(side, width)}
        return Ports({**features, **prompts}, {"masks": small, **iou})
    full = (PROMPTS, count, "height", "width")
    return Ports(
        {"image_embeddings": coarse, **prompts, "orig_im_size": (2,)},
        {"masks": full, **iou, "low_res_masks": small},
    )


def _fine(side: int, width: int) -> dict[str, Shape]:
    return {
        "high_res_feats_0": (1, width // 8, side // 4, side // 4),
        "high_res_feats_1": (1, width // 4, side // 8, side // 8),
    }


def decoders(family: str, *, single_mask: bool) -> dict[str, Masks]:
    """The decoders of a model, and what each of them draws."""
    if single_mask:
        return {DECODER: "best"}
    if family == "sam1":
        return {DECODER: "all"}
    return {DECODER: "three", SINGLE_DECODER: "single"}


def make_card(spec: ModelSpec, params: ExportParams, sha256: str) -> dict[str, Any]:
    """What travels in the metadata of every file: all that is needed to use it."""
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
        "precision": params.precision,
        "opset": params.opset,
        "licence": spec.licence,
        "checkpoint_sha256": sha256,
        "auto": asdict(spec.auto),
        "written_by": f"napari-sam-suite {__version__}",
    }

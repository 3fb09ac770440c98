"""What exported files take and give: names, types and axes of encoder and decoders.

They are those that samexporter and NimbusImage agree on, so that what runs their files
runs these. Whoever writes them and whoever runs them reads them here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from napari_sam_suite.engine.models.onnxfile import DECODER, ENCODER, SINGLE_DECODER

if TYPE_CHECKING:
    from collections.abc import Mapping

Masks = Literal["three", "single", "all", "best"]
"""Which masks a decoder draws: the three of an ambiguous prompt, the one of a clear
one, all four, or the better of both kinds by SAM's own rule."""

Shape = tuple[int | str, ...]
"""Lengths of axes; those with a name may differ from call to call."""

PROMPTS, POINTS = "num_labels", "num_points"


class Ports(NamedTuple):
    """Inputs and outputs of one file by name, all of them float32."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]


def encoder_ports(family: str, side: int, width: int, *, guide: bool = False) -> Ports:
    """Inputs and outputs of an encoder with `width` channels and `side` pixels.

    What a `guide` says comes after all that a decoder takes.
    """
    image = (1, 3, side, side)
    coarse = (1, width, side // 16, side // 16)
    if family == "sam1":
        return Ports({"input_image": image}, {"image_embeddings": coarse})
    outputs: dict[str, Shape] = {**_fine(side, width), "image_embed": coarse}
    if guide:
        outputs["guide"] = (1, 5, side // 4, side // 4)
    return Ports({"image": image}, outputs)


def decoder_ports(family: str, side: int, width: int, masks: str) -> Ports:
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


def part_names(family: str, masks: str) -> tuple[str, ...]:
    """Files of an export whose card says which masks it draws, without their ending."""
    return ENCODER, *decoders(family, single_mask=masks == "best")

"""What the user can set for the export of a model."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from napari_sam_suite.engine.params import Groups, Params


class ExportParams(Params):
    """Export: an encoder and a decoder as ONNX files, and what comes with them."""

    groups: ClassVar[Groups] = (
        ("Files", ("precision", "single_mask", "simplify", "opset", "external_data")),
        ("Browser", ("page", "ort")),
    )

    precision: Literal["float32", "float16", "int8"] = Field(
        "float32",
        title="Precision",
        description="Numbers in the encoder: float16 is half the size, int8 about a "
        "quarter. The small decoder stays in float32.",
    )
    single_mask: bool = Field(
        False,
        title="Single mask",
        description="The decoder gives only its best mask; this package then cannot "
        "run it.",
    )
    simplify: bool = Field(
        True,
        title="Simplify",
        description="Remove operations that do nothing (onnxslim).",
    )
    opset: int = Field(
        18,
        ge=17,
        le=20,
        title="Opset",
        description="Version of ONNX's operators; browsers know 18.",
    )
    external_data: Literal["auto", "always"] = Field(
        "auto",
        title="External data",
        description="Weights in a file beside the model: auto is above 2 GB, which one "
        "file cannot hold.",
    )
    page: bool = Field(
        True,
        title="Demo page",
        description="A web page beside the model that runs it in the browser.",
    )
    ort: bool = Field(
        False,
        title="ORT format",
        description="Also write .ort files, which load faster in a browser.",
    )

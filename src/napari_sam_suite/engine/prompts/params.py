"""What the user can set for prompts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from napari_sam_suite.engine.params import Groups, PolygonParams


class PromptParams(PolygonParams):
    """Prompts: points, boxes and masks, each for one object."""

    groups: ClassVar[Groups] = (
        ("Answers", ("answers", "tile", "prompts_per_batch", "mask_threshold")),
        *PolygonParams.groups,
    )

    parts: Literal["largest", "main", "all"] = Field(
        "main",
        title="Parts",
        description="Which pieces of an answer are kept: the largest; the main ones, "
        "those that the prompt means without specks; or all.",
    )
    answers: Literal["best", "all"] = Field(
        "best",
        title="Answers",
        description="The best answer to each prompt, or the three best.",
    )
    tile: Annotated[int, Field(ge=32)] | Literal["auto", "off"] = Field(
        "auto",
        title="Tile",
        description="Side of the smallest part of the image looked at, in pixels.",
    )
    prompts_per_batch: int | None = Field(
        None,
        ge=1,
        le=4096,
        title="Prompts per batch",
        description="Prompts decoded at once; blank suits the device.",
    )
    mask_threshold: float = Field(
        0.0, ge=-32, le=32, title="Mask threshold", description="Logit of the edge."
    )

"""What can be set of a hierarchy."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.params import Params

if TYPE_CHECKING:
    from napari_sam_suite.engine.params import Groups

LEVELLED = ".levels"
"""What files of objects with levels are called, after the image's name."""
TREE = (".hierarchy.json", ".hierarchy.csv", ".hierarchy.txt")
"""Files of what lies in what, the same."""


class HierarchyParams(Params):
    """How objects get their level, and when one lies in another.

    The two ways by area are those of LanguageINR's generator for SAM 2; the outputs of
    the model as levels are those of LangSplat (Qin et al. 2024).
    """

    groups: ClassVar[Groups] = (
        (
            "Levels",
            (
                "by",
                "small_below",
                "whole_above",
                "small_percentile",
                "part_percentile",
                "containment",
            ),
        ),
    )

    by: Literal["fraction", "tertile", "token"] = Field(
        "fraction",
        title="Levels by",
        description="Area as a part of the image, rank of area, or the model's output.",
    )
    small_below: float = Field(
        0.02,
        ge=0,
        le=1,
        title="Small below",
        description="Smaller parts of the image are small (by fraction).",
    )
    whole_above: float = Field(
        0.15,
        ge=0,
        le=1,
        title="Whole above",
        description="Larger parts of the image are whole (by fraction).",
    )
    small_percentile: float = Field(
        33,
        ge=0,
        le=100,
        title="Small up to",
        description="Percentile of areas up to which objects are small (by tertile).",
    )
    part_percentile: float = Field(
        66,
        ge=0,
        le=100,
        title="Part up to",
        description="Percentile of areas up to which objects are parts (by tertile).",
    )
    containment: float = Field(
        0.5,
        gt=0,
        le=1,
        title="Containment",
        description="An object lies in another that covers at least this much of it.",
    )

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        for low, high in (
            ("small_below", "whole_above"),
            ("small_percentile", "part_percentile"),
        ):
            least, most = getattr(self, low), getattr(self, high)
            if least > most:
                raise ParameterError(
                    f"`{low}` cannot be {least:g}: `{high}` is {most:g}.",
                    "Make it at most as large.",
                )
        return self

"""What the user can set for few-shot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.params import Groups, PolygonParams, check_areas

if TYPE_CHECKING:
    from napari_sam_suite.engine.models.registry import ModelSpec

_SAM1_POINTS = 128


class FewShotParams(PolygonParams):
    """Few-shot: find what is like the tagged examples.

    Names, ranges and defaults of the exact mode are those of NimbusImage's few-shot
    workers; the fast mode takes from the examples what is left open.
    """

    left_open: ClassVar[str] = "suits the examples"
    groups: ClassVar[Groups] = (
        ("Likeness", ("mode", "threshold", "occupancy")),
        ("Candidates", ("points_per_side", "tile", "min_area", "max_area", "overlap")),
        *PolygonParams.groups,
    )

    mode: Literal["fast", "exact"] = Field(
        "fast",
        title="Mode",
        description="Encode each tile once, or every candidate on its own.",
    )
    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        "auto",
        title="Similarity threshold",
        description="Less similar candidates are dropped; auto is 0.5, which in fast "
        "mode means as likely as not.",
    )
    points_per_side: int | None = Field(
        None,
        ge=16,
        le=256,
        title="Points per side",
        description="Of the grid in an image or tile; in exact mode 128 unless given.",
    )
    min_area: int | None = Field(
        None,
        ge=0,
        le=100_000,
        title="Smallest object",
        description="In pixels, 0 is no limit; in exact mode 30 unless given.",
    )
    max_area: int | None = Field(
        None,
        ge=0,
        le=100_000,
        title="Largest object",
        description="In pixels, 0 is no limit; in exact mode 1000 or more unless "
        "given.",
    )
    occupancy: float = Field(
        0.2,
        ge=0.05,
        le=0.8,
        title="Target occupancy",
        description="Exact mode: part of its crop that an object fills.",
    )
    tile: Annotated[int, Field(ge=32)] | Literal["auto", "off"] = Field(
        "auto",
        title="Tile",
        description="Side of the tiles in pixels; auto suits the examples, off in "
        "exact mode.",
    )
    overlap: Literal["exclusive", "allow"] = Field(
        "exclusive",
        title="Overlaps",
        description="Whether a pixel may belong to several objects.",
    )

    @model_validator(mode="after")
    def _check_areas(self) -> Self:
        check_areas(self.min_area or 0, self.max_area or 0)
        return self

    def resolved(self, spec: ModelSpec) -> Self:
        """A copy in which what does not depend on the examples is filled in.

        Raises
        ------
        ParameterError
            If there are more points per side than the exact mode has for SAM 1.
        """
        if self.mode == "fast":
            return self
        if spec.family == "sam1" and (self.points_per_side or 0) > _SAM1_POINTS:
            raise ParameterError(
                f"`points_per_side` cannot be {self.points_per_side} for {spec.id}.",
                f"SAM 1 takes 16 to {_SAM1_POINTS} in exact mode.",
            )
        return self.with_(
            threshold=0.5 if self.threshold == "auto" else self.threshold,
            points_per_side=self.points_per_side or _SAM1_POINTS,
            min_area=30 if self.min_area is None else self.min_area,
            tile="off" if self.tile == "auto" else self.tile,
        )

"""What the user can set, with its range: one frozen model per capability.

The same object draws the form, the command's flags and the saved recipe. A value of
``None`` means "what suits the model", and `AutoParams.resolved` fills it in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_sam_suite.engine.errors import ParameterError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from napari_sam_suite.engine.models.registry import ModelSpec


Groups = tuple[tuple[str, tuple[str, ...]], ...]
"""Titles with the names of the fields below each."""


class Params(BaseModel):
    """Base of all parameter models: frozen, no unknown keys, one-sentence errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: ClassVar[Groups] = ()
    """How the fields are grouped by whoever lists them."""

    left_open: ClassVar[str] = "suits the model"
    """What a value of None means, in words that follow "the default"."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _explain(error, type(self)) from error

    def with_(self, **values: Any) -> Self:
        """A copy with some values changed, checked like a new one."""
        return type(self)(**(self.model_dump() | values))


class PolygonParams(Params):
    """How masks become polygons."""

    groups: ClassVar[Groups] = (("Polygons", ("smoothing", "padding", "parts")),)

    smoothing: float = Field(
        0.3, ge=0, le=3, title="Smoothing", description="Simplification in pixels."
    )
    padding: float = Field(
        0.0, ge=-20, le=20, title="Padding", description="Grow or shrink, in pixels."
    )
    parts: Literal["largest", "main", "all"] = Field(
        "largest",
        title="Parts",
        description="Which pieces of a mask are kept; main are all but specks.",
    )

    def resolved(self, spec: ModelSpec) -> Self:
        """A copy in which everything left open is what suits the model `spec`."""
        return self


class AutoParams(PolygonParams):
    """Automatic masks: a grid of points asks the model what is there.

    Names and meanings are those of the generators of SAM and SAM 2 (Kirillov et al.
    2023, Ravi et al. 2024); `search`, `tile` and `overlap` are ours.
    """

    groups: ClassVar[Groups] = (
        (
            "Prompts",
            ("search", "points_per_side", "points_per_batch", "multimask", "refine"),
        ),
        (
            "Thresholds",
            (
                "pred_iou_thresh",
                "stability_score_thresh",
                "stability_score_offset",
                "mask_threshold",
                "box_nms_thresh",
                "min_mask_region_area",
                "min_area",
                "max_area",
            ),
        ),
        (
            "Crops and tiles",
            (
                "tile",
                "crop_n_layers",
                "crop_nms_thresh",
                "crop_overlap_ratio",
                "crop_n_points_downscale_factor",
            ),
        ),
        ("Polygons", ("smoothing", "padding", "parts", "overlap")),
    )

    search: Literal["auto", "grid", "guided"] = Field(
        "auto",
        title="Search",
        description="A grid of points, or where the model's guide expects objects; "
        "auto is guided where the model has one.",
    )
    points_per_side: int = Field(
        32,
        ge=1,
        le=256,
        title="Points per side",
        description="The grid has this many points squared. Given without a search, "
        "it asks for a grid.",
    )
    points_per_batch: int | None = Field(
        None,
        ge=1,
        le=4096,
        title="Points per batch",
        description="Points asked at once; more need more memory.",
    )
    pred_iou_thresh: float | None = Field(
        None,
        ge=0,
        le=1,
        title="Quality threshold",
        description="Masks the model itself rates lower are dropped.",
    )
    stability_score_thresh: float | None = Field(
        None,
        ge=0,
        le=1,
        title="Stability threshold",
        description="Masks that change more with the cut-off are dropped.",
    )
    stability_score_offset: float | None = Field(
        None,
        ge=0,
        le=10,
        title="Stability offset",
        description="How far the cut-off is moved for the stability score, in logits.",
    )
    mask_threshold: float = Field(
        0.0,
        ge=-32,
        le=32,
        title="Mask threshold",
        description="Logit at the edge of a mask.",
    )
    box_nms_thresh: float | None = Field(
        None,
        ge=0,
        le=1,
        title="Duplicate threshold",
        description="Of two boxes that overlap more, the worse is dropped.",
    )
    crop_n_layers: int = Field(
        0,
        ge=0,
        le=4,
        title="Crop layers",
        description="Also look at 4, 16, ... crops of the image.",
    )
    crop_nms_thresh: float = Field(
        0.7,
        ge=0,
        le=1,
        title="Crop duplicate threshold",
        description="The duplicate threshold between crops.",
    )
    crop_overlap_ratio: float = Field(
        512 / 1500,
        ge=0,
        lt=1,
        title="Crop overlap",
        description="How much crops overlap, as a part of the image.",
    )
    crop_n_points_downscale_factor: int = Field(
        1,
        ge=1,
        le=16,
        title="Crop grid divisor",
        description="Layer n has the grid divided by this to the power n.",
    )
    min_mask_region_area: int = Field(
        0,
        ge=0,
        title="Smallest region",
        description="Smaller holes are filled and smaller islands removed, in pixels.",
    )
    multimask: bool = Field(
        True,
        title="Three masks per point",
        description="Ask for object, part and whole; else one mask.",
    )
    refine: bool = Field(
        False,
        title="Refine",
        description="Feed each mask back to the model once (SAM 2's use_m2m).",
    )
    tile: Annotated[int, Field(ge=32)] | Literal["auto", "off"] = Field(
        "auto",
        title="Tile",
        description="Side of the tiles of large images in pixels; auto suits the "
        "model, and small objects where it tells of them.",
    )
    overlap: Literal["exclusive", "allow"] = Field(
        "exclusive",
        title="Overlaps",
        description="Whether a pixel may belong to several objects.",
    )
    min_area: int = Field(
        0,
        ge=0,
        title="Smallest object",
        description="Smaller ones are dropped, in pixels; 0 is no limit.",
    )
    max_area: int = Field(
        0,
        ge=0,
        title="Largest object",
        description="Larger ones are dropped, in pixels; 0 is no limit.",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _grid_if_points(values)

    @model_validator(mode="after")
    def _check_areas(self) -> Self:
        check_areas(self.min_area, self.max_area)
        return self

    @classmethod
    def preset(cls, name: str, **values: Any) -> Self:
        """The settings of one of `PRESETS`.

        ``"speed"`` asks fewer points of fewer, larger tiles; ``"quality"`` cleans small
        holes and specks away; ``"coverage"`` asks a grid of more points, and crops.

        Raises
        ------
        ParameterError
            If there is no preset of that name.
        """
        if name not in PRESETS:
            known = ", ".join(PRESETS)
            raise ParameterError(
                f"There is no preset called {name!r}.", f"Choose one of: {known}."
            )
        return cls(**(PRESETS[name] | _grid_if_points(values)))

    def resolved(self, spec: ModelSpec) -> Self:
        """A copy in which everything left open is what suits the model `spec`."""
        suits = {
            name: getattr(spec.auto, name)
            for name in (
                "pred_iou_thresh",
                "stability_score_thresh",
                "stability_score_offset",
                "box_nms_thresh",
            )
            if getattr(self, name) is None
        }
        return self.with_(**suits)


# Thresholds are not part of them: what is strict for one model is lax for another.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "speed": {"search": "auto", "points_per_side": 16, "tile": 2048},
    "quality": {"min_mask_region_area": 25},
    "coverage": {
        "search": "grid",
        "points_per_side": 64,
        "crop_n_layers": 1,
        "crop_n_points_downscale_factor": 2,
    },
}
"""What each preset of automatic masks sets; the rest is as by default."""


def _grid_if_points(values: dict[str, Any]) -> dict[str, Any]:
    """Who says how many points there are, and nothing of the search, wants a grid."""
    if "points_per_side" in values and "search" not in values:
        return values | {"search": "grid"}
    return values


def check_areas(least: int, most: int) -> None:
    """Refuse a `max_area` below `min_area`; 0 is no limit.

    Raises
    ------
    ParameterError
        If no object could be both.
    """
    if 0 < most < least:
        raise ParameterError(
            f"`max_area` cannot be {most}: `min_area` is {least}.",
            "Make it at least as large, or 0 for no limit.",
        )


def _explain(error: ValidationError, model: type[BaseModel]) -> ParameterError:
    first = error.errors(include_url=False)[0]
    name = f"`{first['loc'][0]}`" if first["loc"] else "The set of parameters"
    if first["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields)
        return ParameterError(
            f"There is no parameter called {name}.", f"The parameters are: {known}."
        )
    value = first["input"]
    # A field of several kinds has one error for each; together they say what may be.
    wanted = " or ".join(
        dict.fromkeys(
            _wanted(e)
            for e in error.errors(include_url=False)
            if e["loc"][:1] == first["loc"][:1]
        )
    )
    return ParameterError(f"{name} cannot be {value!r}.", f"It should be {wanted}.")


_WANTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_parsing": "yes or no",
    "bool_type": "yes or no",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
}


def _wanted(error: ErrorDetails) -> str:
    """What a value should be; of one that is chosen, all there are."""
    if error["type"] in _WANTED:
        return _WANTED[error["type"]].format(**error.get("ctx", {}))
    return error["msg"].removeprefix("Input should be ").partition(",")[0]

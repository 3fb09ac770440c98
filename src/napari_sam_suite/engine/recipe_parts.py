"""What a recipe is made of: source, frames, model, capabilities and outputs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from napari_sam_suite.engine.errors import FrameError, ParameterError
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.frames import check_selection
from napari_sam_suite.engine.hierarchy.params import HierarchyParams
from napari_sam_suite.engine.models.protocol import Precision
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL
from napari_sam_suite.engine.outputs import parse_formats
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.engine.propagation.params import PropagateParams
from napari_sam_suite.engine.recorded import Recorded, Said, Shape


class Source(Recorded):
    """Which images.

    Attributes
    ----------
    images : tuple of str
        Files, folders, or patterns such as ``"plate/**/*.tif"``.
    axes : str, optional
        See `open_image`.
    layers : tuple of str
        Names of the layers that the panel looked at; only told.
    """

    images: tuple[str, ...] = ()
    axes: str | None = None
    layers: tuple[str, ...] = ()


class Frames(Recorded):
    """Which frames of each image, as a person types them: ``"1-3, 5"`` or ``"all"``."""

    positions: str = "all"
    z: str = "all"
    time: str = "all"

    @field_validator("*")
    @classmethod
    def _check_text(cls, text: str, info: ValidationInfo) -> str:
        try:
            check_selection(text, field=f"The recipe's 'frames.{info.field_name}'")
        except FrameError as error:
            raise ParameterError(error.message, error.hint) from error
        return text


class Model(Recorded):
    """Which model, and how it runs; see `Engine`."""

    id: str = DEFAULT_MODEL
    device: str = "auto"
    precision: Precision = "auto"
    folder: str | None = None
    random_weights: bool = False


class Auto(Recorded):
    """Automatic masks."""

    name: Literal["auto"] = "auto"
    params: AutoParams = Field(default_factory=AutoParams)


class FewShot(Recorded):
    """Objects like the examples.

    Attributes
    ----------
    tags, negatives : tuple of str
        What to find, and what is not meant.
    examples : tuple of Shape
        Drawn on `image`, which is the first image of the source if it is not said.
    prototypes : str, optional
        File of what was learnt before, in place of examples.
    """

    name: Literal["few-shot"] = "few-shot"
    params: FewShotParams = Field(default_factory=FewShotParams)
    tags: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    examples: tuple[Shape, ...] = ()
    image: str | None = None
    prototypes: str | None = None

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if bool(self.examples) == bool(self.prototypes):
            raise ValueError("give either examples or prototypes")
        if self.examples and not self.tags:
            raise ValueError("give the tags of the examples that are to be found")
        return self


class Prompted(Recorded):
    """Answers to points, boxes and masks."""

    name: Literal["prompt"] = "prompt"
    params: PromptParams = Field(default_factory=PromptParams)
    prompts: Annotated[tuple[Said, ...], Field(min_length=1)]


class Propagate(Recorded):
    """Objects of one frame of one image, carried on."""

    name: Literal["propagate"] = "propagate"
    params: PropagateParams = Field(default_factory=PropagateParams)
    objects: Annotated[tuple[Shape, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_frame(self) -> Self:
        if len({shape.frame for shape in self.objects}) > 1:
            raise ValueError("all objects must be of one frame")
        return self


class Nested(Recorded):
    """Automatic masks that may overlap, with their levels and what lies in what.

    Attributes
    ----------
    params : HierarchyParams
        What is small, part and whole.
    masks : AutoParams
        How they are found; `overlap` must be ``"allow"``.
    """

    name: Literal["hierarchy"] = "hierarchy"
    params: HierarchyParams = Field(default_factory=HierarchyParams)
    masks: AutoParams = Field(default_factory=lambda: AutoParams(overlap="allow"))

    @model_validator(mode="after")
    def _check_overlap(self) -> Self:
        if self.masks.overlap != "allow":
            raise ValueError("overlap must be 'allow', or nothing lies in anything")
        return self


Capability = Annotated[
    Auto | FewShot | Prompted | Propagate | Nested, Field(discriminator="name")
]


class Outputs(Recorded):
    """Where results go.

    Attributes
    ----------
    store : str
        Folder, or any address that fsspec knows, such as ``"s3://bucket/run"``.
    folder : str, optional
        Where files of `formats` are written when the run is complete.
    formats : tuple of str
        Such as ``("labels", "geojson")``.
    """

    store: str = ""
    folder: str | None = None
    formats: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_formats(self) -> Self:
        if self.formats:
            parse_formats(",".join(self.formats))
        if self.formats and not self.folder:
            raise ValueError("formats need a folder")
        return self

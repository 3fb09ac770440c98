"""What the user can set for propagation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.prompts.params import PromptParams

if TYPE_CHECKING:
    from napari_sam_suite.engine.models.registry import ModelSpec


class PropagateParams(PromptParams):
    """Objects of one frame carried on through time or z."""

    groups = (
        ("Way", ("axis", "direction", "steps", "max_gap")),
        ("Trust", ("method", "motion", "trust")),
        *PromptParams.groups,
    )

    axis: Literal["time", "z"] = Field(
        "time", title="Along", description="The axis the objects are carried along."
    )
    direction: Literal["forward", "backward", "both"] = Field(
        "forward", title="Direction", description="From the frame they are in."
    )
    steps: int = Field(
        0, ge=0, title="Frames", description="How many frames; 0 is to the end."
    )
    max_gap: int = Field(
        2,
        ge=0,
        le=20,
        title="Longest gap",
        description="Frames in which an object may be unseen before it counts as lost.",
    )
    method: Literal["auto", "memory", "frames"] = Field(
        "auto",
        title="Method",
        description="SAM 2's video memory; or frame by frame, the mask before as the "
        "prompt; or memory where the model has it and it suits the objects.",
    )
    motion: bool = Field(
        True,
        title="Follow motion",
        description="Frame by frame: move the masks as the picture moves, then ask.",
    )
    trust: float = Field(
        0.9,
        ge=0,
        le=1,
        title="Agreement",
        description="Frame by frame: IoU with the moved mask from which the model's "
        "answer is taken.",
    )

    def resolved(self, spec: ModelSpec) -> Self:
        """A copy in which everything left open is what suits the model `spec`.

        Where the model has a memory, ``auto`` is decided when the objects are seen.

        Raises
        ------
        ParameterError
            If the memory is wanted of a model that has none.
        """
        if spec.has_memory or self.method == "frames":
            return self
        if self.method == "memory":
            raise ParameterError(
                f"{spec.id} has no video memory.",
                "Set `method` to frames or auto, or choose a checkpoint of SAM 2.",
            )
        return self.with_(method="frames")

"""What the user can set for propagation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from napari_sam_suite.engine.prompts.params import PromptParams


class PropagateParams(PromptParams):
    """Objects of one frame carried on through time or z."""

    groups = (
        ("Way", ("axis", "direction", "steps", "max_gap")),
        ("Trust", ("motion", "trust")),
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
    motion: bool = Field(
        True,
        title="Follow motion",
        description="Move the masks as the picture moves before the model is asked.",
    )
    trust: float = Field(
        0.75,
        ge=0,
        le=1,
        title="Agreement",
        description="IoU with the moved mask from which the model's answer is taken.",
    )

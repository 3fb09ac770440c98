"""What a command does to each image of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.params import AutoParams
    from napari_sam_suite.engine.recipe import Capability


class Task(Protocol):
    """What a command does to each image."""

    @property
    def name(self) -> str:
        """The capability, as the source of objects says it."""

    def start(
        self,
        engine: Engine,
        image: ImageSource,
        frames: list[FrameIndex],
        composite: Composite,
    ) -> Job[Objects]:
        """Queue the work on one image."""

    def advice(self, spec: ModelSpec) -> str:
        """What to try when nothing was found."""

    def capability(self) -> Capability:
        """What a recipe says of it."""


@dataclass(frozen=True)
class Segmenting:
    """Automatic masks as a `Task`."""

    params: AutoParams
    name = "auto"

    def start(
        self,
        engine: Engine,
        image: ImageSource,
        frames: list[FrameIndex],
        composite: Composite,
    ) -> Job[Objects]:
        """Queue automatic segmentation."""
        return engine.start_segment(
            image, self.params, frames=frames, composite=composite
        )

    def capability(self) -> Capability:
        """As a recipe has it."""
        from napari_sam_suite.engine.recipe import Auto

        return Auto(params=self.params)

    def advice(self, spec: ModelSpec) -> str:
        """Name the thresholds as they were."""
        params = self.params.resolved(spec)
        limited = params.min_area or params.max_area
        guided = params.search == "guided" or (params.search == "auto" and spec.guided)
        more = (
            "--search grid"
            if guided
            else f"more --points-per-side (now {params.points_per_side})"
        )
        return (
            "Nothing was found. Try "
            f"{'other --min-area and --max-area, ' if limited else ''}"
            f"a lower --pred-iou-thresh (now {params.pred_iou_thresh:g}) or {more}; "
            "--format overlay shows what the model sees."
        )

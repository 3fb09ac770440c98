"""A capability that goes over frames and fills a result layer: the usual task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_sam_suite.widgets.overview import MANY
from napari_sam_suite.widgets.runner import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_sam_suite.engine.finder import Finder
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.results import Results
    from napari_sam_suite.widgets.runs import Mode, Run


@dataclass(eq=False)
class Finding(Task):
    """A run as it was when the button was pressed.

    Attributes
    ----------
    spec : ModelSpec
    picture : Picture
        What is looked at.
    frames : sequence of FrameIndex
        In this order.
    make : callable
        Makes the finder; called when all that it imports is there.
    recipe : dict
        Kept with the layer.
    mode : Mode
        What becomes of earlier objects.
    results : Results
        Where objects go.
    settled : callable, optional
        Called with the run and its finder when everything is drawn.
    advice : str
        What to do when nothing was found.
    """

    spec: ModelSpec
    picture: Picture
    frames: Sequence[FrameIndex]
    make: Callable[[], Finder]
    recipe: dict[str, Any]
    mode: Mode
    results: Results
    settled: Callable[[Run, Finder], object] | None = None
    advice: str = "lower the thresholds under Advanced to find more"

    def start(self, engine: Engine) -> Job[Any]:
        """Begin; from here on the results know of it."""
        self._finder = self.make()
        job = engine.start(
            self._finder,
            self.picture.image,
            frames=self.frames,
            composite=self.picture.composite,
        )
        self._run = self.results.begin(self.picture, self.recipe, self.mode)
        return job

    def take(self, part: Any) -> None:
        """Draw the objects of a frame."""
        self.results.add(self._run, part)

    def settle(self, job: Job[Any]) -> None:
        """Let the run be undone, as one step."""
        self.results.finish(self._run, self._tell)

    def _tell(self) -> None:
        if self.settled is not None:
            self.settled(self._run, self._finder)

    def summary(self) -> str:
        """Such as "12 objects in 3 frames"."""
        found, frames = self._run.found, self._run.frames
        if frames and not found:
            return f"no objects; {self.advice}"
        objects = "1 object" if found == 1 else f"{found} objects"
        where = "1 frame" if frames == 1 else f"{frames} frames"
        many = "; More, Show as labels, is quicker to look at" if found > MANY else ""
        return f"{objects} in {where}{many}"

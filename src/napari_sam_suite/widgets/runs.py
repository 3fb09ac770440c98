"""A run and its traces in the viewer; what can be taken back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from napari_sam_suite.widgets.layers import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Shapes

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.run import FrameResult
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.results import Results

Mode = Literal["replace", "add", "new"]
"""What becomes of earlier objects: replaced in the same frames, kept, or left alone
in their own layer."""


def nothing() -> Objects:
    """No objects."""
    # tables and polygons are heavy, and the panel should open at once
    from napari_sam_suite.engine.objects import Objects

    return Objects.empty()


@dataclass(eq=False)
class Run:
    """One run and its traces in the viewer.

    Attributes
    ----------
    layer : Shapes or None
        Where its objects are; none before the first is found.
    replaced : Objects
        What it took out of the layer.
    withdrawn : Objects
        What it had found, while it is undone.
    pending : list of FrameResult
        Finished frames that are not drawn yet.
    outdated : set of FrameIndex
        Frames in which what earlier runs have drawn is still to go.
    frames, found : int
        How many frames are finished, with how many objects.
    ended : bool
        Whether no more frames come.
    then : callable, optional
        Called when it has ended and all is drawn.
    """

    id: str
    picture: Picture
    recipe: dict[str, Any]
    mode: Mode
    layer: Shapes | None = None
    replaced: Objects = field(default_factory=nothing)
    withdrawn: Objects = field(default_factory=nothing)
    pending: list[FrameResult] = field(default_factory=list)
    outdated: set[FrameIndex] = field(default_factory=set)
    frames: int = 0
    found: int = 0
    ended: bool = False
    then: Callable[[], object] | None = None
    what = "The run"

    def let_go(self, old: Objects) -> None:
        """Remember what went for it."""
        from napari_sam_suite.engine.objects import Objects

        self.replaced = Objects.concat([self.replaced, old])

    def undo(self, results: Results) -> None:
        """Take it away, and bring back what it had replaced."""
        self.withdrawn = results.take(self, "run", [self.id])
        results.show(self, self.replaced)
        if self.layer is not None:
            self.layer.metadata[KEY]["runs"].pop(self.id, None)

    def redo(self, results: Results) -> None:
        """Bring it back."""
        results.take(self, "id", self.replaced.features["id"])
        results.show(self, self.withdrawn)


class Step(Protocol):
    """Something done to result layers that can be taken back: a run, for example."""

    what: str
    """Begins the sentence that tells of it."""

    def undo(self, results: Results) -> None:
        """Take it back."""

    def redo(self, results: Results) -> None:
        """Do it again."""

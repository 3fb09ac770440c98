"""What a capability is to the frame loop: a callable that finds things in one frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_sam_suite.engine.filters import Candidates
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.params import PolygonParams

Report = Callable[[int, int, str], None]
"""Called with what is done, what there is to do, and a word on it."""
Stop = Callable[[], bool]
"""Answers whether the user wants to stop."""


@dataclass(frozen=True)
class Found:
    """What a finder found in one frame.

    Attributes
    ----------
    masks : Masks
        The best first.
    columns : mapping of str to sequence
        Further columns of the features table, one value per mask: tag, similarity.
    candidates : Candidates or Masks, optional
        All masks before they were filtered, for filtering them again.
    notices : sequence of str
        Sentences that the user should see.
    state : callable, optional
        Gives, as a file keeps it, what the next frame needs of those before, where
        frames follow from each other.
    """

    masks: Masks
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    candidates: Candidates | Masks | None = None
    notices: Sequence[str] = ()
    state: Callable[[], bytes] | None = None


class Finder(Protocol):
    """A capability with its parameters; runs on the engine's thread.

    It is called once per frame, in the order of the frames, and once more for the
    same frame after the model was moved to the CPU because it raised `OutOfMemory`.
    """

    @property
    def name(self) -> str:
        """Kept in the source of the objects as ``"capability"``."""

    @property
    def params(self) -> PolygonParams:
        """Kept in the source; smoothing, padding and parts make the polygons."""

    def __call__(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        frame: FrameIndex,
        *,
        report: Report,
        stop: Stop,
    ) -> Found:
        """Find things in an RGB frame of shape (H, W, 3).

        Progress is counted within the frame. `stop` is looked at between batches.

        Raises
        ------
        Cancelled
            If `stop` said so.
        OutOfMemory
            If the device has too little memory.
        """

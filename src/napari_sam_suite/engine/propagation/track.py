"""An object on its way through the frames, and who knows how to find it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.prompts.answers import Answer
    from napari_sam_suite.engine.prompts.prompt import MaskPrompt


@dataclass(frozen=True)
class Track:
    """One object on its way, as it was last seen.

    Attributes
    ----------
    number : int
        Counted from 1 in the order of the objects that were given.
    tag : str
        Of the object it began with.
    name : str
        Id of the object that was seen last: the parent of the next.
    mask : MaskPrompt
        Its pixels there.
    seen : int
        Place of that frame along the axis.
    missed : tuple of int
        Places since then where it was looked for and not seen.
    """

    number: int
    tag: str
    name: str
    mask: MaskPrompt
    seen: int
    missed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sighting:
    """A track in a frame: its mask there, and who says so.

    `by` is ``"model"``, ``"motion"`` or ``"memory"``.
    """

    track: Track
    answer: Answer
    by: str


class Follower(Protocol):
    """Finds objects again, one frame after the other.

    It may be asked about the same frame twice: the device's memory was full, and the
    model has gone to the CPU.
    """

    def begin(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        place: int,
        tracks: Sequence[Track],
    ) -> None:
        """Look at the objects where they were given."""

    def turn(self, *, backward: bool) -> None:
        """Go on from the first frame, in this direction."""

    def look(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        place: int,
        tracks: Sequence[Track],
        *,
        report: Report,
        stop: Stop,
    ) -> list[Sighting]:
        """Tracks that are in the next frame."""

    def keep(self, place: int, tracks: Sequence[Track]) -> None:
        """Remember what the next frame needs of `tracks`, and nothing else."""

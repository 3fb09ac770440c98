"""An object on its way through the frames, and who knows how to find it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_sam_suite.engine.features import whole_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.prompts.answers import Answer
    from napari_sam_suite.engine.prompts.prompt import MaskPrompt


@dataclass(frozen=True)
class Track:
    """One object on its way, as it was last seen.

    Attributes
    ----------
    number : int
        That of the object where it was given; see `mark`.
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

    def recall(self, rgb: NDArray[np.uint8], place: int) -> None:
        """See a frame again that was gone through in an earlier run."""

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


def mark(objects: Objects, taken: int = 0) -> Objects:
    """Objects with the columns of tracks: `track`, `parent`, `gap` and `by`.

    Those that are part of a track already keep theirs, so that an object may be carried
    on from any frame of it; of two with one number the first keeps it. Where there are
    no tracks yet, objects of a label image have its numbers. The others get the next
    free numbers, in their order. What was no track has no parent and is "given".

    Parameters
    ----------
    objects : Objects
        Of one frame.
    taken : int
        The largest number that is in use elsewhere.
    """
    table, count = objects.features, len(objects)
    tracked = "track" in table
    name = "track" if tracked else "label"
    known = whole_numbers(table[name] if name in table else np.zeros(count))
    first = np.zeros(count, bool)
    first[np.unique(known, return_index=True)[1]] = True
    numbered = first & (known > (0 if tracked else taken))
    free = max(taken, int(known.max(initial=0))) + 1
    known[~numbered] = np.arange(count - numbered.sum()) + free
    kept = numbered & tracked
    unknown: dict[str, Any] = {"parent": "", "gap": 0, "by": "given"}
    columns: dict[str, Any] = {"track": known}
    for name, value in unknown.items():
        values = table[name].fillna(value) if name in table else [value] * count
        pairs = zip(values, kept.tolist(), strict=True)
        columns[name] = [type(value)(v) if keep else value for v, keep in pairs]
    return objects.with_features(**columns)

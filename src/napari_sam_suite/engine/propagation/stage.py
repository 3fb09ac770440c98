"""How far a propagation is, written down: a run that was broken off goes on from there.

It is all that the next frame needs of those before, bit for bit, except their pictures:
these are looked at again.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Self

from pydantic import ValidationError

from napari_sam_suite.engine.recorded import Pixels, Recorded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_sam_suite.engine.propagation.track import Track


class Going(Recorded):
    """One track; see `Track`."""

    number: int
    tag: str
    name: str
    mask: Pixels
    seen: int
    missed: tuple[int, ...]

    def track(self) -> Track:
        """The track that was recorded."""
        from napari_sam_suite.engine.propagation.track import Track

        known = {name: getattr(self, name) for name in type(self).model_fields}
        return Track(**{**known, "mask": self.mask.mask()})


class Stage(Recorded):
    """What there is to go on with after a frame.

    Attributes
    ----------
    side : int
        1 on the way forward, -1 backward, 0 in the first frame.
    tracks : tuple of Going
        Those that are not lost.
    """

    side: int
    tracks: tuple[Going, ...]

    @classmethod
    def of(cls, side: int, tracks: Iterable[Track]) -> Self:
        """Write tracks down."""
        going = (
            Going(
                number=track.number,
                tag=track.tag,
                name=track.name,
                mask=Pixels.of(track.mask),
                seen=track.seen,
                missed=track.missed,
            )
            for track in tracks
        )
        return cls(side=side, tracks=tuple(going))

    def pack(self) -> bytes:
        """As a file keeps it: compressed JSON."""
        return zlib.compress(self.model_dump_json().encode())

    @classmethod
    def unpack(cls, data: bytes) -> Self | None:
        """What a file keeps, or None if it is damaged."""
        try:
            return cls.model_validate_json(zlib.decompress(data))
        except (zlib.error, ValidationError):
            return None

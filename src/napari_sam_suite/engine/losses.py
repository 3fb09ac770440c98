"""The count of everything that did not make it from masks into objects."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_sam_suite.engine.polygons import Traced


_SPECKS = 0.01
"""Part of a mask up to which nobody misses what was left out."""


@dataclass(frozen=True, slots=True)
class Losses:
    """What did not make it from masks into objects.

    Attributes
    ----------
    masks : int
        Masks that went in.
    empty, shrunk : int
        Masks without a pixel, and masks that negative padding removed.
    dropped_parts, dropped_pixels : int
        Islands left out of the objects that were kept, and their pixels.
    cut : int
        Masks that lost more than a hundredth of their pixels with them.
    filled_holes, filled_pixels : int
        Holes closed in the objects that were kept, and their pixels.
    """

    masks: int = 0
    empty: int = 0
    shrunk: int = 0
    dropped_parts: int = 0
    dropped_pixels: int = 0
    cut: int = 0
    filled_holes: int = 0
    filled_pixels: int = 0

    @classmethod
    def count(cls, traced: Iterable[Traced]) -> Losses:
        """Add up what `polygonise` reported, one `Traced` per mask."""
        traced = list(traced)
        return cls(
            masks=len(traced),
            empty=sum(t.reason == "empty" for t in traced),
            shrunk=sum(t.reason == "padding" for t in traced),
            dropped_parts=sum(t.dropped_parts for t in traced),
            dropped_pixels=sum(t.dropped_pixels for t in traced),
            cut=sum(t.dropped_pixels > _SPECKS * t.pixels for t in traced),
            filled_holes=sum(t.filled_holes for t in traced),
            filled_pixels=sum(t.filled_pixels for t in traced),
        )

    def __add__(self, other: Losses) -> Losses:
        names = [f.name for f in fields(self)]
        return Losses(*(getattr(self, n) + getattr(other, n) for n in names))

    def __bool__(self) -> bool:
        """Whether there is something to tell: specks are not worth a sentence."""
        return bool(self.empty or self.shrunk or self.cut or self.filled_holes)

    def summary(self) -> str:
        """One sentence for the person; empty when nothing of worth was lost."""
        told = []
        if self.empty:
            told.append(f"{_plural(self.empty, 'mask')} had no pixel")
        if self.shrunk:
            told.append(f"{_plural(self.shrunk, 'mask')} vanished when shrunk")
        if self.cut:
            parts = _plural(self.dropped_parts, "smaller island")
            told.append(f"{parts} ({self.dropped_pixels} px) left out")
        if self.filled_holes:
            holes = _plural(self.filled_holes, "hole")
            told.append(f"{holes} ({self.filled_pixels} px) filled")
        return f"Of {_plural(self.masks, 'mask')}: {', '.join(told)}." if told else ""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

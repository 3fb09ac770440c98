"""What was said about an image, kept until that image is looked at again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer

T = TypeVar("T")


class Place:
    """Which image it is: its layers with their pixels, and what their axes mean.

    Two places are the same image if they have a layer in common: with another channel,
    an object is still where it was.
    """

    def __init__(self, layers: Sequence[Layer], letters: str) -> None:
        self._layers = [(ref(layer), id(layer.data)) for layer in layers]
        self._letters = letters

    def __bool__(self) -> bool:
        return bool(self._layers)

    def same(self, other: Place) -> bool:
        """Whether both are of one image."""
        return self._letters == other._letters and not self._there().isdisjoint(
            other._there()
        )

    @property
    def gone(self) -> bool:
        """Whether nobody has any of its layers any more."""
        return not self._there()

    def _there(self) -> set[tuple[Any, int]]:
        found = ((layer(), data) for layer, data in self._layers)
        return {(id(layer), data) for layer, data in found if layer is not None}


class Shelf(Generic[T]):
    """One thing for each of some images."""

    def __init__(self) -> None:
        self._things: list[tuple[Place, T]] = []

    def put(self, place: Place, thing: T) -> None:
        """Keep something until its image is there again."""
        self._things = [(p, t) for p, t in self._things if not p.gone]
        self._things.append((place, thing))

    def take(self, place: Place) -> T | None:
        """What is kept of an image; it is no longer kept here."""
        for i, (there, thing) in enumerate(self._things):
            if there.same(place):
                del self._things[i]
                return thing
        return None

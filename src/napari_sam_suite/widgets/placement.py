"""Where the pixels of an image, and so its results, are in the viewer.

Knows napari's layers, but neither Qt nor a viewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.frames import FrameIndex

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari.layers import Image, Layer
    from numpy.typing import ArrayLike, NDArray

_TURNS = ("rotate", "shear", "affine")
_FIELDS = {"P": "position", "T": "time", "Z": "z"}


@dataclass(frozen=True)
class Placement:
    """Where the pixels of an image are in the viewer.

    Attributes
    ----------
    axes : str
        Letter of every axis of the result layer: P, T, Z, C, Y, X.
    options : mapping
        Keyword arguments that put a layer of these axes onto the image: scale,
        translate, units, axis_labels, and rotate, shear and affine where there are any.
    channel : int
        Place on the channel axis, where the result has one.
    """

    axes: str
    options: Mapping[str, Any]
    channel: int = 0

    def at(self, frame: FrameIndex) -> tuple[int, ...]:
        """Coordinates of a frame on the axes before y and x."""
        return tuple(
            self.channel if letter == "C" else getattr(frame, _FIELDS[letter])
            for letter in self.axes[:-2]
        )

    def flat(self) -> dict[str, Any]:
        """The same options for a layer of y and x alone."""
        kept = {"rotate": 2, "shear": 2, "affine": 3}
        return {
            name: values[-kept[name] :, -kept[name] :] if name in kept else values[-2:]
            for name, values in self.options.items()
        }

    def frame(self, leading: Sequence[float]) -> FrameIndex:
        """Frame of coordinates on the axes before y and x.

        Counted from the last axis, as napari shows layers of fewer or more axes: what
        is missing is 0, and what there is too much in front tells nothing.
        """
        letters = reversed(self.axes[:-2])
        found = {
            _FIELDS[letter]: max(0, round(float(value)))
            for letter, value in zip(letters, reversed(leading), strict=False)
            if letter in _FIELDS
        }
        return FrameIndex(**found)


def placement_of(layer: Image, letters: str, channel: int) -> Placement:
    """Where the results of an image layer go, by the meaning of its axes."""
    # a channel axis in front needs no place in the results: they show on all of it
    first = 1 if letters[0] == "C" else 0
    options = {
        "scale": np.asarray(layer.scale)[first:].tolist(),
        "translate": np.asarray(layer.translate)[first:].tolist(),
        "units": [str(unit) for unit in layer.units[first:]],
        "axis_labels": [str(label) for label in layer.axis_labels[first:]],
    }
    return Placement(letters[first:], options | _turns(layer, first), channel)


def put_onto(layer: Layer, placement: Placement) -> None:
    """Move a layer of the same axes onto an image, where it is not there already."""
    size = len(placement.axes)
    straight = {name: np.eye(size) for name in ("rotate", "shear")}
    for name, wanted in {
        **straight,
        "affine": np.eye(size + 1),
        **placement.options,
    }.items():
        there = _turn(layer, name) if name in _TURNS else getattr(layer, name)
        if name == "units":
            there = [str(unit) for unit in there]
        if not np.array_equal(there, wanted):  # each costs a new slice
            setattr(layer, name, wanted)


def to_data(layer: Layer, world: ArrayLike) -> NDArray[np.float64]:
    """A place in the viewer, which may have more axes, in data coordinates."""
    place = layer.world_to_data(np.asarray(world)[-layer.ndim :])
    return np.asarray(place, np.float64)


def _turns(layer: Image, first: int) -> dict[str, Any]:
    """What a layer has of rotation, shear and affine, without leading axes."""
    found = {}
    for name in _TURNS:
        inner = _turn(layer, name)[first:, first:]
        if not np.allclose(inner, np.eye(len(inner))):
            found[name] = inner
    return found


def _turn(layer: Layer, name: str) -> NDArray[np.float64]:
    """One of them as a matrix."""
    if name == "affine":
        return np.asarray(layer.affine.affine_matrix)
    found = np.asarray(getattr(layer, name), np.float64)
    if name == "rotate" or found.ndim == 2:
        return found
    matrix = np.eye(layer.ndim)
    matrix[np.triu_indices(layer.ndim, 1)] = found  # a shear that is given in short
    return matrix

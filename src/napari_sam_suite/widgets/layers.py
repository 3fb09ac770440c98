"""Image layers as the engine's image: what their axes are, and how they are shown.

Knows napari's layers, but neither Qt nor a viewer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.errors import ImageError
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.widgets.placement import placement_of, to_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image
    from numpy.typing import ArrayLike, NDArray

    from napari_sam_suite.engine.composite import Channel, Composite
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.widgets.placement import Placement

KEY = "napari-sam-suite"
"""Where a layer's metadata keeps what this plugin knows of it."""

SHOWN = "napari-sam-suite-shown"
"""Marks a layer that only shows something, such as a prompt: nothing to learn from."""

MEANINGS = {"P": "Position", "T": "Time", "Z": "Z", "C": "Channel"}
"""What an axis that is not displayed may be."""

_BY_LABEL = {
    **dict.fromkeys(("p", "pos", "position", "xy", "scene", "field", "s"), "P"),
    **dict.fromkeys(("t", "time", "frame", "timepoint"), "T"),
    **dict.fromkeys(("z", "depth", "plane", "slice"), "Z"),
    **dict.fromkeys(("c", "ch", "channel"), "C"),
}


@dataclass(frozen=True, eq=False)
class Picture:
    """What the panel works on: the chosen layers as one image.

    Attributes
    ----------
    image : ImageSource
        Lazy.
    composite : Composite
        How the viewer shows its channels.
    placement : Placement
        Where results go.
    names : tuple of str
        Of the layers.
    letters : str
        Of every axis of the layers.
    """

    image: ImageSource
    composite: Composite
    placement: Placement
    names: tuple[str, ...]
    letters: str


def guess_axes(labels: Sequence[str]) -> str:
    """Letter of every axis of an image from its labels.

    The last two are Y and X. Others are known by their labels; what is left without
    one is taken for Z, then time, then position, from the inside out.

    Raises
    ------
    ImageError
        If there are more axes than meanings.
    """
    known: list[str] = []
    for label in labels[:-2]:
        letter = _BY_LABEL.get(str(label).strip().lower(), "")
        known.append("" if letter in known else letter)
    free = [letter for letter in "ZTPC" if letter not in known]
    for place in reversed(range(len(known))):
        if not known[place]:
            if not free:
                raise ImageError(
                    f"The image has {len(labels)} axes.",
                    "At most position, time, z and channel go before y and x.",
                )
            known[place] = free.pop(0)
    return "".join(known) + "YX"


def leading_sizes(layer: Image) -> tuple[int, ...]:
    """Lengths of all axes of a layer but the last two."""
    return tuple(int(n) for n in _pixels(layer).shape[: layer.ndim - 2])


def plane_size(layer: Image) -> tuple[int, int]:
    """Rows and columns of a layer."""
    height, width = _pixels(layer).shape[layer.ndim - 2 : layer.ndim]
    return int(height), int(width)


def build_picture(
    layers: Sequence[Image], letters: str, *, channel: int = 0
) -> Picture:
    """Make one image of one or several image layers.

    Parameters
    ----------
    layers : sequence of Image
        Of the same shape; each is a channel where there are several.
    letters : str
        Meaning of every axis, as `guess_axes` gives it.
    channel : int
        Step of the channel axis, where the layer has one, to put results on.

    Raises
    ------
    ImageError
        If there is no layer, or they do not fit together.
    """
    from napari_sam_suite.engine.image import open_image

    _check(layers, letters)
    first = layers[0]
    arrays = [_pixels(layer) for layer in layers]
    name = " + ".join(layer.name for layer in layers)
    if len(layers) > 1:
        image = open_image(_Channels(arrays), axes=f"C{letters}", name=name)
    else:
        samples = "S" if first.rgb else ""
        image = open_image(arrays[0], axes=letters + samples, name=name)
    spacing = dict(zip(letters, (float(s) for s in first.scale), strict=True))
    image = replace(
        image,
        scale=(spacing.get("Z", 1.0), spacing["Y"], spacing["X"]),
        units=str(first.units[-1]),
        channel_names=(
            image.channel_names
            if len(layers) == 1
            else tuple(layer.name for layer in layers)
        ),
    )
    return Picture(
        image,
        composite_of(layers, image, letters),
        placement_of(first, letters, channel),
        tuple(layer.name for layer in layers),
        letters,
    )


def composite_of(
    layers: Sequence[Image], image: ImageSource, letters: str
) -> Composite:
    """How the viewer shows layers, as the engine composes channels.

    Contrast limits, gamma and visibility are those of each layer. A colormap that
    runs from black to one colour gives that colour, any other counts as grey.
    Layers that are additive on the lowest are added; where others cover each other,
    the lighter one wins.
    """
    from napari_sam_suite.engine.composite import Composite

    if "C" in letters or (layers[0].rgb and image.dtype.kind != "f"):
        return Composite.default(image)
    channels = tuple(_channel(layer, i) for i, layer in enumerate(layers))
    # what the lowest one is added to is black
    added = all(str(layer.blending) == "additive" for layer in layers[1:])
    return Composite(channels=channels, blend="add" if added else "lighten")


def current_frame(
    layer: Image, letters: str, point: ArrayLike
) -> tuple[FrameIndex, int]:
    """Frame and channel of a layer that the viewer shows.

    Parameters
    ----------
    layer : Image
        Any of the chosen ones.
    letters : str
        Meaning of its axes.
    point : array_like
        Where the sliders are, in world coordinates (``viewer.dims.point``).
    """
    place = to_data(layer, point)
    sizes = leading_sizes(layer)
    step = {
        letter: int(np.clip(round(float(value)), 0, size - 1))
        for letter, value, size in zip(letters, place, sizes, strict=False)
    }
    frame = FrameIndex(step.get("P", 0), step.get("T", 0), step.get("Z", 0))
    return frame, step.get("C", 0)


class _Channels:
    """Arrays of the same shape as one, with the channel first; nothing is read."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        self._arrays = list(arrays)
        self.shape = (len(arrays), *arrays[0].shape)
        self.dtype = np.result_type(*(array.dtype for array in arrays))

    def __getitem__(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        which, *rest = key
        if isinstance(which, int):
            return _read(self._arrays[which][tuple(rest)])
        return np.stack([_read(array[tuple(rest)]) for array in self._arrays[which]])


def _read(part: Any) -> NDArray[Any]:
    if hasattr(part, "compute"):
        part = part.compute(scheduler="threads")
    return np.asarray(part)


def _pixels(layer: Image) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def _check(layers: Sequence[Image], letters: str) -> None:
    if not layers:
        raise ImageError("No image is chosen.", "Open an image and tick it above.")
    shapes = {tuple(_pixels(layer).shape) for layer in layers}
    if len(layers) > 1 and any(layer.rgb for layer in layers):
        raise ImageError(
            "A colour image cannot be one of several channels.", "Choose it alone."
        )
    if len(shapes) > 1:
        raise ImageError(
            f"The chosen layers have different shapes: {_list(shapes)}.",
            "Choose layers of one image.",
        )
    if len(layers) > 1 and "C" in letters:
        raise ImageError(
            "Several layers are chosen, and each has a channel axis of its own.",
            "Choose one of them.",
        )


def _list(shapes: set[tuple[int, ...]]) -> str:
    return ", ".join(" × ".join(map(str, shape)) for shape in sorted(shapes))  # noqa: RUF001


def _channel(layer: Image, index: int) -> Channel:
    from napari_sam_suite.engine.composite import Channel

    if layer.rgb:
        return Channel(index=index, limits=(0.0, 1.0), mode="absolute")
    low, high = (float(limit) for limit in layer.contrast_limits)
    return Channel(
        index=index,
        color=_colour(layer),
        limits=(low, high),
        mode="absolute",
        gamma=float(layer.gamma),
        visible=bool(layer.visible),
    )


def _colour(layer: Image) -> str:
    mapped = layer.colormap.map(np.array([0.0, 0.5, 1.0]))
    dark, middle, bright = np.asarray(mapped)[:, :3]
    near = np.isclose([dark, middle], [np.zeros(3), bright / 2], atol=0.05)
    if not near.all() or bright.max() < 0.1:
        return "#ffffff"
    red, green, blue = np.round(bright * 255).astype(int).tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"

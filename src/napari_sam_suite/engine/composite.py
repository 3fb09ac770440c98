"""From channels as measured to the 8-bit RGB image a model sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import ImageColor
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from napari_sam_suite.engine.errors import ImageError, ParameterError
from napari_sam_suite.engine.image import Frame, ImageSource
from napari_sam_suite.engine.intensity import (
    Blend,
    Limits,
    Ramp,
    mix,
    percentile_limits,
    sample_values,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from numpy.typing import NDArray

    from napari_sam_suite.engine.frames import FrameIndex

_SAMPLE = 1_000_000  # pixels that percentiles are taken from
_BLOCK = 1 << 18  # pixels mixed at a time, so that floats stay in the cache
_COLORS = {
    1: ("#ffffff",),
    2: ("#ff00ff", "#00ff00"),
    3: ("#ff0000", "#00ff00", "#0000ff"),
}
_MANY = ("#00ffff", "#ffff00", "#ff00ff", "#ff0000", "#00ff00", "#0000ff")


class Channel(BaseModel):
    """How one channel is shown.

    Attributes
    ----------
    index : int
        0-based number of the channel. A colour image has one entry, index 0, that
        holds for red, green and blue together.
    color : str
        CSS name or ``#rrggbb``; kept as ``#rrggbb``.
    limits : tuple of float
        Shown as black and as full colour: intensities, or percentiles in 0..100.
        Where both are the same intensity, everything above it is full colour.
    mode : {"percentile", "absolute"}
        What `limits` are.
    gamma : float
        Exponent of the intensity between the limits.
    visible : bool
        Whether it is shown at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    index: int = Field(ge=0)
    color: str = "#ffffff"
    limits: Limits = (0.1, 99.9)
    mode: Literal["percentile", "absolute"] = "percentile"
    gamma: float = Field(default=1.0, gt=0)
    visible: bool = True

    @field_validator("color")
    @classmethod
    def _as_hex(cls, color: str) -> str:
        try:
            red, green, blue, *alpha = ImageColor.getrgb(color)
        except ValueError:
            alpha = [0]
        if alpha not in ([], [255]):
            raise ValueError(f"{color!r} is not a CSS colour name or '#rrggbb'")
        return f"#{red:02x}{green:02x}{blue:02x}"

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        low, high = self.limits
        if low > high:
            raise ValueError(f"limits {low:g} to {high:g} run backwards")
        if self.mode == "percentile" and not 0 <= low <= high <= 100:
            raise ValueError(f"percentiles {low:g} and {high:g} leave 0 to 100")
        return self

    @property
    def weights(self) -> tuple[float, float, float]:
        """Red, green and blue in 0..1."""
        red, green, blue = (int(self.color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return red, green, blue


class Composite(BaseModel):
    """How the channels of an image become one RGB image.

    Attributes
    ----------
    channels : tuple of Channel
        In any order; a channel without an entry is not shown.
    blend : {"lighten", "add", "screen"}
        Per colour component: the largest value, the sum cut at 1, or one minus the
        product of what is missing to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[Channel, ...]
    blend: Blend = "lighten"

    @classmethod
    def default(cls, image: ImageSource | Frame) -> Self:
        """Show every channel from its 0.1 to its 99.9 percentile.

        One channel is grey, several have colours of their own. An 8-bit colour
        image is left as it is, and a boolean one is black and white.

        Parameters
        ----------
        image : ImageSource or Frame
            What to show.

        Returns
        -------
        Composite
        """
        if isinstance(image, Frame):
            count, dtype = len(image.planes), image.planes.dtype
        else:
            count, dtype = image.sizes.channel, image.dtype
        fixed: dict[str, Any] = {}
        if dtype == np.bool_:
            fixed = {"limits": (0, 1), "mode": "absolute"}
        elif image.rgb and dtype == np.uint8:
            fixed = {"limits": (0, 255), "mode": "absolute"}
        colors = _COLORS[1] if image.rgb else _COLORS.get(count, _MANY)
        return cls(
            channels=tuple(
                Channel(index=i, color=colors[i % len(colors)], **fixed)
                for i in range(1 if image.rgb else count)
            )
        )

    def resolve(
        self,
        image: ImageSource,
        frames: Iterable[FrameIndex] | None = None,
        *,
        samples: int = 8,
    ) -> Self:
        """Fix percentile limits once, so that a time-lapse does not flicker.

        Parameters
        ----------
        image : ImageSource
            Some of its frames are read; those that are damaged are left out.
        frames : iterable of FrameIndex, optional
            Choose from these; all without it.
        samples : int
            At most so many frames, evenly spread.

        Returns
        -------
        Composite
            With absolute limits; the same object if it had nothing else.

        Raises
        ------
        ImageError
            If none of them can be read, or has a finite pixel.
        ParameterError
            If no channel is visible or one does not exist.
        """
        _visible(self, image.sizes.channel, image.rgb)
        loose = [
            channel
            for channel in self.channels
            if channel.mode == "percentile" and channel.index < image.sizes.channel
        ]
        if not loose:
            return self
        known = list(image.frames() if frames is None else frames)
        places = np.linspace(0, len(known) - 1, min(samples, len(known)))
        seen: dict[int, list[NDArray[np.float64]]] = {c.index: [] for c in loose}
        damage: ImageError | None = None
        for place in places:
            try:
                frame = image.frame(known[round(place)])
            except ImageError as error:
                damage = error
                continue
            for index, parts in seen.items():
                plane = frame.planes if frame.rgb else frame.planes[index]
                parts.append(sample_values(plane, _SAMPLE // len(places)))
        if damage is not None and not any(seen.values()):
            raise damage
        values = {index: np.concatenate(parts) for index, parts in seen.items()}
        if not any(part.size for part in values.values()):
            raise _nothing_finite(f"{image.name!r}")
        channels = tuple(
            _fixed(channel, values[channel.index]) if channel in loose else channel
            for channel in self.channels
        )
        return self.model_copy(update={"channels": channels})


def compose(frame: Frame, composite: Composite | None = None) -> NDArray[np.uint8]:
    """Mix the channels of one frame into RGB.

    Each intensity ``v`` becomes ``clip((v - low) / (high - low), 0, 1) ** gamma``
    times the channel's colour; the channels are blended per colour component and
    rounded to 8 bits. NaN and infinite pixels count as black, and so does a plane
    of one value under percentile limits.

    Parameters
    ----------
    frame : Frame
        Boolean, integer or real.
    composite : Composite, optional
        `Composite.default` of the frame without it. Percentiles are those of this
        frame; `Composite.resolve` makes them those of the image.

    Returns
    -------
    ndarray of uint8, shape (Y, X, 3)

    Raises
    ------
    ImageError
        If no visible channel has a finite pixel.
    ParameterError
        If no channel is visible or one does not exist.
    """
    composite = Composite.default(frame) if composite is None else composite
    layers = _layers(frame, composite)
    rows, columns = frame.shape
    rgb = np.empty((rows, columns, 3), np.uint8)
    step = max(1, _BLOCK // columns)
    for top in range(0, rows, step):
        block = rgb[top : top + step]
        shares = [layer.ramp(layer.plane[top : top + step]) for layer in layers]
        done: dict[tuple[float, ...], int] = {}
        for component in range(3):
            weights = tuple(layer.weights[component] for layer in layers)
            if weights in done:
                block[..., component] = block[..., done[weights]]
                continue
            done[weights] = component
            block[..., component] = mix(shares, weights, composite.blend) * 255 + 0.5
    return rgb


@dataclass(frozen=True, eq=False)
class _Layer:
    """One plane with what turns its values into shares of a colour."""

    plane: NDArray[Any]
    ramp: Ramp
    weights: tuple[float, float, float]


def _layers(frame: Frame, composite: Composite) -> list[_Layer]:
    channels = _visible(composite, len(frame.planes), frame.rgb)
    chosen = [
        frame.planes if frame.rgb else frame.planes[channel.index]
        for channel in channels
    ]
    if not any(_has_values(values) for values in chosen):
        raise _nothing_finite("The frame")
    layers = []
    for channel, values in zip(channels, chosen, strict=True):
        ramp = Ramp(values.dtype, _intensities(channel, values), channel.gamma)
        if frame.rgb:
            red, green, blue = channel.weights
            layers += [
                _Layer(values[0], ramp, (red, 0.0, 0.0)),
                _Layer(values[1], ramp, (0.0, green, 0.0)),
                _Layer(values[2], ramp, (0.0, 0.0, blue)),
            ]
        else:
            layers.append(_Layer(values, ramp, channel.weights))
    return layers


def _visible(composite: Composite, count: int, rgb: bool) -> list[Channel]:
    """Visible entries, each of which the image must have."""
    channels = [channel for channel in composite.channels if channel.visible]
    if not channels:
        raise ParameterError(
            "No channel is visible, so there is no image to work on.",
            "Make at least one channel visible.",
        )
    if rgb and [channel.index for channel in channels] != [0]:
        raise ParameterError(
            "The image is RGB, so its colours cannot be composed from channels.",
            "Give one channel entry, index 0, or none.",
        )
    for channel in channels:
        if channel.index >= count:
            raise ParameterError(
                f"Channel {channel.index + 1} is not in the image, which has {count}.",
                "Choose one of its channels.",
            )
    return channels


def _has_values(values: NDArray[Any]) -> bool:
    if values.dtype.kind != "f" or sample_values(values, _SAMPLE).size:
        return True
    return bool(np.isfinite(values).any())


def _intensities(channel: Channel, values: NDArray[Any]) -> Limits:
    """Limits of a channel in this frame."""
    if channel.mode == "absolute":
        return channel.limits
    sample = sample_values(values, _SAMPLE)
    low, high = percentile_limits(sample, channel.limits)
    if low < high and sample.size:
        return low, high
    # what differs, or is a number at all, may be too small for the sample
    return percentile_limits(sample_values(values, values.size), channel.limits)


def _fixed(channel: Channel, values: NDArray[np.float64]) -> Channel:
    limits = percentile_limits(values, channel.limits)
    return channel.model_copy(update={"limits": limits, "mode": "absolute"})


def _nothing_finite(what: str) -> ImageError:
    return ImageError(
        f"{what} holds nothing but NaN or infinite values.",
        "Check how the image was made, or leave such frames out.",
    )

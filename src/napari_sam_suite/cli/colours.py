"""How channels become colours, from the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from napari_sam_suite.cli.flags import expand, flag
from napari_sam_suite.engine.errors import ParameterError

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable

    from napari_sam_suite.engine.composite import Channel, Composite
    from napari_sam_suite.engine.image import ImageSource

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LIMITS = re.compile(rf"({_NUMBER})(%?)-({_NUMBER})(%?)")
_FORM = "Write NUMBER:COLOUR:LOW-HIGH:GAMMA, counted from 1, such as 1:#ff0000:0-4095."
_SAVE = "Save a recipe in the panel, and give that file."
_PANEL = "Input"


@dataclass(frozen=True)
class Colours:
    """What the flags say of channels.

    Attributes
    ----------
    channels : str
        Which ones to look at, in the colours that they have by themselves.
    channel : tuple of str
        One text for each channel that is shown, with its colour and limits.
    blend : str
        How channels are mixed; empty for the usual way.
    file : Path, optional
        JSON of a composite, or of a recipe that has one.
    """

    channels: str = "all"
    channel: tuple[str, ...] = ()
    blend: str = ""
    file: Path | None = None

    def composite(self, image: ImageSource) -> Composite:
        """What it means for an image.

        Raises
        ------
        ParameterError
            If the flags contradict each other, or do not fit the image.
        """
        from napari_sam_suite.engine.composite import Composite

        some = self.channels.strip().lower() not in ("", "all")
        if some + bool(self.channel) + (self.file is not None) > 1:
            raise ParameterError(
                "`channels`, `channel` and `composite` all say which channels to show.",
                "Give one of them.",
            )
        if self.file is not None:
            composite = _read(self.file)
        elif self.channel:
            composite = Composite(channels=_channels(self.channel))
        else:
            composite = Composite.default(image)
            if some:
                composite = _only(composite, self.channels, image)
        if self.blend:
            composite = composite.model_copy(update={"blend": _blend(self.blend)})
        return composite


def with_colours(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags about channels; it is called with ``colours``."""
    return expand(command, "colours", colour_flags(), gather_colours)


def gather_colours(values: dict[str, Any]) -> Colours:
    """What the flags of `colour_flags` say, by name."""
    channel = tuple(values["channel"] or ())
    return Colours(values["channels"], channel, values["blend"], values["composite"])


def colour_flags() -> list[inspect.Parameter]:
    """The flags about channels."""

    def about(name: str, kind: Any, default: Any, text: str, meta: str = "") -> Any:
        option = typer.Option(
            f"--{name}",
            help=text,
            rich_help_panel=_PANEL,
            metavar=meta or None,
            show_default=bool(default),
        )
        return flag(name, Annotated[kind, option], default)

    return [
        about("channels", str, "all", "Which channels to look at, counted from 1."),
        about(
            "channel",
            list[str] | None,
            None,
            "A channel to show, its colour, what is black and what is full colour "
            "(intensities, or percentiles such as 1%-99%), and its gamma; may be given "
            "several times. What is left out is as usual.",
            "NUMBER:COLOUR:LOW-HIGH:GAMMA",
        ),
        about("blend", str, "", "How channels are mixed: lighten, add or screen."),
        about(
            "composite",
            Path | None,
            None,
            "Channels as in a JSON file: a composite, or a recipe that has one.",
        ),
    ]


def _channels(texts: tuple[str, ...]) -> tuple[Channel, ...]:
    found = tuple(_channel(text) for text in texts)
    numbers = [channel.index + 1 for channel in found]
    for number in numbers:
        if numbers.count(number) > 1:
            raise ParameterError(
                f"`channel` {number} is given twice.", "Say all of it in one flag."
            )
    return found


def _channel(text: str) -> Channel:
    """A channel such as ``"1:#ff0000:0-4095:0.8"``; what is left out is as usual."""
    from pydantic import ValidationError

    from napari_sam_suite.engine.composite import Channel

    parts = [part.strip() for part in text.split(":")]
    number, color, limits, gamma = (*parts, "", "", "")[:4]
    if len(parts) > 4 or not number.isdecimal() or int(number) < 1:
        raise ParameterError(f"`channel` {text!r} cannot be read.", _FORM)
    found: dict[str, Any] = {"index": int(number) - 1}
    if color:
        found["color"] = color
    if limits:
        found |= _limits(limits, text)
    if gamma:
        found["gamma"] = gamma
    try:
        return Channel(**found)
    except ValidationError as error:
        raise ParameterError(f"`channel` {text!r}: {_reason(error)}.", _FORM) from error


def _limits(limits: str, text: str) -> dict[str, Any]:
    match = _LIMITS.fullmatch(limits)
    if match is None or match[2] != match[4]:
        raise ParameterError(
            f"`channel` {text!r}: {limits!r} are no limits.",
            "Write two intensities, such as 0-4095, or two percentiles: 1%-99%.",
        )
    mode = "percentile" if match[2] else "absolute"
    return {"limits": (float(match[1]), float(match[3])), "mode": mode}


def _blend(text: str) -> str:
    from napari_sam_suite.engine.intensity import Blend

    known = get_args(Blend)
    if text not in known:
        raise ParameterError(
            f"`blend` {text!r} is not known.", f"Choose one of {', '.join(known)}."
        )
    return text


def _read(path: Path) -> Composite:
    from pydantic import ValidationError

    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.formats.jsonfile import parse_json
    from napari_sam_suite.engine.recipe import Recipe

    read = parse_json(path, _SAVE)
    if isinstance(read, dict) and "recipe" in read:
        composite = Recipe.load(path).composite
        if composite is None:
            raise ParameterError(f"The recipe {path} holds no composite.", _SAVE)
        return composite
    try:
        return Composite.model_validate(read)
    except ValidationError as error:
        raise ParameterError(
            f"{path} holds no composite: {_reason(error)}.", _SAVE
        ) from error


def _reason(error: Any) -> str:
    """What pydantic says first, in one sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    said = str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {said}" if where else said


def _only(composite: Composite, channels: str, image: ImageSource) -> Composite:
    """The same with some channels only; a single one is grey, as in its own file."""
    from napari_sam_suite.engine.frames import parse_selection

    if image.rgb:
        raise ParameterError(
            f"{image.name!r} is RGB, so it has no channels to choose.",
            "Leave `channels` out.",
        )
    visible = parse_selection(channels, image.sizes.channel, field="`channels`")
    grey = {"color": "#ffffff"} if len(visible) == 1 else {}
    return composite.model_copy(
        update={
            "channels": tuple(
                c.model_copy(update={"visible": c.index in visible, **grey})
                for c in composite.channels
            )
        }
    )

"""Which 2-D frames of an image to work on, and how a person writes that down."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from napari_sam_suite.engine.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUMBER = re.compile(r"[0-9]{1,18}")
_RANGE = re.compile(r"([0-9]{1,18})\s*-\s*([0-9]{1,18})")


class Sizes(NamedTuple):
    """Length of every axis of an image; 1 where it has no such axis.

    Attributes
    ----------
    position, time, z, channel, y, x : int
        Lengths, in pixels for `y` and `x`. A colour image counts 3 channels.
    """

    position: int = 1
    time: int = 1
    z: int = 1
    channel: int = 1
    y: int = 1
    x: int = 1

    @property
    def frame_count(self) -> int:
        """Number of 2-D frames."""
        return self.position * self.time * self.z


class FrameIndex(NamedTuple):
    """Place of one 2-D frame in an image, counted from 0.

    Attributes
    ----------
    position, time, z : int
        0-based.
    """

    position: int = 0
    time: int = 0
    z: int = 0

    def label(self, sizes: Sizes) -> str:
        """Say which frame this is, counting from 1.

        Parameters
        ----------
        sizes : Sizes
            Of the image; axes with a single entry are left out.

        Returns
        -------
        str
            Such as ``"position 2 of 4, time 1 of 10"``; ``"the only frame"``
            where there is no choice.
        """
        parts = [
            f"{axis} {getattr(self, axis) + 1} of {getattr(sizes, axis)}"
            for axis in ("position", "z", "time")
            if getattr(sizes, axis) > 1
        ]
        return ", ".join(parts) or "the only frame"


class FieldNames(NamedTuple):
    """What the three selections are called where the person typed them."""

    positions: str = "`positions`"
    z: str = "`z`"
    time: str = "`time`"


_PYTHON_FIELDS = FieldNames()
PANEL_FIELDS = FieldNames("Batch XY", "Batch Z", "Batch Time")


def parse_selection(
    text: str | int | None, size: int, *, field: str, current: int | None = None
) -> list[int]:
    """Turn what a person typed into indices.

    Parameters
    ----------
    text : str, int or None
        Numbers and ranges counted from 1 such as ``"1-3, 5-8"``, or ``"all"``.
        Blank, None and lone commas mean the current entry. An int is that entry.
    size : int
        How many entries there are.
    field : str
        Name of the field, for the error.
    current : int, optional
        0-based entry that a blank text stands for; without it blank means all.

    Returns
    -------
    list of int
        0-based, sorted, each once.

    Raises
    ------
    FrameError
        If the text is not a selection or leaves ``1..size``; it names the field,
        what was typed and the valid span.
    """
    hint = _hint(size, current, field)
    if isinstance(text, bool) or not isinstance(text, str | int | None):
        raise _not_a_selection(field, text, hint)
    items = [item.strip() for item in str("" if text is None else text).split(",")]
    if [item.lower() for item in items] == ["all"]:
        return list(range(size))
    chosen: set[int] = set()
    for item in filter(None, items):
        first, last = _parse_item(item, field, text, hint)
        if first < 1 or last > size:
            outside = first if first < 1 else last
            raise FrameError(f"{field}: there is no {outside} (typed {text!r}).", hint)
        chosen.update(range(first - 1, last))
    if chosen or current is None:
        return sorted(chosen) or list(range(size))
    if not 0 <= current < size:
        raise FrameError(
            f"{field} is blank, but the current entry, {current + 1}, does not exist.",
            f"{_choices(size)}.",
        )
    return [current]


def check_selection(text: str, *, field: str) -> None:
    """Make sure that a text is a selection of some image, however large.

    Raises
    ------
    FrameError
        If it is one of none; it names the field and what was typed.
    """
    if text.strip().lower() == "all":
        return
    hint = "Write numbers and ranges such as '1-3, 5', or 'all'."
    for item in filter(None, map(str.strip, text.split(","))):
        first, _ = _parse_item(item, field, text, hint)
        if first < 1:
            raise FrameError(f"{field}: there is no {first} (typed {text!r}).", hint)


def _parse_item(item: str, field: str, text: object, hint: str) -> tuple[int, int]:
    """First and last of one number or range, 1-based."""
    if _NUMBER.fullmatch(item):
        first = last = int(item)
    elif match := _RANGE.fullmatch(item):
        first, last = int(match[1]), int(match[2])
    else:
        raise _not_a_selection(field, text, hint)
    if first > last:
        raise FrameError(
            f"{field}: the range {item!r} in {text!r} runs backwards.", hint
        )
    return first, last


def _not_a_selection(field: str, text: object, hint: str) -> FrameError:
    return FrameError(f"{field}: {text!r} is not a list of numbers and ranges.", hint)


def _hint(size: int, current: int | None, field: str) -> str:
    """What may be typed; only a field with a current entry is a box to leave blank."""
    if current is None:
        return f"{_choices(size)}, or leave {field} out for all of them."
    return f"{_choices(size)}; blank means the current one."


def _choices(size: int) -> str:
    if size == 1:
        return "The image has only 1 here: choose 1 or 'all'"
    example = f"1-{min(3, size - 1)}, {size}" if size > 2 else "1, 2"
    return f"Choose from 1-{size}, for example '{example}' or 'all'"


def format_selection(indices: Iterable[int]) -> str:
    """Write indices the way `parse_selection` reads them.

    Parameters
    ----------
    indices : iterable of int
        0-based, in any order.

    Returns
    -------
    str
        1-based numbers and ranges: ``[0, 1, 2, 4]`` becomes ``"1-3, 5"``.
    """
    numbers = sorted({index + 1 for index in indices})
    runs = itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    parts = []
    for _, run in runs:
        members = [number for _, number in run]
        first, last = members[0], members[-1]
        parts.append(str(first) if first == last else f"{first}-{last}")
    return ", ".join(parts)


def select_frames(
    sizes: Sizes,
    positions: str | int | None = None,
    z: str | int | None = None,
    time: str | int | None = None,
    *,
    current: FrameIndex | None = None,
    fields: FieldNames = _PYTHON_FIELDS,
) -> list[FrameIndex]:
    """Frames chosen by three texts.

    Parameters
    ----------
    sizes : Sizes
        Of the image.
    positions, z, time : str, int or None
        As `parse_selection` reads them.
    current : FrameIndex, optional
        Frame that blank texts stand for; without it blank means all.
    fields : FieldNames
        How errors call the three texts.

    Returns
    -------
    list of FrameIndex
        Every combination; time runs fastest, then z, then position.

    Raises
    ------
    FrameError
        If a text does not fit the image.
    """
    at_position, at_time, at_z = (None, None, None) if current is None else current
    return [
        FrameIndex(position=p, time=t, z=k)
        for p, k, t in itertools.product(
            parse_selection(
                positions, sizes.position, field=fields.positions, current=at_position
            ),
            parse_selection(z, sizes.z, field=fields.z, current=at_z),
            parse_selection(time, sizes.time, field=fields.time, current=at_time),
        )
    ]


def resolve_frames(
    sizes: Sizes,
    frames: str | FrameIndex | Iterable[FrameIndex] = "all",
    *,
    current: FrameIndex | None = None,
) -> list[FrameIndex]:
    """Frames as a script asks for them.

    Parameters
    ----------
    sizes : Sizes
        Of the image.
    frames : {"all", "current"}, FrameIndex or iterable of FrameIndex
        A frame named twice is returned once, at its first place.
    current : FrameIndex, optional
        What ``"current"`` stands for; the first frame without it.

    Returns
    -------
    list of FrameIndex

    Raises
    ------
    FrameError
        If the request is none of these, is empty or leaves the image.
    """
    if isinstance(frames, FrameIndex):
        return [checked_frame(frames, sizes)]
    if isinstance(frames, str):
        if frames == "all":
            return select_frames(sizes)
        if frames == "current":
            return [checked_frame(current or FrameIndex(), sizes)]
    if isinstance(frames, str) or not isinstance(frames, Iterable):
        raise FrameError(
            f"frames={frames!r} is not understood.",
            "Use 'all', 'current', a FrameIndex or a list of them.",
        )
    chosen = dict.fromkeys(checked_frame(frame, sizes) for frame in frames)
    if not chosen:
        raise FrameError("No frame was asked for.", "Name at least one, or use 'all'.")
    return list(chosen)


def checked_frame(frame: Sequence[int], sizes: Sizes) -> FrameIndex:
    """Return `frame` as a `FrameIndex` of plain ints if it lies in the image.

    Parameters
    ----------
    frame : FrameIndex or sequence of 3 int
        ``(position, time, z)``, 0-based.
    sizes : Sizes
        Of the image.

    Returns
    -------
    FrameIndex

    Raises
    ------
    FrameError
        If it is not three whole numbers, or one of them is outside.
    """
    try:
        index = FrameIndex(*(int(number) for number in frame))
        whole = tuple(index) == tuple(frame)
    except (TypeError, ValueError):
        whole = False
    if not whole:
        raise FrameError(
            f"{frame!r} is not a frame.",
            "A frame is FrameIndex(position, time, z), counted from 0.",
        )
    for axis in FrameIndex._fields:
        size = getattr(sizes, axis)
        if not 0 <= getattr(index, axis) < size:
            raise FrameError(
                f"The image has no {axis} {getattr(index, axis)}.",
                f"Counted from 0, {axis} runs from 0 to {size - 1} in this image.",
            )
    return index

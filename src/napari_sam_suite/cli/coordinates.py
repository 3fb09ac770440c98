"""Coordinates as a person types them, or has them in a CSV file."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sam_suite.engine.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_AXIS = re.compile(r"axis-[0-9]+")
_FRAMES = {
    "position": ("positions",),
    "time": ("time",),
    "t": ("time",),
    "frame": ("time",),
    "z": ("z",),
    "slice": ("z", "time"),  # ImageJ's, which is of either
}
"""Columns that name a frame, with the flags that choose one."""
_TAGS = ("tag", "class")
_SIZED = ("by", "bx", "height", "width")
_KNOWN = {
    2: (("y", "x"), ("axis-0", "axis-1")),
    4: (("y0", "x0", "y1", "x1"), _SIZED),
}
_SAID = {2: "y,x and axis-0,axis-1", 4: "y0,x0,y1,x1 and BX,BY,Width,Height"}


def read_numbers(
    text: str, width: int, name: str, unsaid: Collection[str] = ()
) -> tuple[list[list[float]], list[str]]:
    """Rows of numbers and a tag for each, from text or from a CSV file.

    A heading says which columns are meant: those of this package, of napari's points,
    or of ImageJ's results. Without one they are the first, and the next is the tag.

    Parameters
    ----------
    text : str
        Rows as ``"y,x; y,x"``, or the name of a file.
    width : int
        How many numbers: 2 for points, 4 for boxes.
    name : str
        Of the flag, for what is said about it.
    unsaid : collection of str
        Flags for frames that were left out, so that the first one is meant: a file that
        names another one is refused.

    Raises
    ------
    ParameterError
        If these are not such numbers.
    """
    path = Path(text)
    rows = [part.split(",") for part in text.split(";") if part.strip()]
    if path.suffix.lower() == ".csv" and not path.is_file():
        raise ParameterError(f"`{name}`: there is no file {text!r}.", "Check the path.")
    if text and len(rows) == 1 and path.suffix and path.is_file():
        rows = _read_csv(path, name)
        if not _is_number(rows[0][0]):
            return _by_heading(rows, width, name, path.name, unsaid)
    return _parsed(rows, width, name)


def _read_csv(path: Path, name: str) -> list[list[str]]:
    """Lines of a file that are not blank, of which there must be some."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(map(str.strip, row))]
    except (OSError, ValueError, csv.Error) as error:
        raise ParameterError(
            f"`{name}`: {path.name} cannot be read as a CSV file.",
            "Give a text file with one prompt in each line.",
        ) from error
    if not rows:
        raise ParameterError(
            f"`{name}`: {path.name} is empty.", "Give one prompt in each line."
        )
    return rows


def _by_heading(
    rows: Sequence[Sequence[str]],
    width: int,
    name: str,
    file: str,
    unsaid: Collection[str],
) -> tuple[list[list[float]], list[str]]:
    """Rows below a heading, which says where the numbers and tags are."""
    heading = [cell.strip().lower() for cell in rows[0]]
    axes = [title for title in heading if _AXIS.fullmatch(title)]
    known = next((k for k in _KNOWN[width] if set(k) <= set(heading)), None)
    if known is None:
        raise ParameterError(
            f"`{name}`: {file} has the heading {','.join(rows[0])!r}; known are "
            f"{_SAID[width]}, in any order.",
            "Name its columns so, or leave the heading out.",
        )
    if known[0] in axes and len(axes) > len(known):
        raise ParameterError(
            f"`{name}`: {file} has {len(axes)} axes; y and x are the last two.",
            "Keep the points of one frame and these two, called y and x; choose the "
            "frame with `time` or `z`.",
        )
    _check_frames(heading, rows[1:], name, file, unsaid)
    places = [heading.index(title) for title in known]
    tag = next((heading.index(title) for title in _TAGS if title in heading), None)
    if tag is None and sorted(places) == list(range(width)):
        follows = heading[width : width + 1]
        tag = width if follows and follows[0] not in _FRAMES else None
    wanted = places if tag is None else [*places, tag]
    picked = [
        [row[place] if place < len(row) else "" for place in wanted] for row in rows[1:]
    ]
    numbers, tags = _parsed(picked, width, name)
    if known is _SIZED:
        numbers = [[y, x, y + h - 1, x + w - 1] for y, x, h, w in numbers]
    return numbers, tags


def _check_frames(
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    name: str,
    file: str,
    unsaid: Collection[str],
) -> None:
    """Refuse rows of several frames, which would all be looked for in each.

    Those of one frame are refused where that is neither chosen nor the first.
    """
    for place, title in enumerate(heading):
        if title not in _FRAMES:
            continue
        values = {row[place].strip() for row in rows if place < len(row)}
        if len(values) > 1:
            raise ParameterError(
                f"`{name}`: {file} is of several frames, by its column {title}.",
                "Keep the rows of one frame, and choose it with `time` or `z`.",
            )
        value, flags = next(iter(values), ""), _FRAMES[title]
        if set(flags) <= set(unsaid) and not _is_first(value):
            ways = " or ".join(f"`{one}`" for one in flags)
            raise ParameterError(
                f"`{name}`: {file} is of another frame than the first, by its column "
                f"{title}: {value}.",
                f"Choose the frame with {ways}, counted from 1.",
            )


def _parsed(
    rows: Sequence[Sequence[str]], width: int, name: str
) -> tuple[list[list[float]], list[str]]:
    """Rows that begin with the numbers, and may go on with a tag."""
    numbers, tags = [], []
    for row in rows:
        cells = [cell.strip() for cell in row]
        if len(cells) < width or not all(map(_is_number, cells[:width])):
            example = "y,x" if width == 2 else "y0,x0,y1,x1"
            raise ParameterError(
                f"`{name}`: {','.join(cells)!r} is not {width} numbers.",
                f'Write them as "{example}; {example}", or name a CSV file.',
            )
        numbers.append([float(cell) for cell in cells[:width]])
        tags.append(cells[width] if len(cells) > width else "")
    return numbers, tags


def _is_first(text: str) -> bool:
    """Whether this is no number of a frame but the first, counted from 1 or from 0."""
    return not _is_number(text) or float(text) in (0, 1)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

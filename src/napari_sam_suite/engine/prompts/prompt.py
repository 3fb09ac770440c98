"""What a person points at: points, boxes, masks, the whole frame. One object each.

Prompts come from anywhere, also from files and from shapes drawn by hand, so a bad one
is told in a sentence and left out, and the others go on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_sam_suite.engine.errors import FrameError, ParameterError
from napari_sam_suite.engine.features import UNASSIGNED
from napari_sam_suite.engine.frames import (
    FrameIndex,
    Sizes,
    checked_frame,
    format_selection,
)
from napari_sam_suite.engine.masks import tighten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_sam_suite.engine.objects import Objects

Point = tuple[float, float]
"""(y, x) in pixel centres."""
Box = tuple[float, float, float, float]
"""(y0, x0, y1, x1) in pixel centres, the last ones included."""

_HOW = "Coordinates are pixels counted from 0, y before x."


@dataclass(frozen=True, eq=False)
class MaskPrompt:
    """A mask that is near the object: the pixels of `crop`, at `origin` (y0, x0)."""

    crop: NDArray[np.bool_]
    origin: tuple[int, int]

    @property
    def box(self) -> Box | None:
        """Its outermost pixels, or None if it has none."""
        tight, (y0, x0) = tighten(self.crop, self.origin)
        if not tight.size:
            return None
        return y0, x0, y0 + tight.shape[0] - 1, x0 + tight.shape[1] - 1


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Everything that is said about one object. Any of the parts may be missing.

    Attributes
    ----------
    inside, outside : tuple of (y, x)
        Points that belong to the object, and points that do not.
    box : (y0, x0, y1, x1), optional
        A rectangle around it, in pixel centres.
    mask : MaskPrompt, optional
        Roughly its pixels, such as in another frame.
    whole : bool
        The most prominent object of the frame; nothing else is needed then.
    tag : str
        Copied to the object.
    frame : FrameIndex, optional
        Where it is; in every frame without it.
    parent : str
        Id of the object that this one is made from.
    before : Prompt, optional
        What was said before the newest point or box, where that corrects an answer.
    level : int, optional
        Which output token is meant, 0 to 3; the best answer without it.
    number : int
        Which prompt it is, counted from 1, for what is said about it.
    """

    inside: tuple[Point, ...] = ()
    outside: tuple[Point, ...] = ()
    box: Box | None = None
    mask: MaskPrompt | None = None
    whole: bool = False
    tag: str = UNASSIGNED
    frame: FrameIndex | None = None
    parent: str = ""
    before: Prompt | None = None
    level: int | None = None
    number: int = 0

    @property
    def ambiguous(self) -> bool:
        """Whether several objects fit it equally well: a single click, a frame."""
        alone = len(self.inside) == 1 and not self.outside
        return self.whole or (alone and self.box is None and self.mask is None)

    @property
    def extent(self) -> Box | None:
        """The box around all that is said to belong to the object."""
        boxes = [(y, x, y, x) for y, x in self.inside]
        of_mask = None if self.mask is None else self.mask.box
        boxes += [box for box in (self.box, of_mask) if box is not None]
        if not boxes:
            return None
        low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
        return float(low[0]), float(low[1]), float(high[2]), float(high[3])


def from_points(
    points: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    together: bool = False,
    tags: str | Sequence[str] = UNASSIGNED,
    frame: FrameIndex | None = None,
) -> list[Prompt]:
    """Prompts from points.

    Parameters
    ----------
    points : array_like, shape (N, 2)
        (y, x) in pixel centres; without the axes of frames, such as time.
    labels : array_like, shape (N,), optional
        1 inside, 0 outside; all inside without it.
    together : bool
        All points describe one object. Otherwise every inside point is an object of
        its own, and the outside points belong to none of them.
    tags : str or sequence of str
        One for all, or one for each point.
    frame : FrameIndex, optional
        Where they are.

    Raises
    ------
    ParameterError
        If the numbers do not fit together.
    """
    array = _numbers(points, 2, "A point is two numbers, y and x.")
    inside = np.ones(len(array), bool)
    if labels is not None:
        inside = np.atleast_1d(np.asarray(labels)) == 1
    if len(inside) != len(array):
        raise ParameterError(
            f"{len(inside)} labels do not fit {len(array)} points.",
            "Give one for each: 1 is inside, 0 is outside.",
        )
    tags = _each(tags, len(array), "points")
    pairs = [(float(y), float(x)) for y, x in array]
    yes = [i for i in range(len(pairs)) if inside[i]]
    no = [i for i in range(len(pairs)) if not inside[i]]
    given = [[i] for i in yes]
    if together:
        given = [yes] if pairs else []
    outside = tuple(pairs[i] for i in no)
    return _counted(
        Prompt(
            inside=tuple(pairs[i] for i in group),
            outside=outside,
            tag=tags[(group or no)[0]],
            frame=frame,
        )
        for group in given
    )


def from_boxes(
    boxes: ArrayLike,
    *,
    tags: str | Sequence[str] = UNASSIGNED,
    frame: FrameIndex | None = None,
) -> list[Prompt]:
    """One prompt for each box (y0, x0, y1, x1); corners may come in any order.

    Raises
    ------
    ParameterError
        If the numbers do not fit together.
    """
    array = _numbers(boxes, 4, "A box is four numbers: y0, x0, y1, x1.")
    tags = _each(tags, len(array), "boxes")
    return _counted(
        Prompt(box=(a, b, c, d), tag=tag, frame=frame)
        for (a, b, c, d), tag in zip(array.tolist(), tags, strict=True)
    )


def from_objects(
    objects: Objects, use: Literal["box", "mask", "both"] = "box"
) -> list[Prompt]:
    """Prompts that draw existing objects again: from their boxes, masks or both.

    Frame and tag are theirs; `parent` names the object.
    """
    columns = ("tag", "id", "position", "time", "z")
    rows = objects.features[list(columns)].itertuples(index=False)
    prompts = []
    for polygon, (tag, name, position, time, z) in zip(
        objects.polygons, rows, strict=True
    ):
        mask = None if use == "box" else mask_of(polygon)
        prompts.append(
            Prompt(
                box=None if use == "mask" else _box_of(polygon),
                mask=mask,
                tag=str(tag),
                parent=str(name),
                frame=FrameIndex(int(position), int(time), int(z)),
            )
        )
    return _counted(prompts)


def _box_of(polygon: Any) -> Box:
    """The first and the last pixels of a polygon, whose outline runs around them.

    Of one that is less than two pixels wide it is the outline itself.
    """
    low, high = np.array(polygon.bounds, np.float64).reshape(2, 2)
    inner = 0.5 * (high - low >= 2)
    return (*(low + inner).tolist(), *(high - inner).tolist())


def mask_of(polygon: Any) -> MaskPrompt:
    """The pixels of a polygon in (y, x) pixel centres, in their own window."""
    from napari_sam_suite.engine.raster import rasterise

    y0, x0, y1, x1 = (float(v) for v in polygon.bounds)
    top, left = math.floor(y0), math.floor(x0)
    size = (math.ceil(y1) - top + 1, math.ceil(x1) - left + 1)
    return MaskPrompt(rasterise(polygon, size, (top, left)), (top, left))


def apart(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The same prompts, numbered by their order where two have the same number."""
    given = [prompt.number for prompt in prompts if prompt.number]
    same = len(set(given)) < len(given)
    return _counted(prompts) if same else list(prompts)


@dataclass
class Checked:
    """Prompts that make sense in an image, and why the others do not.

    Attributes
    ----------
    prompts : list of Prompt
        Those that do.
    refused : dict of int to ParameterError
        By their number, what is wrong with the others.
    swapped : list of int
        Prompts whose box had its corners in another order.
    """

    prompts: list[Prompt] = field(default_factory=list)
    refused: dict[int, ParameterError] = field(default_factory=dict)
    swapped: list[int] = field(default_factory=list)

    @property
    def notices(self) -> list[str]:
        """A sentence for each that is left out, and one on what was put right."""
        told = [
            f"Prompt {number} is left out: {error.message}"
            for number, error in self.refused.items()
        ]
        if self.swapped:
            which = format_selection(number - 1 for number in self.swapped)
            one = len(self.swapped) == 1
            told.append(
                f"Prompt{'' if one else 's'} {which}: the corners of "
                f"{'its box' if one else 'their boxes'} were put in order."
            )
        return told

    def insist(self) -> None:
        """Make sure that there is something to ask.

        Raises
        ------
        ParameterError
            If not one prompt makes sense, or there are none.
        """
        if self.prompts:
            return
        if not self.refused:
            raise ParameterError(
                "There are no prompts.",
                "Give at least one point, box or mask, or ask for the whole frame.",
            )
        number, error = next(iter(self.refused.items()))
        count = len(self.refused)
        none = f"None of the {count} prompts makes sense. " if count > 1 else ""
        raise ParameterError(f"{none}Prompt {number}: {error.message}", error.hint)


def check(prompts: Sequence[Prompt], sizes: Sizes) -> Checked:
    """Sort out prompts: boxes are put in order and cut at the border of the image.

    Parameters
    ----------
    prompts : sequence of Prompt
        Numbers that are missing are given by their order.
    sizes : Sizes
        Of the image.

    Returns
    -------
    Checked
        What is left of them, and what is wrong with the others.
    """
    checked = Checked()
    for place, given in enumerate(prompts, start=1):
        number = given.number or place
        try:
            checked.prompts.append(_sensible(replace(given, number=number), sizes))
        except ParameterError as error:
            checked.refused[number] = error
            continue
        if given.box is not None and not _is_ordered(given.box):
            checked.swapped.append(number)
    return checked


def _sensible(prompt: Prompt, sizes: Sizes) -> Prompt:
    """The prompt as the image allows it, or an error that says what is wrong."""
    if prompt.frame is not None:
        try:
            checked_frame(prompt.frame, sizes)
        except FrameError as error:
            raise ParameterError(error.message, error.hint) from error
    for point in (*prompt.inside, *prompt.outside):
        _check_point(point, sizes)
    if prompt.before is not None:
        prompt = replace(prompt, before=_sensible(prompt.before, sizes))
    if prompt.whole:
        return prompt
    box = None if prompt.box is None else _clip(prompt.box, sizes)
    mask = None if prompt.mask is None else _cut(prompt.mask, sizes)
    if not prompt.inside and box is None and mask is None:
        what = "only points outside" if prompt.outside else "nothing"
        raise ParameterError(f"it has {what}.", "Give a point inside, a box or a mask.")
    return replace(prompt, box=box, mask=mask)


def _check_point(point: Point, sizes: Sizes) -> None:
    y, x = point
    if not (math.isfinite(y) and math.isfinite(x)):
        raise ParameterError("a point is not a number.", _HOW)
    if not _is_in((y, x), sizes):
        raise ParameterError(
            f"the point y {y:g}, x {x:g} is outside the image, which has {sizes.y} "
            f"rows and {sizes.x} columns.",
            "It would be inside with y and x the other way round: y comes first."
            if _is_in((x, y), sizes)
            else _HOW,
        )


def _is_in(point: Point, sizes: Sizes) -> bool:
    y, x = point
    return -0.5 <= y <= sizes.y - 0.5 and -0.5 <= x <= sizes.x - 0.5


def _is_ordered(box: Box) -> bool:
    y0, x0, y1, x1 = box
    return y0 <= y1 and x0 <= x1


def _clip(box: Box, sizes: Sizes) -> Box:
    if not all(map(math.isfinite, box)):
        raise ParameterError("a corner of its box is not a number.", _HOW)
    (y0, y1), (x0, x1) = sorted(box[::2]), sorted(box[1::2])
    cut = max(y0, 0), max(x0, 0), min(y1, sizes.y - 1), min(x1, sizes.x - 1)
    if cut[0] > cut[2] or cut[1] > cut[3]:
        raise ParameterError(
            f"its box is outside the image, which has {sizes.y} rows and {sizes.x} "
            "columns.",
            _HOW,
        )
    # What is a pixel wide at the border has half of its outline outside.
    narrow = min(y1 - y0, x1 - x0) < 1
    if narrow or min(cut[2] - cut[0], cut[3] - cut[1]) < 0.5:
        raise ParameterError(
            f"its box is {cut[2] - cut[0]:g} by {cut[3] - cut[1]:g} pixels in the "
            "image, which is too small.",
            "Draw it around the object; it needs a pixel or more in y and in x.",
        )
    return cut


def _cut(mask: MaskPrompt, sizes: Sizes) -> MaskPrompt:
    y0, x0 = mask.origin
    top, left = max(-y0, 0), max(-x0, 0)
    crop = mask.crop[top : max(sizes.y - y0, 0), left : max(sizes.x - x0, 0)]
    crop, origin = tighten(crop, (y0 + top, x0 + left))
    if not crop.size:
        raise ParameterError(
            "its mask has no pixel in the image.", "Is it of an image of this size?"
        )
    return MaskPrompt(crop, origin)


def _numbers(values: ArrayLike, width: int, hint: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ParameterError("These are not coordinates.", hint) from error
    if not array.size:
        return np.zeros((0, width))
    if array.shape == (width,):
        return array[None]
    if array.ndim != 2 or array.shape[1] != width:
        raise ParameterError(
            f"An array of {' x '.join(map(str, array.shape)) or 'one number'} is not "
            f"rows of {width} numbers.",
            f"{hint} Leave out the axes of frames: pass those of one frame, with "
            "`frame`.",
        )
    return array


def _each(tags: str | Sequence[str], count: int, what: str) -> list[str]:
    if isinstance(tags, str):
        return [tags] * count
    if len(tags) != count:
        raise ParameterError(
            f"{len(tags)} tags do not fit {count} {what}.",
            "Give one for all, or one for each.",
        )
    return list(tags)


def _counted(prompts: Any) -> list[Prompt]:
    return [replace(p, number=n) for n, p in enumerate(prompts, start=1)]

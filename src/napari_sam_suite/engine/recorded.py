"""Shapes and prompts as JSON: what a person drew, kept in a recipe.

Coordinates are ``(y, x)`` in pixel centres, as everywhere in the engine. Frames are
counted from 1 here, because people read and type these files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from napari_sam_suite.engine.features import UNASSIGNED
from napari_sam_suite.engine.frames import FrameIndex

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.prompts.prompt import MaskPrompt, Prompt

Number = Annotated[int, Field(ge=1)]
Place = tuple[Number, Number, Number]
"""Position, time and z, counted from 1."""
Point = tuple[float, float]
"""(y, x) in pixel centres."""
Ring = Annotated[tuple[Point, ...], Field(min_length=3)]
Part = Annotated[tuple[Ring, ...], Field(min_length=1)]
"""The outside of an area, and its holes."""


class Recorded(BaseModel):
    """Base of all that is written into a recipe: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Shape(Recorded):
    """One polygon with its tag, in one frame.

    Attributes
    ----------
    polygon : tuple
        Its areas, each an outside and its holes, as rings of points.
    tag, id : str
        Of the object that it is.
    frame : (int, int, int)
        Position, time and z, counted from 1.
    track : int, optional
        Which track it is of.
    """

    polygon: Annotated[tuple[Part, ...], Field(min_length=1)]
    tag: str = UNASSIGNED
    id: str = ""
    frame: Place = (1, 1, 1)
    track: Number | None = None


def to_shapes(objects: Objects) -> tuple[Shape, ...]:
    """Record the objects, bit for bit."""
    import shapely

    columns = ("tag", "id", "position", "time", "z")
    rows = objects.features[list(columns)].itertuples(index=False)
    tracks = objects.features.get("track", [None] * len(objects))
    return tuple(
        Shape(
            polygon=tuple(
                tuple(_ring(ring) for ring in shapely.get_rings(part))
                for part in shapely.get_parts(polygon)
            ),
            tag=str(tag),
            id=str(name),
            frame=(int(position) + 1, int(time) + 1, int(z) + 1),
            track=int(track) if track and track > 0 else None,
        )
        for polygon, (tag, name, position, time, z), track in zip(
            objects.polygons, rows, tracks, strict=True
        )
    )


def to_objects(shapes: Iterable[Shape]) -> Objects:
    """The objects that were recorded."""
    import pandas as pd
    import shapely

    from napari_sam_suite.engine.objects import Objects

    given = list(shapes)
    polygons: list[Any] = []
    for shape in given:
        parts = [shapely.Polygon(part[0], part[1:]) for part in shape.polygon]
        polygons.append(parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts))
    table = pd.DataFrame(
        [{"id": s.id, "tag": s.tag, **_index(s.frame)._asdict()} for s in given]
    )
    if any(shape.track for shape in given):
        table["track"] = [shape.track or 0 for shape in given]
    return Objects(polygons, table)


class Pixels(Recorded):
    """A mask as runs, row by row: background first, then in turn.

    Attributes
    ----------
    origin, size : (int, int)
        ``(y, x)`` of the first pixel, rows and columns.
    counts : tuple of int
        Length of each run.
    """

    origin: tuple[int, int]
    size: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
    counts: tuple[Annotated[int, Field(ge=0)], ...]

    @field_validator("counts")
    @classmethod
    def _fill(cls, counts: tuple[int, ...], info: Any) -> tuple[int, ...]:
        rows, columns = info.data.get("size", (0, sum(counts)))
        if sum(counts) != rows * columns:
            raise ValueError(f"they do not fill {rows} x {columns} pixels")
        return counts

    @classmethod
    def of(cls, mask: MaskPrompt) -> Self:
        """Record a mask."""
        flat = np.concatenate([[False], mask.crop.ravel(), [False]])
        edges = np.flatnonzero(np.diff(flat.astype(np.int8)))
        ends = np.append(edges, mask.crop.size)
        rows, columns = mask.crop.shape
        return cls(
            origin=(int(mask.origin[0]), int(mask.origin[1])),
            size=(rows, columns),
            counts=tuple(np.diff(ends, prepend=0).tolist()),
        )

    def mask(self) -> MaskPrompt:
        """The mask that was recorded."""
        from napari_sam_suite.engine.prompts.prompt import MaskPrompt

        inside = np.arange(len(self.counts)) % 2 == 1
        crop = np.repeat(inside, self.counts).reshape(self.size)
        return MaskPrompt(crop, self.origin)


class Said(Recorded):
    """One prompt, with the attributes of `Prompt`; a frame of None means in each."""

    inside: tuple[Point, ...] = ()
    outside: tuple[Point, ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: Pixels | None = None
    whole: bool = False
    tag: str = UNASSIGNED
    frame: Place | None = None
    parent: str = ""
    before: Said | None = None
    level: Annotated[int, Field(ge=0, le=3)] | None = None

    @classmethod
    def of(cls, prompt: Prompt) -> Self:
        """Record a prompt."""
        frame = prompt.frame
        return cls(
            inside=prompt.inside,
            outside=prompt.outside,
            box=prompt.box,
            mask=None if prompt.mask is None else Pixels.of(prompt.mask),
            whole=prompt.whole,
            tag=prompt.tag,
            frame=None if frame is None else (frame[0] + 1, frame[1] + 1, frame[2] + 1),
            parent=prompt.parent,
            before=None if prompt.before is None else cls.of(prompt.before),
            level=prompt.level,
        )

    def prompt(self, number: int) -> Prompt:
        """The prompt that was recorded, as number `number`."""
        from napari_sam_suite.engine.prompts.prompt import Prompt

        return Prompt(
            inside=self.inside,
            outside=self.outside,
            box=self.box,
            mask=None if self.mask is None else self.mask.mask(),
            whole=self.whole,
            tag=self.tag,
            frame=None if self.frame is None else _index(self.frame),
            parent=self.parent,
            before=None if self.before is None else self.before.prompt(number),
            level=self.level,
            number=number,
        )


def _ring(ring: Any) -> tuple[Point, ...]:
    import shapely

    return tuple((y, x) for y, x in shapely.get_coordinates(ring).tolist())


def _index(frame: Place) -> FrameIndex:
    return FrameIndex(*(number - 1 for number in frame))

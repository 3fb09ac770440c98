"""The result of every capability: polygons with a table of what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_sam_suite.engine import tracing
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.features import complete, to_table, whole_numbers
from napari_sam_suite.engine.formats import find_format
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.provenance import mark_searched, merge_sources, searched_in
from napari_sam_suite.engine.raster import draw_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray
    from shapely import MultiPolygon, Polygon

_HIGHEST = 2**31
"""Tracks from here on are no numbers in label images, which have 32 bits."""


@dataclass(frozen=True, eq=False)
class Objects:
    """Polygons and a features table, one row per polygon.

    Nothing changes in place: every method gives new objects, and an object keeps its
    `id` through selecting, tagging, saving and loading, so that a journal can name it.

    Parameters
    ----------
    polygons : sequence of Polygon or MultiPolygon
        In ``(y, x)`` pixel centres, holes included.
    features : DataFrame, optional
        Any columns; those of `COLUMNS` are added where they are missing. Frames are
        counted from 0, `area` is in px, `score` is the predicted IoU.
    source : mapping, optional
        Where the objects come from, as JSON can hold it: image, path, sizes, scale,
        units, model, params.

    Raises
    ------
    ParameterError
        If polygons and rows differ in number.
    """

    polygons: list[Polygon | MultiPolygon] = field(default_factory=list)
    features: pd.DataFrame = field(default_factory=pd.DataFrame)
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        polygons = list(self.polygons)
        given = self.features
        if len(given.columns) and len(given) != len(polygons):
            raise ParameterError(
                f"{len(polygons)} polygons came with {len(given)} rows of features.",
                "Pass one row per polygon.",
            )
        object.__setattr__(self, "polygons", polygons)
        object.__setattr__(self, "features", complete(given, polygons))
        object.__setattr__(self, "source", dict(self.source))

    @classmethod
    def empty(cls, source: Mapping[str, Any] | None = None) -> Objects:
        """No objects."""
        return cls([], pd.DataFrame(), dict(source or {}))

    @classmethod
    def of_columns(
        cls,
        polygons: list[Polygon | MultiPolygon],
        columns: dict[str, Any],
        source: dict[str, Any],
    ) -> Objects:
        """Objects whose table is made of `build_columns` when somebody asks for it."""
        objects = object.__new__(cls)
        vars(objects).update(polygons=polygons, source=source, _columns=columns)
        return objects

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name != "features" or "_columns" not in vars(self):
                raise AttributeError(f"'Objects' object has no attribute {name!r}")
            # Of two threads that ask at once, both get the table of one of them.
            return vars(self).setdefault(name, to_table(self._columns, len(self)))

    def columns(self) -> Mapping[str, Any]:
        """Arrays of the features by name, where possible without making the table.

        They are for reading only.
        """
        if "features" not in vars(self):
            return {
                str(name): values for name, values in vars(self)["_columns"].items()
            }
        return {
            str(name): column.to_numpy()
            if isinstance(column.dtype, np.dtype)
            else column.array
            for name, column in self.features.items()
        }

    from_masks = classmethod(tracing.from_masks)
    from_labels = classmethod(tracing.from_labels)

    @staticmethod
    def concat(many: Iterable[Objects]) -> Objects:
        """Put objects together, in the order given.

        An object that comes twice gets a new `id` the second time. Sources that agree
        are kept as one, with all frames that were searched; otherwise `source` is
        ``{"sources": [...]}``.
        """
        given = list(many)
        filled = [objects for objects in given if len(objects)]
        features = pd.DataFrame()
        if filled:
            features = pd.concat([o.features for o in filled], ignore_index=True)
        polygons = [polygon for objects in filled for polygon in objects.polygons]
        return Objects(polygons, features, merge_sources(o.source for o in given))

    @classmethod
    def load(cls, path: str | Path, format: str | None = None) -> Objects:  # noqa: A002
        """Read objects from a file.

        Parameters
        ----------
        path : str or Path
            Its ending decides: see `napari_sam_suite.engine.formats.FORMATS`.
        format : str, optional
            Name of the format where the ending does not tell.

        Raises
        ------
        ParameterError
            If the file is missing, damaged or of an unknown format.
        """
        return find_format(path, format).read(Path(path))

    def save(self, path: str | Path, format: str | None = None) -> None:  # noqa: A002
        """Write all objects to one file, whole or not at all.

        Parameters
        ----------
        path : str or Path
            The ending decides: ``.geojson`` and ``.parquet`` keep everything,
            ``.tif`` the pixels.
        format : str, optional
            Name of the format where the ending does not tell.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        find_format(path, format).write(self, Path(path))

    def __len__(self) -> int:
        return len(self.polygons)

    def select(self, which: ArrayLike) -> Objects:
        """Some of the objects, by a boolean per object or by row numbers."""
        rows = np.asarray(which)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise ParameterError(
                    f"A selection of {rows.size} does not fit {len(self)} objects."
                )
            rows = np.flatnonzero(rows)
        rows = rows.astype(np.int64)
        return Objects(
            [self.polygons[row] for row in rows], self.features.iloc[rows], self.source
        )

    def at(self, frame: FrameIndex) -> Objects:
        """Objects of one frame."""
        table = self.features
        here = np.ones(len(self), dtype=bool)
        for axis, index in frame._asdict().items():
            here &= table[axis].to_numpy() == index
        return self.select(here)

    def frames(self) -> list[FrameIndex]:
        """Frames that have objects, in order."""
        columns = self.columns()
        rows = zip(
            *(columns[axis].tolist() for axis in FrameIndex._fields), strict=True
        )
        return sorted({FrameIndex(*row) for row in rows})

    def searched(self) -> list[FrameIndex]:
        """Frames that have objects or were searched without finding any, in order.

        Searched frames are known where ``source["searched"]`` says so.
        """
        return sorted({*self.frames(), *searched_in(self.source)})

    def with_searched(self, frames: Iterable[FrameIndex]) -> Objects:
        """The same objects, whose source says which frames were searched."""
        source = mark_searched(self.source, frames)
        return Objects(self.polygons, self.features, source)

    def with_tags(self, tags: str | Sequence[str]) -> Objects:
        """The same objects with one tag for all, or one for each."""
        return self.with_features(tag=tags)

    def with_features(self, **columns: Any) -> Objects:
        """The same objects with columns added or replaced."""
        for name, values in columns.items():
            if np.ndim(values) and len(values) != len(self):
                raise ParameterError(
                    f"{len(values)} values of {name!r} do not fit {len(self)} objects."
                )
        return Objects(self.polygons, self.features.assign(**columns), self.source)

    def to_labels(
        self, shape: tuple[int, int], frame: FrameIndex | None = None
    ) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """Draw the objects of one frame as a label image.

        Parameters
        ----------
        shape : tuple of int
            ``(H, W)``.
        frame : FrameIndex, optional
            Needed when there are objects of several frames.

        Returns
        -------
        (H, W) array
            See `numbers`. Where objects overlap, the one with the better score is on
            top, and of equals the smaller one.
            uint16, or uint32 for more than 65535 objects.

        Raises
        ------
        ParameterError
            If the frame is not clear.
        """
        if frame is not None:
            return self.at(frame).to_labels(shape)
        if len(self.frames()) > 1:
            raise ParameterError(
                f"The objects are of {len(self.frames())} frames, a label image is of "
                "one.",
                "Say which frame.",
            )
        columns = self.columns()
        score = columns["score"]
        score = np.where(np.isnan(score), -np.inf, score)
        order = np.lexsort((-columns["area"], score))
        numbers = self.numbers()[order]
        return draw_labels([self.polygons[row] for row in order], numbers, shape)

    def numbers(self) -> NDArray[np.int64]:
        """What `to_labels` calls each object in the label image of its frame.

        Each has a number of its own there, from 1: that of its `track`, where there is
        such a column. Of two with one track the first has its number. Those without get
        the numbers after the largest, in their order.
        """
        columns = self.columns()
        places = np.stack([columns[axis] for axis in FrameIndex._fields], axis=1)
        frame = np.unique(places, axis=0, return_inverse=True)[1].ravel()
        numbers = np.zeros(len(self), np.int64)
        if "track" in columns:
            tracks = whole_numbers(columns["track"])
            pairs = np.stack([frame, tracks], axis=1)
            first = np.unique(pairs, axis=0, return_index=True)[1]
            numbers[first] = tracks[first]
            numbers[(numbers < 1) | (numbers >= _HIGHEST)] = 0
        largest = np.zeros(frame.max(initial=0) + 1, np.int64)
        np.maximum.at(largest, frame, numbers)
        rest = np.flatnonzero(numbers == 0)
        rest = rest[np.argsort(frame[rest], kind="stable")]
        own = frame[rest]
        before = np.searchsorted(own, own)
        numbers[rest] = largest[own] + np.arange(1, len(rest) + 1) - before
        return numbers

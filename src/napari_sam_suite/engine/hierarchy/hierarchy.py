"""Objects with their levels and the tree they make, and the files of both."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.formats.atomic import replacing
from napari_sam_suite.engine.formats.tables import plain
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.hierarchy.levels import LEVELS, rank_objects
from napari_sam_suite.engine.hierarchy.params import HierarchyParams
from napari_sam_suite.engine.hierarchy.statistics import describe_levels
from napari_sam_suite.engine.hierarchy.tree import ROOT, find_parents
from napari_sam_suite.engine.provenance import sizes_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sam_suite.engine.objects import Objects


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Objects and which of them lies in which; made by `build_hierarchy`.

    Attributes
    ----------
    objects : Objects
        With the columns `size_level` (small, part or whole) and `inside`, the id of the
        object that it lies in, empty for a root.
    ranks : (n,) array of int64
        0 small, 1 part, 2 whole.
    parents : (n,) array of int64
        Row of the parent, -1 for a root.
    params : HierarchyParams
        How it was made.
    """

    objects: Objects
    ranks: NDArray[np.int64]
    parents: NDArray[np.int64]
    params: HierarchyParams

    def roots(self) -> list[int]:
        """Rows that lie in no other, by frame and the largest first."""
        return self._below.get(ROOT, [])

    def children(self, row: int) -> list[int]:
        """Rows that lie in this one, the largest first."""
        return self._below.get(row, [])

    def statistics(self) -> pd.DataFrame:
        """Count, share, coverage and areas of each level; see `describe_levels`."""
        return describe_levels(self.objects, self.ranks)

    def tagged(self) -> Objects:
        """The objects with their levels as tags; colours of tags show them then."""
        return self.objects.with_tags([LEVELS[rank] for rank in self.ranks])

    def table(self) -> pd.DataFrame:
        """One row per object, parents before their children.

        `number` counts the objects of a frame from 1, as label images do; `parent` is
        the number of the parent, 0 for a root; `depth` is 0 for a root.
        """
        numbers = self._numbers()
        features = self.objects.features
        rows = list(self._walk())
        places = [row for row, _ in rows]
        above = self.parents[places] if rows else np.empty(0, np.int64)
        return pd.DataFrame(
            {
                **{axis: features[axis].to_numpy()[places] for axis in _FRAME},
                "number": numbers[places],
                "level": [LEVELS[self.ranks[row]] for row in places],
                "depth": [depth for _, depth in rows],
                "parent": np.where(above == ROOT, 0, numbers[above]),
                "area": features["area"].to_numpy()[places],
                "score": features["score"].to_numpy()[places],
                "id": features["id"].to_numpy()[places],
            },
            index=range(len(rows)),
        )

    def to_text(self) -> str:
        """The tree, one line per object, two spaces for each step down.

        Frames have a heading where there is more than one.
        """
        numbers, areas = self._numbers(), self.objects.features["area"].tolist()
        frames = self.objects.features[_FRAME].to_numpy()
        sizes = sizes_in(self.objects.source)
        several = len(self.objects.frames()) > 1
        lines: list[str] = []
        shown: FrameIndex | None = None
        for row, depth in self._walk():
            frame = FrameIndex(*frames[row].tolist())
            if several and frame != shown:
                label = frame.label(sizes) if sizes else _name(frame)
                lines.append(label.capitalize())
                shown = frame
            level = LEVELS[self.ranks[row]].capitalize()
            lines.append(f"{'  ' * depth}{level} #{numbers[row]} (area={areas[row]})")
        return "".join(f"{line}\n" for line in lines)

    def as_dict(self) -> dict[str, Any]:
        """Parameters, statistics and the tree, as JSON can hold them."""
        columns = ("id", *_FRAME, "area", "score")
        features = {name: self.objects.features[name].tolist() for name in columns}
        return {
            "params": self.params.model_dump(mode="json"),
            "objects": len(self.objects),
            "roots": int((self.parents == ROOT).sum()),
            "levels": statistics_as_dict(self.statistics()),
            "tree": [self._node(row, features) for row in self.roots()],
        }

    def save(self, path: str | Path) -> None:
        """Write the hierarchy, whole or not at all.

        Parameters
        ----------
        path : str or Path
            ``.json``: all of `as_dict`; ``.csv``: `table`; ``.txt``: the statistics and
            the tree.

        Raises
        ------
        ParameterError
            If the ending is another one.
        OutputError
            If the file cannot be written.
        """
        path = Path(path)
        if path.suffix == ".json":
            text = json.dumps(self.as_dict(), indent=1, default=plain) + "\n"
        elif path.suffix == ".csv":
            text = self.table().to_csv(index=False)
        elif path.suffix == ".txt":
            text = f"{format_statistics(self.statistics())}\n{self.to_text()}"
        else:
            raise ParameterError(
                f"A hierarchy is no {path.suffix or 'file without an ending'}.",
                "Use the ending .json, .csv or .txt.",
            )
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")

    def _node(self, row: int, features: dict[str, list[Any]]) -> dict[str, Any]:
        score = features["score"][row]
        return {
            "id": features["id"][row],
            "level": LEVELS[self.ranks[row]],
            **{name: features[name][row] for name in (*_FRAME, "area")},
            "score": score if math.isfinite(score) else None,
            "children": [self._node(child, features) for child in self.children(row)],
        }

    def _walk(self) -> Iterator[tuple[int, int]]:
        """Rows with their depth, parents before their children."""
        stack = [(row, 0) for row in reversed(self.roots())]
        while stack:
            row, depth = stack.pop()
            yield row, depth
            stack += [(child, depth + 1) for child in reversed(self.children(row))]

    @cached_property
    def _below(self) -> dict[int, list[int]]:
        """Rows by their parent: by frame, then the highest level and the largest."""
        features = self.objects.features
        keys = [features[axis].to_numpy() for axis in reversed(_FRAME)]
        order = np.lexsort((-features["area"].to_numpy(), -self.ranks, *keys))
        below: dict[int, list[int]] = {}
        for row in order.tolist():
            below.setdefault(int(self.parents[row]), []).append(row)
        return below

    def _numbers(self) -> NDArray[np.int64]:
        """Number of every object within its frame, from 1."""
        grouped = self.objects.features.groupby(_FRAME, sort=False)
        numbers: NDArray[np.int64] = grouped.cumcount().to_numpy(np.int64) + 1
        return numbers


_FRAME = list(FrameIndex._fields)


def build_hierarchy(
    objects: Objects, params: HierarchyParams | None = None
) -> Hierarchy:
    """Give objects their levels, and find what lies in what.

    Parameters
    ----------
    objects : Objects
        Of any number of frames. Masks of automatic runs lie in each other only where
        `overlap` is ``"allow"``.
    params : HierarchyParams, optional

    Raises
    ------
    ParameterError
        If the way to find levels does not suit the objects; see `rank_objects`.
    """
    params = params or HierarchyParams()
    ranks = rank_objects(objects, params)
    parents = find_parents(objects, ranks, params.containment)
    ids = objects.features["id"].to_numpy()
    named = objects.with_features(
        size_level=[LEVELS[rank] for rank in ranks],
        inside=["" if row == ROOT else str(ids[row]) for row in parents],
    )
    return Hierarchy(named, ranks, parents, params)


def statistics_as_dict(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Statistics as JSON can hold them: what is not known is null."""
    return {
        str(level): {
            str(name): None if math.isnan(value) else value
            for name, value in row.items()
        }
        for level, row in table.to_dict("index").items()
    }


def format_statistics(table: pd.DataFrame) -> str:
    """Statistics as a table of plain text."""
    shown = table.copy()
    for name in ("share", "coverage_union", "coverage_sum"):
        shown[name] = [_number(value, "{:.1f} %") for value in table[name]]
    for name in ("min_area", "mean_area", "max_area"):
        shown[name] = [_number(value, "{:.0f}") for value in table[name]]
    shown.columns = [name.replace("_", " ") for name in shown.columns]
    shown.index.name = None
    return str(shown.to_string()) + "\n"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else form.format(value)


def _name(frame: FrameIndex) -> str:
    return ", ".join(f"{axis} {index + 1}" for axis, index in frame._asdict().items())

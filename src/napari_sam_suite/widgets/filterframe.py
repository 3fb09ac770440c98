"""One frame of a run filtered again, and what that changes in its layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import shapely

from napari_sam_suite.engine.features import UNASSIGNED
from napari_sam_suite.widgets.outlined import Outlined, outline, redrawn

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray

    from napari_sam_suite.engine.filters import Candidates
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.params import AutoParams
    from napari_sam_suite.engine.run import FrameResult
    from napari_sam_suite.widgets.placement import Placement
    from napari_sam_suite.widgets.runs import Run


@dataclass(eq=False)
class FilterFrame:
    """One frame of a run: what it drew, and all polygons made of it so far."""

    result: FrameResult
    candidates: Candidates
    pool: Objects
    shown: set[str] = field(default_factory=set)
    """Ids that the run or the filter has put into the layer."""
    deleted: set[str] = field(default_factory=set)
    """Those of them that the user took out."""
    forms: dict[str, str] = field(default_factory=dict)
    """Of objects that are another, of the user, in other pixels: the id of that."""

    @classmethod
    def of(cls, result: FrameResult, candidates: Candidates) -> FilterFrame:
        """A frame as its run has left it."""
        shown = set(result.objects.features["id"])
        return cls(result, candidates, result.objects, shown)

    def filter(self, params: AutoParams, placement: Placement) -> Outlined:
        """What passes now, found on any thread; `take` goes on with it."""
        from napari_sam_suite.engine.filters import refilter

        masks = refilter(self.candidates, params)
        ids = self.candidates.ids(masks)
        return outline(masks, ids, self.result.frame, self.pool, params, placement)

    def take(self, found: Outlined, run: Run) -> tuple[Objects, Objects]:
        """Go on with what passes now: the objects that go, and those that come.

        What the user has changed stays, and what was deleted does not come back, nor
        does either as the same object in somewhat other pixels.
        """
        known = set(self.pool.features["id"])
        self.pool = found.pool
        rows = self._rows(run)
        self.deleted |= self.shown - rows.keys()
        here = self.shown & rows.keys()
        leaving = {one: rows[one] for one in here - found.wanted.keys()}
        gone = leaving.keys() - _touched(run, leaving, found.drawn)
        coming = found.wanted.keys() - rows.keys() - self.deleted
        owned = self.deleted | (leaving.keys() - gone)
        self.forms |= _forms(found.pool, coming - known, owned)
        coming = {one for one in coming if self.forms.get(one) not in owned}
        self.shown = (self.shown - gone) | coming
        return _some(self.pool, gone), _some(self.pool, coming)

    def note_deleted(self, run: Run) -> None:
        """Remember what the user took out of the layer up to now."""
        self.deleted |= self.shown - self._rows(run).keys()

    def look_again(self, run: Run) -> None:
        """After a step back or forth: what is in the layer now."""
        self.shown = set(self._rows(run))

    def _rows(self, run: Run) -> dict[str, int]:
        """Rows of its objects that are in the layer, by their ids."""
        if run.layer is None:
            return {}
        known = self.shown | set(self.pool.features["id"])
        ids = run.layer.features["id"].tolist()
        return {one: row for row, one in enumerate(ids) if one in known}


def _some(pool: Objects, ids: AbstractSet[str]) -> Objects:
    return pool.select(np.asarray(pool.features["id"].isin(ids), dtype=bool))


def _touched(
    run: Run, rows: dict[str, int], drawn: dict[str, NDArray[np.float32]]
) -> set[str]:
    """Ids of shapes that are not as the run has left them."""
    if run.layer is None or not rows:
        return set()
    table = run.layer.features
    own = (table["tag"] != UNASSIGNED).to_numpy()
    if "review" in table:
        own |= table["review"].isin(["accepted", "rejected"]).to_numpy()
    return {one for one, row in rows.items() if own[row]} | redrawn(run, rows, drawn)


def _forms(
    pool: Objects, fresh: AbstractSet[str], owned: AbstractSet[str]
) -> dict[str, str]:
    """Which fresh objects are owned ones that lost or won pixels to neighbours."""
    some, others = _some(pool, fresh), _some(pool, owned)
    found = {}
    tree = shapely.STRtree(others.polygons)
    for one, polygon in zip(some.features["id"], some.polygons, strict=True):
        for place in tree.query(polygon).tolist():
            other = others.polygons[place]
            if polygon.intersection(other).area >= polygon.union(other).area / 2:
                found[one] = others.features["id"].iloc[place]
    return found

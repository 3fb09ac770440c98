"""What the sliders did, as a step that can be undone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.widgets.results import nothing

if TYPE_CHECKING:
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.results import Results, Run


@dataclass(eq=False)
class Filtering:
    """All moves of the sliders between two other steps, as one step to undo."""

    run: Run
    before: dict[str, Any]
    after: dict[str, Any]
    removed: Objects = field(default_factory=nothing)
    added: Objects = field(default_factory=nothing)
    what = "The filter"

    def undo(self, results: Results) -> None:
        """Bring the objects back as they were before."""
        self.added = results.take(self.run, "id", self.added.features["id"])
        results.show(self.run, self.removed)
        self.run.recipe["params"] = self.before

    def redo(self, results: Results) -> None:
        """Filter again."""
        self.removed = results.take(self.run, "id", self.removed.features["id"])
        results.show(self.run, self.added)
        self.run.recipe["params"] = self.after

    def note(self, gone: Objects, new: Objects) -> None:
        """Take in one more move; what comes back as it was leaves no trace."""
        self.removed, self.added = (
            _join(_less(self.removed, new), _less(gone, self.added)),
            _join(_less(self.added, gone), _less(new, self.removed)),
        )


def _less(some: Objects, others: Objects) -> Objects:
    """Objects that are not among others."""
    there = some.features["id"].isin(others.features["id"])
    return some.select(np.asarray(~there, dtype=bool))


def _join(some: Objects, others: Objects) -> Objects:
    from napari_sam_suite.engine.objects import Objects

    return Objects.concat([some, others])

"""What the sliders did, as a step that can be undone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.widgets.runs import nothing

if TYPE_CHECKING:
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.results import Results
    from napari_sam_suite.widgets.runs import Run


@dataclass(eq=False)
class Filtering:
    """All moves of the sliders between two other steps, as one step to undo."""

    run: Run
    before: dict[str, Any]
    after: dict[str, Any]
    removed: Objects = field(default_factory=nothing)
    added: Objects = field(default_factory=nothing)
    what = "The filter"

    @classmethod
    def take(
        cls,
        results: Results,
        run: Run,
        params: dict[str, Any],
        gone: Objects,
        new: Objects,
    ) -> None:
        """Make a move, with the ones before it, one step that can be undone.

        Parameters
        ----------
        results : Results
            Where the step goes.
        run : Run
            Whose objects were chosen otherwise.
        params : dict
            Of its recipe, after the move.
        gone, new : Objects
            What the move took out and put in.
        """
        step = results.last
        if not isinstance(step, cls) or step.run is not run:
            step = cls(run, run.recipe["params"], params)
            results.push(step)
        step._note(gone, new)
        step.after = run.recipe["params"] = params
        if not len(step.removed) and not len(step.added):
            run.recipe["params"] = step.before
            results.drop(step)

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

    def _note(self, gone: Objects, new: Objects) -> None:
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

"""What the Prompt tab has put into the results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.runs import Run


@dataclass(frozen=True, eq=False)
class Added:
    """A run of the Prompt tab, and the objects that it has put into its layer."""

    run: Run
    objects: Objects

    def __str__(self) -> str:
        """Such as "1 object"."""
        count = len(self.objects)
        return "1 object" if count == 1 else f"{count} objects"

    def is_as_drawn(self) -> bool:
        """Whether nobody has deleted, moved, tagged or judged any of them."""
        from napari_sam_suite.widgets.shapes import is_as_drawn, to_vertices
        from napari_sam_suite.widgets.table import column

        layer = self.run.layer
        ids, tags, reviews = (column(layer, name) for name in ("id", "tag", "review"))
        rows = {one: row for row, one in enumerate(ids.tolist())}
        data = [] if layer is None else layer.data
        table = self.objects.features
        drawn = to_vertices(self.objects, self.run.picture.placement)
        return all(
            one in rows
            and tags[rows[one]] == tag
            and not reviews[rows[one]]
            and is_as_drawn(vertices, data[rows[one]])
            for one, tag, vertices in zip(table["id"], table["tag"], drawn, strict=True)
        )

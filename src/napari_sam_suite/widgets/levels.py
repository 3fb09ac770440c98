"""Tags that say how large objects are and what lies in what: small, part and whole."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QMenu, QPushButton

from napari_sam_suite.engine.frames import Sizes
from napari_sam_suite.widgets.bridge import Background
from napari_sam_suite.widgets.table import about, column

if TYPE_CHECKING:
    from napari.layers import Shapes

    from napari_sam_suite.engine.hierarchy.hierarchy import Hierarchy
    from napari_sam_suite.widgets.edits import Edits
    from napari_sam_suite.widgets.tab import Parts

COLOURS = {"whole": "#5b9bff", "part": "#4fd06a", "small": "#ff6464"}
"""Of the tags, unless the user has chosen others."""

_WAYS = {
    "fraction": (
        "By share of the image",
        "Below 2 % of the image is small, above 15 % is whole.",
    ),
    "tertile": ("By thirds", "About as many small ones as parts and whole ones."),
    "token": (
        "By the model's output",
        "Which of the model's three answers to a point an object was.",
    ),
}
_ROW = "row of the layer"


class LevelButton(QPushButton):
    """Gives all objects of a layer their level as tag, as one step.

    Parameters
    ----------
    parts : Parts
        Says how large the image is.
    edits : Edits
        Changes the layer.

    Signals
    -------
    said(str), failed(Exception)
        What happened.
    """

    said = Signal(str)
    failed = Signal(object)

    def __init__(self, parts: Parts, edits: Edits) -> None:
        super().__init__("Tag by level")
        self._parts = parts
        self._edits = edits
        self._layer: Shapes | None = None
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        for by, (text, tip) in _WAYS.items():
            action = menu.addAction(text, partial(self.start, by))
            if action is not None:
                action.setToolTip(tip)
        self.setMenu(menu)

    def set_layer(self, layer: Shapes | None) -> None:
        """Work on another layer, or on none."""
        self._layer = layer
        self.setEnabled(layer is not None)
        self.setToolTip(
            "Tag all objects as small, part or whole, and count those that lie in no "
            "other."
            if layer is not None
            else "There are no objects yet."
        )

    def start(self, by: str) -> None:
        """Find the levels on a thread of its own, and tag the objects then."""
        layer = self._layer
        if layer is None:
            return
        known = _Known(layer, self._sizes(layer))
        work = Background(lambda *_: known.hierarchy(by), self)
        work.done.connect(partial(self._take, layer, known))
        work.failed.connect(self.failed)
        work.start()

    def _take(self, layer: Shapes, known: _Known, found: Hierarchy) -> None:
        if column(layer, "id").tolist() != known.ids:
            self.said.emit("The objects have changed meanwhile: choose again.")
            return
        features = found.objects.features
        tags = column(layer, "tag")
        rows = features[_ROW].to_numpy()
        tags[rows] = features["size_level"].to_numpy()
        settings = about(layer)
        colours = COLOURS | settings.get("colours", {})
        names = list(dict.fromkeys([*settings.get("tags", []), *COLOURS]))
        counts = found.statistics()["count"]
        counted = ", ".join(f"{counts[name]:.0f} {name}" for name in COLOURS)
        self._edits.change(
            layer, "objects have levels", {"tags": names, "colours": colours}, tag=tags
        )
        self.said.emit(f"{counted}; {len(found.roots())} lie in no other.")

    def _sizes(self, layer: Shapes) -> Sizes | None:
        """Sizes of the image that the layer is of, if that is known."""
        for run in reversed(list(about(layer).get("runs", {}).values())):
            sizes = run.get("image", {}).get("sizes")
            if sizes:
                return Sizes(**sizes)
        picture, _ = self._parts.look()
        return None if picture is None else picture.image.sizes


class _Known:
    """What a layer is while its levels are found."""

    def __init__(self, layer: Shapes, sizes: Sizes | None) -> None:
        self.ids = column(layer, "id").tolist()
        self._data = list(layer.data)
        self._kinds = list(layer.shape_type)
        self._table = layer.features.assign(**{_ROW: range(len(self._data))})
        self._meta: dict[str, Any] = {
            "metadata": dict(layer.metadata),
            "axis_labels": list(layer.axis_labels),
        }
        self._sizes = sizes

    def hierarchy(self, by: Any) -> Hierarchy:
        from napari_sam_suite.engine.hierarchy.hierarchy import build_hierarchy
        from napari_sam_suite.engine.hierarchy.params import HierarchyParams
        from napari_sam_suite.widgets.shapes import placement_of, to_objects

        source = {"sizes": self._sizes._asdict()} if self._sizes else {}
        placement = placement_of(self._meta)
        objects = to_objects(self._data, self._kinds, self._table, placement, source)
        return build_hierarchy(objects, HierarchyParams(by=by))

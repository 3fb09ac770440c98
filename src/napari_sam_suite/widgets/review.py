"""The lower half of the Tags tab: go through the objects, accept and reject them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QSignalBlocker, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sam_suite.engine.fewshot.calibrate import SUGGESTED
from napari_sam_suite.widgets.table import ACCEPTED, REJECTED, about, column

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari.components import ViewerModel
    from napari.layers import Shapes
    from numpy.typing import NDArray

    from napari_sam_suite.widgets.edits import Edits

SELECT_FIRST = "Select objects first: press S, then click or drag."
KEYS = {
    "accept": "G",
    "reject": "H",
    "step": "J",
    "undo": "Control-Z",
    "redo": "Control-Shift-Z",
}
"""Keys side by side that napari leaves free in a Shapes layer, where A selects and R
draws, and that no other tab uses."""

_SMALL, _LARGE, _SHARE = 0.08, 0.6, 0.2  # of the canvas, that an object takes
_BAND = 3.0  # heights of an object that make a line to read along

_SAVED = "Whether rejected objects are in saved files. The layer keeps them."


class Review(QWidget):
    """Buttons that judge the selected objects of one layer and step to the next.

    Parameters
    ----------
    viewer : ViewerModel
        Its camera goes to the objects.
    edits : Edits
        Changes the layer.

    Signals
    -------
    said(str)
        What happened, in one sentence.
    """

    said = Signal(str)

    def __init__(self, viewer: ViewerModel, edits: Edits) -> None:
        super().__init__()
        self._viewer = viewer
        self._edits = edits
        self._layer: Shapes | None = None
        self.count = QLabel()
        self.accept = QPushButton("Accept (G)")
        self.reject = QPushButton("Reject (H)")
        self.step = QPushButton("Next to review (J)")
        self.follow = QCheckBox("Go on after each")
        self.follow.setChecked(True)
        self.shown = QComboBox()
        self.shown.addItem("Show rejected in grey", "grey")
        self.shown.addItem("Hide rejected", "hidden")
        self.saved = QCheckBox("Save them")
        self.undo = QPushButton("Undo (Ctrl+Z)")
        self.redo = QPushButton("Redo (Ctrl+Shift+Z)")
        self._lay_out()
        self.accept.clicked.connect(lambda: self.judge(ACCEPTED))
        self.reject.clicked.connect(lambda: self.judge(REJECTED))
        self.step.clicked.connect(self.show_next)
        self.shown.currentIndexChanged.connect(self._show_rejected)
        self.saved.toggled.connect(self._save_rejected)
        self.undo.clicked.connect(self.take_back)
        self.redo.clicked.connect(self.do_again)

    def set_layer(self, layer: Shapes | None) -> None:
        """Work on a layer, and no longer on the one before."""
        actions: dict[str, Callable[[], None]] = {
            "accept": lambda: self.judge(ACCEPTED),
            "reject": lambda: self.judge(REJECTED),
            "step": self.show_next,
            "undo": self.take_back,
            "redo": self.do_again,
        }
        if layer != self._layer:
            bind(self._layer, dict.fromkeys(KEYS.values()))
            bind(layer, {KEYS[name]: action for name, action in actions.items()})
        self._layer = layer
        self.refresh()

    def refresh(self) -> None:
        """Show how far the review is, and what can be done."""
        layer = self._layer
        reviews = column(layer, "review")
        rejected = int(np.count_nonzero(reviews == REJECTED))
        accepted = int(np.count_nonzero(reviews == ACCEPTED))
        total, open_ = len(reviews), len(reviews) - accepted - rejected
        self.count.setText(
            f"{accepted} accepted, {rejected} rejected, {open_} to review"
        )
        why = "" if total else "There are no objects yet."
        for button in (self.accept, self.reject, self.shown, self.saved):
            button.setEnabled(not why)
        self.accept.setToolTip(why or "The selected objects are right.")
        self.reject.setToolTip(why or "The selected objects are wrong.")
        self.shown.setToolTip(why or "How rejected objects look.")
        self.saved.setToolTip(why or _SAVED)
        done = "" if open_ else "All objects are reviewed."
        self.step.setEnabled(bool(open_))
        self.step.setToolTip(why or done or "Select the next one and go there.")
        for button, what in (
            (self.undo, self._edits.undoable(layer)),
            (self.redo, self._edits.redoable(layer)),
        ):
            button.setEnabled(bool(what))
            button.setToolTip(what or "There is no change of tags or reviews.")
        settings = about(layer)
        with QSignalBlocker(self.shown), QSignalBlocker(self.saved):
            self.shown.setCurrentIndex(int(settings.get("rejected") == "hidden"))
            self.saved.setChecked(bool(settings.get("save_rejected")))

    def judge(self, verdict: str) -> None:
        """Accept or reject the selected objects."""
        layer = self._layer
        if layer is None:
            return
        rows = sorted(layer.selected_data)
        if not rows:
            self.said.emit(f"{SELECT_FIRST} J shows the next one.")
            return
        values = column(layer, "review")
        values[rows] = verdict
        what = "1 object is" if len(rows) == 1 else f"{len(rows)} objects are"
        self._edits.change(layer, f"{what} {verdict}", review=values)
        self.said.emit(f"{what} {verdict}.")
        if self.follow.isChecked() and len(rows) == 1 and not values.all():
            self.show_next()

    def show_next(self) -> None:
        """Select the next object that nobody has judged, and go there."""
        layer = self._layer
        if layer is None:
            return
        row = next_row(layer)
        if row is None:
            self.said.emit("All objects are reviewed.")
            return
        layer.selected_data = {row}
        look_at(self._viewer, layer, row)

    def take_back(self) -> None:
        """Undo the last change of tags or reviews."""
        what = self._edits.undo(self._layer)
        self.said.emit(f"Taken back: {what}." if what else "There is nothing to undo.")

    def do_again(self) -> None:
        """Make the last change again."""
        what = self._edits.redo(self._layer)
        self.said.emit(f"Done again: {what}." if what else "There is nothing to redo.")

    def _show_rejected(self) -> None:
        if self._layer is not None:
            shown = str(self.shown.currentData())
            self._edits.change(
                self._layer, f"rejected objects are {shown}", {"rejected": shown}
            )

    def _save_rejected(self, wanted: bool) -> None:
        if self._layer is not None:
            about(self._layer)["save_rejected"] = wanted

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.addWidget(self.count)
        lines: tuple[tuple[QWidget, ...], ...] = (
            (self.accept, self.reject),
            (self.step, self.follow),
            (self.shown, self.saved),
            (self.undo, self.redo),
        )
        for widgets in lines:
            line = QHBoxLayout()
            for widget in widgets:
                line.addWidget(widget, 0 if isinstance(widget, QCheckBox) else 1)
            layout.addLayout(line)


def bind(
    layer: Shapes | None, actions: Mapping[str, Callable[[], None] | None]
) -> None:
    """Let keys do something while a layer is active; None frees a key."""
    if layer is None:
        return
    for key, action in actions.items():
        if action is None:
            layer.bind_key(key, None)
        else:
            layer.bind_key(key, lambda _, do=action: do(), overwrite=True)


def next_row(layer: Shapes) -> int | None:
    """Row of the next object without a review, after the selected one.

    What few-shot found is taken first, from the least certain to the most; then
    objects are taken frame by frame, line by line as one reads.
    """
    open_ = column(layer, "review") == ""
    if not open_.any():
        return None
    unsure = _least_certain_first(layer)
    order = unsure if open_[unsure].any() else _as_one_reads(layer)
    last = np.flatnonzero(order == max(layer.selected_data, default=-1))
    turned = np.roll(order, -int(last[0]) - 1 if len(last) else 0)
    return int(turned[open_[turned]][0])


def _least_certain_first(layer: Shapes) -> NDArray[np.intp]:
    """Rows of what few-shot found: hardly one at all, or hardly of that tag."""
    if not {"margin", "similarity"} <= set(layer.features):
        return np.empty(0, np.intp)
    margin, similarity = (
        layer.features[name].to_numpy(dtype=float) for name in ("margin", "similarity")
    )
    sure = 2 * np.abs(similarity - SUGGESTED)
    # Of a single tag the margin is the similarity itself.
    sure = np.where(margin < similarity, np.minimum(margin, sure), sure)
    order: NDArray[np.intp] = np.argsort(sure, kind="stable")
    return order[: np.count_nonzero(np.isfinite(margin))]


def _as_one_reads(layer: Shapes) -> NDArray[np.intp]:
    """All rows: frame by frame, line by line."""
    boxes = np.array([(d.min(axis=0), d.max(axis=0)) for d in layer.data])
    middle = boxes.mean(axis=1)
    height = max(float(np.median(boxes[:, 1, -2] - boxes[:, 0, -2])), 1.0)
    line = np.floor(middle[:, -2] / (_BAND * height))
    leading = [np.round(middle[:, axis]) for axis in range(layer.ndim - 2)]
    return np.lexsort([middle[:, -1], line, *reversed(leading)])


def look_at(viewer: ViewerModel, layer: Shapes, row: int) -> None:
    """Go to the frame and place of an object; zoom only if it is too small or large."""
    vertices = layer.data[row]
    corners = np.array([vertices.min(axis=0), vertices.max(axis=0)])
    world = np.array([layer.data_to_world(corner) for corner in corners])
    middle = world.mean(axis=0)
    first = viewer.dims.ndim - layer.ndim
    shown = [axis - first for axis in viewer.dims.displayed if axis >= first]
    for axis in viewer.dims.not_displayed:
        if axis >= first:
            viewer.dims.set_point(axis, middle[axis - first])
    camera: Any = viewer.scene.camera
    camera.center = tuple(middle[shown])
    extent = float(np.abs(world[1] - world[0])[shown].max())
    canvas = min(viewer.canvas.size)
    if extent > 0 and not _SMALL < extent * camera.zoom / canvas < _LARGE:
        camera.zoom = _SHARE * canvas / extent

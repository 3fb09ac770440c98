"""Objects of the frame shown, carried on through time or z, into the result layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_sam_suite.engine.errors import EngineError, ParameterError
from napari_sam_suite.engine.propagation.params import PropagateParams
from napari_sam_suite.widgets.drawing import check_image, read_rows
from napari_sam_suite.widgets.finding import Finding
from napari_sam_suite.widgets.form import Form, fold
from napari_sam_suite.widgets.repeat import record_shapes

if TYPE_CHECKING:
    from napari.layers import Shapes

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.tab import Parts, State

_OPEN = ("axis", "direction", "steps")
_HIDDEN = (*_OPEN, "answers", "prompts_per_batch")
_TIP = (
    "Carries the objects of the frame shown on, only the selected ones if any are "
    "selected."
)


@dataclass(eq=False, kw_only=True)
class Carrying(Finding):
    """Propagation as a task: what was given stays as it is, as the start of a track.

    Attributes
    ----------
    given : Objects
        With the columns of tracks.
    layer : Shapes
        Where they are.
    again : bool
        In the other frames, earlier objects of the same tracks go.
    """

    given: Objects
    layer: Shapes
    again: bool

    def take(self, part: Any) -> None:
        """Draw the objects of a frame; of the first, the shapes that were given."""
        from napari_sam_suite.engine.run import FrameResult

        run = self._run
        if part.frame == self.given.frames()[0]:
            part = FrameResult(part.frame, self.given, part.losses)
            if run.layer == self.layer:  # napari hands out a new proxy each time
                self.results.replace(run, self.given.features["id"])
        elif self.again and run.layer is not None:
            self.results.replace(run, self._earlier(run.layer, part.frame))
        super().take(part)

    def _earlier(self, layer: Shapes, frame: FrameIndex) -> list[str]:
        """Ids of what other runs have drawn of these tracks in a frame."""
        table = layer.features
        if "track" not in table:
            return []
        there = table["track"].isin(self.given.features["track"])
        for axis, place in frame._asdict().items():
            there &= table[axis] == place
        return [
            str(name) for name in table["id"][there & (table["run"] != self._run.id)]
        ]

    def summary(self) -> str:
        """Such as "3 tracks, 12 objects in 5 frames"."""
        count = len(self.given)
        tracks = "1 track" if count == 1 else f"{count} tracks"
        return f"{tracks}, {super().summary()}"


class CarryBox(QWidget):
    """Which way, how far, and the button.

    Parameters
    ----------
    parts : Parts
        Of the panel.

    Signals
    -------
    said(str), failed(Exception)
        For the status line.
    """

    said = Signal(str)
    failed = Signal(object)

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self._parts = parts
        self._state: State | None = None
        self.form = Form(PropagateParams, _OPEN)
        hidden = [n for n in PropagateParams.model_fields if n not in _HIDDEN]
        self.advanced = Form(PropagateParams, hidden)
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.button = QPushButton("Propagate")
        self.button.setMinimumHeight(30)
        self.button.clicked.connect(self.start)
        self.form.changed.connect(self.refresh)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.form)
        layout.addWidget(fold("More", self.advanced))
        layout.addWidget(self.hint)
        layout.addWidget(self.button)
        self.refresh()

    def params(self) -> PropagateParams:
        """What is set.

        Raises
        ------
        ParameterError
            If a value makes no sense.
        """
        return PropagateParams(**self.form.values(), **self.advanced.values())

    def show_state(self, state: State) -> None:
        """Show what can be done now; the axis is the one that the image has."""
        before, self._state = self._state, state
        other = before is None or before.sizes != state.sizes
        if other and state.sizes.time == 1 and state.sizes.z > 1:
            self.form.set_values({"axis": "z"})
        elif other and state.sizes.z == 1:
            self.form.set_values({"axis": "time"})
        self.refresh()

    def refresh(self, _: object = None) -> None:
        """Enable the button, or say what is missing."""
        why = self._missing()
        self.button.setEnabled(not why)
        self.button.setToolTip(why or _TIP)
        self.hint.setText(why)
        self.hint.setVisible(bool(why))

    def start(self) -> None:
        """Carry the objects on."""
        parts = self._parts
        try:
            picture = parts.images.picture()
            frame, params = parts.images.frame()[0], self.params()
            layer, given = self._given(picture, frame)
            params.resolved(parts.models.spec)
            task = self._task(picture, layer, given, params)
        except EngineError as error:
            self.failed.emit(error)
            return
        parts.runner.start(task)

    def _task(
        self, picture: Picture, layer: Shapes, given: Objects, params: PropagateParams
    ) -> Carrying:
        from napari_sam_suite.engine.propagation.finder import plan_propagation

        parts = self._parts
        finder, frames = plan_propagation(picture.image.sizes, given, params)
        recipe = parts.recipe(picture, params, frames) | {
            "capability": "propagate",
            "objects": given.features["id"].tolist(),
            "shapes": record_shapes(given),
        }
        return Carrying(
            spec=parts.models.spec,
            picture=picture,
            frames=frames,
            make=lambda: finder,
            recipe=recipe,
            mode="new" if parts.bar.mode == "new" else "add",
            results=parts.results,
            given=given,
            layer=layer,
            again=parts.bar.mode == "replace",
        )

    def _given(self, picture: Picture, frame: FrameIndex) -> tuple[Shapes, Objects]:
        """The layer, and its objects in a frame with the columns of tracks.

        Raises
        ------
        ParameterError
            If there are none, or they are of another image.
        """
        from napari_sam_suite.engine.propagation.track import mark
        from napari_sam_suite.widgets.table import name_rows

        layer = self._parts.shapes_layer()
        if layer is not None:
            check_image(layer, picture)
        place = picture.placement.frame
        data = [] if layer is None else layer.data
        rows = [row for row, shape in enumerate(data) if place(shape[0][:-2]) == frame]
        if layer is not None:
            rows = [row for row in rows if row in layer.selected_data] or rows
            name_rows(layer, rows)
        if layer is None or not rows:
            raise ParameterError(
                "There are no objects in this frame.",
                "Add some with prompts, or go to a frame that has objects.",
            )
        given = read_rows(layer, rows, picture.placement)
        taken = 0
        if "track" in layer.features:
            taken = int(np.nan_to_num(layer.features["track"].max()))
        return layer, mark(given, taken)

    def _missing(self) -> str:
        state = self._state
        if state is None or state.why:
            return "" if state is None else state.why
        axis = str(self.form.values()["axis"])
        if getattr(state.sizes, axis) < 2:
            what = "plane in z" if axis == "z" else "time point"
            return f"The image has only one {what}."
        return ""

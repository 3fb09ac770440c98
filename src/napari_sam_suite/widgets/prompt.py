"""The Prompt tab: point at objects in the viewer, and see at once what they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from napari_sam_suite.engine.errors import EngineError
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.widgets.carrying import CarryBox
from napari_sam_suite.widgets.dialogue import Dialogue
from napari_sam_suite.widgets.form import Form, fold, scrolled
from napari_sam_suite.widgets.pointing import OUTSIDE, Pointing, Sketch
from napari_sam_suite.widgets.promptkeys import Keys
from napari_sam_suite.widgets.shelf import Place, Shelf
from napari_sam_suite.widgets.tab import Tab
from napari_sam_suite.widgets.turns import Said, Turn, as_json, outlines
from napari_sam_suite.widgets.waiting import Waiting

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.prompts.prompt import Box, Point, Prompt
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.tab import Parts, State

_SOON = 150  # ms without a change after which a frame is prepared
_PATIENCE = 50  # ms that a prompt waits to be drawn together with its answer
_HINT = (
    f"Click an object. {OUTSIDE} and click: this does not belong to it. "
    "Drag: a box around it."
)
_ANSWER = "Answer"
_HALF = 0.5  # px that a pixel reaches beyond its centre
_ALWAYS = ("answers", "prompts_per_batch")
"""Set by the tab itself: one prompt at a time, and all three answers."""


class PromptTab(Tab):
    """Prompts in the viewer while the tab is open."""

    title = "Prompt"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._viewer, self._images = parts.viewer, parts.images
        self._models, self._results = parts.models, parts.results
        self.point = QCheckBox("Point in the image")
        self.point.setChecked(True)
        self.tag = QComboBox()
        self.tag.setEditable(True)
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.advanced = Form(
            PromptParams, [n for n in PromptParams.model_fields if n not in _ALWAYS]
        )
        self.dialogue = Dialogue(parts, self)
        self.turns = self.dialogue.turns
        self.waiting = Waiting(self._is_pending)
        self._shelf: Shelf[tuple[Said, tuple[Any, ...]]] = Shelf()
        self.keys = Keys(self)
        self.buttons = self.keys.buttons
        self.pointing = Pointing(parts.viewer, self.keys.bound, self)
        self.sketch = Sketch(parts.viewer)
        self.carry = CarryBox(parts)
        self._picture: Picture | None = None
        self._place = Place([], "")
        self._known: tuple[Any, ...] = ()
        self._ready_for: tuple[Any, ...] = ()
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_SOON)
        self._lay_out()
        self._connect()
        self._show()

    def params(self) -> PromptParams:
        """What is set.

        Raises
        ------
        ParameterError
            If a value makes no sense.
        """
        return PromptParams(answers="all", **self.advanced.values())

    def _lay_out(self) -> None:
        hint = QLabel(_HINT)
        hint.setWordWrap(True)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Tag", self.tag)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(6, 10, 6, 6)
        column.addWidget(hint)
        column.addWidget(self.point)
        column.addLayout(form)
        column.addWidget(self.keys)
        column.addWidget(self.state)
        self.carry_fold = fold("Propagate through time or z", self.carry)
        column.addWidget(self.carry_fold)
        column.addWidget(fold("Advanced", self.advanced))
        column.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scrolled(inside))

    def _connect(self) -> None:
        self.point.toggled.connect(self.refresh)
        self.advanced.changed.connect(self._use_params)
        self.pointing.pointed.connect(self._click)
        self.pointing.stretching.connect(self._stretch)
        self.pointing.boxed.connect(self._box)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_PATIENCE)
        self._later.timeout.connect(self._show)
        self.dialogue.changed.connect(self._show_soon)
        self.dialogue.stated.connect(self.state.setText)
        self.dialogue.ready.connect(self._prepared)
        self._soon.timeout.connect(self._prepare)
        self.dialogue.failed.connect(lambda _: self.waiting.clear())
        for part in (self.dialogue, self.carry):
            part.said.connect(self.said)
            part.failed.connect(self.failed)

    def show_state(self, state: State) -> None:
        """Go on with the image that is looked at now, and with the model."""
        layers = self._images.layers()
        place, looks = Place(layers, self._images.letters()), self._looks(state.picture)
        if not place.same(self._place) and (place or self._place):
            self._turn_to(place, looks)
        elif looks != self._known:
            self.dialogue.look_again()
        changed, self._place, self._known = looks != self._known, place, looks
        self.carry.show_state(state)
        self.refresh()
        if changed:
            if self.pointing.on:
                self.dialogue.ask_newest()
            self._show()

    def _turn_to(self, place: Place, looks: tuple[Any, ...]) -> None:
        """Look at another image; what was said of the one before is put aside."""
        self.waiting.clear()
        said = self.dialogue.leave()
        if said is not None:
            self._shelf.put(self._place, (said, self._known))
            count = len(said[1])
            if count:
                what = "1 outline waits" if count == 1 else f"{count} outlines wait"
                self.said.emit(f"{what} to be added until the image is there again.")
        found = self._shelf.take(place)
        if found is not None:
            said, known = found
            self.turns.come_back(said)
            if known != looks:
                self.dialogue.look_again()

    def disconnect_viewer(self) -> None:
        """Stop listening to the viewer."""
        self.pointing.turn(False)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Listen to the viewer while the tab is open."""
        super().showEvent(event)
        self.refresh()

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Leave the viewer alone."""
        super().hideEvent(event)
        self.pointing.turn(False)
        self._soon.stop()

    # -- what can be done now ----------------------------------------------------

    def refresh(self, _: Any = None) -> None:
        """Listen to the viewer if there is something to point at, and prepare it."""
        why = self._why_not()
        on = self.isVisible() and self.point.isChecked() and not why
        self.pointing.turn(on)
        if why:
            self.state.setText(why)
        elif on and (self._known, self._images.frame()[0]) != self._ready_for:
            self.state.setText("Preparing this frame.")
            self._soon.start()
        self._show_tags()
        self._show_buttons()

    def _why_not(self) -> str:
        try:
            self._picture = self._images.picture()
        except EngineError as error:
            self._picture = None
            return str(error)
        finally:
            self.dialogue.look_at(self._picture)
        dims = self._viewer.dims
        if dims.ndisplay != 2:
            return "Prompts need the 2-D view."
        if tuple(dims.displayed) != (dims.ndim - 2, dims.ndim - 1):
            return "Prompts need rows and columns in view: undo Roll and Transpose."
        channels = self._picture.composite.channels
        if channels and not any(channel.visible for channel in channels):
            return "No channel of the image is visible: show one."
        return self._models.why_not()

    def _looks(self, picture: Picture | None) -> tuple[Any, ...]:
        """How the image is shown, and which model looks at it."""
        if picture is None:
            return ()
        pixels = [(id(layer), id(layer.data)) for layer in self._images.layers()]
        return (*pixels, picture.letters, picture.composite, self._models.spec.name)

    def _is_pending(self) -> bool:
        """Whether an answer is on its way."""
        turn = self.turns.last
        return turn is not None and not turn.answered

    def _show_tags(self) -> None:
        layer = None
        if self._picture is not None:
            layer = self._results.layer_of(self._picture)
        if layer is None:
            return
        known = [self.tag.itemText(i) for i in range(self.tag.count())]
        used = list(dict.fromkeys(map(str, layer.features.get("tag", []))))
        text = self.tag.currentText()
        self.tag.addItems([tag for tag in used if tag not in known])
        self.tag.setEditText(text)

    def _show_buttons(self) -> None:
        turn = self.turns.last
        outlined = self._is_pending() or (
            turn is not None and turn.suggestion is not None
        )
        ready = {
            "commit": outlined or bool(self.turns.kept),
            "next": outlined,
            "undo": self.turns.can_undo,
            "redo": bool(self.turns.undone),
            "cycle": turn is not None and len(turn.found) > 1,
            "clear": turn is not None or bool(self.turns.kept),
        }
        self.keys.allow(ready)

    # -- the frame in view -------------------------------------------------------

    def _prepare(self) -> None:
        if self._picture is None or not self.pointing.on or self.parts.runner.busy:
            return
        frame, _ = self._images.frame()
        self._ready_for = (self._known, frame)
        center = np.array(self._viewer.scene.camera.center)
        self.dialogue.prepare(frame, self._clip(self._to_image(center)))

    def _use_params(self) -> None:
        """Other parameters: the frame is prepared anew, the last answer as well."""
        try:
            self.dialogue.use(self.params())
        except EngineError as error:
            self.said.emit(str(error))
            return
        self._ready_for = ()
        self.refresh()

    def _prepared(self) -> None:
        self.state.setText("Ready.")
        self._show()

    # -- what the mouse says -----------------------------------------------------

    def _to_image(self, world: NDArray[np.float64]) -> tuple[float, float]:
        """(y, x) in pixels of the image, of a place in the viewer."""
        layer = self._images.layers()[0]
        place = np.asarray(layer.world_to_data(world[-layer.ndim :]), np.float64)
        return float(place[-2]), float(place[-1])

    def _clip(self, point: tuple[float, float]) -> tuple[float, float]:
        if self._picture is None:
            return point
        sizes = self._picture.image.sizes
        y, x = np.clip(point, 0, (sizes.y - 1, sizes.x - 1))
        return float(y), float(x)

    def _click(self, world: NDArray[np.float64], inside: bool) -> None:
        place = self._to_image(world)
        point = self._clip(place)
        if np.abs(np.subtract(point, place)).max() > _HALF:
            self.said.emit("That is outside the image.")
            return
        frame = self._images.frame()[0]
        self.waiting.do(lambda: self._add_point(point, frame, inside))

    def _add_point(self, point: Point, frame: FrameIndex, inside: bool) -> None:
        before = self.dialogue.before(frame).prompt
        if inside:
            self._ask(replace(before, inside=(*before.inside, point)), frame)
        elif before.inside or before.box is not None:
            self._ask(replace(before, outside=(*before.outside, point)), frame)
        else:
            self.said.emit("Click the object first, then what does not belong to it.")

    def _corners(
        self, one: NDArray[np.float64], other: NDArray[np.float64]
    ) -> tuple[float, float, float, float]:
        first, second = (self._clip(self._to_image(p)) for p in (one, other))
        (y0, y1), (x0, x1) = (sorted(pair) for pair in zip(first, second, strict=True))
        return y0, x0, y1, x1

    def _stretch(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        """Show the box while it is drawn."""
        prompt = replace(self._before().prompt, box=self._corners(one, other))
        self._draw(prompt)

    def _box(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        box = self._corners(one, other)
        if min(box[2] - box[0], box[3] - box[1]) < 1:
            self.said.emit("That box is too small.")
            self._show()
            return
        frame = self._images.frame()[0]
        self.waiting.do(lambda: self._add_box(box, frame))

    def _add_box(self, box: Box, frame: FrameIndex) -> None:
        self._ask(replace(self.dialogue.before(frame).prompt, box=box), frame)

    def _before(self) -> Turn:
        """What is said of the object in this frame up to now."""
        return self.dialogue.before(self._images.frame()[0])

    def _ask(self, prompt: Prompt, frame: FrameIndex) -> None:
        self.dialogue.ask(prompt, frame)

    # -- what is shown ------------------------------------------------------------

    def _show_soon(self) -> None:
        """Show a prompt with its answer, or without where that takes long.

        To draw costs more than a model's answer, if the frame is prepared.
        """
        turn = self.turns.last
        if turn is None or turn.answered:
            self._show()
            self.waiting.go_on()
        elif not self._later.isActive():
            self._later.start()

    def _show(self) -> None:
        self._later.stop()
        turn = self.turns.last
        self._draw(None if turn is None else turn.prompt)
        suggestion = None if turn is None else turn.suggestion
        if turn is not None and suggestion is not None:
            self.state.setText(
                f"{_ANSWER} {turn.chosen + 1} of {len(turn.found)}, "
                f"score {suggestion.answer.score:.2f}."
            )
        elif self.state.text().startswith(_ANSWER):
            self.state.setText("Ready.")
        self._show_buttons()

    def _draw(self, prompt: Prompt | None) -> None:
        picture = self._picture
        if picture is None or (prompt is None and not self.turns.kept):
            self.sketch.clear()
            return
        turn = self.turns.last
        frame = self._before().frame if turn is None else turn.frame
        now = outlines([] if turn is None else [turn])
        self.sketch.show(picture, frame, prompt, now, outlines(self.turns.kept))

    # -- buttons and keys --------------------------------------------------------

    def undo(self) -> None:
        """Take back the last click or box, or go on with the object kept last."""
        if not self.waiting.drop():
            self.dialogue.undo()

    def redo(self) -> None:
        """Do again what was taken back."""
        self.dialogue.redo()

    def clear(self) -> None:
        """Forget all clicks and outlines."""
        self.waiting.clear()
        self.dialogue.clear()

    def cycle(self) -> None:
        """Show another of the three answers."""
        self.turns.cycle()
        self._show()

    def next(self) -> None:
        """Keep this outline, and begin another object."""
        self.waiting.do(self._keep, needs_answer=True)

    def _keep(self) -> None:
        self.dialogue.keep(self._tag())
        self._show()

    def commit(self) -> None:
        """Put everything that is outlined into the results."""
        self.waiting.do(self._commit, needs_answer=True)

    def _commit(self) -> None:
        picture = self._picture
        if picture is None:
            return
        try:
            params = self.params().with_(answers="best")
        except EngineError as error:
            self.said.emit(str(error))
            return
        from napari_sam_suite.engine.losses import Losses
        from napari_sam_suite.engine.run import FrameResult

        self.dialogue.keep(self._tag())
        turns = self.turns.take()
        if not turns:
            return
        frames = list(dict.fromkeys(turn.frame for turn in turns))
        recipe = self.parts.recipe(picture, params, frames)
        recipe |= {"capability": "prompt", "prompts": as_json(turns)}
        run = self._results.begin(picture, recipe, "add")
        for turn in turns:
            if turn.objects is not None:
                self._results.add(run, FrameResult(turn.frame, turn.objects, Losses()))
        self._results.finish(run)
        what = "1 object" if len(turns) == 1 else f"{len(turns)} objects"
        self.said.emit(f"Added {what}.")
        self._show()
        self._show_tags()

    def _tag(self) -> str:
        from napari_sam_suite.engine.features import UNASSIGNED

        return self.tag.currentText().strip() or UNASSIGNED

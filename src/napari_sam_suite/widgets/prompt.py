"""The Prompt tab: point at objects in the viewer, and see at once what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.widgets.adding import Adding
from napari_sam_suite.widgets.aim import Aim, with_box, with_point
from napari_sam_suite.widgets.carrying import CarryBox
from napari_sam_suite.widgets.dialogue import Dialogue
from napari_sam_suite.widgets.form import Form, fold, scrolled
from napari_sam_suite.widgets.pointing import OUTSIDE, Pointing, Sketch
from napari_sam_suite.widgets.promptkeys import Keys
from napari_sam_suite.widgets.shelf import Place, Shelf
from napari_sam_suite.widgets.tab import Tab
from napari_sam_suite.widgets.turns import History, outlines
from napari_sam_suite.widgets.waiting import Waiting

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from qtpy.QtGui import QHideEvent, QShowEvent

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
        self.adding = Adding(parts, self.dialogue, self)
        self.waiting = Waiting(self._is_pending)
        self._shelf: Shelf[tuple[History, tuple[Any, ...]]] = Shelf()
        self.keys = Keys(self)
        self.buttons = self.keys.buttons
        self.pointing = Pointing(parts.viewer, self.keys.bound, self.keys.also, self)
        self.sketch = Sketch(parts.viewer)
        self.carry = CarryBox(parts)
        self._picture: Picture | None = None
        self._place = Place([], "")
        self._known: tuple[Any, ...] = ()
        self._where = self._why = ""
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
        self.pointing.dropped.connect(self._show)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_PATIENCE)
        self._later.timeout.connect(self._show)
        self.dialogue.changed.connect(self._show_soon)
        self.dialogue.stated.connect(self.state.setText)
        self.dialogue.ready.connect(self._prepared)
        self._soon.timeout.connect(self._prepare)
        self.dialogue.failed.connect(self._stop_waiting)
        for part in (self.dialogue, self.adding, self.carry):
            part.said.connect(self.said)
            part.failed.connect(self.failed)

    def show_state(self, state: State) -> None:
        """Go on with the image that is looked at now, and with the model."""
        layers = self._images.layers()
        place, looks = Place(layers, self._images.letters()), self._looks(state.picture)
        where = "" if state.picture is None else str(state.picture.placement)
        if not place.same(self._place) and (place or self._place):
            self._turn_to(place, looks)
        elif looks != self._known:
            self.dialogue.look_again()
        changed = (looks, where) != (self._known, self._where)
        self._place, self._known, self._where = place, looks, where
        self.carry.show_state(state)
        self.refresh()
        if changed:
            self._show()

    def _turn_to(self, place: Place, looks: tuple[Any, ...]) -> None:
        """Look at another image; what was said of the one before is put aside."""
        self.waiting.clear()
        said = self.dialogue.leave()
        if said is not None:
            self._shelf.put(self._place, (said, self._known))
            count = len(said.now.kept)
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
        why, gone = self._why_not(), self._why
        self._why = why
        on = self.isVisible() and self.point.isChecked() and not why
        self.pointing.turn(on)
        if why:
            self.state.setText(why)
        elif on and (self._known, self._images.frame()[0]) != self._ready_for:
            self.state.setText("Preparing this frame.")
            self._soon.start()
        elif gone and self.state.text() == gone:
            self.state.setText("Ready." if on else "")
            self._tell()
            self._later.start()  # what came meanwhile is to be drawn
        if on:
            self.dialogue.go_on()
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
            "redo": self.turns.can_redo,
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
        center = self._viewer.scene.camera.center
        self.dialogue.prepare(frame, self._aim().nearest(center))

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
        if self._soon.isActive():
            return  # that was the frame before
        self.state.setText("Ready.")
        self._show()

    # -- what the mouse says -----------------------------------------------------

    def _aim(self) -> Aim:
        return Aim(self._images.layers()[0], self._images.letters())

    def _click(self, world: ArrayLike, inside: bool) -> None:
        aim = self._aim()
        try:
            point, frame = aim.point(world), aim.frame(world)
        except EngineError as error:
            self.said.emit(str(error))
            return
        self.waiting.do(lambda: self._add_point(point, frame, inside))

    def _add_point(self, point: Point, frame: FrameIndex, inside: bool) -> None:
        before = self.dialogue.before(frame).prompt
        try:
            prompt = with_point(before, point, inside)
        except EngineError as error:
            self.said.emit(str(error))
            return
        self.dialogue.ask(prompt, frame)

    def _stretch(self, one: ArrayLike, other: ArrayLike) -> None:
        """Show the box while it is drawn."""
        aim = self._aim()
        frame, box = aim.frame(one), aim.corners(one, other)
        self._draw(with_box(self.dialogue.before(frame).prompt, box), frame)

    def _box(self, one: ArrayLike, other: ArrayLike) -> None:
        aim = self._aim()
        try:
            box, frame = aim.box(one, other), aim.frame(one)
        except EngineError as error:
            self.said.emit(str(error))
            self._show()
            return
        self.waiting.do(lambda: self._add_box(box, frame))

    def _add_box(self, box: Box, frame: FrameIndex) -> None:
        self.dialogue.ask(with_box(self.dialogue.before(frame).prompt, box), frame)

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
        if turn is None:
            self._draw(None, FrameIndex())
        else:
            self._draw(turn.prompt, turn.frame)
        self._tell()
        self._show_buttons()

    def _tell(self) -> None:
        """Say which answer is shown."""
        turn = self.turns.last
        suggestion = None if turn is None else turn.suggestion
        if self._why:
            return
        if turn is not None and suggestion is not None:
            self.state.setText(
                f"{_ANSWER} {turn.chosen + 1} of {len(turn.found)}, "
                f"score {suggestion.answer.score:.2f}."
            )
        elif self.state.text().startswith(_ANSWER):
            self.state.setText("Ready.")

    def _draw(self, prompt: Prompt | None, frame: FrameIndex) -> None:
        if self._viewer.dims.ndisplay != 2:
            return  # napari fails to add flat shapes in 3-D
        picture, turn = self._picture, self.turns.last
        if picture is None or (prompt is None and not self.turns.kept):
            self.sketch.clear()
            return
        now = outlines([] if turn is None else [turn])
        self.sketch.show(picture, frame, prompt, now, outlines(self.turns.kept))

    # -- buttons and keys --------------------------------------------------------

    def undo(self) -> None:
        """Take back the last click or box, or what N, Escape or Enter did."""
        if self.waiting.drop():
            return
        self.adding.undo()
        self._show_tags()

    def redo(self) -> None:
        """Do again what was taken back."""
        self.adding.redo()

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
        tag = self._tag()
        self.waiting.do(lambda: self._keep(tag), needs_answer=True)

    def _keep(self, tag: str) -> None:
        self.dialogue.keep(tag)
        self._show()

    def commit(self) -> None:
        """Put everything that is outlined into the results."""
        tag = self._tag()
        self.waiting.do(lambda: self._commit(tag), needs_answer=True)

    def _commit(self, tag: str) -> None:
        picture = self._picture
        if picture is None:
            return
        try:
            params = self.params().with_(answers="best")
        except EngineError as error:
            self.said.emit(str(error))
            return
        self.adding.add(picture, params, tag)
        self._show()
        self._show_tags()

    def _stop_waiting(self, _: object) -> None:
        """An answer or a frame came to nothing, which the footer tells."""
        self.waiting.clear()
        if not self._why and not self.state.text().startswith(_ANSWER):
            self.state.setText("")

    def _tag(self) -> str:
        from napari_sam_suite.engine.features import UNASSIGNED

        return self.tag.currentText().strip() or UNASSIGNED

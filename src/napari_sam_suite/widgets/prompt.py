"""The Prompt tab: point at objects in the viewer, and see at once what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from napari_sam_suite.widgets.adding import Adding
from napari_sam_suite.widgets.carrying import CarryBox
from napari_sam_suite.widgets.dialogue import Dialogue
from napari_sam_suite.widgets.form import Form, fold, scrolled
from napari_sam_suite.widgets.gestures import Gestures
from napari_sam_suite.widgets.looking import Looking
from napari_sam_suite.widgets.pointing import OUTSIDE, Pointing
from napari_sam_suite.widgets.promptkeys import Keys
from napari_sam_suite.widgets.showing import Showing, StateLine
from napari_sam_suite.widgets.tab import Tab
from napari_sam_suite.widgets.waiting import Waiting

if TYPE_CHECKING:
    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_sam_suite.widgets.tab import Parts, State

_HINT = (
    f"Click an object. {OUTSIDE} and click: this does not belong to it. "
    "Drag: a box around it."
)
_ALWAYS = ("answers", "prompts_per_batch")
"""Set by the tab itself: one prompt at a time, and all three answers."""


class PromptTab(Tab):
    """Prompts in the viewer while the tab is open."""

    title = "Prompt"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.point = QCheckBox("Point in the image")
        self.point.setChecked(True)
        self.tag = QComboBox()
        self.tag.setEditable(True)
        self.state = StateLine()
        self.advanced = Form(
            PromptParams, [n for n in PromptParams.model_fields if n not in _ALWAYS]
        )
        self.dialogue = Dialogue(parts, self)
        self.turns = self.dialogue.turns
        self.waiting = Waiting(lambda: self.turns.pending)
        self.looking = Looking(parts, self.dialogue, self)
        self.gestures = Gestures(parts.images, self.dialogue, self.waiting, self)
        self.showing = Showing(parts.viewer, self.looking, self.turns, self.state, self)
        self.adding = Adding(parts, self.dialogue, self)
        self.keys = Keys(self)
        self.pointing = Pointing(parts.viewer, self.keys.bound, self.keys.also, self)
        self.carry = CarryBox(parts)
        self._lay_out()
        self._connect()
        self.showing.show()

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
        self.pointing.pointed.connect(self.gestures.click)
        self.pointing.stretching.connect(self.gestures.stretch)
        self.pointing.boxed.connect(self.gestures.box)
        self.gestures.drawing.connect(self.showing.draw)
        for gone in (self.pointing.dropped, self.gestures.dropped):
            gone.connect(self.showing.show)
        self.looking.left.connect(self.waiting.clear)
        self.looking.prepared.connect(self._say_ready)
        self.dialogue.stated.connect(self.state.say)
        self.dialogue.changed.connect(self.showing.show_soon)
        self.dialogue.changed.connect(self.waiting.go_on)
        self.dialogue.failed.connect(self._stop_waiting)
        self.showing.shown.connect(self._show_buttons)
        asking = (self.dialogue, self.adding, self.carry)
        for part in (*asking, self.looking, self.gestures):
            part.said.connect(self.said)
        for part in asking:
            part.failed.connect(self.failed)

    def show_state(self, state: State) -> None:
        """Go on with the image that is looked at now, and with the model."""
        changed = self.looking.follow(state.picture)
        self.carry.show_state(state)
        self.refresh()
        if changed:
            self.showing.show()

    def disconnect_viewer(self) -> None:
        """Stop listening to the viewer."""
        self._listen(False)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Listen to the viewer while the tab is open."""
        super().showEvent(event)
        self.refresh()

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Leave the viewer alone."""
        super().hideEvent(event)
        self._listen(False)

    # -- what can be done now ----------------------------------------------------

    def refresh(self, _: Any = None) -> None:
        """Listen to the viewer if there is something to point at, and prepare it."""
        before, why = self.looking.why, self.looking.look()
        on = self.isVisible() and self.point.isChecked() and not why
        self._listen(on)
        self.state.block(why)
        if on and self.looking.prepare():
            self.state.say("Preparing this frame.")
        elif before and not why:
            self.state.say("Ready." if on else "")
            self.showing.show_again()
        if on:
            self.dialogue.go_on()
        self._show_tags()
        self._show_buttons()

    def _listen(self, on: bool) -> None:
        self.pointing.turn(on)
        if not on:
            self.looking.rest()

    def _use_params(self) -> None:
        """Other parameters: the frame is prepared anew, the last answer as well."""
        try:
            self.dialogue.use(self.params())
        except EngineError as error:
            self.said.emit(str(error))
            return
        self.looking.forget()
        self.refresh()

    def _say_ready(self) -> None:
        self.state.say("Ready.")
        self.showing.show()

    def _stop_waiting(self) -> None:
        """An answer or a frame came to nothing, which the footer tells."""
        self.waiting.clear()
        self.state.stop()

    def _show_tags(self) -> None:
        picture = self.looking.picture
        layer = None if picture is None else self.parts.results.layer_of(picture)
        if layer is None:
            return
        known = [self.tag.itemText(i) for i in range(self.tag.count())]
        used = list(dict.fromkeys(map(str, layer.features.get("tag", []))))
        text = self.tag.currentText()
        self.tag.addItems([tag for tag in used if tag not in known])
        self.tag.setEditText(text)

    def _show_buttons(self) -> None:
        turn = self.turns.last
        shown = None if turn is None else turn.suggestion
        outlined = self.turns.pending or shown is not None
        ready = {
            "commit": outlined or bool(self.turns.kept),
            "next": outlined,
            "undo": self.turns.can_undo,
            "redo": self.turns.can_redo,
            "cycle": turn is not None and len(turn.found) > 1,
            "clear": turn is not None or bool(self.turns.kept),
        }
        self.keys.allow(ready)

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
        self.showing.show()

    def next(self) -> None:
        """Keep this outline, and begin another object."""
        tag = self._tag()
        self.waiting.do(lambda: self._keep(tag), needs_answer=True)

    def _keep(self, tag: str) -> None:
        self.dialogue.keep(tag)
        self.showing.show()

    def commit(self) -> None:
        """Put everything that is outlined into the results."""
        tag = self._tag()
        self.waiting.do(lambda: self._commit(tag), needs_answer=True)

    def _commit(self, tag: str) -> None:
        picture = self.looking.picture
        if picture is None:
            return
        try:
            params = self.params().with_(answers="best")
        except EngineError as error:
            self.said.emit(str(error))
            return
        self.adding.add(picture, params, tag)
        self.showing.show()
        self._show_tags()

    def _tag(self) -> str:
        from napari_sam_suite.engine.features import UNASSIGNED

        return self.tag.currentText().strip() or UNASSIGNED

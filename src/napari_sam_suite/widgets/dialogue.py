"""Prompts of a person and the model's answers, one object after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.widgets.ahead import Ahead
from napari_sam_suite.widgets.bridge import Bridge
from napari_sam_suite.widgets.runner import WAIT
from napari_sam_suite.widgets.turns import Turn, Turns

if TYPE_CHECKING:
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.jobs import Job
    from napari_sam_suite.engine.prompts.interactive import Interactive, Suggestion
    from napari_sam_suite.engine.prompts.params import PromptParams
    from napari_sam_suite.engine.prompts.prompt import Point, Prompt
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.tab import Parts
    from napari_sam_suite.widgets.turns import History


class Dialogue(QObject):
    """Asks the engine what a person points at, and keeps what it says.

    Parameters
    ----------
    parts : Parts
        Of the panel.
    parent : QObject, optional
        Owner.

    Attributes
    ----------
    turns : Turns
        What was said of the present object, and the objects kept for later.

    Signals
    -------
    changed()
        There is something else to show.
    stated(str), ready()
        What the engine is doing for the frame in view; it answers without delay now.
    said(str), failed(Exception)
        A sentence for the user, and what went wrong.
    """

    changed = Signal()
    stated = Signal(str)
    ready = Signal()
    said = Signal(str)
    failed = Signal(object)

    def __init__(self, parts: Parts, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._runner = parts.runner
        self.turns = Turns()
        self._picture: Picture | None = None
        self._ahead = Ahead(parts.models, parts.session, self)
        self._asked: Turn | None = None  # whose answer is on its way
        self._answers = Bridge(self)
        self._answers.finished.connect(self._answered)
        self._ahead.said.connect(self.stated)
        self._ahead.failed.connect(self.failed)
        self._ahead.ready.connect(self.ready)

    def look_at(self, picture: Picture | None) -> None:
        """Go on with this image, which is shown as it was before."""
        self._picture = picture

    def leave(self) -> History | None:
        """Another image is looked at; what was said of this one can come back."""
        self._drop_answer()
        self._ahead.forget()
        return self.turns.leave()

    def look_again(self) -> None:
        """The image is shown in another way, or another model looks at it."""
        self._drop_answer()
        self._ahead.forget()
        self.turns.ask_again()

    def use(self, params: PromptParams) -> None:
        """Answer with other parameters, also what was asked last."""
        self._ahead.use(params)
        self.turns.reopen()
        self.ask_newest()

    def prepare(self, frame: FrameIndex, near: Point) -> None:
        """Encode a frame around a place where clicks are expected."""
        if self._picture is not None and not self._runner.busy:
            self._ahead.prepare(self._picture, frame, near)

    def before(self, frame: FrameIndex) -> Prompt:
        """What is said of the object in a frame up to now."""
        from napari_sam_suite.engine.prompts.prompt import Prompt

        turn = self.turns.last
        return turn.prompt if turn is not None and turn.frame == frame else Prompt()

    def ask(self, prompt: Prompt, frame: FrameIndex) -> None:
        """Say more of the object."""
        if self._runner.busy:
            self.said.emit(WAIT)
            return
        self.turns.add(Turn(replace(prompt, before=None, level=None), frame))
        self.changed.emit()
        self.ask_newest()

    def ask_newest(self) -> None:
        """Have the newest turn answered, if it has not been."""
        self._drop_answer()  # what comes now would be taken for its answer
        turn, picture = self.turns.last, self._picture
        if turn is None or turn.answered or picture is None or self._runner.busy:
            return

        def begin(interactive: Interactive) -> None:
            if turn is not self.turns.last:
                return
            before, after, earlier = self.turns.before, None, None
            if before is not None and not before.again and before.suggestion:
                after, earlier = before.suggestion.answer, before.told
            turn.prompt = replace(turn.prompt, before=earlier)
            self._answers.follow(interactive.ask(turn.prompt, turn.frame, after=after))

        self._asked = turn
        self._ahead.reach(picture, begin)

    def go_on(self) -> None:
        """Have the newest turn answered if nobody was asked yet, as during a run."""
        if self._asked is not self.turns.last:
            self.ask_newest()

    def undo(self) -> None:
        """Take the last click or box back."""
        self.turns.undo()
        self.changed.emit()
        self.ask_newest()

    def redo(self) -> None:
        """Do again what was taken back."""
        self.turns.redo()
        self.changed.emit()
        self.ask_newest()

    def clear(self) -> None:
        """Forget all clicks and outlines."""
        self._drop_answer()
        self.turns.clear()
        self.changed.emit()

    def keep(self, tag: str) -> None:
        """Finish the object, if it has an outline, and begin another one."""
        turn, picture = self.turns.last, self._picture
        if turn is None or picture is None:
            return
        shown = turn.suggestion
        if shown is None:
            self.turns.begin()
            return
        prompt = replace(turn.prompt, tag=tag)

        def keep(interactive: Interactive) -> None:
            objects = interactive.objects(prompt, shown.answer, turn.frame)
            self.turns.keep(tag, objects)

        self._ahead.reach(picture, keep)

    def _drop_answer(self) -> None:
        """Let the answer go that is on its way."""
        self._asked = None
        self._answers.drop()

    def _answered(self, job: Job[list[Suggestion]]) -> None:
        turn, self._asked = self.turns.last, None
        if isinstance(job.error, Cancelled) or turn is None:
            return
        if job.error is not None and turn.again:
            turn.answered = True  # without an outline, until something changes
            self.failed.emit(job.error)
        elif job.error is not None:
            self.turns.drop()
            self.failed.emit(job.error)
            self.ask_newest()
        else:
            turn.answered, turn.again = True, False
            turn.found = found = [s for s in job.result() if s.polygon is not None]
            turn.chosen = 0
            if not found:
                self.said.emit("There is nothing; click elsewhere, or drag a box.")
        self.changed.emit()

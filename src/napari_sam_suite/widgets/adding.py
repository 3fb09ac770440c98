"""What is outlined goes into the results, and comes out of them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.added import Added
from napari_sam_suite.widgets.gradual import is_gone
from napari_sam_suite.widgets.runner import WAIT
from napari_sam_suite.widgets.turns import as_json

if TYPE_CHECKING:
    from napari_sam_suite.engine.prompts.params import PromptParams
    from napari_sam_suite.widgets.dialogue import Dialogue
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.tab import Parts
    from napari_sam_suite.widgets.turns import Turn


class Adding(QObject):
    """The steps of a dialogue that reach into the results, there and back.

    Parameters
    ----------
    parts : Parts
        Of the panel.
    dialogue : Dialogue
        What is said, and what is outlined.
    parent : QObject, optional
        Owner.

    Signals
    -------
    said(str), failed(Exception)
        For the status line.
    """

    said = Signal(str)
    failed = Signal(object)

    def __init__(
        self, parts: Parts, dialogue: Dialogue, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._parts, self._results = parts, parts.results
        self._dialogue, self._turns = dialogue, dialogue.turns
        self._results.stepped.connect(self._follow)

    def add(self, picture: Picture, params: PromptParams, tag: str) -> None:
        """Put everything that is outlined into the results, as a run of its own."""
        since = self._turns.now
        self._dialogue.keep(tag)
        turns = self._turns.take(since)
        if turns:
            added = self._draw(picture, params, turns)
            self._turns.remember(added)
            self.said.emit(f"Added {added}.")

    def undo(self) -> None:
        """Take the last step back; what it added is taken out of the results again."""
        added = self._turns.added
        if added is not None:
            why = self._why_kept(added)
            if why:
                self.said.emit(why)
                return
            if self._results.done(added.run):
                self._results.undo()
            self.said.emit(f"Took {added} out of the results; the clicks are back.")
        self._dialogue.undo()

    def redo(self) -> None:
        """Do the step again that was taken back last."""
        added = self._turns.withdrawn
        if added is None or self._results.done(added.run):
            self._dialogue.redo()
            return
        why = self._why_away(added)
        if not why:
            self._results.redo()  # and so does the dialogue
        self.said.emit(why or f"Added {added}.")

    def _follow(self) -> None:
        """Objects were brought back: their clicks are done with."""
        added = self._turns.withdrawn
        if added is not None and self._results.done(added.run):
            self._dialogue.redo()

    def _why_kept(self, added: Added) -> str:
        """Why objects cannot be taken out again; empty if they can, or are gone."""
        if not self._results.done(added.run):
            return ""
        if why := self._why_wait():
            return why
        if self._results.last is not added.run:
            return "The results changed since; take that back first with Undo run."
        if is_gone(self._parts.viewer, added.run):
            return "The layer with the added objects was removed; click them anew."
        if not added.is_as_drawn():
            return "What was added was changed since; only Undo run takes it away."
        return ""

    def _why_away(self, added: Added) -> str:
        """Why objects cannot be put in again; empty if they can."""
        if why := self._why_wait():
            return why
        if self._results.next is not added.run:
            return "The results changed since; Enter adds the objects anew."
        return ""

    def _why_wait(self) -> str:
        """Why nothing can be done to the results now; empty if it can."""
        if self._parts.runner.busy:
            return WAIT
        self._results.reveal()
        return "" if self._results.settled else "Wait until all objects are drawn."

    def _draw(self, picture: Picture, params: PromptParams, turns: list[Turn]) -> Added:
        from napari_sam_suite.engine.losses import Losses
        from napari_sam_suite.engine.objects import Objects
        from napari_sam_suite.engine.run import FrameResult

        frames = list(dict.fromkeys(turn.frame for turn in turns))
        recipe = self._parts.recipe(picture, params, frames)
        recipe |= {"capability": "prompt", "prompts": as_json(turns)}
        run = self._results.begin(picture, recipe, "add")
        found = []
        for turn in turns:
            if turn.objects is not None:
                result = FrameResult(turn.frame, turn.objects, Losses())
                self._results.add(run, result)
                found.append(turn.objects)
        self._results.finish(run)
        return Added(run, Objects.concat(found))

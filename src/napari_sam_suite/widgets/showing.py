"""What is shown of prompts and their answers: in the viewer, and in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QLabel

from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.widgets.sketch import Sketch
from napari_sam_suite.widgets.turns import outlines

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_sam_suite.engine.prompts.prompt import Prompt
    from napari_sam_suite.widgets.looking import Looking
    from napari_sam_suite.widgets.turns import Turn, Turns

_PATIENCE = 50  # ms that a prompt waits to be drawn together with its answer
_ANSWER = "Answer"


class StateLine(QLabel):
    """Says why nothing can be clicked, how far the engine is, or what it answered."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self._why = ""

    def block(self, why: str) -> None:
        """Say why nothing can be clicked, and nothing else until it is empty."""
        self._why = why
        if why:
            self.setText(why)

    def say(self, text: str) -> None:
        """Say how far the engine is."""
        if not self._why:
            self.setText(text)

    def tell(self, turn: Turn | None) -> None:
        """Say which answer is shown; nothing new where there is none."""
        suggestion = None if turn is None else turn.suggestion
        if turn is not None and suggestion is not None:
            self.say(
                f"{_ANSWER} {turn.chosen + 1} of {len(turn.found)}, "
                f"score {suggestion.answer.score:.2f}."
            )
        elif self._tells:
            self.say("Ready.")

    def stop(self) -> None:
        """Say no longer how far the engine is; the footer tells why it failed."""
        if not self._tells:
            self.say("")

    @property
    def _tells(self) -> bool:
        return self.text().startswith(_ANSWER)


class Showing(QObject):
    """Draws what is said and outlined, and tells which answer it is.

    Parameters
    ----------
    viewer : ViewerModel
        Where to draw.
    looking : Looking
        On which image.
    turns : Turns
        What is said and outlined.
    line : StateLine
        Where to tell.
    parent : QObject, optional
        Owner.

    Attributes
    ----------
    sketch : Sketch
        What is drawn.

    Signals
    -------
    shown()
        What is said now is in view.
    """

    shown = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        looking: Looking,
        turns: Turns,
        line: StateLine,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._looking = viewer, looking
        self._turns, self._line = turns, line
        self.sketch = Sketch(viewer)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_PATIENCE)
        self._later.timeout.connect(self.show)

    def show(self) -> None:
        """Show what is said now."""
        self._later.stop()
        turn = self._turns.last
        if turn is None:
            self.draw(None, FrameIndex())
        else:
            self.draw(turn.prompt, turn.frame)
        self._line.tell(turn)
        self.shown.emit()

    def show_soon(self) -> None:
        """Show a prompt with its answer, or without where that takes long.

        To draw costs more than a model's answer, if the frame is prepared.
        """
        if not self._turns.pending:
            self.show()
        elif not self._later.isActive():
            self._later.start()

    def show_again(self) -> None:
        """Show what came while nothing could be drawn."""
        self._line.tell(self._turns.last)
        self._later.start()

    def draw(self, prompt: Prompt | None, frame: FrameIndex) -> None:
        """Draw a prompt, which may not have been said yet, and all that is outlined."""
        if self._viewer.dims.ndisplay != 2:
            return  # napari fails to add flat shapes in 3-D
        picture, turn, kept = self._looking.picture, self._turns.last, self._turns.kept
        if picture is None or (prompt is None and not kept):
            self.sketch.clear()
            return
        now = outlines([] if turn is None else [turn])
        self.sketch.show(picture, frame, prompt, now, outlines(kept))

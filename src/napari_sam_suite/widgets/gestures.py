"""What clicks and drags say of an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_sam_suite.engine.errors import EngineError
from napari_sam_suite.widgets.aim import with_box, with_point

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.prompts.prompt import Prompt
    from napari_sam_suite.widgets.dialogue import Dialogue
    from napari_sam_suite.widgets.images import ImageChooser
    from napari_sam_suite.widgets.waiting import Waiting


class Gestures(QObject):
    """Goes on with a dialogue as the mouse says.

    All places are given in world coordinates, with an axis for each slider.

    Parameters
    ----------
    images : ImageChooser
        The image, and what its axes are.
    dialogue : Dialogue
        What was said before.
    waiting : Waiting
        What comes first.
    parent : QObject, optional
        Owner.

    Signals
    -------
    drawing(Prompt, FrameIndex)
        What would be said if the button were let go now.
    dropped()
        A box has come to nothing.
    said(str)
        For the status line.
    """

    drawing = Signal(object, object)
    dropped = Signal()
    said = Signal(str)

    def __init__(
        self,
        images: ImageChooser,
        dialogue: Dialogue,
        waiting: Waiting,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._images, self._dialogue, self._waiting = images, dialogue, waiting

    def click(self, world: ArrayLike, inside: bool) -> None:
        """Something belongs to the object, or does not."""
        aim = self._images.aim()
        try:
            point, frame = aim.point(world), aim.frame(world)
        except EngineError as error:
            self.said.emit(str(error))
            return
        self._say(frame, lambda before: with_point(before, point, inside))

    def stretch(self, one: ArrayLike, other: ArrayLike) -> None:
        """A box is being drawn."""
        aim = self._images.aim()
        frame, box = aim.frame(one), aim.corners(one, other)
        self.drawing.emit(with_box(self._dialogue.before(frame), box), frame)

    def box(self, one: ArrayLike, other: ArrayLike) -> None:
        """The object is in this box."""
        aim = self._images.aim()
        try:
            box, frame = aim.box(one, other), aim.frame(one)
        except EngineError as error:
            self.said.emit(str(error))
            self.dropped.emit()
            return
        self._say(frame, lambda before: with_box(before, box))

    def _say(self, frame: FrameIndex, more: Callable[[Prompt], Prompt]) -> None:
        """Say more of the object in a frame, after what waits already."""

        def say() -> None:
            try:
                prompt = more(self._dialogue.before(frame))
            except EngineError as error:
                self.said.emit(str(error))
                return
            self._dialogue.ask(prompt, frame)

        self._waiting.do(say)

"""What was said about objects, click by click, and the way back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shapely import MultiPolygon, Polygon

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.prompts.interactive import Suggestion
    from napari_sam_suite.engine.prompts.prompt import Prompt

    Outline = tuple[Polygon | MultiPolygon, FrameIndex]


@dataclass(eq=False)
class Turn:
    """What is said about one object after a click, and what was answered.

    The answer may never come: the next click, or taking this one back, is in its way.
    `objects` is the outline that was chosen, once it is kept. `again`: its answer was
    to the image as it was shown before, or another model's.
    """

    prompt: Prompt
    frame: FrameIndex
    answered: bool = False
    found: list[Suggestion] = field(default_factory=list)
    chosen: int = 0
    objects: Objects | None = None
    again: bool = False

    @property
    def suggestion(self) -> Suggestion | None:
        """The answer that is shown."""
        return self.found[self.chosen] if self.found else None

    def forget_answer(self) -> None:
        """It has to be answered again, by itself."""
        self.prompt = replace(self.prompt, before=None)
        self.answered, self.found, self.chosen, self.again = False, [], 0, True

    @property
    def told(self) -> Prompt:
        """The prompt, with the answer that was chosen if it is not the best."""
        shown = self.suggestion
        other = shown is not None and self.chosen > 0
        level = shown.answer.level if shown is not None and other else None
        return replace(self.prompt, level=level)


Said = tuple[list[Turn], list[Turn]]
"""The clicks on the present object, and the objects kept for later."""


class Turns:
    """The clicks on one object, and the objects that wait to be added.

    Attributes
    ----------
    undone : list of Turn
        Taken back; the next to come again is the last.
    kept : list of Turn
        One for each object that is finished.
    """

    def __init__(self) -> None:
        self._turns: list[Turn] = []
        self._cleared: Said = [], []
        self.undone: list[Turn] = []
        self.kept: list[Turn] = []

    @property
    def last(self) -> Turn | None:
        """The newest turn."""
        return self._turns[-1] if self._turns else None

    @property
    def before(self) -> Turn | None:
        """The turn that the newest one goes on from."""
        return self._turns[-2] if len(self._turns) > 1 else None

    def add(self, turn: Turn) -> None:
        """Go on; what was taken back is gone."""
        self._turns.append(turn)
        self.undone.clear()

    def drop(self) -> None:
        """Forget the newest turn, which could not be answered."""
        del self._turns[-1:]

    @property
    def can_undo(self) -> bool:
        """Whether there is anything to take back."""
        return bool(self._turns or self.kept or any(self._cleared))

    def undo(self) -> None:
        """Take the newest turn back; without one, go on with the object kept last.

        Where there is nothing at all, what was cleared comes back.
        """
        if self._turns:
            self.undone.append(self._turns.pop())
        elif self.kept:
            *self.kept, last = self.kept
            if last.again:
                last.forget_answer()
            self._turns = [last]
        else:
            self._turns, self.kept = self._cleared
            self._cleared = [], []

    def redo(self) -> None:
        """Bring back the turn that was taken back last."""
        if self.undone:
            self._turns.append(self.undone.pop())

    def cycle(self) -> None:
        """Choose the next answer of the newest turn."""
        if self._turns and self._turns[-1].found:
            turn = self._turns[-1]
            turn.chosen = (turn.chosen + 1) % len(turn.found)

    def stay_in(self, frame: FrameIndex) -> None:
        """Begin another object if the newest turn is in another frame."""
        if self._turns and self._turns[-1].frame != frame:
            self._turns.clear()
            self.undone.clear()

    def keep(self, tag: str, objects: Objects) -> None:
        """Finish the object, which has an outline, with a tag."""
        turn = self._turns[-1]
        turn.prompt = replace(turn.prompt, tag=tag)
        turn.objects = objects
        self.kept = [*self.kept, turn]
        self._turns = []
        self.undone = []

    def take(self) -> list[Turn]:
        """The objects that are finished, which are forgotten here."""
        found, self.kept = self.kept, []
        self._cleared = [], []
        return found

    def clear(self) -> None:
        """Begin anew; `undo` brings everything back."""
        if self._turns or self.kept:
            self._cleared = self._turns, self.kept
        self._turns, self.undone, self.kept = [], [], []

    def begin(self) -> None:
        """Go on with another object; what was said of this one is forgotten."""
        self._turns = []

    def leave(self) -> Said | None:
        """Begin anew for good, and give what was said, for `come_back`."""
        found = self._turns, self.kept
        self._turns, self.undone, self.kept = [], [], []
        self._cleared = [], []
        return found if any(found) else None

    def come_back(self, found: Said) -> None:
        """Go on with what `leave` gave."""
        self._turns, self.kept = found

    def ask_again(self) -> None:
        """Have the newest turn answered anew, by itself.

        Finished objects stay as they are; they are asked again if `undo` opens them.
        """
        for turns in (self._turns, self._cleared[0]):
            del turns[:-1]
            for turn in turns:
                turn.forget_answer()
        self.undone.clear()
        for turn in (*self.kept, *self._cleared[1]):
            turn.again = True


def outlines(turns: Iterable[Turn]) -> list[Outline]:
    """The outlines that are shown of some objects, each with its frame."""
    shown = [(turn.suggestion, turn.frame) for turn in turns]
    return [
        (one.polygon, frame)
        for one, frame in shown
        if one is not None and one.polygon is not None
    ]


def as_json(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    """The prompts of finished objects, for a recipe."""
    return [_as_json(turn.told, turn.frame) for turn in turns]


def _as_json(prompt: Prompt, frame: FrameIndex) -> dict[str, Any]:
    before = prompt.before
    return {
        "inside": [list(point) for point in prompt.inside],
        "outside": [list(point) for point in prompt.outside],
        "box": None if prompt.box is None else list(prompt.box),
        "tag": prompt.tag,
        "level": prompt.level,
        "before": None if before is None else _as_json(before, frame),
        "frame": list(frame),
    }

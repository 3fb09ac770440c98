"""What was said about objects, click by click, and the way back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shapely import MultiPolygon, Polygon

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.prompts.interactive import Suggestion
    from napari_sam_suite.engine.prompts.prompt import Prompt
    from napari_sam_suite.widgets.added import Added

    Outline = tuple[Polygon | MultiPolygon, FrameIndex]

_STEPS = 50
"""Steps that can be taken back; each holds on to its answers."""


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


class Said(NamedTuple):
    """What is said at one time.

    Attributes
    ----------
    turns : tuple of Turn
        The clicks on the present object.
    kept : tuple of Turn
        One for each object that is finished.
    """

    turns: tuple[Turn, ...] = ()
    kept: tuple[Turn, ...] = ()


@dataclass(frozen=True, eq=False)
class _Step:
    """One step back or forth: what is said there, and what it does to the results."""

    said: Said
    added: Added | None = None


class History(NamedTuple):
    """What is said, and the steps from there, for `Turns.come_back`."""

    now: Said
    done: list[_Step]
    undone: list[_Step]


class Turns:
    """The clicks on one object, the objects that wait to be added, and the way back."""

    def __init__(self) -> None:
        self._now = Said()
        self._done: list[_Step] = []
        self._undone: list[_Step] = []

    @property
    def last(self) -> Turn | None:
        """The newest turn."""
        return self._now.turns[-1] if self._now.turns else None

    @property
    def before(self) -> Turn | None:
        """The turn that the newest one goes on from."""
        return self._now.turns[-2] if len(self._now.turns) > 1 else None

    @property
    def pending(self) -> bool:
        """Whether the newest turn is still to be answered."""
        return self.last is not None and not self.last.answered

    @property
    def kept(self) -> list[Turn]:
        """One for each object that is finished."""
        return list(self._now.kept)

    @property
    def now(self) -> Said:
        """What is said at present."""
        return self._now

    @property
    def can_undo(self) -> bool:
        """Whether there is anything to take back."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether anything was taken back that can come again."""
        return bool(self._undone)

    @property
    def added(self) -> Added | None:
        """What is in the results, where `undo` goes back to before it was added."""
        return self._done[-1].added if self._done else None

    @property
    def withdrawn(self) -> Added | None:
        """What was in the results, where `redo` adds it again."""
        return self._undone[-1].added if self._undone else None

    def add(self, turn: Turn) -> None:
        """Go on, or begin another object if the turn is in another frame."""
        turns = self._now.turns if self.in_frame(turn.frame) else ()
        self._do(self._now._replace(turns=(*turns, turn)))

    def in_frame(self, frame: FrameIndex) -> bool:
        """Whether something is said of an object in this frame."""
        return self.last is not None and self.last.frame == frame

    def drop(self) -> None:
        """Forget the newest turn, which could not be answered."""
        before = Said(self._now.turns[:-1], self._now.kept)
        self._undone.clear()
        self._arrive(self._done.pop().said if self._done else before)

    def undo(self) -> None:
        """Take the newest step back: a click, a finished object, what was cleared."""
        if self._done:
            step = self._done.pop()
            self._undone.append(_Step(self._now, step.added))
            self._arrive(step.said)

    def redo(self) -> None:
        """Do the step again that was taken back last."""
        if self._undone:
            step = self._undone.pop()
            self._done.append(_Step(self._now, step.added))
            self._arrive(step.said)

    def cycle(self) -> None:
        """Choose the next answer of the newest turn; what was taken back is gone."""
        turn = self.last
        if turn is not None and turn.found:
            turn.chosen = (turn.chosen + 1) % len(turn.found)
            self._undone.clear()

    def reopen(self) -> None:
        """Have the newest turn answered once more; what was taken back is gone."""
        if self.last is not None:
            self.last.answered = False
            self._undone.clear()

    def keep(self, tag: str, objects: Objects) -> None:
        """Finish the object, which has an outline, with a tag."""
        turn = self._now.turns[-1]
        turn.prompt = replace(turn.prompt, tag=tag)
        turn.objects = objects
        self._do(Said((), (*self._now.kept, turn)))

    def take(self, since: Said | None = None) -> list[Turn]:
        """The objects that are finished, which are forgotten here.

        Parameters
        ----------
        since : Said, optional
            Where `undo` goes back to; what was said before the last one was finished.
        """
        taken = self.kept
        if taken:
            if since is not None and self._done and self._done[-1].said is since:
                self._now = self._done.pop().said
            self._do(self._now._replace(turns=(), kept=()))
        return taken

    def remember(self, added: Added) -> None:
        """Note what became of the objects that were taken."""
        self._done[-1] = replace(self._done[-1], added=added)

    def clear(self) -> None:
        """Begin anew; `undo` brings everything back."""
        if any(self._now):
            self._do(Said())

    def begin(self) -> None:
        """Go on with another object; `undo` goes back to this one."""
        self._do(self._now._replace(turns=()))

    def leave(self) -> History | None:
        """Begin anew for good, and give what was said, for `come_back`."""
        found = History(self._now, self._done, self._undone)
        self._now, self._done, self._undone = Said(), [], []
        return found if any(found.now) or found.done else None

    def come_back(self, found: History) -> None:
        """Go on with what `leave` gave."""
        self._now, self._done, self._undone = found

    def ask_again(self) -> None:
        """Have the newest turn answered anew, by itself.

        Finished objects stay as they are. They, and earlier turns, are asked again if
        `undo` or `redo` leads to them.
        """
        steps = (*self._done, *self._undone)
        for said in (self._now, *(step.said for step in steps)):
            for turn in (*said.turns, *said.kept):
                turn.again = True
        if self.last is not None:
            self.last.forget_answer()
            self._undone.clear()

    def _do(self, said: Said) -> None:
        """Make a step that can be taken back; what was taken back before is gone."""
        self._done.append(_Step(self._now))
        del self._done[:-_STEPS]
        self._undone.clear()
        self._now = said

    def _arrive(self, said: Said) -> None:
        self._now = said
        if self.last is not None and self.last.again:
            self.last.forget_answer()
            self._undone.clear()  # it may become another outline than what was kept


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

"""What can go wrong, said to the person who has to act on it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sam_suite.engine.objects import Objects

_NAMED = re.compile(r"`([a-z][a-z_]*)`")


class EngineError(Exception):
    """A failure the user can understand and act on.

    What the user can set is written between backquotes, by its name in Python, as in
    "Give `axes`": a door puts the name in there under which it offers that setting.

    Parameters
    ----------
    message : str
        One sentence: what happened, naming the file, field or value.
    hint : str, optional
        One sentence: what to do next.

    Attributes
    ----------
    message, hint : str
        In the words of Python: without the backquotes.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self._written = message, hint
        self.message, self.hint = self.worded(str)

    def worded(self, word: Callable[[str], str]) -> tuple[str, str]:
        """Message and hint in the words of a door.

        Parameters
        ----------
        word : callable
            Gives the door's name of a setting from that in Python, such as
            ``"--axes"`` for ``"axes"``.
        """
        message, hint = (reworded(text, word) for text in self._written)
        return message, hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


def reworded(text: str, word: Callable[[str], str]) -> str:
    """Put a door's words in the place of the names between backquotes."""
    return _NAMED.sub(lambda match: word(match[1]), text)


class ImageError(EngineError):
    """The image cannot be read, or its axes are not what they should be."""


class UnreadFrames(ImageError):
    """Some frames of an image could not be read; the others were done.

    Attributes
    ----------
    objects : Objects
        What was found in the others.
    """

    def __init__(self, message: str, hint: str, objects: Objects) -> None:
        super().__init__(message, hint)
        self.objects = objects


class FrameError(EngineError):
    """A frame selection does not fit the image."""


class ParameterError(EngineError):
    """A parameter, prompt or recipe has a value that makes no sense."""


class ModelError(EngineError):
    """The model is unknown, missing, damaged or of the wrong kind."""


class CheckpointMissing(ModelError):
    """The model is known but its checkpoint is not on this machine."""


class OutputError(EngineError):
    """A result cannot be written where it was asked for."""


class MissingExtra(EngineError):
    """An optional package is needed; the hint names the command that installs it."""


class OutOfMemory(EngineError):
    """The device has too little memory even for the smallest batch."""


class Cancelled(EngineError):
    """The user stopped the work; what was finished is kept."""

    def __init__(self, message: str = "Stopped.", hint: str = "") -> None:
        super().__init__(message, hint)

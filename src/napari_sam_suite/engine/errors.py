"""What can go wrong, said to the person who has to act on it."""

from __future__ import annotations


class EngineError(Exception):
    """A failure the user can understand and act on.

    Parameters
    ----------
    message : str
        One sentence: what happened, naming the file, field or value.
    hint : str, optional
        One sentence: what to do next.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ImageError(EngineError):
    """The image cannot be read, or its axes are not what they should be."""


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

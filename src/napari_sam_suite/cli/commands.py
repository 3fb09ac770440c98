"""All commands: their order in the help, and what they say of a number that is none."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

_SECTIONS = (
    ("Begin", ("demo", "doctor", "models")),
    ("Find objects", ("segment", "prompt", "few-shot", "propagate")),
    ("Whole experiments", ("run", "collect")),
    ("Look at what was found", ("hierarchy", "evaluate")),
    ("Models of your own", ("finetune", "export-onnx")),
)
_WORDS = (
    ("valid integer", "it should be a whole number."),
    ("valid number", "it should be a number."),
)
"""What pydantic, and with it typer, says of a text that is no number; and we."""
_WIDE = 200


class Commands(TyperGroup):
    """The application, whose help lists the commands as a person needs them."""

    # Typer brings click along or depends on it, by its version: hence Any.
    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the sections."""
        order = [name for _, names in _SECTIONS for name in names]
        return sorted(super().list_commands(ctx), key=[*order, *self.commands].index)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one list per section, with whole sentences."""
        names = self.list_commands(ctx)
        known = {name for _, section in _SECTIONS for name in section}
        others = tuple(name for name in names if name not in known)
        for title, section in (*_SECTIONS, ("Other", others)):
            rows = [
                (name, self.commands[name].get_short_help_str(_WIDE))
                for name in names
                if name in section
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a number that is none is said in our words."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            for theirs, ours in _WORDS:
                if theirs in error.message:
                    error.message = ours
            raise

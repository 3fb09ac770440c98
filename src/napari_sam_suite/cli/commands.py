"""All commands: their order in the help, and what they say of a number that is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from napari_sam_suite.cli.console import print_json

if TYPE_CHECKING:
    from typing import NoReturn

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
# Typer brings click along or depends on it, by its version: this is of either.
_UsageError: Any = typer.BadParameter.__base__


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

    def make_context(self, info_name: Any, args: Any, *more: Any, **extra: Any) -> Any:
        """Read the flags in front of the command; what is wrong is JSON if asked."""
        as_json = _asks_json(args)
        try:
            ctx = super().make_context(info_name, args, *more, **extra)
        except _UsageError as error:
            _refuse(error, info_name, as_json=as_json)
        ctx.meta[__name__] = as_json
        return ctx

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a number that is none is said in our words."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            if isinstance(error, typer.BadParameter):
                for theirs, ours in _WORDS:
                    if theirs in error.message:
                        error.message = ours
            _refuse(error, ctx.command_path, as_json=ctx.meta.get(__name__, False))


def _asks_json(arguments: list[str]) -> bool:
    """Whether --json is among the flags, whatever else is wrong with them."""
    end = arguments.index("--") if "--" in arguments else None
    return "--json" in arguments[:end]


def _refuse(error: Any, command: str, *, as_json: bool) -> NoReturn:
    """Say for machines how a command was called wrongly, or leave it to Typer."""
    if not as_json:
        raise error
    if error.ctx is not None:
        command = error.ctx.command_path
    message = error.format_message().strip().rstrip(".") + "."
    hint = f"{command} --help says what there is."
    print_json({"error": {"message": message, "hint": hint}})
    raise typer.Exit(error.exit_code) from error

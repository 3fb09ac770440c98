"""A command's flags, drawn from a parameter model."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pydantic.fields import FieldInfo

    from napari_sam_suite.engine.params import Params


class GroupedCommand(TyperCommand):
    """A command whose help lists flags under the headings of their groups.

    Typer draws its panels in boxes, which cut long flags off in a narrow terminal.
    """

    # Typer brings click along or depends on it, by its version: hence Any.
    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one list per group, in the order of the flags."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is not None:
                name = getattr(parameter, "rich_help_panel", None)
                groups.setdefault(name or "Other", []).append(row)
        for name, rows in groups.items():
            with formatter.section(name):
                formatter.write_dl(rows)


def with_params(
    model: type[Params], *, without: Collection[str] = (), into: str = "params"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for each field of `model`.

    The command is called with ``params``, or what `into` calls it: a dict of the flags
    that were given; what was not given keeps its default. Fields named in `without` get
    no flag.
    """
    fields = {n: f for n, f in model.model_fields.items() if n not in without}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def call(*args: Any, **kwargs: Any) -> None:
            given = {name: kwargs.pop(name) for name in fields}
            given = {name: value for name, value in given.items() if value is not None}
            command(*args, **{into: given}, **kwargs)

        own = inspect.signature(command, eval_str=True)
        parameters = [p for n, p in own.parameters.items() if n != into]
        groups = {name: title for title, names in model.groups for name in names}
        parameters += [
            _flag(name, field, groups.get(name, "Settings"), model.left_open)
            for name, field in sorted(
                fields.items(), key=lambda f: [*groups, f[0]].index(f[0])
            )
        ]
        call.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    return decorate


def _flag(name: str, field: FieldInfo, group: str, left_open: str) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    kind, choices = _kind(field.annotation)
    if kind is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    default = _said(field.default, left_open)
    bounds = _bounds(field)
    text = " ".join(
        part
        for part in (
            field.description,
            f"One of: {', '.join(choices)}." if choices else "",
            f"({bounds}{default})",
        )
        if part
    )
    option = typer.Option(flag, help=text, show_default=False, rich_help_panel=group)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _said(default: object, left_open: str) -> str:
    """How a default is told to a person."""
    if default is None:
        return f"default: {left_open}"
    if isinstance(default, bool):
        return f"default: {'yes' if default else 'no'}"
    return (
        f"default: {default:.3g}"
        if isinstance(default, float)
        else (f"default: {default}")
    )


def _kind(annotation: Any) -> tuple[type, list[str]]:
    """The type that the command line reads, and what may be said, if not anything."""
    if get_origin(annotation) is Literal:
        return str, [str(a) for a in get_args(annotation)]
    options = [a for a in get_args(annotation) if a is not type(None)]
    words = [w for a in options if get_origin(a) is Literal for w in get_args(a)]
    if words:
        return str, ["a number", *words]
    return (options[0] if options else annotation), []


def _bounds(field: FieldInfo) -> str:
    limits = {type(m).__name__.lower(): m for m in field.metadata}
    low = getattr(limits.get("ge"), "ge", None)
    high = getattr(limits.get("le"), "le", None)
    return f"{low} to {high}; " if low is not None and high is not None else ""

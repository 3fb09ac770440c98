"""A command's flags, drawn from a parameter model."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic.fields import FieldInfo

    from napari_sam_suite.engine.params import Params


def with_params(
    model: type[Params],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for each field of `model`.

    The command is called with ``params``, a dict of the flags that were given; what
    was not given keeps its default.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def call(*args: Any, **kwargs: Any) -> None:
            given = {name: kwargs.pop(name) for name in model.model_fields}
            given = {name: value for name, value in given.items() if value is not None}
            command(*args, params=given, **kwargs)

        own = inspect.signature(command, eval_str=True)
        parameters = [p for n, p in own.parameters.items() if n != "params"]
        parameters += [_flag(n, f) for n, f in model.model_fields.items()]
        call.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    return decorate


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    kind, choices = _kind(field.annotation)
    if kind is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    default = "suits the model" if field.default is None else str(field.default)
    bounds = _bounds(field)
    text = " ".join(
        part
        for part in (
            field.description,
            f"One of: {', '.join(choices)}." if choices else "",
            f"({bounds}default: {default})",
        )
        if part
    )
    option = typer.Option(
        flag, help=text, show_default=False, rich_help_panel="Parameters"
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
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

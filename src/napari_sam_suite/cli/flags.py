"""A command's flags, drawn from a parameter model."""

from __future__ import annotations

import inspect
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

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


def flag(
    name: str, annotation: Any, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    """A parameter of a command; without a default it has to be given."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def expand(
    command: Callable[..., None],
    into: str,
    flags: Sequence[inspect.Parameter],
    gather: Callable[[dict[str, Any]], Any],
    *,
    last: bool = False,
) -> Callable[..., None]:
    """Give a command several flags in the place of one parameter.

    Parameters
    ----------
    command : callable
        Called with what `gather` makes of the flags.
    into : str
        The parameter that the flags stand for.
    flags : sequence of inspect.Parameter
        See `flag`.
    gather : callable
        Takes all values of the flags by name.
    last : bool
        Put the flags behind all others, and not where the parameter is.
    """

    @wraps(command)
    def call(*args: Any, **kwargs: Any) -> None:
        given = {one.name: kwargs.pop(one.name) for one in flags}
        command(*args, **{into: gather(given)}, **kwargs)

    own = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for name, parameter in own.parameters.items():
        here = [] if last else list(flags)
        parameters += here if name == into else [parameter]
    parameters += flags if last else []
    call.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


def with_params(
    model: type[Params], *, without: Collection[str] = (), into: str = "params"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for each field of `model`.

    The command is called with ``params``, or what `into` calls it: a dict of the flags
    that were given; what was not given keeps its default. Fields named in `without` get
    no flag.
    """
    fields = {n: f for n, f in model.model_fields.items() if n not in without}
    groups = {name: title for title, names in model.groups for name in names}
    order = sorted(fields.items(), key=lambda f: [*groups, f[0]].index(f[0]))
    flags = [
        _flag(name, field, groups.get(name, "Settings"), model.left_open)
        for name, field in order
    ]

    def gather(values: dict[str, Any]) -> dict[str, Any]:
        return {name: values[name] for name in fields if values[name] is not None}

    return partial(expand, into=into, flags=flags, gather=gather, last=True)


def _flag(name: str, field: FieldInfo, group: str, left_open: str) -> inspect.Parameter:
    spelt = "--" + name.replace("_", "-")
    kind, choices = _kind(field.annotation)
    if kind is bool:
        spelt = f"{spelt}/--no-{spelt[2:]}"
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
    option = typer.Option(spelt, help=text, show_default=False, rich_help_panel=group)
    return flag(name, Annotated[kind | None, option], None)


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

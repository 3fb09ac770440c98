"""What all commands share on the terminal: errors, progress, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from napari_sam_suite.engine.errors import EngineError

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

Show = Callable[[int, int, str], None]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

INTERRUPTED = 130
"""Exit code of a command stopped with Ctrl-C."""


@contextmanager
def errors(
    *, as_json: bool, stopped: str = "Stopped; what was finished is kept."
) -> Iterator[None]:
    """Turn what can go wrong into one sentence and an exit code."""
    try:
        yield
    except EngineError as error:
        print_error(error, as_json=as_json)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo(stopped, err=True)
        raise typer.Exit(INTERRUPTED) from None


def print_error(error: EngineError, *, as_json: bool, about: str = "") -> None:
    """Print a sentence and its hint: on standard error, or as JSON.

    A sentence that does not name what it is `about` is led by it.
    """
    if as_json:
        print_json({"error": error.message, "hint": error.hint})
        return
    lead = f"{escape(about)}: " if about and about not in error.message else ""
    text = f"[red]Error:[/red] {lead}{escape(error.message)}\n{escape(error.hint)}"
    Console(stderr=True).print(text.rstrip(), soft_wrap=True)


@contextmanager
def progress_bar(*, quiet: bool, download: bool = False) -> Iterator[Show | None]:
    """A bar on standard error with the time left; nothing if `quiet`."""
    if quiet:
        yield None
        return
    from rich import progress as rich_progress

    columns: list[ProgressColumn] = [
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
    ]
    if download:
        columns += [
            rich_progress.DownloadColumn(),
            rich_progress.TransferSpeedColumn(),
        ]
    else:
        columns += [rich_progress.TaskProgressColumn()]
    columns += [
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
    ]
    console = Console(stderr=True)
    with rich_progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int, text: str) -> None:
            bar.update(
                task, completed=done, total=total or None, description=escape(text)
            )

        yield show


def print_json(content: object) -> None:
    """Print `content` for machines."""
    typer.echo(json.dumps(content, indent=2))

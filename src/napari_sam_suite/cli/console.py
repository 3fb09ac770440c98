"""What all commands share on the terminal: errors, progress, JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from napari_sam_suite.engine.errors import EngineError, OutOfMemory

if TYPE_CHECKING:
    from typing import NoReturn

    from rich.progress import ProgressColumn
    from rich.table import Table

Show = Callable[[int, int, str], None]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

INTERRUPTED = 130
"""Exit code of a command stopped with Ctrl-C or SIGTERM."""

# Flags that are not called as in Python.
_FLAGS = {"folder": "--checkpoints", "formats": "--format", "frame": "--start"}
# Columns of a table that nobody wraps: a path, a checksum and an address fit.
_WIDE = 300
_TOO_LITTLE = OutOfMemory(
    "There is too little memory for this.",
    "Close other programs, or give less at once.",
)


@contextmanager
def errors(
    *, as_json: bool, stopped: str = "Stopped; what was finished is kept."
) -> Iterator[None]:
    """Turn what can go wrong into one sentence and an exit code.

    Meanwhile SIGTERM, as schedulers of clusters send it, does what Ctrl-C does.
    """
    try:
        with _terminating():
            yield
    except (EngineError, MemoryError) as error:
        print_error(error, as_json=as_json)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        print_stopped(stopped, as_json=as_json)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _terminating() -> Iterator[None]:
    """Let SIGTERM raise `KeyboardInterrupt`, unless somebody has a use for it."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@dataclass
class Presses:
    """How often Ctrl-C was pressed, or SIGTERM came, since `counted_interrupts`."""

    count: int = 0


@contextmanager
def counted_interrupts(most: int = 2) -> Iterator[Presses]:
    """Count Ctrl-C and SIGTERM instead of breaking off in the middle of a work.

    Parameters
    ----------
    most : int
        Further ones are raised as `KeyboardInterrupt` as usual.
    """
    presses = Presses()
    ours = []
    if threading.current_thread() is threading.main_thread():
        # Whoever started us may ignore one of them, or have a use for it.
        ours = [
            one
            for one in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(one) is signal.default_int_handler
        ]

    def press(*_: object) -> None:
        presses.count += 1
        if presses.count > most:
            raise KeyboardInterrupt

    for one in ours:
        signal.signal(one, press)
    try:
        yield presses
    finally:
        for one in ours:
            signal.signal(one, signal.default_int_handler)


def flag(name: str) -> str:
    """How the command line calls what Python calls `name`."""
    return _FLAGS.get(name, "--" + name.replace("_", "-"))


def error_as_dict(error: EngineError | MemoryError) -> dict[str, str]:
    """An error for machines: ``message`` and ``hint``, the same in every command."""
    message, hint = _worded(error)
    return {"message": message, "hint": hint}


def raise_failure(error: BaseException | None) -> None:
    """Raise what a job failed with, if it did: as one sentence, whatever it is."""
    if error is None:
        return
    if isinstance(error, EngineError):
        raise error
    raise EngineError(
        f"Something unexpected went wrong: {error}",
        "Run again with --verbose and report what it prints.",
    ) from error


def print_error(
    error: EngineError | MemoryError, *, as_json: bool, about: str = ""
) -> None:
    """Print a sentence and its hint: on standard error, or as JSON.

    A sentence that does not name what it is `about` is led by it.
    """
    if as_json:
        print_json({"error": error_as_dict(error)})
        return
    message, hint = _worded(error)
    lead = f"{escape(about)}: " if about and about not in message else ""
    text = f"[red]Error:[/red] {lead}{escape(message)}\n{escape(hint)}"
    Console(stderr=True).print(text.rstrip(), soft_wrap=True, highlight=False)


def print_stopped(text: str, *, as_json: bool) -> None:
    """Print that somebody stopped it: on standard error, and as JSON if asked."""
    if as_json:
        stopped = {"message": text, "hint": ""}
        print_json({"error": stopped, "interrupted": True})
    typer.echo(text, err=True)


def leave_now() -> NoReturn:
    """End while the engine's thread is in what cannot be broken off.

    All files are written; the usual exit would wait for it or crash.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def print_table(table: Table) -> None:
    """Print a table: as wide as the terminal, or as it likes to be in a pipe."""
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


@contextmanager
def progress_bar(*, quiet: bool, download: bool = False) -> Iterator[Show | None]:
    """A bar on standard error with the time left; nothing if `quiet` or in a pipe."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
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


def _worded(error: EngineError | MemoryError) -> tuple[str, str]:
    if isinstance(error, EngineError):
        return error.worded(flag)
    return _TOO_LITTLE.worded(flag)

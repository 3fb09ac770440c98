"""Commands about models and this machine: ``models …`` and ``doctor``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from napari_sam_suite.cli.console import (
    Json,
    error_as_dict,
    errors,
    print_error,
    print_json,
    print_table,
    progress_bar,
)
from napari_sam_suite.engine.errors import EngineError

if TYPE_CHECKING:
    from napari_sam_suite.engine.models.registry import ModelSpec

models_app = typer.Typer(
    no_args_is_help=True,
    help="Which models there are, and their weights on this machine.",
)

_Folder = Annotated[
    Path | None,
    typer.Option(
        "--checkpoints",
        help="Folder of checkpoints; else NAPARI_SAM_SUITE_CHECKPOINTS, else the "
        "user's cache folder.",
        show_default=False,
    ),
]
_Names = Annotated[list[str], typer.Argument(metavar="MODEL", show_default=False)]
_Name = Annotated[str, typer.Argument(metavar="MODEL", show_default=False)]

_STOPPED = "Stopped; the next download goes on from here."
_COLOURS = {
    "ok": "green",
    "embedded": "green",
    "installed": "green",
    "partial": "yellow",
    "warn": "yellow",
    "damaged": "red",
    "fail": "red",
}


@models_app.command("list")
def list_models(folder: _Folder = None, as_json: Json = False) -> None:
    """Show every model, what it needs and whether it is here."""
    from napari_sam_suite.engine.models.checkpoints import (
        checkpoint_folder,
        tuned_models,
    )
    from napari_sam_suite.engine.models.registry import MODELS

    known = (*MODELS.values(), *tuned_models(folder))
    rows = [_describe(spec, folder) for spec in known]
    if as_json:
        print_json({"folder": str(checkpoint_folder(folder)), "models": rows})
        return
    table = Table(title=f"Models (folder: {checkpoint_folder(folder)})")
    for heading in ("Model", "Weights", "Input", "Memory", "State"):
        right = heading in ("Weights", "Input", "Memory")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            row["id"],
            f"{row['size_mb']:.0f} MB",
            f"{row['input_size']} px",
            _memory(row["memory"]),
            _coloured(row["state"]),
        )
    print_table(table)


@models_app.command()
def download(names: _Names, folder: _Folder = None, as_json: Json = False) -> None:
    """Download public checkpoints: resumed when broken off, verified by SHA-256."""
    from napari_sam_suite.engine.models import checkpoints

    done: list[dict[str, Any]] = []
    with errors(as_json=as_json, stopped=_STOPPED):
        for spec in [_find(name, folder) for name in names]:
            with progress_bar(quiet=as_json, download=True) as progress:
                path = checkpoints.download(spec, folder, progress=progress)
            done.append({"id": spec.id, "path": str(path)})
            if not as_json:
                typer.echo(f"{spec.id}: {path}")
    if as_json:
        print_json(done)


@models_app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="All that are here, if none given."),
    ] = None,
    folder: _Folder = None,
    as_json: Json = False,
) -> None:
    """Read weights from end to end and compare their SHA-256."""
    from napari_sam_suite.engine.models import checkpoints
    from napari_sam_suite.engine.models.registry import MODELS

    with errors(as_json=as_json):
        specs = [_find(name, folder) for name in names or []] or [
            spec
            for spec in MODELS.values()
            if checkpoints.checkpoint_path(spec, folder).is_file()
        ]
        rows = [_verified(spec, folder, quiet=as_json) for spec in specs]
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo(f"No weights in {checkpoints.checkpoint_folder(folder)}.")
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


@models_app.command()
def info(name: _Name, folder: _Folder = None, as_json: Json = False) -> None:
    """Tell everything about one model or one weights file."""
    with errors(as_json=as_json):
        row = _describe(_find(name, folder), folder)
    if as_json:
        print_json(row)
        return
    table = Table("", Column("", overflow="fold"), show_header=False, box=None)
    for key, value in _for_people(row).items():
        table.add_row(key, escape(value))
    print_table(table)


def doctor_command(folder: _Folder = None, as_json: Json = False) -> None:
    """Check this machine, and say what to do about what is missing."""
    from napari_sam_suite.engine.doctor import diagnose

    checks = diagnose(folder)
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        table = Table(
            Column("Check", no_wrap=True),
            "State",
            Column("Found", overflow="fold"),
            Column("What to do", overflow="fold"),
        )
        for check in checks:
            state = _coloured(check.status)
            table.add_row(check.name, state, escape(check.detail), escape(check.todo))
        print_table(table)
    if failed:
        raise typer.Exit(1)


def _find(name: str, folder: Path | None) -> ModelSpec:
    from napari_sam_suite.engine.models.registry import find_model

    return find_model(name, folder=folder)


def _describe(spec: ModelSpec, folder: Path | None) -> dict[str, Any]:
    from napari_sam_suite.engine.models.checkpoints import (
        checkpoint_path,
        checkpoint_state,
    )

    path = checkpoint_path(spec, folder)
    row = asdict(spec)
    del row["file"], row["embedded"]
    if spec.embedded and path.is_file():
        row["size_mb"] = path.stat().st_size / 1e6
    return {**row, "state": checkpoint_state(spec, folder), "path": str(path)}


def _for_people(row: dict[str, Any]) -> dict[str, str]:
    """What `_describe` tells, with units."""
    told = row | {
        "weights": f"{row['size_mb']:.0f} MB",
        "input": f"{row['input_size']} px",
        "memory": _memory(row["memory"]),
        "auto": ", ".join(f"{k} {_short(v)}" for k, v in row["auto"].items()),
    }
    return {k: str(v) for k, v in told.items() if k not in ("size_mb", "input_size")}


def _memory(gigabytes: float) -> str:
    """What a model takes while it works, where somebody has measured it."""
    return f"{gigabytes:.1f} GB" if gigabytes else "not measured"


def _verified(spec: ModelSpec, folder: Path | None, *, quiet: bool) -> dict[str, Any]:
    from napari_sam_suite.engine.models import checkpoints

    row: dict[str, Any] = {"id": spec.id, "ok": True, "sha256": "", "error": None}
    try:
        with progress_bar(quiet=quiet, download=True) as progress:
            row["sha256"] = checkpoints.verify(spec, folder, progress=progress)
    except EngineError as error:
        row |= {"ok": False, "error": error_as_dict(error)}
        if not quiet:
            print_error(error, as_json=False, about=spec.id)
    if row["ok"] and not quiet:
        text = f"{_coloured('ok')} {spec.id}: sha256 {row['sha256']}"
        Console().print(text, soft_wrap=True, highlight=False)
    return row


def _coloured(state: str) -> str:
    colour = _COLOURS.get(state)
    return f"[{colour}]{state}[/{colour}]" if colour else state


def _short(value: float | str) -> str:
    """A setting for people."""
    return value if isinstance(value, str) else f"{value:g}"

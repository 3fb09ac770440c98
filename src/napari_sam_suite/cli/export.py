"""The command ``export-onnx``: a model as ONNX files, and a page to look at them."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sam_suite.cli.console import errors, flag, print_json, progress_bar
from napari_sam_suite.cli.flags import GroupedCommand, with_params
from napari_sam_suite.cli.options import AsJson, Folder, Model, Out, Random
from napari_sam_suite.engine.errors import reworded
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL
from napari_sam_suite.engine.onnx.params import ExportParams

if TYPE_CHECKING:
    from napari_sam_suite.engine.onnx.export import Exported

_browser = partial(typer.Option, rich_help_panel="Browser", show_default=False)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export-onnx", cls=GroupedCommand)(export_command)


@with_params(ExportParams)
def export_command(
    params: dict[str, Any],
    *,
    model: Model = DEFAULT_MODEL,
    out: Out,
    folder: Folder = None,
    runtime: Annotated[
        Path | None,
        _browser(
            "--runtime",
            help="Folder with onnxruntime-web, such as node_modules; else npm fetches "
            "it.",
        ),
    ] = None,
    serve: Annotated[
        bool, _browser("--serve", help="Show the page on this machine until Ctrl-C.")
    ] = False,
    port: Annotated[
        int, _browser("--port", help="Of --serve; 0 takes any that is free.")
    ] = 0,
    as_json: AsJson = False,
    random_weights: Random = False,
) -> None:
    """Write a model as ONNX files that were compared with it.

    The folder holds encoder.onnx and decoder.onnx, parity.md with the comparison, and
    index.html, a page that runs them. As a --model it runs on onnxruntime.
    """
    from napari_sam_suite.engine.onnx.export import export_onnx
    from napari_sam_suite.engine.onnx.page import find_runtime
    from napari_sam_suite.engine.onnx.serve import serving

    with errors(as_json=as_json, stopped="Stopped; nothing was written."):
        chosen = ExportParams(**params)
        if runtime is not None:
            runtime = find_runtime(runtime)
        # from the beginning, so that nobody takes the port meanwhile
        with serving(out, port) if serve else nullcontext() as address:
            with progress_bar(quiet=as_json) as progress:
                done = export_onnx(
                    model,
                    out,
                    chosen,
                    folder=folder,
                    random_weights=random_weights,
                    runtime=runtime,
                    report=progress,
                )
            _tell(done, as_json=as_json)
            if address:
                _show(address, quiet=as_json)


def _tell(done: Exported, *, as_json: bool) -> None:
    notices = [reworded(notice, flag) for notice in done.notices]
    if as_json:
        print_json(
            {
                "folder": str(done.folder),
                "files": done.files,
                "parity": done.parity.as_dict(),
                "notices": notices,
            }
        )
        return
    typer.echo(done.parity.as_table())
    for name, size in done.files.items():
        typer.echo(f"{done.folder / name}: {size / 1e6:.1f} MB")
    for notice in notices:
        typer.echo(notice, err=True)


def _show(address: str, *, quiet: bool) -> None:
    """Leave the page to browsers until Ctrl-C, which is how this ends well.

    If `quiet`, standard output has nothing but JSON, and the address goes beside it.
    """
    typer.echo(f"{address} shows the page; Ctrl-C ends it.", err=quiet)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)

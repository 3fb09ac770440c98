"""The command ``finetune``: images and their labels make a better model."""

from __future__ import annotations

from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sam_suite.cli.colours import Colours, with_colours
from napari_sam_suite.cli.console import (
    INTERRUPTED,
    Show,
    counted_interrupts,
    errors,
    print_json,
    print_stopped,
    progress_bar,
    raise_failure,
)
from napari_sam_suite.cli.flags import GroupedCommand, with_params
from napari_sam_suite.cli.options import (
    AsJson,
    Axes,
    Device,
    Folder,
    Model,
    Precision,
    Random,
)
from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.engine.finetune.params import FinetuneParams
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL

if TYPE_CHECKING:
    from napari_sam_suite.engine.finetune.outcome import Outcome
    from napari_sam_suite.engine.finetune.progress import Epoch
    from napari_sam_suite.engine.jobs import Job

_input = partial(typer.Option, rich_help_panel="Input", show_default=False)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("finetune", cls=GroupedCommand)(finetune_command)


@with_params(FinetuneParams)
@with_colours
def finetune_command(
    params: dict[str, Any],
    *,
    images: Annotated[Path, _input("--images", help="Folder of images.")],
    labels: Annotated[
        Path,
        _input(
            "--labels",
            help="Folder of label images, GeoJSON or Dataloop's JSON with the images' "
            "names, or one COCO file.",
        ),
    ],
    axes: Axes = None,
    colours: Colours,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The new model, NAME.safetensors; its card and checkpoints beside it.",
            rich_help_panel="Output",
            show_default=False,
        ),
    ],
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace a model or an unfinished training of other data or settings.",
            rich_help_panel="Output",
        ),
    ] = False,
    as_json: AsJson = False,
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    precision: Precision = "auto",
    folder: Folder = None,
    random_weights: Random = False,
) -> None:
    """Teach a model your own objects; the file is a --model for every command.

    The same command goes on with a training that was interrupted. A model that did not
    become better has the weights it began with.
    """
    with errors(as_json=as_json):
        from napari_sam_suite.engine.finetune.files import check_target
        from napari_sam_suite.engine.finetune.folders import read_folders
        from napari_sam_suite.engine.models.registry import find_model

        chosen = FinetuneParams(**params)
        check_target(out, find_model(model, folder=folder))
        found = read_folders(images, labels, axes=axes, composite=colours.composite)
        if not as_json:
            _say(found.notices)

        from napari_sam_suite.engine.finetune.loop import start_finetune
        from napari_sam_suite.engine.jobs import Engine

        options: dict[str, Any] = {
            "device": device,
            "precision": precision,
            "folder": folder,
            "random_weights": random_weights,
        }
        with Engine(model, **options) as engine:
            job = start_finetune(
                engine, found.samples, chosen, out=out, overwrite=overwrite
            )
            with progress_bar(quiet=as_json) as show:
                _follow(job, show, quiet=as_json)
            # In text the others were said before it began.
            notices = [*found.notices, *job.notices] if as_json else job.notices
            if job.error is not None:
                _say(notices)
            if isinstance(job.error, Cancelled):
                text = "Stopped; the same command goes on from here."
                print_stopped(text, as_json=as_json)
                raise typer.Exit(INTERRUPTED)
            outcome = _result(job)
    _tell(outcome, notices, as_json=as_json)


def _follow(job: Job[Outcome], show: Show | None, *, quiet: bool) -> None:
    """Wait for the end; Ctrl-C stops after the step that is going on.

    Without a bar, as in the log of a cluster, every epoch is a line.
    """
    last = ""

    def hear(epoch: Epoch) -> None:
        nonlocal last
        last = f", IoU {epoch.score.iou:.2f}, F1 {epoch.score.f1:.2f}"
        if show is None and not quiet:
            which = f"Epoch {epoch.number} of {epoch.total}" if epoch.number else "Base"
            typer.echo(f"{which}{last}{', best so far' * epoch.best}", err=True)

    job.found.connect(hear)
    with counted_interrupts() as presses:
        while not job.wait(0.2):
            if presses.count:
                job.cancel()
            done, total, text = job.progress
            if show is not None and total:
                show(done, total, text + last)


def _result(job: Job[Outcome]) -> Outcome:
    raise_failure(job.error)
    return job.result()


def _say(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line, err=True)


def _tell(outcome: Outcome, notices: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "model": str(outcome.path),
                "better": outcome.better,
                "epochs": outcome.epochs,
                "best_epoch": outcome.best_epoch,
                "ended": outcome.ended,
                "card": outcome.card,
                "notices": notices,
            }
        )
        return
    _say(notices)
    typer.echo(f"{outcome.summary()} ({outcome.epochs} epochs: {outcome.ended}.)")
    typer.echo(str(outcome.path))

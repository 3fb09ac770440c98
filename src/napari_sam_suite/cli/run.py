"""Whole experiments: run a recipe, from where it was left; collect its results."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from napari_sam_suite.cli.console import (
    INTERRUPTED,
    Show,
    counted_interrupts,
    errors,
    leave_now,
    print_json,
    progress_bar,
    raise_failure,
)
from napari_sam_suite.cli.flags import GroupedCommand
from napari_sam_suite.cli.options import AsJson, Formats, Out
from napari_sam_suite.engine.errors import Cancelled, ParameterError
from napari_sam_suite.engine.outputs import parse_formats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam_suite.engine.batch.summary import Summary
    from napari_sam_suite.engine.jobs import Job
    from napari_sam_suite.engine.recipe import Recipe
    from napari_sam_suite.engine.store.collect import Collected

_where = partial(typer.Option, rich_help_panel="Where", show_default=False)
_SHOWN = 10
"""Failures that are printed; all are in the store and in the JSON."""


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("run", cls=GroupedCommand)(run_command)
    app.command("collect", cls=GroupedCommand)(collect_command)


def run_command(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE", help="A JSON file.", rich_help_panel="Input"),
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE...",
            help="Files, folders or patterns, in place of those of the recipe.",
            show_default=False,
            rich_help_panel="Input",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        _where(
            "--out",
            help="Folder for the results, store and files, in place of the recipe's.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        _where("--store", help="Folder or address of the store, if not in --out."),
    ] = None,
    dask: Annotated[
        str | None,
        _where("--dask", help="Address of a Dask scheduler, such as tcp://host:8786."),
    ] = None,
    workers: Annotated[
        int | None,
        _where("--workers", min=1, help="So many processes on this machine."),
    ] = None,
    device: Annotated[
        str | None, _where("--device", help="auto, cuda, mps or cpu.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe; what is finished in its store already is not done again.

    A frame or an image that fails is recorded and does not stop the others; run the
    same command again to try it again.
    """
    from napari_sam_suite.engine.batch.run import all_done
    from napari_sam_suite.engine.outputs import check_folder
    from napari_sam_suite.engine.sources import check_apart

    with errors(as_json=as_json):
        if dask is not None and workers is not None:
            raise ParameterError(
                "A run is either on a Dask scheduler or on workers of its own.",
                "Give one of `dask` and `workers`.",
            )
        asked = read_recipe(recipe, images or (), out, store, device)
        collected, left, there = None, False, False
        if asked.outputs.formats:
            # Found out now, and not when all is done.
            folder = Path(asked.outputs.folder or "")
            check_apart(asked.source.images, folder, asked.outputs.formats)
            check_folder(folder)
        with progress_bar(quiet=as_json) as show:
            done = all_done(asked)
            if done is not None:
                summary = done
            elif dask is None and workers is None:
                summary, left = _run_here(asked, show)
            else:
                summary = _run_there(asked, dask, workers, show)
            if not summary.stopped:
                try:
                    collected = _collect(asked, show)
                except KeyboardInterrupt:
                    summary.stopped = True
    if collected is not None and collected.kept:
        there = not (collected.files or collected.failures)
        collected = None if there else collected
    if as_json:
        found = summary.as_dict() | {"store": asked.outputs.store}
        if collected is not None:
            found["collected"] = asdict(collected)
        elif there:
            found["collected"] = None
        print_json(found)
    else:
        _say(summary, collected, asked.outputs.store, there=there)
    if left:
        leave_now()
    if summary.stopped:
        raise typer.Exit(INTERRUPTED)
    if not summary.complete or (collected is not None and collected.failures):
        raise typer.Exit(1)


def collect_command(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE", help="Folder or address of a run.", rich_help_panel="Input"
        ),
    ],
    out: Out,
    formats: Formats = "labels,geojson",
    as_json: AsJson = False,
) -> None:
    """Write what a run has found as files that other programs open."""
    from napari_sam_suite.engine.store.collect import collect
    from napari_sam_suite.engine.store.store import Store

    with errors(as_json=as_json), progress_bar(quiet=as_json) as show:
        found = collect(Store.open(store), out, parse_formats(formats), show)
    if as_json:
        print_json(asdict(found))
    else:
        _say_collected(found)
    if found.failures or not found.frames:
        raise typer.Exit(1)


def read_recipe(
    path: Path,
    images: Sequence[str],
    out: Path | None,
    store: str | None,
    device: str | None,
) -> Recipe:
    """A recipe with what was said beside it; without a store it gets one beside it.

    Raises
    ------
    ParameterError
        If it is no recipe, or its files would be written over by those of other images.
    """
    from napari_sam_suite.cli.recipes import absolute
    from napari_sam_suite.engine.recipe import Recipe
    from napari_sam_suite.engine.store.place import is_url

    recipe = Recipe.load(path)
    outputs = recipe.outputs
    changes: dict[str, Any] = {}
    if images:
        here = [str(absolute(name)) for name in images]
        others = set(here) - set(recipe.source.images)
        if others and recipe.source.images and outputs.formats and out is None:
            raise ParameterError(
                f"The files in {outputs.folder} are of the recipe's own images.",
                "Give `out`, a folder for those of other images.",
            )
        changes["source"] = {"images": here}
    beside = f"{path.stem}.store"
    if out is not None:
        place = store or str(absolute(out) / beside)
        changes["outputs"] = {"folder": str(absolute(out))}
    else:
        place = store or outputs.store or str(path.with_name(beside))
        changes["outputs"] = {}
    changes["outputs"]["store"] = place if is_url(place) else str(absolute(place))
    if device is not None:
        changes["model"] = {"device": device}
    return recipe.changed(**changes)


def _run_here(recipe: Recipe, show: Show | None) -> tuple[Summary, bool]:
    """What became of a run, and whether it was left before it had ended."""
    from napari_sam_suite.engine.batch.run import open_engine, start_run

    engine, left = open_engine(recipe), False
    try:
        summary, left = _follow(start_run(engine, recipe), show)
    finally:
        # What cannot be broken off is not waited for.
        engine.close(**({"timeout": 0} if left else {}))
    return summary, left


def _run_there(
    recipe: Recipe, address: str | None, workers: int | None, show: Show | None
) -> Summary:
    from napari_sam_suite.engine.cluster import open_cluster, start_cluster_run

    with open_cluster(address, workers, recipe.model.device) as client:
        job = start_cluster_run(client, recipe)
        return _follow(job, show, patient=True)[0]


def _follow(
    job: Job[Summary], show: Show | None, *, patient: bool = False
) -> tuple[Summary, bool]:
    """Show how far a run is until it ends; Ctrl-C stops it after the frame at hand.

    Unless `patient`, it is left at once by another Ctrl-C, or while a model loads; what
    is finished by then is in the store.
    """
    from napari_sam_suite.engine.batch.summary import Summary

    start = time.monotonic()
    with counted_interrupts() as presses:
        while not job.wait(0.1):
            if presses.count:
                job.cancel()
                if not patient and (presses.count > 1 or not job.progress.total):
                    summary = replace(job.parts[-1]) if job.parts else Summary()
                    summary.seconds = round(time.monotonic() - start, 2)
                    summary.stopped = True
                    return summary, True
            if show is not None and job.progress.total:
                done, total, text = job.progress
                text = "stopping; Ctrl-C again leaves now" if presses.count else text
                show(done, total, text)
    if isinstance(job.error, Cancelled):
        return Summary(stopped=True), False
    raise_failure(job.error)
    summary = job.result()
    # Also if all was finished by then: collecting it is not begun.
    summary.stopped |= bool(presses.count)
    return summary, False


def _collect(recipe: Recipe, show: Show | None) -> Collected | None:
    """Write the formats that the recipe asks for, but for files that are there.

    These may have been corrected by hand.
    """
    from napari_sam_suite.engine.store.collect import collect
    from napari_sam_suite.engine.store.store import Store

    outputs = recipe.outputs
    if not outputs.formats or outputs.folder is None:
        return None
    store = Store.open(outputs.store)
    folder = Path(outputs.folder)
    return collect(store, folder, outputs.formats, show, again=False)


def _say(
    summary: Summary, collected: Collected | None, store: str, *, there: bool
) -> None:
    console = Console()
    say = partial(console.print, soft_wrap=True, highlight=False)
    frames = _count(summary.done, "frame")
    say(
        f"[bold]{_count(summary.images, 'image')}[/bold]: {frames} done, "
        f"{summary.skipped} done before, {summary.failed} failed; "
        f"{_count(summary.objects, 'object')}, {summary.seconds:.1f} s"
    )
    for text, times in summary.notices.items():
        say(f"  {escape(text)}" + (f" ({times} times)" if times > 1 else ""))
    for failure in summary.failures[:_SHOWN]:
        where = ", ".join(filter(None, (failure["image"], failure["frame"])))
        say(f"  [red]Failed:[/red] {escape(where)}: {escape(failure['message'])}")
        if failure["hint"]:
            say(f"    {escape(failure['hint'])}")
    if len(summary.failures) > _SHOWN:
        say(f"  and {len(summary.failures) - _SHOWN} more")
    if summary.done or summary.skipped:
        say(f"  The store, for collect: {escape(store)}")
    if there:
        say("  The files are there already; collect writes them again.")
    if collected is not None:
        _say_collected(collected)
    if summary.stopped:
        typer.echo("Stopped; run the same command again to go on.", err=True)


def _say_collected(found: Collected) -> None:
    console = Console()
    say = partial(console.print, soft_wrap=True, highlight=False)
    say(
        f"{_count(found.objects, 'object')} of {_count(found.frames, 'frame')} in "
        f"{_count(len(found.files), 'file')}"
    )
    if found.kept:
        files = f"The files of {_count(found.kept, 'image')}"
        say(f"  {files} are there already; collect writes them again.")
    if found.missing:
        say(f"  {_count(found.missing, 'frame')} not finished and left out")
    for path in found.files[:_SHOWN]:
        say(f"  {escape(path)}")
    if len(found.files) > _SHOWN:
        say(f"  and {len(found.files) - _SHOWN} more")
    for failure in found.failures:
        told = escape(failure["message"])
        say(f"  [red]Failed:[/red] {escape(failure['image'])}: {told}")
        if failure["hint"]:
            say(f"    {escape(failure['hint'])}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"

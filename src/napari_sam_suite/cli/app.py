"""The command line: thin commands over the engine.

Nothing heavy is imported before a command needs it, so that ``--help`` is instant.
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from napari_sam_suite import __version__
from napari_sam_suite.cli import (
    export,
    fewshot,
    finetune,
    hierarchy,
    prompt,
    propagate,
)
from napari_sam_suite.cli import run as runs
from napari_sam_suite.cli.asked import Asked, with_asked
from napari_sam_suite.cli.commands import Commands
from napari_sam_suite.cli.console import Json, errors, print_json, print_table
from napari_sam_suite.cli.flags import GroupedCommand, with_params
from napari_sam_suite.cli.models import doctor_command, models_app
from napari_sam_suite.cli.options import Device, Images, Out
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL
from napari_sam_suite.engine.params import AutoParams

if TYPE_CHECKING:
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.jobs import Job
    from napari_sam_suite.engine.metrics import LabelPair, Scores
    from napari_sam_suite.engine.objects import Objects

app = typer.Typer(
    name="napari-sam-suite",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Find objects in microscopy images with SAM 1 and SAM 2.",
)
app.add_typer(models_app, name="models")
app.command("doctor")(doctor_command)
prompt.register(app)
propagate.register(app)
fewshot.register(app)
hierarchy.register(app)
finetune.register(app)
export.register(app)
runs.register(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"napari-sam-suite {__version__}")
        raise typer.Exit


@app.callback()
def main(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more while working.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Version."),
    ] = False,
) -> None:
    """Find objects in microscopy images with SAM 1 and SAM 2."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR,
        format="%(levelname)s %(name)s: %(message)s",
    )
    # Its errors are heard by who opens a file (engine.readers.whole); not printed.
    tifffile = logging.getLogger("tifffile")
    tifffile.addHandler(logging.NullHandler())
    tifffile.propagate = False


# The nuclei of the demo image are 8 to 25 px wide: small tiles, and nothing larger.
_DEMO = AutoParams(tile=192, max_area=600)
_CLICKS = "179,308; 353,81"
"""Points on nuclei of the demo image."""


@app.command()
def demo(
    out: Out = Path("demo"),
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Segment a bundled microscopy image: a picture in seconds, offline."""
    from napari_sam_suite.cli.batch import Batch, Row
    from napari_sam_suite.cli.tasks import Segmenting
    from napari_sam_suite.engine.samples import demo_image, write_demo_image

    path = out / "image.tif"

    def open_demo() -> ImageSource:
        write_demo_image(path)
        return demo_image()

    def list_image(row: Row, _: Job[Objects]) -> None:
        row.files.append(str(path))

    with errors(as_json=as_json):
        names = {"labels": "labels", "geojson": "objects", "overlay": "overlay"}
        batch = Batch(out, tuple(names), Segmenting(_DEMO), as_json=as_json)
        batch.names, batch.after = names, list_image
        batch.run([open_demo], DEFAULT_MODEL, device=device)
    batch.finish()
    if not as_json:
        typer.echo(
            f"Next: napari-sam-suite prompt {shlex.quote(str(path))} "
            f'--points "{_CLICKS}" --out clicked'
        )


@app.command(cls=GroupedCommand)
@with_params(AutoParams)
@with_asked()
def segment(
    images: Images,
    params: dict[str, Any],
    *,
    asked: Asked,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help="speed, quality or coverage; flags beside it win.",
            rich_help_panel="Grid",
        ),
    ] = None,
) -> None:
    """Find everything in images: one label image and one GeoJSON file for each.

    Each plane and time point is segmented by itself; numbers do not carry over from
    one to the next: propagate follows objects.
    """
    from napari_sam_suite.cli.batch import check_names
    from napari_sam_suite.cli.tasks import Segmenting
    from napari_sam_suite.engine.sources import check_apart, find_images

    with errors(as_json=asked.as_json):
        chosen = AutoParams.preset(preset, **params) if preset else AutoParams(**params)
        check_apart(map(str, images), asked.out, asked.formats)
        images = find_images(map(str, images))
        check_names(images)
        batch = asked.batch(Segmenting(chosen))
        asked.run(batch, images)
    batch.finish()


@app.command()
def evaluate(
    predicted: Annotated[Path, typer.Argument(metavar="PRED")],
    truth: Annotated[Path, typer.Argument(metavar="GT")],
    iou: Annotated[
        float, typer.Option("--iou", min=0.01, max=1, help="IoU of a match.")
    ] = 0.5,
    min_area: Annotated[
        int, typer.Option("--min-area", min=0, help="Ignore smaller objects (px).")
    ] = 20,
    as_json: Json = False,
) -> None:
    """Score label images against the truth: precision, recall, F1 and AP.

    PRED and GT are two label images, TIFF or PNG, or two folders of them. In folders,
    equal names are a pair, and so are names that differ by words such as img, lab,
    mask, cp_masks and labels: plate.tif and plate_cp_masks.png. Where some files of GT
    are named as labels, the others, their images, do not count. A label image without
    a prediction counts as nothing found, and the command fails.
    """
    from napari_sam_suite.engine.metrics import evaluate_files

    with errors(as_json=as_json):
        rows = list(evaluate_files(predicted, truth, iou=iou, min_area=min_area))
        total = sum((scores for _, scores in rows[1:]), start=rows[0][1])
    missing = [pair.name for pair, _ in rows if pair.predicted is None]
    if as_json:
        images = {pair.name: scores.as_dict() for pair, scores in rows}
        total_row = total.as_dict()
        print_json({"images": images, "total": total_row, "missing": missing})
    else:
        _print_scores(rows, total)
    if missing:
        if not as_json:
            typer.echo(f"No prediction for: {', '.join(missing)}", err=True)
        raise typer.Exit(1)


def _print_scores(rows: list[tuple[LabelPair, Scores]], total: Scores) -> None:
    numbers = ("objects", "found", "precision", "recall", "F1", "AP", "IoU")
    table = Table("image", *(Column(n, justify="right") for n in numbers))
    for name, scores in [*((p.name, s) for p, s in rows), ("total", total)]:
        if name == "total":
            table.add_section()
        shares = (
            scores.precision,
            scores.recall,
            scores.f1,
            scores.ap,
            scores.mean_iou,
        )
        counts = (str(scores.truth), str(scores.predicted))
        table.add_row(escape(name), *counts, *(f"{x:.3f}" for x in shares))
    print_table(table)


if __name__ == "__main__":
    app()

"""The command line: thin commands over the engine.

Nothing heavy is imported before a command needs it, so that ``--help`` is instant.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from napari_sam_suite import __version__
from napari_sam_suite.cli_models import doctor_command, models_app
from napari_sam_suite.console import Json, errors, print_json
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL
from napari_sam_suite.engine.outputs import FORMATS, parse_formats
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.flags import with_params

app = typer.Typer(
    name="napari-sam-suite",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Find objects in microscopy images with SAM 1 and SAM 2.",
)
app.add_typer(models_app, name="models")
app.command("doctor")(doctor_command)

Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Model = Annotated[str, typer.Option("--model", help="Model id or checkpoint file.")]
Device = Annotated[str, typer.Option("--device", help="auto, cuda, mps or cpu.")]
Precision = Annotated[
    str, typer.Option("--precision", help="auto, float32, bfloat16 or float16.")
]
Folder = Annotated[
    Path | None,
    typer.Option("--checkpoints", help="Folder of checkpoints.", show_default=False),
]
Random = Annotated[bool, typer.Option("--random-weights", hidden=True)]


def _selection(axis: str, flag: str) -> Any:
    text = f'{axis}, for example "1-3, 5" (counted from 1).'
    return typer.Option(flag, help=text)


Positions = Annotated[str, _selection("Positions", "--positions")]
Planes = Annotated[str, _selection("Planes", "--z")]
Times = Annotated[str, _selection("Time points", "--time")]
Axes = Annotated[
    str | None,
    typer.Option("--axes", help="Axes of the image, such as TZCYX, if not stored."),
]
Channels = Annotated[
    str, typer.Option("--channels", help="Channels to look at, counted from 1.")
]
Formats = Annotated[
    str, typer.Option("--format", help="Any of labels,geojson,overlay.")
]


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
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@app.command()
def demo(
    out: Out = Path("demo"),
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Segment a bundled microscopy image: a picture in seconds, offline."""
    from napari_sam_suite.batch import Batch
    from napari_sam_suite.engine.samples import demo_image

    with errors(as_json=as_json):
        batch = Batch(out, FORMATS, AutoParams(), as_json=as_json)
        batch.names = {"labels": "labels", "geojson": "objects", "overlay": "overlay"}
        batch.run([demo_image], DEFAULT_MODEL, device=device)
    batch.finish()


@app.command()
@with_params(AutoParams)
def segment(
    images: Images,
    out: Out,
    params: dict[str, Any],
    model: Model = DEFAULT_MODEL,
    preset: Annotated[
        str | None, typer.Option("--preset", help="speed, quality or coverage.")
    ] = None,
    positions: Positions = "all",
    z: Planes = "all",
    time_points: Times = "all",
    axes: Axes = None,
    channels: Channels = "all",
    formats: Formats = "labels,geojson",
    device: Device = "auto",
    precision: Precision = "auto",
    folder: Folder = None,
    random_weights: Random = False,
    as_json: Json = False,
) -> None:
    """Find everything in images: one label image and one GeoJSON file for each."""
    from napari_sam_suite.batch import Batch, check_names
    from napari_sam_suite.engine.image import open_image

    with errors(as_json=as_json):
        chosen = AutoParams.preset(preset, **params) if preset else AutoParams(**params)
        check_names(images)
        batch = Batch(out, parse_formats(formats), chosen, as_json=as_json)
        batch.selection = (positions, z, time_points)
        batch.channels = channels
        batch.run(
            [partial(open_image, path, axes=axes) for path in images],
            model,
            device=device,
            precision=precision,
            folder=folder,
            random_weights=random_weights,
        )
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
    """Score label images against the truth: precision, recall, F1 and AP."""
    from napari_sam_suite.engine.metrics import evaluate_files

    with errors(as_json=as_json):
        rows = list(evaluate_files(predicted, truth, iou=iou, min_area=min_area))
        total = sum((scores for _, scores in rows[1:]), start=rows[0][1])
    missing = [pair.name for pair, _ in rows if pair.predicted is None]
    if as_json:
        images = {pair.name: scores.as_dict() for pair, scores in rows}
        total_row = total.as_dict()
        print_json({"images": images, "total": total_row, "missing": missing})
        return
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
    Console().print(table)
    if missing:
        typer.echo(f"No prediction for: {', '.join(missing)}", err=True)


if __name__ == "__main__":
    app()

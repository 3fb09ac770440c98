"""Arguments and flags that several commands share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from napari_sam_suite.engine.outputs import FORMATS

_input = partial(typer.Option, rich_help_panel="Input")
_output = partial(typer.Option, rich_help_panel="Output")
_model = partial(typer.Option, rich_help_panel="Model")

Images = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGE...",
        help="TIFF, OME-TIFF, OME-Zarr, PNG or JPEG; folders and patterns of them.",
        rich_help_panel="Input",
    ),
]
Image = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGE",
        help="TIFF, OME-TIFF, OME-Zarr, PNG or JPEG.",
        rich_help_panel="Input",
    ),
]
Positions = Annotated[
    str, _input("--positions", help='Which positions, such as "1-3, 5" or all.')
]
Planes = Annotated[str, _input("--z", help="Which planes, counted from 1.")]
Times = Annotated[str, _input("--time", help="Which time points, counted from 1.")]
Axes = Annotated[
    str | None,
    _input("--axes", help="One letter per axis, such as TZCYX, if not in the file."),
]
Out = Annotated[Path, _output("--out", help="Folder for the results.")]
Formats = Annotated[
    str, _output("--format", help=f"Which files: any of {','.join(FORMATS)}.")
]
SaveRecipe = Annotated[
    Path | None,
    _output(
        "--save-recipe",
        help="Write what is asked here as a recipe, which the command run repeats.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, _output("--json", help="Print JSON for machines.")]
Model = Annotated[
    str, _model("--model", help="Model id, weights file or exported folder.")
]
Device = Annotated[str, _model("--device", help="auto, cuda, mps or cpu.")]
Precision = Annotated[
    str, _model("--precision", help="auto, float32, bfloat16 or float16.")
]
Folder = Annotated[
    Path | None,
    _model("--checkpoints", help="Folder of public weights.", show_default=False),
]
Embeddings = Annotated[
    Path | None,
    _model(
        "--embeddings",
        help="Keep what the image encoder says in this folder, for the next time.",
        show_default=False,
    ),
]
Random = Annotated[bool, _model("--random-weights", hidden=True)]

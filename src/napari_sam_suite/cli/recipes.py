"""What a command was asked, as a recipe that the command ``run`` repeats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_suite.cli.colours import Colours
from napari_sam_suite.engine.errors import OutputError, ParameterError
from napari_sam_suite.engine.formats.jsonfile import parse_json
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.recipe import Frames, Model, Outputs, Recipe, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam_suite.cli.batch import Batch


def write_recipe(
    path: Path,
    batch: Batch,
    openers: Sequence[Any],
    model: str,
    options: dict[str, Any],
) -> None:
    """Write what a batch is about to do as a recipe; its files are named in full.

    Parameters
    ----------
    path : Path
        Where to.
    batch : Batch
        What to find, in which frames and colours, and where results go.
    openers : sequence of partial
        Each opens an image: its path, and its axes.
    model, options
        As `Batch.run` has them.

    Raises
    ------
    EngineError
        If it cannot be written, or the colours do not fit the first image. A file that
        is no recipe, such as an image, is not replaced.
    """
    _spare(path)
    positions, z, time = (text or "all" for text in batch.selection)
    colours = batch.colours
    out = absolute(batch.out)
    Recipe(
        source=Source(
            images=tuple(str(absolute(one.args[0])) for one in openers),
            axes=openers[0].keywords.get("axes"),
        ),
        composite=None if colours == Colours() else colours.composite(openers[0]()),
        frames=Frames(positions=positions, z=z, time=time),
        model=Model(
            id=_full_name(model, options["folder"]),
            device=options["device"],
            precision=options["precision"],
            folder=None
            if options["folder"] is None
            else str(absolute(options["folder"])),
            random_weights=options["random_weights"],
        ),
        capability=batch.task.capability(),
        outputs=Outputs(
            store=str(out / f"{path.stem}.store"),
            folder=str(out),
            formats=tuple(batch.said or batch.formats),
        ),
    ).save(path)


def _spare(path: Path) -> None:
    """Refuse to write over what is no recipe."""
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        there = parse_json(path)
    except ParameterError:
        there = None
    if not isinstance(there, dict) or "recipe" not in there:
        raise OutputError(
            f"{path} is there already, and is no recipe.",
            "Give `save_recipe` another name, such as run.json.",
        )


def _full_name(model: str, folder: Path | None) -> str:
    """A model's name, wherever it is read from; only local ones are files."""
    spec = find_model(model, folder=folder)
    return spec.id if spec.file is None else str(absolute(spec.file))


def absolute(path: Path | str | None) -> Path:
    """A file's name, wherever it is read from."""
    return Path(path or "").expanduser().absolute()

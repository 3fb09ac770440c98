"""What all commands that look for objects in images are asked, and how they begin."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_sam_suite.cli import options
from napari_sam_suite.cli.colours import Colours, colour_flags, gather_colours
from napari_sam_suite.cli.console import errors
from napari_sam_suite.cli.flags import expand, flag
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL
from napari_sam_suite.engine.outputs import parse_formats, results_in

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_sam_suite.cli.batch import Batch
    from napari_sam_suite.cli.tasks import Task
    from napari_sam_suite.engine.image import ImageSource


@dataclass(frozen=True)
class Asked:
    """The flags that these commands share.

    Attributes
    ----------
    selection : (str, str, str)
        Positions, z and time as typed.
    axes : str, optional
        Of the images, if their files do not say.
    colours : Colours
        Channels to look at, and how.
    out : Path
        Folder of the results.
    formats : tuple of str
        Which files.
    as_json : bool
        Whether to print for machines.
    recipe : Path, optional
        Where to write what is asked.
    model : str
        Which one.
    engine : dict
        Further keyword arguments of `Engine`.
    """

    selection: tuple[str, str, str]
    axes: str | None
    colours: Colours
    out: Path
    formats: tuple[str, ...]
    as_json: bool
    recipe: Path | None
    model: str
    engine: dict[str, Any] = field(default_factory=dict)

    def batch(self, task: Task, formats: Sequence[str] | None = None) -> Batch:
        """A batch that does `task` as it was asked, with these or other `formats`."""
        from napari_sam_suite.cli.batch import Batch

        written = self.formats if formats is None else formats
        batch = Batch(self.out, written, task, as_json=self.as_json)
        batch.selection, batch.colours = self.selection, self.colours
        batch.recipe = self.recipe
        return batch

    def run(self, batch: Batch, images: Sequence[Path]) -> None:
        """Take images through a batch; errors are those of `Batch.run`."""
        openers = [partial(_open, path, axes=self.axes) for path in images]
        kept = self.engine.get("embeddings")
        with nullcontext() if kept is None else results_in(kept, "--embeddings"):
            batch.run(openers, self.model, **self.engine)


def with_asked(
    frames: str | None = "all",
    *,
    formats: str = "labels,geojson",
    recipe: bool = True,
    embeddings: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags that are in `Asked`; it is called with ``asked``.

    Parameters
    ----------
    frames : str, optional
        Which frames there are without a word on it; None for all, without flags.
    formats : str
        Which files there are without a word on it; empty for no such flag.
    recipe, embeddings : bool
        Whether there are --save-recipe and --embeddings.
    """
    flags: list[inspect.Parameter] = []
    if frames is not None:
        flags = [
            flag("positions", options.Positions, frames),
            flag("z", options.Planes, frames),
            flag("time_points", options.Times, frames),
        ]
    flags += [flag("axes", options.Axes, None), *colour_flags()]
    flags += [flag("out", options.Out)]
    flags += [flag("formats", options.Formats, formats)] if formats else []
    flags += [flag("save_recipe", options.SaveRecipe, None)] if recipe else []
    flags += [
        flag("as_json", options.AsJson, False),
        flag("model", options.Model, DEFAULT_MODEL),
        flag("device", options.Device, "auto"),
        flag("precision", options.Precision, "auto"),
        flag("folder", options.Folder, None),
    ]
    flags += [flag("embeddings", options.Embeddings, None)] if embeddings else []
    flags += [flag("random_weights", options.Random, False)]
    return partial(expand, into="asked", flags=flags, gather=_gather)


def _gather(values: dict[str, Any]) -> Asked:
    engine = ("device", "precision", "folder", "random_weights", "embeddings")
    places = ("positions", "z", "time_points")
    positions, z, time = (values.get(name, "all") for name in places)
    formats: tuple[str, ...] = ()
    if "formats" in values:
        with errors(as_json=values["as_json"]):
            formats = parse_formats(values["formats"])
    return Asked(
        selection=(positions, z, time),
        axes=values["axes"],
        colours=gather_colours(values),
        out=values["out"],
        formats=formats,
        as_json=values["as_json"],
        recipe=values.get("save_recipe"),
        model=values["model"],
        engine={name: values[name] for name in engine if name in values},
    )


def _open(path: Path, axes: str | None) -> ImageSource:
    from napari_sam_suite.engine.image import open_image

    return open_image(path, axes=axes)

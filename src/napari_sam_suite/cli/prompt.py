"""Commands that are told where: prompt and propagate."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from napari_sam_suite.cli.colours import Colours, with_colours
from napari_sam_suite.cli.console import errors
from napari_sam_suite.cli.flags import GroupedCommand, with_params
from napari_sam_suite.cli.options import (
    AsJson,
    Axes,
    Device,
    Folder,
    Formats,
    Image,
    Model,
    Out,
    Planes,
    Positions,
    Precision,
    Random,
    SaveRecipe,
    Times,
)
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL
from napari_sam_suite.engine.outputs import parse_formats
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.engine.propagation.params import PropagateParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam_suite.cli.batch import Task
    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.prompts.prompt import Prompt
    from napari_sam_suite.engine.recipe import Capability

_prompt = partial(typer.Option, rich_help_panel="Prompts")
_USES = ("box", "mask", "both")

Embeddings = Annotated[
    Path | None,
    typer.Option(
        "--embeddings",
        help="Keep what the image encoder says in this folder, for the next time.",
        rich_help_panel="Model",
        show_default=False,
    ),
]


@with_params(PromptParams)
@with_colours
def prompt_command(
    image: Image,
    params: dict[str, Any],
    *,
    points: Annotated[
        str, _prompt("--points", help='Objects as "y,x; y,x", or a CSV file of them.')
    ] = "",
    outside: Annotated[
        str, _prompt("--outside", help='Points outside of them, as "y,x; y,x".')
    ] = "",
    together: Annotated[
        bool, _prompt("--together", help="All points are of one object.")
    ] = False,
    boxes: Annotated[
        str,
        _prompt("--boxes", help='Boxes as "y0,x0,y1,x1; ...", or a CSV file of them.'),
    ] = "",
    whole: Annotated[
        bool, _prompt("--whole", help="The most prominent object of the frame.")
    ] = False,
    objects: Annotated[
        Path | None,
        _prompt("--objects", help="GeoJSON or label image: draw its objects again."),
    ] = None,
    use: Annotated[
        str, _prompt("--use", help="Of each object: its box, its mask or both.")
    ] = "box",
    tag: Annotated[str, _prompt("--tag", help="Tag of all new objects.")] = "",
    positions: Positions = "",
    z: Planes = "",
    time_points: Times = "",
    axes: Axes = None,
    colours: Colours,
    out: Out,
    formats: Formats = "labels,geojson",
    save_recipe: SaveRecipe = None,
    as_json: AsJson = False,
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    precision: Precision = "auto",
    folder: Folder = None,
    embeddings: Embeddings = None,
    random_weights: Random = False,
) -> None:
    """Answer points, boxes and masks, each with an object.

    Coordinates are pixel centres, y before x. Prompts count in every chosen frame: the
    first one unless --positions, --z or --time say otherwise. In a CSV file every line
    is a prompt, and what follows the numbers is its tag. Objects that are drawn again
    stay in their frames.
    """
    from napari_sam_suite.engine.prompts.prompt import Prompt

    with errors(as_json=as_json):
        prompts = [Prompt(whole=True)] if whole else []
        prompts += _from_points(points, outside, together) + _from_boxes(boxes)
        prompts += _again(objects, use)
        task = Prompting(_tagged(prompts, tag), PromptParams(**params))
        default = "all" if objects is not None else "1"
        _run(
            image,
            task,
            out=out,
            formats=formats,
            as_json=as_json,
            selection=(positions or default, z or default, time_points or default),
            axes=axes,
            colours=colours,
            recipe=save_recipe,
            model=model,
            options={
                "device": device,
                "precision": precision,
                "folder": folder,
                "random_weights": random_weights,
                "embeddings": embeddings,
            },
            objects=objects,
        )


@with_params(PropagateParams, without=("answers",))  # it takes the best one
@with_colours
def propagate_command(
    image: Image,
    params: dict[str, Any],
    *,
    objects: Annotated[
        Path, _prompt("--objects", help="GeoJSON or label image: what to begin with.")
    ],
    start: Annotated[
        int | None,
        _prompt(
            "--start",
            min=1,
            help="Frame of the objects along the axis, counted from 1, if their file "
            "does not say it or has several.",
            show_default=False,
        ),
    ] = None,
    axes: Axes = None,
    colours: Colours,
    out: Out,
    formats: Formats = "labels,geojson",
    save_recipe: SaveRecipe = None,
    as_json: AsJson = False,
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    precision: Precision = "auto",
    folder: Folder = None,
    embeddings: Embeddings = None,
    random_weights: Random = False,
) -> None:
    """Carry the objects of one frame on through time or z.

    Numbers in label images are those of the tracks; the GeoJSON says for each object
    its track, its parent in the frame before, and who found it.
    """
    with errors(as_json=as_json):
        task = Propagating(_load(objects), start, PropagateParams(**params))
        _run(
            image,
            task,
            out=out,
            formats=formats,
            as_json=as_json,
            selection=("all", "all", "all"),
            axes=axes,
            colours=colours,
            recipe=save_recipe,
            model=model,
            options={
                "device": device,
                "precision": precision,
                "folder": folder,
                "random_weights": random_weights,
                "embeddings": embeddings,
            },
            objects=objects,
        )


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("prompt", cls=GroupedCommand)(prompt_command)
    app.command("propagate", cls=GroupedCommand)(propagate_command)


@dataclass(frozen=True)
class Prompting:
    """Prompts as a `Task`: the same in every frame, unless they name their own."""

    prompts: Sequence[Prompt]
    params: PromptParams

    def start(
        self,
        engine: Engine,
        image: ImageSource,
        frames: list[FrameIndex],
        composite: Composite,
    ) -> Job[Objects]:
        """Queue the prompts on the frames that have some."""
        from napari_sam_suite.engine.prompts.finder import start_prompts

        own = {prompt.frame for prompt in self.prompts}
        asked = [frame for frame in frames if None in own or frame in own]
        return start_prompts(
            engine,
            image,
            self.prompts,
            self.params,
            frames=asked or frames[:1],
            composite=composite,
        )

    def capability(self) -> Capability:
        """As a recipe has it."""
        from napari_sam_suite.engine.recipe import Prompted
        from napari_sam_suite.engine.recorded import Said

        said = tuple(Said.of(prompt) for prompt in self.prompts)
        return Prompted(params=self.params, prompts=said)

    def advice(self, spec: ModelSpec) -> str:
        """Say what may help."""
        return (
            "Nothing was found. Coordinates are y before x, in pixels; "
            f"--format overlay shows what {spec.id} sees."
        )


@dataclass(frozen=True)
class Propagating:
    """Propagation as a `Task`."""

    objects: Objects
    start_at: int | None
    params: PropagateParams

    def start(
        self,
        engine: Engine,
        image: ImageSource,
        frames: list[FrameIndex],
        composite: Composite,
    ) -> Job[Objects]:
        """Queue the objects of the first frame."""
        from napari_sam_suite.engine.propagation.finder import start_propagate

        objects, frame = self._chosen()
        return start_propagate(
            engine, image, objects, self.params, frame=frame, composite=composite
        )

    def capability(self) -> Capability:
        """As a recipe has it: the objects of the frame to begin in."""
        from napari_sam_suite.engine.recipe import Propagate
        from napari_sam_suite.engine.recorded import to_shapes

        objects, frame = self._chosen()
        here = objects if frame is None else objects.at(frame)
        return Propagate(params=self.params, objects=to_shapes(here))

    def _chosen(self) -> tuple[Objects, FrameIndex | None]:
        """The objects, and the frame to begin in, if it was said."""
        objects, frame, axis = self.objects, None, self.params.axis
        if self.start_at is not None:
            there = objects.frames()
            index = self.start_at - 1
            if len(there) == 1:
                objects = objects.with_features(**{axis: index})
                there = objects.frames()
            frame = next((f for f in there if getattr(f, axis) == index), None)
            if frame is None:
                raise ParameterError(
                    f"There are no objects in {axis} {self.start_at}.",
                    "Give `start` another number, or leave it out.",
                )
        return objects, frame

    def advice(self, spec: ModelSpec) -> str:
        """Say what may help."""
        return "Nothing was carried on. Try a lower --trust or a longer --max-gap."


def _run(
    image: Path,
    task: Task,
    *,
    out: Path,
    formats: str,
    as_json: bool,
    selection: tuple[str, str, str],
    axes: str | None,
    colours: Colours,
    recipe: Path | None,
    model: str,
    options: dict[str, Any],
    objects: Path | None,
) -> None:
    from napari_sam_suite.cli.batch import Batch
    from napari_sam_suite.engine.image import open_image

    batch = Batch(out, parse_formats(formats), task, as_json=as_json)
    batch.selection, batch.colours, batch.recipe = selection, colours, recipe
    batch.read = [] if objects is None else [objects]
    batch.run([partial(open_image, image, axes=axes)], model, **options)
    batch.finish()


def _from_points(points: str, outside: str, together: bool) -> list[Prompt]:
    from napari_sam_suite.engine.prompts.prompt import from_points

    yes, tags = _numbers(points, 2, "points")
    no, _ = _numbers(outside, 2, "outside")
    labels = [1] * len(yes) + [0] * len(no)
    named = tags + [""] * len(no)
    return from_points(yes + no, labels, together=together, tags=named)


def _from_boxes(boxes: str) -> list[Prompt]:
    from napari_sam_suite.engine.prompts.prompt import from_boxes

    numbers, tags = _numbers(boxes, 4, "boxes")
    return from_boxes(numbers, tags=tags)


def _again(path: Path | None, use: str) -> list[Prompt]:
    from napari_sam_suite.engine.prompts.prompt import from_objects

    if use not in _USES:
        raise ParameterError(
            f"`use` cannot be {use!r}.", f"Choose one of: {', '.join(_USES)}."
        )
    if path is None:
        return []
    return from_objects(_load(path), cast("Literal['box', 'mask', 'both']", use))


def _load(path: Path) -> Objects:
    from napari_sam_suite.engine.objects import Objects

    return Objects.load(path)


def _tagged(prompts: list[Prompt], tag: str) -> list[Prompt]:
    """Prompts counted through, with the one tag, their own or none."""
    from dataclasses import replace

    from napari_sam_suite.engine.features import UNASSIGNED

    if not prompts:
        raise ParameterError(
            "There is nothing to look for.",
            "Give `points`, `boxes`, `objects` or `whole`.",
        )
    return [
        replace(p, number=number, tag=tag or p.tag or UNASSIGNED)
        for number, p in enumerate(prompts, start=1)
    ]


def _numbers(text: str, width: int, name: str) -> tuple[list[list[float]], list[str]]:
    """Rows of `width` numbers and a tag for each, from text or from a CSV file."""
    path = Path(text)
    rows = [part.split(",") for part in text.split(";") if part.strip()]
    if path.suffix.lower() == ".csv" and not path.is_file():
        raise ParameterError(f"`{name}`: there is no file {text!r}.", "Check the path.")
    if text and len(rows) == 1 and path.suffix and path.is_file():
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [
                row for row in csv.reader(file) if any(cell.strip() for cell in row)
            ]
        if rows and not _is_number(rows[0][0]):
            rows = rows[1:]  # a heading
    numbers, tags = [], []
    for row in rows:
        cells = [cell.strip() for cell in row]
        if len(cells) < width or not all(map(_is_number, cells[:width])):
            example = "y,x" if width == 2 else "y0,x0,y1,x1"
            raise ParameterError(
                f"`{name}`: {','.join(cells)!r} is not {width} numbers.",
                f'Write them as "{example}; {example}", or name a CSV file.',
            )
        numbers.append([float(cell) for cell in cells[:width]])
        tags.append(cells[width] if len(cells) > width else "")
    return numbers, tags


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

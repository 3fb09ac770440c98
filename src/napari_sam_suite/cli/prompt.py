"""The command ``prompt``: points, boxes and masks, each answered with an object."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from napari_sam_suite.cli.asked import Asked, with_asked
from napari_sam_suite.cli.console import errors
from napari_sam_suite.cli.coordinates import read_numbers
from napari_sam_suite.cli.flags import GroupedCommand, with_params
from napari_sam_suite.cli.options import Image
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.prompts.params import PromptParams

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("prompt", cls=GroupedCommand)(prompt_command)


@with_params(PromptParams)
@with_asked(frames="", embeddings=True)
def prompt_command(
    image: Image,
    params: dict[str, Any],
    *,
    points: Annotated[
        str, _prompt("--points", help='Objects as "y,x; y,x", or a CSV file of them.')
    ] = "",
    outside: Annotated[
        str,
        _prompt(
            "--outside",
            help='Points outside of all of them, as "y,x; y,x"; a box is told of '
            "those that are in it.",
        ),
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
    asked: Asked,
) -> None:
    """Answer points, boxes and masks, each with an object.

    Coordinates are pixel centres, y before x. Prompts count in every chosen frame: the
    first one unless --positions, --z or --time say otherwise. In a CSV file every line
    is a prompt, and what follows the numbers is its tag; a heading may name the columns
    otherwise, as napari and ImageJ do. Objects that are drawn again stay in their
    frames.
    """
    from napari_sam_suite.engine.frames import select_frames
    from napari_sam_suite.engine.image import open_image
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.prompts.prompt import Prompt

    with errors(as_json=asked.as_json):
        given = None if objects is None else Objects.load(objects)
        if given is not None and not len(given):
            raise ParameterError(
                f"There are no objects in {objects}.", "Give a file with some."
            )
        prompts = [Prompt(whole=True)] if whole else []
        flags = zip(("positions", "z", "time"), asked.selection, strict=True)
        unsaid = [flag for flag, text in flags if not text]
        prompts += _typed(points, boxes, outside, together, unsaid)
        if given is not None and prompts:
            # The objects may be in any frame; what is typed is for those it would be
            # for without them.
            sizes = open_image(image, axes=asked.axes).sizes
            frames = select_frames(sizes, *(text or "1" for text in asked.selection))
            prompts = [replace(p, frame=frame) for frame in frames for p in prompts]
        prompts += _again(given, use)
        source = {} if given is None else given.source
        task = Prompting(_tagged(prompts, tag), PromptParams(**params), source)
        batch = asked.batch(task)
        usual = "1" if given is None else "all"
        positions, z, time = (text or usual for text in asked.selection)
        batch.selection = positions, z, time
        batch.read = [] if objects is None else [objects]
        asked.run(batch, [image])
    batch.finish()


@dataclass(frozen=True)
class Prompting:
    """Prompts as a `Task`: the same in every frame, unless they name their own.

    Attributes
    ----------
    source : dict
        Where the objects come from that some prompts were made of.
    """

    prompts: Sequence[Prompt]
    params: PromptParams
    source: dict[str, Any] = field(default_factory=dict)
    name = "prompt"

    def start(
        self,
        engine: Engine,
        image: ImageSource,
        frames: list[FrameIndex],
        composite: Composite,
    ) -> Job[Objects]:
        """Queue the prompts on the frames that have some."""
        from napari_sam_suite.engine.prompts.finder import start_prompts
        from napari_sam_suite.engine.provenance import check_size

        check_size(self.source, image)
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


def _typed(
    points: str, boxes: str, outside: str, together: bool, unsaid: Sequence[str]
) -> list[Prompt]:
    """Prompts from points and boxes, and from what lies outside of all of them."""
    from napari_sam_suite.engine.prompts.prompt import from_boxes, from_points

    yes, tags = read_numbers(points, 2, "points", unsaid)
    no, _ = read_numbers(outside, 2, "outside", unsaid)
    corners, box_tags = read_numbers(boxes, 4, "boxes", unsaid)
    if no and not (yes or corners):
        raise ParameterError(
            "`outside` says what does not belong to points or boxes, and there are "
            "none.",
            "Give `points` or `boxes`, or leave it out.",
        )
    labels = [1] * len(yes) + [0] * len(no)
    named = tags + [""] * len(no)
    prompts = []
    if yes:
        prompts = from_points(yes + no, labels, together=together, tags=named)
    return prompts + [
        replace(prompt, outside=tuple((y, x) for y, x in no if _is_in(prompt, y, x)))
        for prompt in from_boxes(corners, tags=box_tags)
    ]


def _is_in(prompt: Prompt, y: float, x: float) -> bool:
    """Whether a point lies in the box of a prompt, whose corners may be swapped."""
    if prompt.box is None:
        return False
    (y0, y1), (x0, x1) = sorted(prompt.box[::2]), sorted(prompt.box[1::2])
    return y0 <= y <= y1 and x0 <= x <= x1


def _again(objects: Objects | None, use: str) -> list[Prompt]:
    from napari_sam_suite.engine.prompts.prompt import from_objects

    if use not in _USES:
        raise ParameterError(
            f"`use` cannot be {use!r}.", f"Choose one of: {', '.join(_USES)}."
        )
    if objects is None:
        return []
    return from_objects(objects, cast("Literal['box', 'mask', 'both']", use))


def _tagged(prompts: list[Prompt], tag: str) -> list[Prompt]:
    """Prompts counted through, with the one tag, their own or none."""
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

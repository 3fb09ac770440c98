"""The command ``few-shot``: examples in one image, the same objects in all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sam_suite.cli.asked import Asked, with_asked
from napari_sam_suite.cli.console import errors
from napari_sam_suite.cli.flags import GroupedCommand, with_params
from napari_sam_suite.cli.options import Images
from napari_sam_suite.engine.errors import OutputError, ParameterError
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.outputs import result_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_sam_suite.cli.batch import Row
    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.fewshot.examples import Examples
    from napari_sam_suite.engine.fewshot.finder import FewShot
    from napari_sam_suite.engine.fewshot.prototypes import Prototypes
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.recipe import Capability

_examples = partial(typer.Option, rich_help_panel="Examples", show_default=False)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("few-shot", cls=GroupedCommand)(few_shot_command)


@dataclass
class Finding:
    """Few-shot as a `Task` of a batch: what one image taught serves the others."""

    params: FewShotParams
    examples: Examples | None
    prototypes: Prototypes | None
    saved: Path | None = None
    last: FewShot | None = None
    left_out: tuple[str, ...] = ()
    """Said of the image at hand: its examples are not found again."""
    name = "few-shot"

    def start(
        self,
        engine: Engine,
        image: ImageSource,
        frames: list[FrameIndex],
        composite: Composite,
    ) -> Job[Objects]:
        """Queue the search of one image."""
        from napari_sam_suite.engine.fewshot.finder import FewShot

        learnt = self.learnt
        examples, known, self.left_out = self.examples, None, ()
        if examples is not None and image.path == examples.image.path:
            # Seen as the search sees it, the examples need no look of their own.
            examples = replace(examples, composite=composite)
            known = examples.objects
            self.left_out = examples.left_out(frames)
        self.last = FewShot(self.params, examples, learnt, known=known)
        self.last.check(engine.spec)
        return engine.start(self.last, image, frames=frames, composite=composite)

    def tell(self, row: Row, _: Job[Objects]) -> None:
        """Say of an image with examples that these are left out of what was found."""
        if row.objects:
            row.notices += self.left_out

    def capability(self) -> Capability:
        """As a recipe has it: the shapes themselves, or the file of prototypes."""
        from napari_sam_suite.cli.recipes import absolute
        from napari_sam_suite.engine.recipe import FewShot
        from napari_sam_suite.engine.recorded import to_shapes

        examples = self.examples
        if examples is None:
            return FewShot(params=self.params, prototypes=str(absolute(self.saved)))
        return FewShot(
            params=self.params,
            tags=examples.tags,
            negatives=examples.negatives,
            examples=to_shapes(examples.objects),
            image=str(absolute(examples.image.path)),
        )

    @property
    def learnt(self) -> Prototypes | None:
        """Prototypes, once there are any."""
        return self.prototypes if self.last is None else self.last.prototypes

    def advice(self, spec: ModelSpec) -> str:
        """Name the threshold as it was."""
        from napari_sam_suite.engine.fewshot.calibrate import SUGGESTED

        asked = self.params.resolved(spec).threshold
        now = SUGGESTED if asked == "auto" else asked
        return f"Nothing like that was found. Try a lower --threshold (now {now:g})."


@with_params(FewShotParams)
@with_asked()
def few_shot_command(
    images: Images,
    params: dict[str, Any],
    *,
    examples: Annotated[
        Path | None,
        _examples(
            "--examples",
            help="Shapes on the first IMAGE: GeoJSON with tags, or a label image.",
        ),
    ] = None,
    tags: Annotated[
        list[str] | None,
        _examples("--tag", help="Tag of what to find; may be given several times."),
    ] = None,
    negatives: Annotated[
        list[str] | None,
        _examples(
            "--not", help="Tag of what is not meant; may be given several times."
        ),
    ] = None,
    prototypes: Annotated[
        Path | None,
        _examples("--prototypes", help="Saved prototypes, in place of examples."),
    ] = None,
    save_prototypes: Annotated[
        Path | None,
        _examples("--save-prototypes", help="Where to save what was learnt."),
    ] = None,
    asked: Asked,
) -> None:
    """Find objects like the examples: one label image and one GeoJSON file for each.

    The examples themselves are not among the objects found.
    """
    from napari_sam_suite.cli.batch import check_names
    from napari_sam_suite.engine.fewshot.prototype_files import prototype_files
    from napari_sam_suite.engine.fewshot.prototypes import Prototypes
    from napari_sam_suite.engine.image import open_image
    from napari_sam_suite.engine.sources import check_apart, find_images

    with errors(as_json=asked.as_json):
        check_apart(map(str, images), asked.out, asked.formats)
        images = find_images(map(str, images))
        chosen = FewShotParams(**params)
        spec = find_model(asked.model, folder=asked.engine["folder"])
        chosen.resolved(spec)
        check_names(images)
        inputs = (examples, prototypes, save_prototypes)
        check_inputs(images, asked.out, asked.formats, *inputs)
        learnt = shapes = None
        if prototypes is not None and examples is None:
            learnt = Prototypes.load(prototypes)
            learnt.check(spec.id, chosen.mode)
            check_tags(learnt, tags or (), negatives or ())
        elif examples is not None and prototypes is None:
            image = open_image(images[0], axes=asked.axes)
            shapes = read_examples(
                examples,
                image,
                tags or (),
                negatives or (),
                asked.colours.composite(image),
            )
        else:
            raise ParameterError(
                "Few-shot learns either from examples or from prototypes.",
                "Give one of --examples and --prototypes.",
            )
        task = Finding(chosen, shapes, learnt, saved=prototypes)
        batch = asked.batch(task)
        batch.after = task.tell
        asked.run(batch, images)
        if save_prototypes is not None and task.learnt is not None:
            task.learnt.save(save_prototypes)
            row = next((row for row in batch.rows if row.frames), batch.rows[0])
            row.files += map(str, prototype_files(save_prototypes))
    batch.finish()


def check_tags(
    learnt: Prototypes, tags: Sequence[str], negatives: Sequence[str]
) -> None:
    """Make sure that no other tags are asked for than the prototypes have.

    Raises
    ------
    ParameterError
        If others are: prototypes cannot be parted, or taught without examples.
    """
    asked, given = (set(tags), set(negatives)), (learnt.tags, learnt.negatives)
    if any(a and a != set(g) for a, g in zip(asked, given, strict=True)):
        raise ParameterError(
            f"These prototypes find {', '.join(learnt.tags)}, and nothing else.",
            "Leave out --tag and --not, or learn from --examples.",
        )


def check_inputs(
    images: Sequence[Path],
    out: Path,
    formats: Sequence[str],
    examples: Path | None,
    prototypes: Path | None,
    save_prototypes: Path | None,
) -> None:
    """Make sure that what is learnt from outlives the run, and its results too.

    Raises
    ------
    OutputError
        If a result would overwrite the examples or the prototypes, or if the
        prototypes to be saved would overwrite one of these or a result, or cannot be
        written where they shall be.
    """
    from napari_sam_suite.engine.fewshot.prototype_files import prototype_files
    from napari_sam_suite.engine.image import plain_name
    from napari_sam_suite.engine.outputs import check_folder

    results = [
        file for path in images for file in result_files(out, plain_name(path), formats)
    ]
    inputs = {} if examples is None else {examples: "the examples"}
    if prototypes is not None:
        inputs |= dict.fromkeys(prototype_files(prototypes), "the prototypes")
    _spare(inputs, results, "The results", "Choose another folder with --out.")
    if save_prototypes is not None:
        inputs |= dict.fromkeys(results, "the results")
        inputs |= dict.fromkeys(images, "the image")
        saved = prototype_files(save_prototypes)
        hint = "Choose another name with --save-prototypes."
        _spare(inputs, saved, "The prototypes to be saved", hint)
        check_folder(save_prototypes.absolute().parent, "--save-prototypes")


def _spare(
    inputs: dict[Path, str], outputs: Iterable[Path], what: str, hint: str
) -> None:
    for path, name in inputs.items():
        if any(_is_same(path, output) for output in outputs):
            raise OutputError(f"{what} would overwrite {name} {path}.", hint)


def _is_same(path: Path, other: Path) -> bool:
    """Whether two names are of one file, also through links or if it is yet to be."""
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()


def read_examples(
    path: Path,
    image: ImageSource,
    tags: Sequence[str],
    negatives: Sequence[str],
    composite: Composite | None = None,
) -> Examples:
    """Examples from a file; objects without any tag get the one asked for.

    Other parameters are those of `choose_examples`.

    Raises
    ------
    EngineError
        If the file cannot be read or holds no example of `image`.
    """
    from napari_sam_suite.engine.features import UNASSIGNED
    from napari_sam_suite.engine.fewshot.examples import choose_examples
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.provenance import check_size

    objects = Objects.load(path)
    check_size(objects.source, image)
    if not len(objects):
        empty = objects.source.get("skipped")
        raise ParameterError(
            f"All shapes in {path.name} are empty."
            if empty
            else f"There are no shapes in {path.name}.",
            "Draw some around objects of this image, and tag them.",
        )
    if len(tags) == 1 and (objects.features["tag"] == UNASSIGNED).all():
        objects = objects.with_tags(tags[0])
    return choose_examples(image, objects, tags, negatives, composite)

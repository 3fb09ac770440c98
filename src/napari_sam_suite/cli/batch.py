"""Many images through one engine from the command line, with files for each."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape

from napari_sam_suite.cli.colours import Colours
from napari_sam_suite.cli.console import (
    INTERRUPTED,
    Presses,
    Show,
    counted_interrupts,
    error_as_dict,
    flag,
    leave_now,
    print_error,
    print_json,
    progress_bar,
    raise_failure,
)
from napari_sam_suite.cli.intake import Intake
from napari_sam_suite.engine.errors import (
    Cancelled,
    EngineError,
    ModelError,
    ParameterError,
    reworded,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_sam_suite.cli.tasks import Task
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.outputs import ImageOutput
    from napari_sam_suite.engine.run import FrameResult


@dataclass
class Row:
    """What became of one image; `partial` if its work did not come to its end."""

    image: str
    frames: int = 0
    partial: bool = False
    objects: int = 0
    seconds: float = 0.0
    files: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    error: dict[str, str] | None = None


@dataclass
class Batch:
    """One command's images, their results and what is said about them.

    Attributes
    ----------
    selection : (str, str, str)
        Positions, z and time as typed.
    colours : Colours
        Channels to look at, and how.
    names : dict
        File stem by format, if not the image's name.
    recipe : Path, optional
        Where to write what is asked as a recipe, before anything is done.
    said : sequence of str
        Formats that the recipe names, where `after` writes them and not the batch.
    read : sequence of Path
        Files that are read besides the images, and so never written over.
    row : callable
        Begins the row of an image from its name.
    after : callable, optional
        Called with the row and the job of each image when its frames are done, however
        that ended; files that it writes are there before the next image begins.
    """

    out: Path
    formats: Sequence[str]
    task: Task
    as_json: bool = False
    selection: tuple[str, str, str] = ("all", "all", "all")
    colours: Colours = field(default_factory=Colours)
    names: dict[str, str] = field(default_factory=dict)
    recipe: Path | None = None
    said: Sequence[str] = ()
    read: Sequence[Path] = ()
    row: Callable[[str], Row] = Row
    after: Callable[[Row, Job[Objects]], object] | None = None
    rows: list[Row] = field(default_factory=list)
    interrupted: bool = False
    abandoned: bool = False

    def run(
        self,
        openers: Sequence[Callable[[], ImageSource]],
        model: str,
        **options: Any,
    ) -> None:
        """Segment images one after the other; one that fails does not stop the rest.

        Raises
        ------
        EngineError
            If the folder or the model cannot be used at all.
        """
        from napari_sam_suite.engine.outputs import results_in

        with results_in(self.out):
            self._run(openers, model, **options)

    def _run(
        self,
        openers: Sequence[Callable[[], ImageSource]],
        model: str,
        **options: Any,
    ) -> None:
        from napari_sam_suite.engine.models.checkpoints import require_checkpoint
        from napari_sam_suite.engine.models.registry import find_model

        if self.recipe is not None:
            from napari_sam_suite.cli.recipes import write_recipe

            write_recipe(self.recipe, self, openers, model, options)
        if not options.get("random_weights"):
            where = options.get("folder")
            require_checkpoint(find_model(model, folder=where), where)
        from napari_sam_suite.engine.jobs import Engine

        engine = Engine(model, **options)
        try:
            with progress_bar(quiet=self.as_json) as show:
                images = [path for o in openers if (path := _path(o)) is not None]
                inputs = [*images, *self.read]
                for open_one in openers:
                    try:
                        self._one(engine, open_one, show, inputs)
                    except KeyboardInterrupt:
                        self.interrupted = True
                    if self.interrupted:
                        break
        finally:
            # What cannot be broken off is not waited for.
            engine.close(**({"timeout": 0} if self.abandoned else {}))

    def finish(self) -> None:
        """Say what was done, and leave with the exit code that it deserves."""
        if self.as_json:
            rows = [asdict(row) for row in self.rows]
            print_json({"images": rows, "interrupted": self.interrupted})
        else:
            for row in self.rows:
                self._say(row)
        if self.interrupted:
            typer.echo("Stopped; finished frames are kept.", err=True)
        if self.abandoned:
            leave_now()
        if self.interrupted:
            raise typer.Exit(INTERRUPTED)
        if failed := sum(row.error is not None for row in self.rows):
            if len(self.rows) > 1 and not self.as_json:
                typer.echo(f"{failed} of {len(self.rows)} images failed.", err=True)
            raise typer.Exit(1)

    def _one(
        self,
        engine: Engine,
        open_one: Callable[[], ImageSource],
        show: Show | None,
        inputs: Sequence[Path],
    ) -> None:
        from napari_sam_suite.engine.frames import select_frames
        from napari_sam_suite.engine.outputs import ImageOutput

        start = time.perf_counter()
        row = self.row(_name(open_one))
        self.rows.append(row)
        try:
            image = open_one()
            row.image = image.name
            frames = select_frames(image.sizes, *self.selection)
            if len(frames) == 1:
                # What cannot be read is found out before a model is loaded for it.
                image.frame(frames[0])
            composite = self.colours.composite(image).resolve(image, frames)
            output = ImageOutput(
                self.out,
                image,
                self.formats,
                composite,
                names=self.names,
                inputs=inputs,
                capability=self.task.name,
            )
            try:
                job = self.task.start(engine, image, frames, composite)
            except EngineError:
                output.discard()
                raise
            try:
                self._follow(job, output, row, show, len(frames))
            finally:
                if self.after is not None:
                    self.after(row, job)
            if not (row.objects or row.notices or self.interrupted):
                row.notices.append(self.task.advice(engine.spec))
        except ModelError:
            # It would be the same for every image.
            raise
        except (EngineError, MemoryError) as error:
            row.error = error_as_dict(error)
            if not self.as_json:
                print_error(error, as_json=False, about=row.image)
        row.seconds = round(time.perf_counter() - start, 2)

    def _follow(
        self,
        job: Job[Objects],
        output: ImageOutput,
        row: Row,
        show: Show | None,
        count: int,
    ) -> None:
        """Write frames as they come; whatever ends the job, finished ones are kept."""
        from napari_sam_suite.engine.job import JobState

        failure: EngineError | MemoryError | None = None
        try:
            with counted_interrupts() as presses:
                for part in self._parts(job, presses, row, show):
                    try:
                        output.add(part)
                    except (EngineError, MemoryError) as error:
                        failure = failure or error
                        job.cancel()
                try:
                    output.close()
                except (EngineError, MemoryError) as error:
                    failure = failure or error
        except BaseException:
            job.cancel()
            output.discard()
            raise
        row.frames, row.objects = output.frames, output.found
        row.files = [str(path) for path in output.files]
        row.notices = [reworded(text, flag) for text in job.notices]
        row.partial = failure is not None or job.state is not JobState.DONE
        if failure is not None or (row.partial and (self.interrupted or row.frames)):
            row.notices.append(
                f"{row.frames} of {job.expected or count} frames were finished and "
                "kept."
            )
        if failure is not None:
            raise failure
        if not (self.interrupted or isinstance(job.error, Cancelled)):
            raise_failure(job.error)

    def _parts(
        self, job: Job[Objects], presses: Presses, row: Row, show: Show | None
    ) -> Iterator[FrameResult]:
        """Finished frames until the job ends or is not worth waiting for."""
        intake = Intake(job)
        while True:
            ended, pressed = job.wait(0), presses.count
            if pressed:
                self.interrupted = True
                job.cancel()
            if (part := intake.next(0.1)) is not None:
                yield part
            elif ended:
                return
            elif pressed > 1 or (pressed and not job.progress.total):
                # Nothing is lost before the first frame: a model is being loaded.
                self.abandoned = True
                return
            if show is not None and job.progress.total:
                done, total, text = job.progress
                text = "stopping; Ctrl-C again leaves now" if pressed else text
                show(done, total, f"{row.image}: {text}")

    def _say(self, row: Row) -> None:
        if not row.frames:
            return
        console = Console()
        frames = "1 frame" if row.frames == 1 else f"{row.frames} frames"
        objects = "1 object" if row.objects == 1 else f"{row.objects} objects"
        console.print(
            f"[bold]{escape(row.image)}[/bold]: {objects} in {frames}, "
            f"{row.seconds:.1f} s",
            soft_wrap=True,
            highlight=False,
        )
        for text in [*row.notices, *row.files]:
            console.print(f"  {escape(text)}", soft_wrap=True, highlight=False)


def check_names(
    images: Sequence[Path], stem: Callable[[Path], str] | None = None
) -> None:
    """Make sure that no two images would write the same file.

    Parameters
    ----------
    images : sequence of Path
        What is read.
    stem : callable, optional
        Names the files of each; without it they have the image's name.

    Raises
    ------
    ParameterError
        If two have the same name.
    """
    from napari_sam_suite.engine.image import plain_name

    seen: dict[str, Path] = {}
    for path in images:
        name = (stem or plain_name)(path).lower()
        if name in seen:
            raise ParameterError(
                f"{seen[name]} and {path} would write the same file.",
                "Run them one at a time, each with its own `out`.",
            )
        seen[name] = path


def _path(open_one: Callable[[], Any]) -> Path | None:
    """The file that is opened, if it is one."""
    arguments = getattr(open_one, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], Path) else None


def _name(open_one: Callable[[], Any]) -> str:
    return str(_path(open_one) or "image")

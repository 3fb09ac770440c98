"""Many images through one engine from the command line, with files for each."""

from __future__ import annotations

import queue
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape

from napari_sam_suite.console import (
    INTERRUPTED,
    Show,
    print_error,
    print_json,
    progress_bar,
)
from napari_sam_suite.engine.errors import (
    Cancelled,
    EngineError,
    ModelError,
    ParameterError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.outputs import ImageOutput
    from napari_sam_suite.engine.params import AutoParams


@dataclass
class Row:
    """What became of one image."""

    image: str
    frames: int = 0
    objects: int = 0
    seconds: float = 0.0
    files: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    error: str = ""


@dataclass
class Batch:
    """One command's images, their results and what is said about them.

    Attributes
    ----------
    selection : (str, str, str)
        Positions, z and time as typed.
    channels : str
        Channels to look at, as typed.
    names : dict
        File stem by format, if not the image's name.
    """

    out: Path
    formats: Sequence[str]
    params: AutoParams
    as_json: bool = False
    selection: tuple[str, str, str] = ("all", "all", "all")
    channels: str = "all"
    names: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    interrupted: bool = False

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
        from napari_sam_suite.engine.models.checkpoints import require_checkpoint
        from napari_sam_suite.engine.models.registry import find_model
        from napari_sam_suite.engine.outputs import check_folder

        check_folder(self.out)
        if not options.get("random_weights"):
            require_checkpoint(find_model(model), options.get("folder"))
        from napari_sam_suite.engine.jobs import Engine

        with (
            Engine(model, **options) as engine,
            progress_bar(quiet=self.as_json) as show,
        ):
            for open_one in openers:
                self._one(engine, open_one, show)
                if self.interrupted:
                    break

    def finish(self) -> None:
        """Say what was done, and leave with the exit code that it deserves."""
        if self.as_json:
            print_json({"images": [asdict(row) for row in self.rows]})
        else:
            for row in self.rows:
                self._say(row)
        if self.interrupted:
            typer.echo("Stopped; finished frames are kept.", err=True)
            raise typer.Exit(INTERRUPTED)
        if any(row.error for row in self.rows):
            raise typer.Exit(1)

    def _one(
        self, engine: Engine, open_one: Callable[[], ImageSource], show: Show | None
    ) -> None:
        from napari_sam_suite.engine.frames import COMMAND_FIELDS, select_frames
        from napari_sam_suite.engine.outputs import ImageOutput

        start = time.perf_counter()
        row = Row(_name(open_one))
        self.rows.append(row)
        try:
            image = open_one()
            row.image = image.name
            frames = select_frames(image.sizes, *self.selection, fields=COMMAND_FIELDS)
            composite = self._composite(image)
            output = ImageOutput(
                self.out, image, self.formats, composite, names=self.names
            )
            job = engine.start_segment(
                image, self.params, frames=frames, composite=composite
            )
            self._follow(job, output, row, show)
        except ModelError:
            # It would be the same for every image.
            raise
        except EngineError as error:
            row.error = str(error)
            if not self.as_json:
                print_error(error, as_json=False, about=row.image)
        row.seconds = round(time.perf_counter() - start, 2)

    def _follow(
        self, job: Job[Objects], output: ImageOutput, row: Row, show: Show | None
    ) -> None:
        """Write frames as they come; whatever ends the job, finished ones are kept."""
        parts: queue.SimpleQueue[Any] = queue.SimpleQueue()
        job.found.connect(parts.put)
        for part in job.parts:  # found before anybody listened
            parts.put(part)
        taken: set[Any] = set()

        def take() -> None:
            while not parts.empty():
                result = parts.get()
                if result.frame not in taken:
                    taken.add(result.frame)
                    output.add(result)

        try:
            try:
                while not job.wait(0.1):
                    take()
                    if show is not None and job.progress.total:
                        done, total, text = job.progress
                        show(done, total, f"{row.image}: {text}")
            except KeyboardInterrupt:
                self.interrupted = True
                job.cancel()
                job.wait()
            take()
            output.close()
        except BaseException:
            job.cancel()
            output.discard()
            raise
        row.frames, row.objects = output.frames, output.found
        row.files = [str(path) for path in output.files]
        row.notices = job.notices
        if not self.interrupted:
            _raise(job)

    def _composite(self, image: ImageSource) -> Composite:
        from napari_sam_suite.engine.composite import Composite
        from napari_sam_suite.engine.frames import parse_selection

        composite = Composite.default(image)
        if self.channels.strip().lower() in ("", "all"):
            return composite
        if image.rgb:
            raise ParameterError(
                f"{image.name!r} is RGB, so it has no channels to choose.",
                "Leave --channels out.",
            )
        count = image.sizes.channel
        visible = parse_selection(self.channels, count, field="--channels")
        # One channel is grey, as it would be alone in its file.
        grey = {"color": "#ffffff"} if len(visible) == 1 else {}
        channels = tuple(
            c.model_copy(update={"visible": c.index in visible, **grey})
            for c in composite.channels
        )
        return composite.model_copy(update={"channels": channels})

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


def check_names(images: Sequence[Path]) -> None:
    """Make sure that no two images would write the same file.

    Raises
    ------
    ParameterError
        If two have the same name.
    """
    from napari_sam_suite.engine.image import plain_name

    seen: dict[str, Path] = {}
    for path in images:
        stem = plain_name(path).lower()
        if stem in seen:
            raise ParameterError(
                f"{seen[stem]} and {path} would write the same file.",
                "Run them one at a time, each with its own --out.",
            )
        seen[stem] = path


def _raise(job: Job[Any]) -> None:
    if isinstance(job.error, Cancelled) or job.error is None:
        return
    if isinstance(job.error, EngineError):
        raise job.error
    raise EngineError(
        f"Something unexpected went wrong: {job.error}",
        "Run again with --verbose and report what it prints.",
    ) from job.error


def _name(open_one: Callable[[], Any]) -> str:
    arguments = getattr(open_one, "args", ())
    return str(arguments[0]) if arguments else "image"

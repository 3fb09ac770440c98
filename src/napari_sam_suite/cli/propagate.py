"""The command ``propagate``: objects of one frame carried on through time or z."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sam_suite.cli.asked import Asked, with_asked
from napari_sam_suite.cli.console import errors
from napari_sam_suite.cli.flags import GroupedCommand, with_params
from napari_sam_suite.cli.options import Image
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.propagation.params import PropagateParams

if TYPE_CHECKING:
    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.recipe import Capability


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("propagate", cls=GroupedCommand)(propagate_command)


@with_params(PropagateParams, without=("answers",))  # it takes the best one
@with_asked(frames=None, embeddings=True)
def propagate_command(
    image: Image,
    params: dict[str, Any],
    *,
    objects: Annotated[
        Path,
        typer.Option(
            "--objects",
            help="GeoJSON or label image: what to begin with.",
            rich_help_panel="Objects",
        ),
    ],
    start: Annotated[
        int | None,
        typer.Option(
            "--start",
            min=1,
            help="Frame of the objects along the axis, counted from 1, if their file "
            "does not say it or has several.",
            show_default=False,
            rich_help_panel="Objects",
        ),
    ] = None,
    asked: Asked,
) -> None:
    """Carry the objects of one frame on through time or z.

    Numbers in label images are those of the tracks, and one that is read keeps its own;
    the GeoJSON says for each object its track, its parent in the frame before, and who
    found it.
    """
    from napari_sam_suite.engine.objects import Objects

    with errors(as_json=asked.as_json):
        task = Propagating(Objects.load(objects), start, PropagateParams(**params))
        batch = asked.batch(task)
        batch.read = [objects]
        asked.run(batch, [image])
    batch.finish()


@dataclass(frozen=True)
class Propagating:
    """Propagation as a `Task`."""

    objects: Objects
    start_at: int | None
    params: PropagateParams
    name = "propagate"

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
        from napari_sam_suite.engine.propagation.track import mark
        from napari_sam_suite.engine.recipe import Propagate
        from napari_sam_suite.engine.recorded import to_shapes

        objects, frame = self._chosen()
        here = objects if frame is None else objects.at(frame)
        return Propagate(params=self.params, objects=to_shapes(mark(here)))

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

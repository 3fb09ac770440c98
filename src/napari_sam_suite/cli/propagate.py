"""The command ``propagate``: objects of one frame carried on through time or z."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sam_suite.cli.asked import Asked, with_asked
from napari_sam_suite.cli.console import errors
from napari_sam_suite.cli.flags import GroupedCommand, with_params
from napari_sam_suite.cli.options import Image
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.frames import format_selection
from napari_sam_suite.engine.propagation.params import PropagateParams

if TYPE_CHECKING:
    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.recipe import Capability


_objects = partial(typer.Option, rich_help_panel="Objects", show_default=False)


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
        _objects("--objects", help="GeoJSON or label image: what to begin with."),
    ],
    start: Annotated[
        int | None,
        _objects(
            "--start",
            min=1,
            help="Frame of the objects along the axis, counted from 1, if their file "
            "does not say it or has several.",
        ),
    ] = None,
    position: Annotated[
        int | None,
        _objects("--positions", min=1, help="Which position they are in, likewise."),
    ] = None,
    z: Annotated[
        int | None, _objects("--z", min=1, help="Which plane they are in, likewise.")
    ] = None,
    time: Annotated[
        int | None,
        _objects("--time", min=1, help="Which time point they are in, likewise."),
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
        chosen = PropagateParams(**params)
        said = {"position": position, "z": z, "time": time}
        where = {axis: number for axis, number in said.items() if number is not None}
        if start is not None and where.setdefault(chosen.axis, start) != start:
            raise ParameterError(
                f"`start` and `{chosen.axis}` name different frames.",
                "Give one of them.",
            )
        task = Propagating(Objects.load(objects), chosen, where)
        batch = asked.batch(task)
        batch.read = [objects]
        asked.run(batch, [image])
    batch.finish()


@dataclass(frozen=True)
class Propagating:
    """Propagation as a `Task`.

    Attributes
    ----------
    where : dict
        What was said of the frame to begin in: numbers by axis, counted from 1.
    """

    objects: Objects
    params: PropagateParams
    where: dict[str, int] = field(default_factory=dict)
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
        """The objects, and the frame to begin in, if there are some."""
        objects, there = self.objects, self.objects.frames()
        if len(there) == 1 and self.where:
            places = {axis: number - 1 for axis, number in self.where.items()}
            objects = objects.with_features(**places)
            return objects, objects.frames()[0]
        fitting = [
            frame
            for frame in there
            if all(getattr(frame, a) == n - 1 for a, n in self.where.items())
        ]
        said = ", ".join(f"{axis} {number}" for axis, number in self.where.items())
        if there and not fitting:
            raise ParameterError(
                f"There are no objects in {said}.",
                "Choose another frame, or leave the choice out.",
            )
        if len(fitting) > 1:
            open_to = {
                axis: {getattr(frame, axis) for frame in fitting}
                for axis in ("position", "z", "time")
            }
            several = {axis: n for axis, n in open_to.items() if len(n) > 1}
            names = "; ".join(f"{a} {format_selection(n)}" for a, n in several.items())
            flags = " and ".join(map(self._flag, several))
            raise ParameterError(
                f"The objects{f' in {said}' if said else ''} are of {len(fitting)} "
                f"frames: {names}.",
                f"Say in which one to begin with {flags}.",
            )
        return objects, fitting[0] if fitting else None

    def _flag(self, axis: str) -> str:
        """What chooses a place on an axis."""
        if axis == self.params.axis:
            return "`start`"
        return "`positions`" if axis == "position" else f"`{axis}`"

    def advice(self, spec: ModelSpec) -> str:
        """Say what may help."""
        return "Nothing was carried on. Try a lower --trust or a longer --max-gap."

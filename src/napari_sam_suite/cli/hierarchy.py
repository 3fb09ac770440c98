"""The command ``hierarchy``: levels small, part and whole, and what lies in what."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sam_suite.cli.asked import Asked, with_asked
from napari_sam_suite.cli.batch import Row, check_names
from napari_sam_suite.cli.console import error_as_dict, errors, print_error
from napari_sam_suite.cli.flags import GroupedCommand, with_params
from napari_sam_suite.cli.tasks import Segmenting
from napari_sam_suite.engine.errors import EngineError, ParameterError
from napari_sam_suite.engine.hierarchy.params import LEVELLED, TREE, HierarchyParams
from napari_sam_suite.engine.outputs import parse_formats, result_files, results_in
from napari_sam_suite.engine.params import AutoParams

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.recipe import Capability

_RESULTS = (".geojson", ".json", ".parquet", ".geoparquet", ".zip", ".roi")

Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT...",
        help="Images, or results: GeoJSON, COCO, GeoParquet, ImageJ ROIs.",
        rich_help_panel="Input",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Keep what was found in this folder, for the next time.",
        rich_help_panel="Model",
        show_default=False,
    ),
]
Formats = Annotated[
    str,
    typer.Option(
        "--format",
        help="Files of the objects, with levels as tags, beside those of the tree.",
        rich_help_panel="Output",
    ),
]


@dataclass
class LevelRow(Row):
    """What became of one input, with the statistics of its levels."""

    levels: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Nesting(Segmenting):
    """Automatic masks that may lie in each other, as a `Task`."""

    levels: HierarchyParams = field(default_factory=HierarchyParams)
    cache: Path | None = None
    spare: Callable[[str, Path | None], object] | None = None
    """Called with the name and the file of an image before it is looked at."""

    def start(
        self,
        engine: Engine,
        image: ImageSource,
        frames: list[FrameIndex],
        composite: Composite,
    ) -> Job[Objects]:
        """Queue automatic segmentation, from the cache where it is known."""
        from napari_sam_suite.engine.hierarchy.remembered import RememberedAutomatic

        if self.spare is not None:
            self.spare(image.name, image.path)
        if self.cache is None:
            return super().start(engine, image, frames, composite)
        finder = RememberedAutomatic(self.params, self.cache)
        return engine.start(finder, image, frames=frames, composite=composite)

    def capability(self) -> Capability:
        """As a recipe has it."""
        from napari_sam_suite.engine.recipe import Nested

        return Nested(params=self.levels, masks=self.params)


@with_params(HierarchyParams, into="levels")
@with_params(AutoParams, without=("overlap",))
@with_asked(formats="")
def hierarchy_command(
    inputs: Inputs,
    params: dict[str, Any],
    levels: dict[str, Any],
    *,
    asked: Asked,
    formats: Formats = "geojson",
    cache: Cache = None,
) -> None:
    """Sort objects into small, part and whole, and find what lies in what.

    Images are segmented first, with masks that may overlap. Each input gives the
    objects with levels as tags, and the tree as JSON, CSV and text.
    """
    from napari_sam_suite.engine.sources import check_apart, find_images

    with errors(as_json=asked.as_json):
        settings = HierarchyParams(**levels)
        chosen = AutoParams(**params, overlap="allow")
        wanted = _parse(formats)
        check_apart(map(str, inputs), asked.out, wanted)
        inputs = find_images(map(str, inputs))
        check_names(inputs, _stem)
        kept = nullcontext() if cache is None else results_in(cache, "--cache")
        with results_in(asked.out), kept:
            images = [path for path in inputs if not _is_result(path)]
            writer = _Writer(asked.out, wanted, settings, inputs, asked.as_json)
            batch = asked.batch(Nesting(chosen, settings, cache, writer.spare))
            batch.said = wanted
            batch.row, batch.after = LevelRow, writer.of_image
            if asked.recipe is not None and len(images) < len(inputs):
                raise ParameterError(
                    "A recipe is of images, and there are files of objects.",
                    "Leave them out, or leave out --save-recipe.",
                )
            if images:
                asked.run(batch, images)
            batch.rows += writer.of_results(inputs)
    batch.finish()


@dataclass(frozen=True)
class _Writer:
    """Makes the files of hierarchies, and the rows that tell of them."""

    out: Path
    formats: Sequence[str]
    params: HierarchyParams
    inputs: Sequence[Path]
    as_json: bool

    def of_image(self, row: Row, job: Job[Objects]) -> None:
        """Files of an image that was segmented, as far as that went."""
        from napari_sam_suite.engine.objects import Objects

        parts = list(job.parts)
        if parts and isinstance(row, LevelRow):
            found = Objects.concat(part.objects for part in parts)
            self._write(row, row.image, found)

    def of_results(self, inputs: Sequence[Path]) -> list[Row]:
        """Rows of files with objects."""
        from napari_sam_suite.engine.objects import Objects

        rows: list[Row] = []
        for path in filter(_is_result, inputs):
            row = LevelRow(path.name)
            rows.append(row)
            start = time.perf_counter()
            try:
                objects = Objects.load(path)
            except (EngineError, MemoryError) as error:
                self._fail(row, error)
                continue
            row.frames, row.objects = len(objects.searched()), len(objects)
            self._write(row, _stem(path), objects)
            row.seconds = round(time.perf_counter() - start, 2)
        return rows

    def _write(self, row: LevelRow, stem: str, objects: Objects) -> None:
        from napari_sam_suite.engine.hierarchy.hierarchy import (
            build_hierarchy,
            format_statistics,
            statistics_as_dict,
        )

        try:
            path = objects.source.get("path")
            self.spare(stem, None if path is None else Path(path))
            hierarchy = build_hierarchy(objects, self.params)
            statistics = hierarchy.statistics()
            row.levels = statistics_as_dict(statistics)
            if not self.as_json:
                typer.echo(format_statistics(statistics))
            tagged = _as_result(hierarchy.tagged())
            files = self._levelled(stem)
            for name, path in zip(self.formats, files, strict=True):
                tagged.save(path, name)
                row.files.append(str(path))
            for ending in TREE:
                path = self.out / f"{stem}{ending}"
                hierarchy.save(path)
                row.files.append(str(path))
        except (EngineError, MemoryError) as error:
            self._fail(row, error)

    def spare(self, stem: str, image: Path | None) -> None:
        """Never write over what was read, or over what others made."""
        from napari_sam_suite.engine.origin import spare_others

        levelled = self._levelled(stem)
        for path in (*levelled, *(self.out / f"{stem}{ending}" for ending in TREE)):
            if path.exists() and any(path.samefile(one) for one in self.inputs):
                raise ParameterError(
                    f"{path.name} would overwrite the input.",
                    "Choose another folder with `out`.",
                )
        for path in levelled:
            if path.suffix in (".tif", ".geojson"):
                spare_others(path, image=image)

    def _levelled(self, stem: str) -> list[Path]:
        return result_files(self.out, f"{stem}{LEVELLED}", self.formats)

    def _fail(self, row: LevelRow, error: EngineError | MemoryError) -> None:
        row.error = error_as_dict(error)
        if not self.as_json:
            print_error(error, as_json=False, about=row.image)


def _is_result(path: Path) -> bool:
    return path.name.lower().endswith(_RESULTS)


def _stem(path: Path) -> str:
    """Name of an input without its ending."""
    from napari_sam_suite.engine.formats import FORMATS
    from napari_sam_suite.engine.image import plain_name

    if not _is_result(path):
        return plain_name(path)
    endings = (ending for known in FORMATS for ending in known.suffixes)
    fitting = [ending for ending in endings if path.name.lower().endswith(ending)]
    return path.name[: -len(max(fitting, key=len))]


def _as_result(objects: Objects) -> Objects:
    """The same, whose source does not say that a person had saved what was read."""
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.provenance import SAVED_FROM

    source = {k: v for k, v in objects.source.items() if k != SAVED_FROM}
    if "sources" in source:
        source["sources"] = [
            {k: v for k, v in one.items() if k != SAVED_FROM}
            for one in source["sources"]
        ]
    return Objects(objects.polygons, objects.features, source)


def _parse(formats: str) -> tuple[str, ...]:
    names = parse_formats(formats)
    for name in names:
        if not result_files(Path(), "", [name]):
            raise ParameterError(
                f"`format` cannot be {name} here.",
                f"Open the GeoJSON file in napari, or leave {name} out.",
            )
    return names


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("hierarchy", cls=GroupedCommand)(hierarchy_command)

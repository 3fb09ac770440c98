"""The files of one image's results, written whole or not at all.

The command line's flags need the names in here, so what is heavy is imported late.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from napari_sam_suite.engine.errors import EngineError, OutputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pandas import DataFrame

    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.formats.label_writer import LabelWriter
    from napari_sam_suite.engine.formats.ome_zarr import ZarrWriter
    from napari_sam_suite.engine.formats.zarr_inside import InsideWriter
    from napari_sam_suite.engine.frames import FrameIndex, Sizes
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.run import FrameResult

_WHOLE = {
    "geojson": ".geojson",
    "geojson-annotations": ".annotations.geojson",
    "coco": ".coco.json",
    "coco-rle": ".coco-rle.json",
    "rois": ".rois.zip",
    "parquet": ".parquet",
    "nimbus": ".nimbus.json",
}
_DRAWN = {"labels": ".tif", "zarr": ".labels.ome.zarr"}
INSIDE = "zarr-inside"
"""The format that has no file of its own."""
_SINGLE = {**_DRAWN, "csv": ".csv", **_WHOLE}
FORMATS = (
    "labels",
    "geojson",
    "overlay",
    "csv",
    *(n for n in _WHOLE if n != "geojson"),
    "zarr",
    INSIDE,
)
"""Names of what a run can write."""
_FILES = (".tif", ".tiff", ".geojson", ".json", ".csv", ".parquet", ".zip", ".png")
"""Endings that nobody gives a folder."""


def parse_formats(text: str) -> tuple[str, ...]:
    """Turn ``"labels,geojson"`` into names.

    Raises
    ------
    ParameterError
        If a name is unknown or there is none.
    """
    names = tuple(dict.fromkeys(n for n in text.replace(" ", "").split(",") if n))
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise ParameterError(
            f"There is no format called {unknown[0]!r}."
            if unknown
            else "No format was given.",
            f"Choose among: {', '.join(FORMATS)}.",
        )
    return names


def result_files(folder: Path, stem: str, formats: Sequence[str]) -> list[Path]:
    """Files of `stem` that a run into `folder` writes, overlays left out."""
    return [folder / f"{stem}{_SINGLE[n]}" for n in formats if n in _SINGLE]


def overlay_file(
    folder: Path, stem: str, frame: FrameIndex, sizes: Sizes, name: str | None = None
) -> Path:
    """The overlay of one frame: of `stem`, unless it has a `name` of its own."""
    return folder / f"{name or f'{stem}_overlay'}{_frame_suffix(frame, sizes)}.png"


class ImageOutput:
    """What is written for one image, taken frame by frame.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    image : ImageSource
        Its name becomes the files' stem.
    formats : sequence of str
        Of `FORMATS`.
    composite : Composite, optional
        For overlays.
    names : mapping, optional
        File stem by format, where it is not the image's name.
    inputs : sequence of Path
        Further images of the same run, which must not be overwritten either.
    capability : str
        Who finds the objects, as their source says it.

    Attributes
    ----------
    found, frames : int
        Objects and frames taken so far. The objects are kept only where a format is one
        file that is written in the end.

    Raises
    ------
    OutputError
        If the folder cannot be written to, or an image or what others made would be
        overwritten; found out before any work is done.
    MissingExtra
        If a format needs a package that is not installed.
    """

    def __init__(
        self,
        folder: Path,
        image: ImageSource,
        formats: Sequence[str],
        composite: Composite | None = None,
        names: Mapping[str, str] | None = None,
        inputs: Sequence[Path] = (),
        capability: str = "",
    ) -> None:
        from napari_sam_suite.engine.formats import check_format
        from napari_sam_suite.engine.formats.label_writer import LabelWriter
        from napari_sam_suite.engine.formats.ome_zarr import ZarrWriter
        from napari_sam_suite.engine.origin import spare_others

        for name in _WHOLE.keys() & set(formats):
            check_format(name)
        self.folder = folder
        self.image = image
        self.formats = tuple(formats)
        self.files: list[Path] = []
        self._composite = composite
        self._names = names or {}
        self.found = self.frames = 0
        self._kept: list[Objects] = []
        self._labels: list[LabelWriter | ZarrWriter | InsideWriter] = []
        self._measured: list[DataFrame] = []
        if INSIDE in self.formats:
            self._labels.append(_open_inside(image))
        own = () if image.path is None else (image.path,)
        _spare(dict.fromkeys((*own, *inputs)), self._targets())
        for name in ("labels", "geojson", "geojson-annotations"):
            if name in self.formats:
                target = self._path(name, _SINGLE[name])
                spare_others(target, capability, image.path)
        for name, suffix in _DRAWN.items():
            if name in self.formats:
                kind = LabelWriter if name == "labels" else ZarrWriter
                path = self._path(name, suffix)
                writer = kind(path, image.sizes, scale=image.scale, units=image.units)
                if isinstance(writer, LabelWriter):
                    writer.capability = capability
                    writer.image = str(image.path.absolute()) if image.path else ""
                self._labels.append(writer)

    def add(self, result: FrameResult) -> None:
        """Take the objects of one finished frame.

        Raises
        ------
        EngineError or MemoryError
            If there is no room for them. The frames before are kept, and so is this
            one where only its overlay could not be written: `close` is still due.
        """
        if self._labels:
            shape = (self.image.sizes.y, self.image.sizes.x)
            drawn = result.objects.to_labels(shape, result.frame)
        for writer in self._labels:
            writer.write(result.frame, drawn)
            writer.tracked |= "track" in result.objects.features
        self.frames += 1
        self.found += len(result.objects)
        if _WHOLE.keys() & set(self.formats):
            self._kept.append(result.objects)
        if "csv" in self.formats:
            from napari_sam_suite.engine.measurements import measure

            self._measured.append(measure(result.objects, self.image))
        if "overlay" in self.formats:
            self._draw(result)

    def close(self) -> None:
        """Write everything that was taken; nothing, if nothing was.

        Raises
        ------
        EngineError or MemoryError
            If a file cannot be written; the others are, and `files` has them.
        """
        if not self.frames:
            self.discard()
            return
        failure: EngineError | MemoryError | None = None
        for write in (
            *map(self._closer, self._labels),
            self._save_measured,
            *map(self._saver, _WHOLE),
        ):
            try:
                write()
            except (EngineError, MemoryError) as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def discard(self) -> None:
        """Leave nothing half-written behind."""
        for writer in self._labels:
            writer.discard()

    def _closer(
        self, writer: LabelWriter | ZarrWriter | InsideWriter
    ) -> Callable[[], None]:
        return lambda: self.files.append(writer.close())

    def _save_measured(self) -> None:
        if not self._measured:
            return
        import pandas as pd

        from napari_sam_suite.engine.formats.measurements import write_table

        filled = [table for table in self._measured if len(table)]
        path = self._path("csv", _SINGLE["csv"])
        write_table(pd.concat(filled or self._measured[:1], ignore_index=True), path)
        self.files.append(path)

    def _saver(self, name: str) -> Callable[[], None]:
        """Writes all objects to one file, if that format is wanted."""
        from napari_sam_suite.engine.objects import Objects

        def save() -> None:
            if name in self.formats:
                path = self._path(name, _WHOLE[name])
                Objects.concat(self._kept).save(path, name)
                self.files.append(path)

        return save

    def _path(self, name: str, suffix: str) -> Path:
        stem = self._names.get(name, self.image.name)
        return self.folder / f"{stem}{suffix}"

    def _overlay_path(self, frame: FrameIndex) -> Path:
        image, name = self.image, self._names.get("overlay")
        return overlay_file(self.folder, image.name, frame, image.sizes, name)

    def _targets(self) -> Iterator[Path]:
        """Every file that there may be in the end."""
        from napari_sam_suite.engine.frames import select_frames

        for name, suffix in _SINGLE.items():
            if name in self.formats:
                yield self._path(name, suffix)
        if "overlay" in self.formats:
            every = select_frames(self.image.sizes, "all", "all", "all")
            yield from map(self._overlay_path, every)

    def _draw(self, result: FrameResult) -> None:
        from napari_sam_suite.engine.composite import compose
        from napari_sam_suite.engine.formats.overlay import write_overlay

        path = self._overlay_path(result.frame)
        rgb = compose(self.image.frame(result.frame), self._composite)
        write_overlay(path, rgb, result.objects)
        self.files.append(path)


def _open_inside(image: ImageSource) -> InsideWriter:
    """Labels that are written into their image."""
    from napari_sam_suite.engine.formats.zarr_inside import InsideWriter

    if image.path is None or not image.path.is_dir():
        raise OutputError(
            f"{image.name} is no OME-Zarr that labels can be written into.",
            "Choose the format zarr, which is written as a folder of its own.",
        )
    return InsideWriter(image.path, image.sizes, axes=image.axes)


@contextmanager
def results_in(folder: Path, flag: str = "--out") -> Iterator[None]:
    """`check_folder`, taken back where an error leaves what was made empty."""
    made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    check_folder(folder, flag)
    try:
        yield
    except EngineError:
        with suppress(OSError):
            for path in made:
                path.rmdir()
        raise


def check_folder(folder: Path, flag: str = "--out") -> None:
    """Make a folder and make sure that it can be written to.

    Half-written files of runs that were killed are removed from it.

    Parameters
    ----------
    folder : Path
        With all above it.
    flag : str
        What names another one.

    Raises
    ------
    OutputError
        If not.
    """
    from napari_sam_suite.engine.formats.atomic import sweep

    if folder.suffix.lower() in _FILES and not folder.exists():
        raise OutputError(
            f"{folder} is the name of a file, and results go into a folder.",
            f"Name a folder with {flag}; the files in it are called as the images are.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Nameless, so that two runs into one folder do not meet.
        with tempfile.TemporaryFile(dir=folder):
            sweep(folder)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(
            f"{folder} cannot be a folder: a file of that name is in the way.",
            f"Choose another folder with {flag}.",
        ) from error
    except OSError as error:
        raise OutputError(
            f"The folder {folder} cannot be written to: {error.strerror}.",
            f"Choose another folder with {flag}.",
        ) from error


def _spare(inputs: Iterable[Path], targets: Iterable[Path]) -> None:
    """Refuse targets that are inputs, under whatever name."""
    there = [path for path in targets if path.exists()]
    if not there:
        return
    known = {_identity(path): path for path in inputs if path.exists()}
    for path in there:
        if _identity(path) in known:
            raise OutputError(
                f"{path.name} would overwrite the input {known[_identity(path)]}.",
                "Choose another folder with --out.",
            )


def _identity(path: Path) -> tuple[int, int]:
    """The same for all names of one file."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _frame_suffix(frame: FrameIndex, sizes: Sizes) -> str:
    """``_p2_t01_z3``: only axes that the image has, as wide as names sort by it."""
    axes = (
        ("p", frame.position, sizes.position),
        ("t", frame.time, sizes.time),
        ("z", frame.z, sizes.z),
    )
    return "".join(
        f"_{letter}{index + 1:0{len(str(n))}}" for letter, index, n in axes if n > 1
    )

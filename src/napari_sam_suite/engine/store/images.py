"""One image in a store: its frames, finished and failed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_sam_suite.engine.composite import Composite
from napari_sam_suite.engine.errors import (
    EngineError,
    ImageError,
    OutputError,
    ParameterError,
)
from napari_sam_suite.engine.formats.parquet import pack, unpack
from napari_sam_suite.engine.formats.zarr_labels import ZarrLabels, list_series
from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.recorded import Recorded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.store.place import Place

_NAME = re.compile(r"p([0-9]+)_t([0-9]+)_z([0-9]+)\.(?:parquet|json)")
_NOTES = "run notes"
_END = 2**16
"""Bytes at each end of a file that tell it from others of its size."""
_CHUNKS = 16
"""Chunks at each end of an OME-Zarr that tell it from others."""


class ImageRecord(Recorded):
    """What is known of an image before its first frame is looked at.

    Attributes
    ----------
    name, path, sizes, scale, units, rgb
        See `ImageSource`.
    composite : Composite
        With the limits that hold for all frames.
    frames : tuple
        Those to be done, as ``(position, time, z)`` counted from 0, in their order.
    notices : tuple of str
        Sentences on the image as a whole.
    content : str
        Tells its file from another of the same name; see `know_file`.
    """

    name: str
    path: str
    sizes: Sizes
    scale: tuple[float, float, float]
    units: str
    rgb: bool
    composite: Composite
    frames: tuple[FrameIndex, ...]
    notices: tuple[str, ...] = ()
    content: str = ""

    @classmethod
    def of(
        cls,
        image: ImageSource,
        composite: Composite,
        frames: Sequence[FrameIndex],
        notices: Sequence[str] = (),
    ) -> ImageRecord:
        """Of an opened image."""
        return cls(
            name=image.name,
            path=str(image.path or ""),
            sizes=image.sizes,
            scale=image.scale,
            units=image.units,
            rgb=image.rgb,
            composite=composite,
            frames=tuple(frames),
            notices=tuple(notices),
            content=know_file(image.path) if image.path else "",
        )

    def check(self, path: Path | str, sizes: Sizes | None = None) -> None:
        """Make sure that an image is still the one that was recorded.

        Parameters
        ----------
        path : path
            Where it is now. What is not there is not looked into.
        sizes : Sizes, optional
            Its own, where it is open.

        Raises
        ------
        ImageError
            If it is another one, whose results these are not.
        """
        now = know_file(path) if self.content else ""
        other = ""
        if sizes not in (None, self.sizes):
            other = "size"
        elif now and now != self.content:
            other = "content"
        if other:
            raise ImageError(
                f"{self.name!r} is not what it was when this run began: its {other} "
                "differs.",
                "Put the image back, or run into another store.",
            )


class ImageStore:
    """The results of one image, kept in a folder.

    Frames may be written in any order, by several processes, and again: the same
    frame has the same objects and labels.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._record: ImageRecord | None = None

    @property
    def record(self) -> ImageRecord | None:
        """What was recorded when the image was first opened; None before.

        Raises
        ------
        ImageError
            If it is damaged.
        """
        if self._record is None:
            data = self.place.read("image.json")
            if data is None:
                return None
            try:
                self._record = ImageRecord.model_validate_json(data)
            except ValidationError as error:
                raise ImageError(
                    f"{self.place.address}/image.json is damaged.",
                    "Delete this folder, and run again.",
                ) from error
        return self._record

    def begin(self, record: ImageRecord) -> None:
        """Record an image, and make room for its labels.

        Raises
        ------
        OutputError
            If there is no room.
        """
        if record.sizes.position > 1:
            list_series(self.place / "labels.ome.zarr", record.sizes.position)
        for position in range(record.sizes.position):
            self._labels(record, position).create(
                f"{record.name} objects", scale=record.scale, units=record.units
            )
        self.place.remove("failed/image.json")
        # Last: with it, all of this is there.
        self.place.write("image.json", record.model_dump_json(indent=1).encode())
        self._record = record

    def labels(self, position: int = 0) -> ZarrLabels:
        """Label images of one position."""
        return self._labels(self._known(), position)

    def done(self) -> set[FrameIndex]:
        """Frames that are finished."""
        return _frames(self.place / "objects")

    def failures(self) -> dict[FrameIndex | None, dict[str, str]]:
        """Message and hint of what failed by frame; None is the image as a whole."""
        found: dict[FrameIndex | None, dict[str, str]] = {}
        place = self.place / "failed"
        for name in sorted(place.names()):
            frame = _parse(name)
            data = place.read(name)
            if data is not None and (frame is not None or name == "image.json"):
                found[frame] = json.loads(data)
        return found

    def write(
        self,
        frame: FrameIndex,
        objects: Objects,
        *,
        state: bytes | None = None,
        **notes: Any,
    ) -> None:
        """Keep the objects of a finished frame, and what else is to be said of it.

        `state` is what the next frame needs of this one, where it follows from it.

        Raises
        ------
        OutputError
            If there is no room; the frame is not finished then.
        """
        sizes = self._known().sizes
        labels = objects.to_labels((sizes.y, sizes.x))
        self.labels(frame.position).write(frame, labels)
        if state is not None:
            self.place.write(f"states/{self._name(frame)}.json.z", state)
        # Last: a frame with this file is finished.
        content = pack(objects, {_NOTES: notes})
        self.place.write(f"objects/{self._name(frame)}.parquet", content)

    def read(self, frame: FrameIndex) -> tuple[Objects, dict[str, Any]]:
        """Objects of a finished frame, and the notes on it.

        Raises
        ------
        OutputError
            If it is not finished, or its file is damaged.
        """
        name = f"objects/{self._name(frame)}.parquet"
        data = self.place.read(name)
        if data is None:
            where = f"{frame.label(self._known().sizes)} of {self._known().name}"
            raise OutputError(f"There is no result for {where}.", "Run it first.")
        try:
            found = unpack(data, name)
        except ParameterError as error:
            raise OutputError(
                f"{self.place.address}/{name} is damaged.", "Delete it, and run again."
            ) from error
        source = dict(found.source)
        notes = source.pop(_NOTES, {})
        return Objects(found.polygons, found.features, source), dict(notes)

    def state(self, frame: FrameIndex) -> bytes | None:
        """What the frame after this one needs of it, if that is kept."""
        return self.place.read(f"states/{self._name(frame)}.json.z")

    def fail(self, frame: FrameIndex | None, failure: dict[str, str]) -> None:
        """Keep why a frame, or the whole image, failed: message and hint."""
        name = "image" if frame is None else self._name(frame)
        content = json.dumps(failure, indent=1).encode()
        self.place.write(f"failed/{name}.json", content)

    def forgive(self, frame: FrameIndex | None) -> None:
        """Forget a failure: the frame is finished now, or the image can be opened."""
        name = "image" if frame is None else self._name(frame)
        self.place.remove(f"failed/{name}.json")

    def tidy(self) -> None:
        """Remove what a killed run left half-written."""
        for folder in ("", "objects", "states", "failed"):
            (self.place / folder if folder else self.place).tidy()

    def _known(self) -> ImageRecord:
        record = self.record
        if record is None:
            raise OutputError(f"{self.place.address} holds no image.", "Run it first.")
        return record

    def _labels(self, record: ImageRecord, position: int) -> ZarrLabels:
        place = self.place / "labels.ome.zarr"
        if record.sizes.position > 1:
            place = place / str(position)
        return ZarrLabels(place, record.sizes)

    def _name(self, frame: FrameIndex) -> str:
        """Such as ``p1_t01_z1``: counted from 1, as wide as names sort by it."""
        sizes = self._known().sizes
        lengths = (sizes.position, sizes.time, sizes.z)
        return "_".join(
            f"{letter}{index + 1:0{len(str(n))}}"
            for letter, index, n in zip("ptz", frame, lengths, strict=True)
        )


def know_file(path: Path | str) -> str:
    """SHA-256 of a file's size and both its ends, the same for every copy.

    Of an OME-Zarr these are its first chunks and its last ones, which are those of the
    coarsest resolution. Metadata and labels inside do not count: they may change while
    the pixels stay. Nothing for what cannot be read.
    """
    path = Path(path)
    try:
        if not path.is_dir():
            return _know(path)
        digest = hashlib.sha256()
        for backwards in (False, True):
            for file in islice(_chunks(path, backwards=backwards), _CHUNKS):
                name = file.relative_to(path).as_posix()
                digest.update(os.fsencode(f"{name} {_know(file)} "))
    except OSError:
        return ""
    return digest.hexdigest()


def _know(path: Path) -> str:
    with path.open("rb") as file:
        first = file.read(_END)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END))
        last = file.read()
    return hashlib.sha256(b"%d " % size + first + last).hexdigest()


def _chunks(folder: Path, *, backwards: bool) -> Iterator[Path]:
    """Files with pixels of an OME-Zarr, in the order of their names."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name, reverse=backwards)
    for entry in found:
        if entry.name.startswith(".") or entry.name in ("labels", "zarr.json"):
            continue
        if entry.is_dir():
            yield from _chunks(Path(entry), backwards=backwards)
        else:
            yield Path(entry)


def told(error: BaseException) -> dict[str, str]:
    """An error as a person reads it later: message and hint."""
    if isinstance(error, EngineError):
        return {"message": error.message, "hint": error.hint}
    if isinstance(error, MemoryError):
        return {
            "message": "There is too little memory for this.",
            "hint": "Close other programs, or run on a larger machine.",
        }
    return {
        "message": f"Something unexpected went wrong: {error!r}",
        "hint": "Run it alone with --verbose, and report what it prints.",
    }


def _frames(place: Place) -> set[FrameIndex]:
    found = (_parse(name) for name in place.names())
    return {frame for frame in found if frame is not None}


def _parse(name: str) -> FrameIndex | None:
    match = _NAME.fullmatch(name)
    return None if match is None else FrameIndex(*(int(n) - 1 for n in match.groups()))

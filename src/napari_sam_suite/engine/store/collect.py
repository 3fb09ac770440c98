"""A store turned into the files that other programs open."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.errors import EngineError, ImageError
from napari_sam_suite.engine.hierarchy.params import LEVELLED, TREE
from napari_sam_suite.engine.image import ImageSource, open_image, plain_name
from napari_sam_suite.engine.losses import Losses
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.outputs import (
    INSIDE,
    ImageOutput,
    check_folder,
    overlay_file,
    result_files,
)
from napari_sam_suite.engine.recipe import Nested
from napari_sam_suite.engine.run import FrameResult
from napari_sam_suite.engine.store.images import told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.hierarchy.params import HierarchyParams
    from napari_sam_suite.engine.store.images import ImageRecord, ImageStore
    from napari_sam_suite.engine.store.place import Place
    from napari_sam_suite.engine.store.store import Store

_NOTE = "collected.json"
"""How many frames of an image the files in each folder have, by format."""
_TREE = "tree"
"""What lies in what, as if it were a format."""


@dataclass
class Collected:
    """What was written.

    Attributes
    ----------
    images, frames, objects : int
        How many are in the files.
    kept : int
        Images whose files were there already, and stay as they are.
    missing : int
        Frames that are not finished, and so not in the files.
    files : list of str
        What was written.
    failures : list of dict
        Image, message and hint of what could not be.
    """

    images: int = 0
    frames: int = 0
    objects: int = 0
    kept: int = 0
    missing: int = 0
    files: list[str] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)


def collect(
    store: Store,
    folder: Path,
    formats: Sequence[str],
    report: Callable[[int, int, str], None] | None = None,
    *,
    again: bool = True,
) -> Collected:
    """Write what is finished in a store as the files that `segment` writes.

    Parameters
    ----------
    store : Store
        Of a run, complete or not.
    folder : Path
        Made if it is not there.
    formats : sequence of str
        Of `outputs.FORMATS`.
    report : callable, optional
        Called with the images done, all of them, and a name.
    again : bool
        Whether to write anew what was written of the same frames before and is still
        there, perhaps with corrections. Labels inside of images always are.

    Returns
    -------
    Collected
        An image whose files cannot be written does not stop the others.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    check_folder(folder)
    collected, stems = Collected(), _name_files(store)
    before = _noted_once(store, folder)
    asked = store.recipe.capability
    levels = asked.params if isinstance(asked, Nested) else None
    for number, name in enumerate(store.images):
        if report is not None:
            report(number, len(store.images), name)
        stem = stems[name]
        place = store.image(name)
        try:
            record = place.record
            if record is None:
                continue
            done = place.done()
            frames = [frame for frame in record.frames if frame in done]
            collected.missing += len(record.frames) - len(frames)
            kinds = [*formats] if levels is None else [*formats, _TREE]
            noted = dict.fromkeys(before, len(frames)) | _noted(place.place, folder)
            if not again and frames:
                there = {k for k, count in noted.items() if count == len(frames)}
                files = partial(
                    _files, folder / stem, record, frames, nested=levels is not None
                )
                kinds = [k for k in kinds if k not in there or not _are_there(k, files)]
                if not kinds:
                    collected.kept += 1
                    continue
            image = _image(record, stem, store.recipe.source.axes)
            names = (
                {} if levels is None else dict.fromkeys(formats, f"{stem}{LEVELLED}")
            )
            output = ImageOutput(
                folder,
                image,
                [kind for kind in kinds if kind != _TREE],
                record.composite,
                names=names,
                # What nests is found as `segment` finds it.
                capability=asked.name if levels is None else "auto",
            )
            _write(place, output, frames)
            collected.images += 1
            collected.frames += output.frames
            collected.objects += output.found
            collected.files += [str(path) for path in output.files]
            if levels is not None and frames and _TREE in kinds:
                _write_tree(place, folder / stem, frames, levels, collected)
        except (EngineError, MemoryError) as error:
            collected.failures.append({"image": name} | told(error))
            continue
        _note(place.place, folder, noted | dict.fromkeys(kinds, len(frames)))
    return collected


def _are_there(kind: str, files: Callable[[str], list[Path]]) -> bool:
    """Whether all files of one image in one format are there.

    Labels inside of images are no files: of them it is never sure.
    """
    return kind != INSIDE and all(path.exists() for path in files(kind))


def _files(
    stem: Path,
    record: ImageRecord,
    frames: Sequence[FrameIndex],
    kind: str,
    *,
    nested: bool,
) -> list[Path]:
    """Files of one image in one format."""
    folder, name = stem.parent, stem.name
    own = f"{name}{LEVELLED}" if nested else None
    if kind == _TREE:
        return _tree_files(stem)
    if kind == "overlay":
        return [overlay_file(folder, name, f, record.sizes, own) for f in frames]
    return result_files(folder, own or name, [kind])


def _note(place: Place, folder: Path, noted: dict[str, int]) -> None:
    """Keep how many frames the files have, where the store may be written to."""
    notes = _read_notes(place) | {str(folder.absolute()): noted}
    with suppress(EngineError):
        place.write(_NOTE, json.dumps(notes, indent=1).encode())


def _noted(place: Place, folder: Path) -> dict[str, int]:
    return _read_notes(place).get(str(folder.absolute()), {})


def _read_notes(place: Place) -> dict[str, dict[str, int]]:
    try:
        notes: dict[str, dict[str, int]] = json.loads(place.read(_NOTE) or b"{}")
    except (EngineError, ValueError):
        return {}
    return notes


def _noted_once(store: Store, folder: Path) -> list[str]:
    """Formats of which all frames are in files, where one note is of all images.

    Stores had such a note once.
    """
    noted = _noted(store.place, folder)
    frames = sum(len(store.image(name).done()) for name in store.images if noted)
    return [kind for kind, count in noted.items() if count == frames]


def _tree_files(stem: Path) -> list[Path]:
    return [stem.with_name(f"{stem.name}{ending}") for ending in TREE]


def _name_files(store: Store) -> dict[str, str]:
    """Stem of the files of each image: as `segment` has it, where that is its own."""
    plain = {name: plain_name(Path(path)) for name, path in store.images.items()}
    counts = Counter(stem.lower() for stem in plain.values())
    return {
        name: stem if counts[stem.lower()] == 1 else name
        for name, stem in plain.items()
    }


def _write(place: ImageStore, output: ImageOutput, frames: Sequence[Any]) -> None:
    try:
        for frame in frames:
            objects, _ = place.read(frame)
            output.add(FrameResult(frame, objects, Losses()))
    except BaseException:
        output.discard()
        raise
    output.close()


def _write_tree(
    place: ImageStore,
    stem: Path,
    frames: Sequence[FrameIndex],
    params: HierarchyParams,
    collected: Collected,
) -> None:
    """What lies in what, as the command ``hierarchy`` writes it."""
    from napari_sam_suite.engine.hierarchy.hierarchy import build_hierarchy

    objects = Objects.concat(place.read(frame)[0] for frame in frames)
    hierarchy = build_hierarchy(objects, params)
    for path in _tree_files(stem):
        hierarchy.save(path)
        collected.files.append(str(path))


def _image(record: ImageRecord, name: str, axes: str | None) -> ImageSource:
    """The image as its files are called; without pixels, if it is gone or another."""
    try:
        image = open_image(record.path, axes=axes)
        record.check(record.path, image.sizes)
    except ImageError:

        def gone(_: int) -> Any:
            raise ImageError(
                f"The image {record.path} is not there any more, or is another one.",
                "Choose formats that need no pixels, or put it back.",
            )

        return ImageSource(
            name=name,
            path=None,
            sizes=record.sizes,
            rgb=record.rgb,
            dtype=np.dtype(np.uint8),
            channel_names=tuple(
                f"channel {i + 1}" for i in range(record.sizes.channel)
            ),
            scale=record.scale,
            units=record.units,
            _stack=gone,
        )
    return replace(image, name=name)

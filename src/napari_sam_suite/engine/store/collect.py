"""A store turned into the files that other programs open."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
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
    from collections.abc import Callable, Iterator, Sequence

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.hierarchy.params import HierarchyParams
    from napari_sam_suite.engine.store.images import ImageRecord, ImageStore
    from napari_sam_suite.engine.store.store import Store

_NOTE = "collected.json"
"""How many frames the files in each folder have, by format."""


@dataclass
class Collected:
    """What was written.

    Attributes
    ----------
    images, frames, objects : int
        How many are in the files.
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
    missing: int = 0
    files: list[str] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)


def collect(
    store: Store,
    folder: Path,
    formats: Sequence[str],
    report: Callable[[int, int, str], None] | None = None,
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
            image = _image(record, stem, store.recipe.source.axes)
            names = (
                {} if levels is None else dict.fromkeys(formats, f"{stem}{LEVELLED}")
            )
            output = ImageOutput(
                folder,
                image,
                formats,
                record.composite,
                names=names,
                # What nests is found as `segment` finds it.
                capability=asked.name if levels is None else "auto",
            )
            _write(place, output, frames)
        except (EngineError, MemoryError) as error:
            collected.failures.append({"image": name} | told(error))
            continue
        collected.images += 1
        collected.frames += output.frames
        collected.objects += output.found
        collected.files += [str(path) for path in output.files]
        if levels is not None and frames:
            _write_tree(place, folder / stem, frames, levels, collected)
    if not collected.failures:
        _note(store, folder, formats, collected.frames)
    return collected


def is_collected(store: Store, folder: Path, formats: Sequence[str]) -> bool:
    """Whether all that `collect` would write was written, and all files are there.

    They may have been changed since. Labels inside of images are no files: with them
    it is never sure.
    """
    noted, stems = _noted(store).get(str(folder.absolute()), {}), _name_files(store)
    if INSIDE in formats:
        return False
    count = 0
    try:
        for name in store.images:
            place = store.image(name)
            record, done = place.record, place.done()
            frames = [f for f in record.frames if f in done] if record else []
            if record is None or not frames:
                continue
            count += len(frames)
            nested = isinstance(store.recipe.capability, Nested)
            targets = _targets(folder / stems[name], record, frames, formats, nested)
            if not all(path.exists() for path in targets):
                return False
    except EngineError:
        return False  # `collect` says what is wrong
    return all(noted.get(name) == count for name in formats)


def _targets(
    stem: Path,
    record: ImageRecord,
    frames: Sequence[FrameIndex],
    formats: Sequence[str],
    nested: bool,
) -> Iterator[Path]:
    """Files of one image."""
    folder, name = stem.parent, stem.name
    own = f"{name}{LEVELLED}" if nested else None
    yield from result_files(folder, own or name, formats)
    if "overlay" in formats:
        for frame in frames:
            yield overlay_file(folder, name, frame, record.sizes, own)
    if nested:
        yield from _tree_files(stem)


def _note(store: Store, folder: Path, formats: Sequence[str], frames: int) -> None:
    """Keep how many frames the files have, where the store may be written to."""
    noted = _noted(store)
    noted.setdefault(str(folder.absolute()), {}).update(dict.fromkeys(formats, frames))
    with suppress(EngineError):
        store.place.write(_NOTE, json.dumps(noted, indent=1).encode())


def _noted(store: Store) -> dict[str, dict[str, int]]:
    try:
        noted: dict[str, dict[str, int]] = json.loads(store.place.read(_NOTE) or b"{}")
    except (EngineError, ValueError):
        return {}
    return noted


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
    try:
        hierarchy = build_hierarchy(objects, params)
        for path in _tree_files(stem):
            hierarchy.save(path)
            collected.files.append(str(path))
    except (EngineError, MemoryError) as error:
        collected.failures.append({"image": stem.name} | told(error))


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

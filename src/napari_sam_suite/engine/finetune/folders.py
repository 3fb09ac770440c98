"""Folders of images and of their labels, paired by name."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.errors import EngineError, ImageError, ParameterError
from napari_sam_suite.engine.finetune.data import (
    SMALLEST,
    Sample,
    gather_samples,
    split_mask,
    tell_lost,
)
from napari_sam_suite.engine.formats import FORMATS
from napari_sam_suite.engine.formats.instances import check_instances
from napari_sam_suite.engine.image import ImageSource, open_image, plain_name
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.pairing import is_label_name, pair_names
from napari_sam_suite.engine.provenance import check_size

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from napari_sam_suite.engine.composite import Composite

_PICTURES = (".png", ".jpg", ".jpeg")
_IMAGES = (".tif", ".tiff", ".zarr", *_PICTURES)
_LABELS = tuple(s for f in FORMATS if f.name != "csv" for s in f.suffixes)
_STACKS = (".tif", ".tiff")
_LABEL_IMAGES = (*_STACKS, ".png")
_NAMED = 5


@dataclass(frozen=True)
class Found:
    """What two folders hold.

    Attributes
    ----------
    samples : list of Sample
        Frames with objects, image by image.
    notices : list of str
        What had no partner, and what else the user should know.
    """

    samples: list[Sample]
    notices: list[str] = field(default_factory=list)


def read_folders(
    images: Path | str,
    labels: Path | str,
    *,
    axes: str | None = None,
    composite: Callable[[ImageSource], Composite] | None = None,
) -> Found:
    """Read images and the outlines of their objects.

    Parameters
    ----------
    images : Path
        Folder of images; a single file will do.
    labels : Path
        Folder with a label image, GeoJSON, Dataloop's JSON or another file of objects
        for each, named like the image but for words such as ``img`` and ``labels``; or
        one COCO file that names the images.
    axes : str, optional
        Of the images, if the files do not say it, and of label images that do not.
    composite : callable, optional
        How the channels of an image become RGB; the usual way without it.

    Raises
    ------
    ParameterError
        If nothing is there, nothing fits together, several images of a COCO file fit
        one, or labels have another size than their image.
    """
    images, labels = Path(images).expanduser(), Path(labels).expanduser()
    for path in (images, labels):
        if not path.exists():
            raise ParameterError(
                f"There is no file or folder {str(path)!r}.",
                "Check `images` and `labels`.",
            )
    told: list[str] = []
    pictures = _list(images, _IMAGES, told)
    if images.resolve() == labels.resolve():
        labels = images
        pictures = {n: p for n, p in pictures.items() if not is_label_name(n)}
    if not pictures:
        raise ParameterError(
            f"There is no image in {images}.", "TIFF, OME-Zarr, PNG and JPEG are read."
        )
    drawn = _read_labels(labels, pictures, told, axes)
    lonely = sorted(pictures.keys() - drawn.keys())
    if lonely:
        told.append(f"Images without labels are left out: {_name(lonely)}.")
    if not drawn:
        raise ParameterError(
            f"No image of {images} has labels in {labels}.",
            "Give both the same names, such as cells.tif and cells_labels.tif.",
        )
    samples: list[Sample] = []
    lost: dict[str, int] = {}
    for name, objects in sorted(drawn.items()):
        image = open_image(pictures[name], axes=axes)
        check_size(objects.source, image)
        found = gather_samples(image, objects, composite and composite(image))
        samples += found
        lost[name] = len(objects) - sum(len(sample.masks) for sample in found)
    if not samples:
        raise ParameterError(
            f"There is no object to learn from in any of the labels of {labels}.",
            f"An object has {SMALLEST} pixels or more, on a frame of its image.",
        )
    empty = [name for name in sorted(drawn) if not len(drawn[name])]
    if empty:
        told.append(f"Labels without objects are left out: {_name(empty)}.")
    fewer = [name for name, count in lost.items() if count]
    if fewer:
        told.append(tell_lost(sum(lost.values()), _name(fewer)))
    return Found(samples, told)


def _list(
    path: Path,
    suffixes: tuple[str, ...],
    told: list[str],
    without: Collection[Path] = (),
) -> dict[str, Path]:
    """Files of a folder by their plain names, in their order; of one name the last."""
    files = (
        sorted(path.iterdir())
        if path.is_dir() and not _is(path, (".zarr",))
        else [path]
    )
    files = [p for p in files if _is(p, suffixes) and p not in without]
    found = {_plain(p, suffixes): p for p in files}
    spare = [p.name for p in files if p not in found.values()]
    if spare:
        told.append(f"Left out because others have their names: {_name(spare)}.")
    return found


def _is(path: Path, suffixes: tuple[str, ...]) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and path.name.lower().endswith(suffixes)


def _plain(path: Path, suffixes: tuple[str, ...]) -> str:
    for suffix in sorted(suffixes, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return plain_name(Path(path.name[: -len(suffix)] + ".tif"))
    return path.stem


def _read_labels(
    labels: Path, pictures: Mapping[str, Path], told: list[str], axes: str | None
) -> dict[str, Objects]:
    """Objects of each image that has some."""
    if labels.is_file():
        return _read_single(labels, pictures, told, axes)
    files = _list(labels, _LABELS, told, set(pictures.values()))
    pairs = pair_names(list(pictures), list(files))
    spare = sorted(files.keys() - set(pairs.values()))
    if spare:
        told.append(f"Labels without an image are left out: {_name(spare)}.")
    found = {}
    for name, other in pairs.items():
        if not other:
            continue
        try:
            found[name] = _read_file(files[other], told, axes)
        except ImageError as error:
            # Image and labels may have the same name, in two folders.
            raise ImageError(f"Labels of {name!r}: {error.message}", error.hint) from (
                error
            )
    return found


def _read_single(
    path: Path, pictures: Mapping[str, Path], told: list[str], axes: str | None
) -> dict[str, Objects]:
    """One file of labels: of one image, or of several that it names as positions."""
    alone = len(pictures) == 1
    objects = _read_file(path, told, axes) if alone else Objects.load(path)
    names = [Path(name) for name in objects.source.get("images", ())]
    if alone and len(names) < 2:
        return dict.fromkeys(pictures, objects)
    if not names:
        raise ParameterError(
            f"{path.name} does not say which of several images its objects belong to.",
            "Give a COCO file with the images' names, or one file for each image.",
        )
    by_stem: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        by_stem.setdefault(_plain(name, _IMAGES), []).append(position)
    meant = {
        stem: _choose(names, by_stem[stem], picture, path.name)
        for stem, picture in pictures.items()
        if stem in by_stem
    }
    taken = set(meant.values())
    spare = [str(name) for i, name in enumerate(names) if i not in taken]
    if spare:
        told.append(f"Labels without an image are left out: {_name(spare)}.")
    found = {}
    shapes = objects.source.get("shapes")
    for stem, position in meant.items():
        here = (objects.features["position"] == position).to_numpy()
        one = objects.select(here).with_features(position=0)
        sizes = dict(zip("yx", shapes[position], strict=True)) if shapes else {}
        if len(one):
            found[stem] = Objects(one.polygons, one.features, {"sizes": sizes})
    return found


def _choose(
    names: Sequence[Path], alike: Sequence[int], picture: Path, file: str
) -> int:
    """Which of several images of equal names a picture is: that of its folder."""
    if len(alike) == 1:
        return alike[0]
    place = picture.absolute()

    def fits(name: Path) -> tuple[int, bool]:
        """How many of its folders the picture lies in, and whether the ending fits."""
        folders = name.parent.parts
        inside = place.parent.parts[-len(folders) :] == folders if folders else True
        return (len(folders) if inside else -1, name.suffix == place.suffix)

    best = max(fits(names[i]) for i in alike)
    like = [i for i in alike if fits(names[i]) == best]
    if len(like) > 1 or best[0] < 0:
        raise ParameterError(
            f"{file} has labels of several images that may be {picture.name}: "
            f"{_name([str(names[i]) for i in alike])}.",
            "Give `images` as a folder of the name that the file says, or a file that "
            "has one of them.",
        )
    return like[0]


def _read_file(path: Path, told: list[str], axes: str | None) -> Objects:
    suffix = path.suffix.lower()
    objects = _load(path, axes)
    masks = objects.source.get("masks")
    if suffix in _LABEL_IMAGES or masks == len(objects) == 1:
        return _split_binary(objects, path, told)
    return objects


def _load(path: Path, axes: str | None) -> Objects:
    """Objects of a file; a label image without named axes has those of its image."""
    try:
        return Objects.load(path)
    except ImageError:
        named = re.sub("[CS]", "", (axes or "").upper())
        if not named or path.suffix.lower() not in _STACKS:
            raise
        with suppress(EngineError):
            return _read_pixels(path, named)
        raise


def _read_pixels(path: Path, axes: str) -> Objects:
    image = open_image(path, axes=axes)
    if image.rgb or image.sizes.channel > 1:
        raise ParameterError(
            f"{path.name} is a colour picture, not a label image.",
            "Save it with one number for each object, 0 for the background.",
        )
    frames = list(image.frames())
    planes = np.stack([image.frame(frame).planes[0] for frame in frames])
    if planes.dtype.kind not in "bui":
        raise ImageError(
            f"{path.name} holds {planes.dtype} values.", "Labels are whole numbers."
        )
    check_instances(planes, path.name)
    source = {"sizes": image.sizes._asdict()}
    return Objects.concat(
        [
            Objects.from_labels(plane.astype(np.int64), frame, source=source)
            for plane, frame in zip(planes, frames, strict=True)
        ]
    )


def _split_binary(objects: Objects, path: Path, told: list[str]) -> Objects:
    """Islands of a mask as objects of their own; so is the only mask of Dataloop."""
    if not len(objects):
        return objects
    sizes = objects.source["sizes"]
    split = split_mask(objects, (int(sizes["y"]), int(sizes["x"])))
    if len(split) != len(objects):
        told.append(
            f"{path.name} is a mask with one value, so each of its {len(split)} "
            "islands is an object."
        )
    return split


def _name(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

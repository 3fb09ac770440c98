"""Folders of images and of their labels, paired by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_sam_suite.engine.errors import ImageError, ParameterError
from napari_sam_suite.engine.finetune.data import Sample, gather_samples
from napari_sam_suite.engine.formats import FORMATS
from napari_sam_suite.engine.formats.instances import check_instances
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import ImageSource, open_image, plain_name
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_sam_suite.engine.composite import Composite

_PICTURES = (".png", ".jpg", ".jpeg")
_IMAGES = (".tif", ".tiff", ".zarr", *_PICTURES)
_LABELS = (*(s for f in FORMATS if f.name != "csv" for s in f.suffixes), ".png")
_LABEL_IMAGES = (".tif", ".tiff", ".png")
_WORDS = re.compile(
    r"^(img|image|im|raw|lab|label|labels|mask|masks|gt|truth|seg)[-_. ]+"
    r"|[-_. ](img|image|raw|labels?|masks?|cp_masks|gt|truth|seg|objects)$"
)
_LABEL_WORDS = re.compile(
    r"^(lab|label|labels|mask|masks|gt|truth|seg)[-_. ]"
    r"|[-_. ](labels?|masks?|cp_masks|gt|truth|seg|objects)$"
)
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
        Of the images, if the files do not say it.
    composite : callable, optional
        How the channels of an image become RGB; the usual way without it.

    Raises
    ------
    ParameterError
        If nothing is there, nothing fits together, or labels have another size than
        their image.
    """
    images, labels = Path(images).expanduser(), Path(labels).expanduser()
    for path in (images, labels):
        if not path.exists():
            raise ParameterError(
                f"There is no file or folder {str(path)!r}.",
                "Check `images` and `labels`.",
            )
    pictures = _list(images, _IMAGES)
    if images == labels:
        pictures = {n: p for n, p in pictures.items() if not _LABEL_WORDS.search(n)}
    if not pictures:
        raise ParameterError(
            f"There is no image in {images}.", "TIFF, OME-Zarr, PNG and JPEG are read."
        )
    told: list[str] = []
    drawn = _read_labels(labels, pictures, told)
    lonely = sorted(pictures.keys() - drawn.keys())
    if lonely:
        told.append(f"Images without labels are left out: {_name(lonely)}.")
    if not drawn:
        raise ParameterError(
            f"No image of {images} has labels in {labels}.",
            "Give both the same names, such as cells.tif and cells_labels.tif.",
        )
    samples: list[Sample] = []
    for name, objects in sorted(drawn.items()):
        image = open_image(pictures[name], axes=axes)
        _check_size(image, objects)
        samples += gather_samples(image, objects, composite and composite(image))
    if not samples:
        raise ParameterError(
            f"There is no object in any of the labels of {labels}.",
            "Check that they are not empty.",
        )
    return Found(samples, told)


def pair_names(images: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Which labels belong to which image, by name without the usual words.

    An equal name comes first. Names that would fit several are not paired.
    """
    pairs = {name: name for name in images if name in labels}
    short: dict[str, list[str]] = {}
    for name in labels:
        if name not in pairs:
            short.setdefault(_short(name), []).append(name)
    for name in images:
        fitting = short.get(_short(name), [])
        if name not in pairs and len(fitting) == 1:
            pairs[name] = fitting[0]
    return pairs


def _short(name: str) -> str:
    before = ""
    while name != before:
        before, name = name, _WORDS.sub("", name)
    return name.casefold()


def _list(path: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files of a folder by their plain names, in their order."""
    files = (
        sorted(path.iterdir())
        if path.is_dir() and not _is(path, (".zarr",))
        else [path]
    )
    return {_plain(p, suffixes): p for p in files if _is(p, suffixes)}


def _is(path: Path, suffixes: tuple[str, ...]) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and path.name.lower().endswith(suffixes)


def _plain(path: Path, suffixes: tuple[str, ...]) -> str:
    for suffix in sorted(suffixes, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return plain_name(Path(path.name[: -len(suffix)] + ".tif"))
    return path.stem


def _read_labels(
    labels: Path, pictures: Mapping[str, Path], told: list[str]
) -> dict[str, Objects]:
    """Objects of each image that has some."""
    if labels.is_file():
        return _read_single(labels, pictures, told)
    files = _list(labels, _LABELS)
    if labels.is_dir():
        files = {n: p for n, p in files.items() if p not in set(pictures.values())}
    pairs = pair_names(list(pictures), list(files))
    spare = sorted(files.keys() - set(pairs.values()))
    if spare:
        told.append(f"Labels without an image are left out: {_name(spare)}.")
    found = {}
    for name, other in pairs.items():
        if not other:
            continue
        try:
            found[name] = _read_file(files[other], told)
        except ImageError as error:
            # Image and labels may have the same name, in two folders.
            raise ImageError(f"Labels of {name!r}: {error.message}", error.hint) from (
                error
            )
    return found


def _read_single(
    path: Path, pictures: Mapping[str, Path], told: list[str]
) -> dict[str, Objects]:
    """One file of labels: of one image, or of several that it names as positions."""
    alone = len(pictures) == 1
    objects = _read_file(path, told) if alone else Objects.load(path)
    names = [Path(name) for name in objects.source.get("images", ())]
    if alone and len(names) < 2:
        return dict.fromkeys(pictures, objects)
    if not names:
        raise ParameterError(
            f"{path.name} does not say which of several images its objects belong to.",
            "Give a COCO file with the images' names, or one file for each image.",
        )
    found = {}
    spare = []
    for position, name in enumerate(names):
        stem = _plain(name, _IMAGES)
        here = (objects.features["position"] == position).to_numpy()
        if stem in pictures:
            found[stem] = objects.select(here).with_features(position=0)
        else:
            spare.append(name.name)
    if spare:
        told.append(f"Labels without an image are left out: {_name(spare)}.")
    return {n: Objects(o.polygons, o.features) for n, o in found.items() if len(o)}


def _read_file(path: Path, told: list[str]) -> Objects:
    if path.suffix.lower() == ".png":
        image = open_image(path)
        if image.rgb or image.sizes.channel > 1:
            raise ParameterError(
                f"{path.name} is a colour picture, not a label image.",
                "Save it with one number for each object, 0 for the background.",
            )
        plane = image.frame(FrameIndex()).planes[0]
        check_instances(plane, path.name)
        sizes = {"sizes": image.sizes._asdict()}
        objects = Objects.from_labels(plane.astype(np.int64), source=sizes)
    else:
        objects = Objects.load(path)
    picture = path.suffix.lower() in _LABEL_IMAGES
    if not picture and not (objects.source.get("masks") == len(objects) == 1):
        return objects
    return _split_binary(objects, path, told)


def _split_binary(objects: Objects, path: Path, told: list[str]) -> Objects:
    """Islands of a mask as objects of their own.

    In a label image with one number only on each frame, that number means "object",
    and so does the only mask that Dataloop has of an image.
    """
    several = "label" in objects.features and objects.features["label"].nunique() > 1
    if not len(objects) or several:
        return objects
    sizes = objects.source["sizes"]
    shape = int(sizes["y"]), int(sizes["x"])
    islands = [
        Objects.from_labels(
            ndimage.label(objects.to_labels(shape, frame) > 0, np.ones((3, 3)))[0],
            frame,
            source=objects.source,
        )
        for frame in objects.frames()
    ]
    split = Objects.concat(islands)
    if len(split) == len(objects):
        return objects
    told.append(
        f"{path.name} is a mask with one value, so each of its {len(split)} islands is "
        "an object."
    )
    return split


def _check_size(image: ImageSource, objects: Objects) -> None:
    sizes = objects.source.get("sizes")
    drawn = "label" in objects.features or "masks" in objects.source
    if not drawn or not sizes:
        return  # only label images and masks must have the size of their image
    labels, pixels = (int(sizes["y"]), int(sizes["x"])), (image.sizes.y, image.sizes.x)
    if labels != pixels:
        raise ParameterError(
            f"The labels of {image.name!r} have {labels[0]} x {labels[1]} pixels, the "
            f"image has {pixels[0]} x {pixels[1]}.",
            "Give label images of the size of their image.",
        )


def _name(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

"""OME-Zarr: images, plates and series."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import ImageError
from napari_sam_suite.engine.readers.contents import (
    Calibration,
    Contents,
    check_alike,
    in_micrometers,
)
from napari_sam_suite.engine.stack import Stack, name_axes

if TYPE_CHECKING:
    from pathlib import Path

    import zarr

_log = logging.getLogger(__name__)


def has_zarr_metadata(path: Path) -> bool:
    """Whether the folder says that it is Zarr, whatever its name."""
    return any((path / name).exists() for name in ("zarr.json", ".zattrs"))


def open_zarr(path: Path, axes: str | None) -> Contents:
    """Open an OME-Zarr image, plate or series; `axes` overrules what it declares.

    Raises
    ------
    ImageError
        If it has no OME-Zarr metadata, or its images differ.
    """
    import bioio_ome_zarr

    places = find_places(path)
    if not places:
        raise ImageError(
            f"{path.name!r} has no OME-Zarr metadata.",
            "Open it with zarr or dask and pass the array together with axes.",
        )

    def reader(position: int) -> Any:
        folder, scene = places[position]
        found = bioio_ome_zarr.Reader(str(path / folder))
        found.set_scene(scene)
        return found

    @functools.cache
    def stack(position: int) -> Stack:
        image = reader(position).xarray_dask_data
        declared = "".join(str(name) for name in image.dims)
        found = name_axes(image.data, axes or declared, what=repr(path.name))
        return found if position == 0 else check_alike(found, position, stack(0), path)

    first = reader(0)
    names = tuple(first.channel_names or ())
    try:
        scale = _zarr_calibration(_ome(first.metadata.attributes), places[0][1])
    except (AttributeError, LookupError, TypeError, ValueError):
        _log.info("The scale of %s is not understood", path, exc_info=True)
        scale = Calibration()
    return Contents(len(places), stack, names, scale)


def find_places(path: Path) -> list[tuple[str, int]]:
    """Folder and scene number of every position of an image, plate or series."""
    import zarr

    return _zarr_images(zarr.open_group(path, mode="r"))


def _ome(attributes: Any) -> dict[str, Any]:
    """OME part of the attributes: in a block of its own since version 0.5."""
    return dict(attributes.get("ome", attributes))


def _zarr_images(root: zarr.Group) -> list[tuple[str, int]]:
    """Folder and scene number of every image in an image, plate or series."""
    ome = _ome(root.attrs)
    if "plate" in ome:
        wells = [well["path"] for well in ome["plate"]["wells"]]
        return [
            (f"{well}/{field['path']}", 0)
            for well in wells
            for field in _ome(root[well].attrs)["well"]["images"]
        ]
    if "multiscales" in ome:
        return [("", scene) for scene in range(len(ome["multiscales"]))]
    if "bioformats2raw.layout" in ome:
        listed = _ome(root["OME"].attrs).get("series") if "OME" in root else None
        numbered = sorted((n for n in root.group_keys() if n.isdigit()), key=int)
        return [(folder, 0) for folder in listed or numbered]
    return []


def _zarr_calibration(ome: dict[str, Any], scene: int) -> Calibration:
    image = ome["multiscales"][scene]
    axes = [axis if isinstance(axis, dict) else {} for axis in image.get("axes", [])]
    scale = [1.0] * len(axes)
    for owner in (image, image["datasets"][0]):
        for transform in owner.get("coordinateTransformations", []):
            if transform.get("type") == "scale":
                scale = [a * b for a, b in zip(scale, transform["scale"], strict=True)]
    size = {a.get("name"): s for a, s in zip(axes, scale, strict=True)}
    unit = {a.get("name"): a.get("unit") for a in axes}
    return in_micrometers([size.get(a) for a in "zyx"], [unit.get(a) for a in "zyx"])

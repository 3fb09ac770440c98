"""Label images inside the OME-Zarr image that they are of, in its ``labels`` group.

They have the axes, the scale and the resolutions of the image, but no channels, and are
of the same version (0.4 in Zarr 2, 0.5 in Zarr 3), so that whoever opens the image
finds them: napari with napari-ome-zarr, ome-zarr-py, Fiji with MoBIE.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.errors import OutputError
from napari_sam_suite.engine.formats.atomic import (
    explain,
    part_of,
    replacing,
    swap,
    sweep,
)
from napari_sam_suite.engine.formats.zarr_labels import (
    KEY,
    OBJECTS,
    TRACK,
    read_attributes,
)
from napari_sam_suite.engine.frames import FrameIndex, checked_frame
from napari_sam_suite.engine.provenance import SEARCHED, check_labels, mark_searched
from napari_sam_suite.engine.readers.ome_zarr import find_places

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam_suite.engine.frames import Sizes


_CHUNK = 2048
_STEPS = "coordinateTransformations"
_OLD_AXES = "tczyx"
"""Axes of images before version 0.3, which did not name them."""


class InsideWriter:
    """Write the label images of one image into it as they come, in any order.

    They are written beside their place and take it when all is closed. Frames that
    never came are zero; a position of which none came keeps the labels it has.

    Parameters
    ----------
    path : Path
        An OME-Zarr image, series or plate.
    sizes : Sizes
        Of the image as it was opened.
    name : str
        Of the labels. Labels of that name are replaced if they were written here.
    axes : str, optional
        Of the image as it was opened; as it declares them without it.

    Attributes
    ----------
    tracked : bool
        Whether numbers are those of tracks; may be set until `close`.

    Raises
    ------
    OutputError
        If the image is no OME-Zarr, cannot be written to, or has such labels from
        somewhere else.
    """

    def __init__(
        self, path: Path, sizes: Sizes, name: str = OBJECTS, *, axes: str = ""
    ) -> None:
        self.path = path
        self.sizes = sizes
        self.tracked = False
        self._frames: set[FrameIndex] = set()
        self._positions = [
            _Labels(path / folder, sizes, name, axes) for folder in _folders(path)
        ]
        if len(self._positions) != sizes.position:
            raise OutputError(
                f"{path.name} has {len(self._positions)} images and not "
                f"{sizes.position}, so labels have no place in it.",
                "Choose the format zarr, which is written beside it.",
            )

    def write(self, frame: FrameIndex, labels: NDArray[Any]) -> None:
        """Take the label image of one frame.

        Raises
        ------
        FrameError, ParameterError
            If the frame or the labels do not fit the image.
        OutputError
            If the disk is full.
        """
        frame = checked_frame(frame, self.sizes)
        check_labels(labels, self.sizes)
        self._positions[frame.position].write(frame, labels)
        self._frames.add(frame)

    def close(self) -> Path:
        """Put all labels in place, and list them.

        Returns
        -------
        Path
            Of the labels, or of the image if that has several positions.

        Raises
        ------
        OutputError
            If they cannot be written; those of that position are as before then.
        """
        try:
            for number, labels in enumerate(self._positions):
                here = [
                    FrameIndex(0, *frame[1:])
                    for frame in self._frames
                    if frame.position == number
                ]
                if not here and labels.target.exists():
                    continue
                sizes = self.sizes._replace(position=1)._asdict()
                about = mark_searched({"sizes": sizes}, sorted(here))
                labels.close(about[SEARCHED], tracked=self.tracked)
        finally:
            self.discard()
        return self._positions[0].target if len(self._positions) == 1 else self.path

    def discard(self) -> None:
        """Leave nothing half-written behind."""
        for labels in self._positions:
            labels.discard()


class _Labels:
    """The labels of one position: an image group that is there."""

    def __init__(self, image: Path, sizes: Sizes, name: str, opened: str) -> None:
        self._image, self._name = image, name
        self.target = image / "labels" / name
        self._part = part_of(self.target)
        self._new = (image / "zarr.json").exists()
        ome = read_attributes(image)
        self._multiscale = dict((ome.get("ome") or ome)["multiscales"][0])
        axes = self._multiscale.get("axes") or list(_OLD_AXES)
        names = [axis["name"] if isinstance(axis, dict) else axis for axis in axes]
        self._kept = [i for i, axis in enumerate(names) if axis != "c"]
        self._axes = [axes[i] for i in self._kept]
        self._named = "".join(names[i] for i in self._kept)
        as_opened = opened.lower().replace("s", "c")
        other = bool(opened) and as_opened != "".join(names)
        self._shapes = self._read_shapes(sizes, other=other)
        self._arrays: list[Any] = []
        if self.target.exists() and KEY not in read_attributes(self.target):
            raise OutputError(
                f"{image.name} has labels called {name!r} that were not written here.",
                "Rename or remove them, or choose the format zarr.",
            )
        sweep(self.target.parent)

    def write(self, frame: FrameIndex, labels: NDArray[Any]) -> None:
        """Draw a frame at every resolution."""
        try:
            for array in self._begin():
                height, width = array.shape[-2:]
                rows = _nearest(height, labels.shape[0])
                columns = _nearest(width, labels.shape[1])
                same = (height, width) == labels.shape
                part = labels if same else labels[np.ix_(rows, columns)]
                for place in self._places(frame, array.shape):
                    array[place] = part
        except OSError as error:
            raise explain(error, self.target) from error

    def close(self, searched: str, *, tracked: bool) -> None:
        """Describe the labels, put them in place, and list them in the group."""
        try:
            self._begin()
            ours = {SEARCHED: searched} | ({"numbers": TRACK} if tracked else {})
            self._describe(self._part, self._about(), {KEY: ours})
            swap(self._part, self.target)
            self._list()
        except OSError as error:
            raise explain(error, self.target) from error

    def discard(self) -> None:
        """Remove what is half-written."""
        shutil.rmtree(self._part, ignore_errors=True)

    def _read_shapes(self, sizes: Sizes, *, other: bool) -> list[tuple[int, ...]]:
        """Shape of each resolution without channels, as far as it fits the image.

        It does not if the image was opened with `other` axes than it declares, even if
        they are as long.
        """
        import zarr

        group: Any = zarr.open_group(self._image, mode="r")
        shapes = []
        for dataset in self._multiscale["datasets"]:
            shape = group[dataset["path"]].shape
            shapes.append(tuple(shape[i] for i in self._kept))
        known = {"t": sizes.time, "z": sizes.z, "y": sizes.y, "x": sizes.x}
        wanted = tuple(known.get(axis, -1) for axis in self._named)
        rest = [n for axis, n in known.items() if axis not in self._named]
        other |= shapes[0] != wanted or any(n > 1 for n in rest)
        if other or self._named[-2:] != "yx":
            raise OutputError(
                f"{self._image.name} has the axes {self._named} of {shapes[0]}, which "
                "is not how it was opened, so labels do not fit into it.",
                "Open it without axes of your own, or choose the format zarr.",
            )
        return shapes

    def _begin(self) -> list[Any]:
        """Make room at every resolution, once."""
        if self._arrays:
            return self._arrays
        import zarr

        self._part.parent.mkdir(parents=True, exist_ok=True)
        group = zarr.open_group(self._part, mode="w", zarr_format=3 if self._new else 2)
        for dataset, shape in zip(
            self._multiscale["datasets"], self._shapes, strict=True
        ):
            sides = (min(n, _CHUNK) for n in shape[-2:])
            chunks = (*[1] * (len(shape) - 2), *sides)
            more: dict[str, Any] = (
                {"dimension_names": list(self._named)}
                if self._new
                else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
            )
            array = group.create_array(
                dataset["path"], shape=shape, chunks=chunks, dtype="uint32", **more
            )
            self._arrays.append(array)
        return self._arrays

    def _places(self, frame: FrameIndex, shape: tuple[int, ...]) -> list[Any]:
        """Where a frame is in an array whose other axes may be coarser, too."""
        places: list[tuple[int, ...]] = [()]
        at = {"t": frame.time, "z": frame.z}
        for axis, n, whole in zip(
            self._named[:-2], shape, self._shapes[0], strict=False
        ):
            own = [int(i) for i, of in enumerate(_nearest(n, whole)) if of == at[axis]]
            places = [(*place, i) for place in places for i in own]
        return places

    def _about(self) -> dict[str, Any]:
        """What OME-Zarr says of the labels: as of the image, without channels."""
        given = self._multiscale
        about: dict[str, Any] = {"name": self._name, "axes": self._axes}
        if "version" in given:
            about["version"] = given["version"]
        about["datasets"] = [
            {"path": dataset["path"], **self._steps(dataset)}
            for dataset in given["datasets"]
        ]
        label: dict[str, Any] = {"source": {"image": "../../"}}
        if "version" in given:
            label["version"] = given["version"]
        return {"multiscales": [about | self._steps(given)], "image-label": label}

    def _steps(self, owner: dict[str, Any]) -> dict[str, Any]:
        """Transformations of an image or one of its resolutions, without channels."""
        if _STEPS not in owner:
            return {}
        kept = [
            {
                name: [value[i] for i in self._kept]
                if isinstance(value, list)
                else value
                for name, value in step.items()
            }
            for step in owner[_STEPS]
        ]
        return {_STEPS: kept}

    def _list(self) -> None:
        """Name the labels in the group of all labels of the image."""
        group = self.target.parent
        known = read_attributes(group)
        names = (known.get("ome") or known).get("labels") or []
        if self._name not in names:
            self._describe(group, {"labels": [*names, self._name]}, {})

    def _describe(self, group: Path, ome: dict[str, Any], own: dict[str, Any]) -> None:
        """Write the attributes of a group, keeping what it has besides."""
        known = read_attributes(group)
        if self._new:
            version = (read_attributes(self._image).get("ome") or {}).get("version")
            ome = {"version": version or "0.5", **(known.get("ome") or {}), **ome}
            known = {**known, **own, "ome": ome}
            head = {"zarr_format": 3, "node_type": "group"}
            _write_json(group / "zarr.json", {**head, "attributes": known})
            return
        if not (group / ".zgroup").exists():
            _write_json(group / ".zgroup", {"zarr_format": 2})
        _write_json(group / ".zattrs", {**known, **ome, **own})


def _folders(path: Path) -> list[str]:
    """Folder of each position of an OME-Zarr.

    Raises
    ------
    OutputError
        If it is none.
    """
    refused = OutputError(
        f"{path.name} is no OME-Zarr image that labels can be written into.",
        "Choose the format zarr, which is written beside the image.",
    )
    try:
        places = find_places(path)
    except Exception as error:
        # Zarr has errors of every kind for what is no Zarr.
        raise refused from error
    if not places or any(scene for _, scene in places):
        raise refused
    return [folder for folder, _ in places]


def _nearest(count: int, whole: int) -> list[int]:
    """For each of `count` pixels, which one of `whole` is in its middle."""
    return [int((i + 0.5) * whole / count) for i in range(count)]


def _write_json(path: Path, content: Any) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")

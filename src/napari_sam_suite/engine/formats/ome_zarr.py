"""OME-Zarr of label images: one folder for an image, its frames as chunks of their own.

One position is a label image itself; several are a series of them. What Zarr has no
place for is under ``napari_sam_suite`` in the attributes of the folder: which frames
were searched, and whether numbers are those of tracks.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import ImageError, OutputError, ParameterError
from napari_sam_suite.engine.formats.atomic import explain, part_of, swap
from napari_sam_suite.engine.formats.instances import check_instances
from napari_sam_suite.engine.formats.zarr_labels import (
    KEY,
    OBJECTS,
    TRACK,
    ZarrLabels,
    list_series,
    read_attributes,
)
from napari_sam_suite.engine.frames import checked_frame
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.provenance import (
    SEARCHED,
    mark_searched,
    scale_in,
    sizes_in,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.frames import FrameIndex, Sizes


class ZarrWriter:
    """Write the label images of one image as they come, in any order.

    They go into a folder beside the target, which takes its name when it is closed.
    Frames that never came are zero.

    Parameters
    ----------
    path : str or Path
        Where the folder shall be. One that was written here before is replaced.
    sizes : Sizes
        Of the image; channels do not matter.
    scale : tuple of float, optional
        ``(z, y, x)`` size of a pixel.
    units : str, optional
        Of `scale`, such as ``"um"``.

    Attributes
    ----------
    tracked : bool
        Whether numbers are those of tracks; may be set until `close`.

    Raises
    ------
    OutputError
        If the folder cannot be written to, or is something else.
    """

    def __init__(
        self,
        path: str | Path,
        sizes: Sizes,
        *,
        scale: tuple[float, float, float] | None = None,
        units: str = "",
    ) -> None:
        from napari_sam_suite.engine.store.place import open_place

        self.path = Path(path)
        self.sizes = sizes
        self.tracked = False
        self._scale = scale or (1.0, 1.0, 1.0)
        self._units = units or "pixel"
        self._frames: set[FrameIndex] = set()
        self._part = part_of(self.path)
        self._place = open_place(self._part)
        self._positions: list[ZarrLabels] = []
        # Only what was written here is ever replaced.
        if self.path.exists() and KEY not in read_attributes(self.path):
            raise OutputError(
                f"{self.path} cannot be written: there is something else of that name.",
                "Choose another folder or name.",
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
        self._begin()
        self._positions[frame.position].write(frame, labels)
        self._frames.add(frame)

    def close(self) -> Path:
        """Put the folder in place.

        Raises
        ------
        OutputError
            If it cannot be written; nothing is left then.
        """
        self._begin()
        about = mark_searched({"sizes": self.sizes._asdict()}, self._frames)
        ours = {SEARCHED: about[SEARCHED]}
        ours |= {"numbers": TRACK} if self.tracked else {}
        try:
            known = json.loads(self._place.read(".zattrs") or b"{}")
            content = json.dumps({**known, KEY: ours}, indent=1)
            self._place.write(".zattrs", content.encode())
            swap(self._part, self.path)
        except OSError as error:
            raise explain(error, self.path) from error
        finally:
            self.discard()
        return self.path

    def discard(self) -> None:
        """Leave nothing half-written behind."""
        shutil.rmtree(self._part, ignore_errors=True)

    def _begin(self) -> None:
        """Make the folder, once."""
        if self._positions:
            return
        several = self.sizes.position > 1
        positions = [
            ZarrLabels(self._place / str(n) if several else self._place, self.sizes)
            for n in range(self.sizes.position)
        ]
        name = f"{self.path.name.partition('.')[0]} objects"
        try:
            if several:
                list_series(self._place, self.sizes.position)
            for labels in positions:
                labels.create(name, scale=self._scale, units=self._units)
        except OutputError:
            self.discard()
            raise
        self._positions = positions


def write(objects: Objects, path: Path) -> None:
    """Write objects as label images of their image's size, whole or not at all.

    Raises
    ------
    ParameterError
        If ``objects.source["sizes"]`` does not say how large the image is.
    OutputError
        If the folder cannot be written.
    """
    sizes = sizes_in(objects.source)
    if sizes is None:
        raise ParameterError(
            "The size of the image is not known, so labels cannot be drawn.",
            "Put it into source['sizes'], or save as .geojson.",
        )
    writer = ZarrWriter(
        path,
        sizes,
        scale=scale_in(objects.source),
        units=str(objects.source.get("units", "")),
    )
    writer.tracked = TRACK in objects.features
    try:
        for frame in objects.searched():
            writer.write(frame, objects.at(frame).to_labels((sizes.y, sizes.x)))
        writer.close()
    finally:
        writer.discard()


def read(path: Path) -> Objects:
    """Read label images as objects, one for each number on each frame.

    The number is in the column `label`, and in `track` where the folder says so.

    Parameters
    ----------
    path : Path
        OME-Zarr with whole numbers and one channel, or an image into which labels
        called ``objects`` were written.

    Raises
    ------
    ImageError
        If it is missing, damaged, or does not hold one number per object.
    """
    from napari_sam_suite.engine.image import open_image

    inside = path / "labels" / OBJECTS
    if KEY in read_attributes(inside):
        found = read(inside)
        source = {**found.source, "image": path.name, "path": str(path)}
        return Objects(found.polygons, found.features, source)
    image = open_image(path)
    if image.dtype.kind not in "ui" or image.sizes.channel > 1:
        raise ImageError(
            f"{path.name} does not hold labels but {image.sizes.channel} channels of "
            f"{image.dtype}.",
            "A label image has one whole number per pixel, 0 for background.",
        )
    ours = read_attributes(path).get(KEY) or {}
    source = {
        "image": path.name,
        "path": str(path),
        "sizes": image.sizes._asdict(),
        "scale": list(image.scale),
        "units": image.units,
        SEARCHED: str(ours.get(SEARCHED, f"1-{image.sizes.frame_count}")),
    }
    frames = [Objects.empty(source)]
    for frame in image.frames():
        labels = image.frame(frame).planes[0]
        check_instances(labels, path.name)
        frames.append(Objects.from_labels(labels, frame, source=source))
    objects = Objects.concat(frames)
    if ours.get("numbers") == TRACK and len(objects):
        objects = objects.with_features(track=objects.features["label"])
    return objects

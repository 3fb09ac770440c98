"""Label images as OME-Zarr 0.4, which most tools read: frames as chunks of their own.

A chunk is one file, written whole, so frames may come in any order and from several
processes at once. Frames that never came are zero.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.provenance import check_labels

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam_suite.engine.frames import FrameIndex, Sizes
    from napari_sam_suite.engine.store.place import Place

KEY = "napari_sam_suite"
"""Where attributes say what OME-Zarr has no place for."""
OBJECTS = "objects"
"""Name of the labels inside an image."""
TRACK = "track"
"""What numbers are of, if they are those of tracks."""
_CHUNK = 2048
_DTYPE = "<u4"
_UNITS = {"um": "micrometer", "µm": "micrometer", "nm": "nanometer", "mm": "millimeter"}


class ZarrLabels:
    """The label images of one position: time, z, y and x, as far as there are any.

    Parameters
    ----------
    place : Place
        The folder of the label image itself.
    sizes : Sizes
        Of the image; positions and channels do not matter.
    """

    def __init__(self, place: Place, sizes: Sizes) -> None:
        self.place = place
        self.sizes = sizes
        lead = {"t": sizes.time, "z": sizes.z}
        self._lead = {axis: n for axis, n in lead.items() if n > 1}
        self._chunk = (min(sizes.y, _CHUNK), min(sizes.x, _CHUNK))

    def create(
        self,
        name: str,
        *,
        scale: tuple[float, float, float] = (1, 1, 1),
        units: str = "pixel",
        image: str = "",
    ) -> None:
        """Write what says how to read it; nothing is lost if it is there already.

        Parameters
        ----------
        name : str
            What viewers call it.
        scale : tuple of float
            Size of a voxel in z, y and x.
        units : str
            Of `scale`.
        image : str
            Where the image is, as seen from here, such as ``"../../"``.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        from numcodecs import Blosc

        shape = [*self._lead.values(), self.sizes.y, self.sizes.x]
        array = {
            "zarr_format": 2,
            "shape": shape,
            "chunks": [1] * len(self._lead) + list(self._chunk),
            "dtype": _DTYPE,
            "compressor": Blosc("lz4", 5, Blosc.SHUFFLE).get_config(),
            "fill_value": 0,
            "order": "C",
            "filters": None,
            "dimension_separator": "/",
        }
        label: dict[str, Any] = {"version": "0.4"}
        if image:
            label["source"] = {"image": image}
        attributes = {
            "multiscales": [self._multiscale(name, scale, units)],
            "image-label": label,
        }
        self.place.write(".zgroup", _json({"zarr_format": 2}))
        self.place.write("0/.zarray", _json(array))
        self.place.write(".zattrs", _json(attributes))

    def write(self, frame: FrameIndex, labels: NDArray[Any]) -> None:
        """Write the label image of one frame.

        Parameters
        ----------
        frame : FrameIndex
            0-based; its position does not matter.
        labels : (H, W) array of int
            0 is background.

        Raises
        ------
        ParameterError
            If the labels do not fit the image.
        OutputError
            If they cannot be written.
        """
        from numcodecs import Blosc

        check_labels(labels, self.sizes)
        codec = Blosc("lz4", 5, Blosc.SHUFFLE)
        rows, columns = self._chunk
        for top in range(0, self.sizes.y, rows):
            for left in range(0, self.sizes.x, columns):
                part = labels[top : top + rows, left : left + columns]
                name = self._name(frame, top // rows, left // columns)
                if not part.any():
                    self.place.remove(name)
                    continue
                whole = np.zeros(self._chunk, _DTYPE)
                whole[: part.shape[0], : part.shape[1]] = part
                self.place.write(name, bytes(codec.encode(whole)))

    def read(self, frame: FrameIndex) -> NDArray[np.uint32]:
        """Read the label image of one frame."""
        from numcodecs import Blosc

        labels = np.zeros((self.sizes.y, self.sizes.x), np.uint32)
        rows, columns = self._chunk
        for top in range(0, self.sizes.y, rows):
            for left in range(0, self.sizes.x, columns):
                data = self.place.read(self._name(frame, top // rows, left // columns))
                if data is None:
                    continue
                raw = Blosc().decode(data)
                part = np.frombuffer(raw, _DTYPE).reshape(self._chunk)
                part = part[: self.sizes.y - top, : self.sizes.x - left]
                labels[top : top + rows, left : left + columns] = part
        return labels

    def _multiscale(
        self, name: str, scale: tuple[float, float, float], units: str
    ) -> dict[str, Any]:
        named = _UNITS.get(units, units)
        unit = {} if named in ("", "pixel") else {"unit": named}
        kinds = {"t": {"type": "time"}, "z": {"type": "space", **unit}}
        axes = [{"name": axis, **kinds[axis]} for axis in self._lead]
        axes += [{"name": axis, "type": "space", **unit} for axis in "yx"]
        size = {"t": 1.0, **dict(zip("zyx", map(float, scale), strict=True))}
        factors = [size[str(axis["name"])] for axis in axes]
        transforms = [{"type": "scale", "scale": factors}]
        return {
            "version": "0.4",
            "name": name,
            "axes": axes,
            "datasets": [{"path": "0", "coordinateTransformations": transforms}],
        }

    def _name(self, frame: FrameIndex, row: int, column: int) -> str:
        at = {"t": frame.time, "z": frame.z}
        return "/".join(map(str, ["0", *(at[a] for a in self._lead), row, column]))


def list_labels(group: Place, names: list[str]) -> None:
    """Make a folder the ``labels`` group of the label images in it."""
    group.write(".zgroup", _json({"zarr_format": 2}))
    group.write(".zattrs", _json({"labels": names}))


def list_series(group: Place, count: int) -> None:
    """Make a folder hold images ``0``, ``1`` and so on, one for each position."""
    group.write(".zgroup", _json({"zarr_format": 2}))
    group.write(".zattrs", _json({"bioformats2raw.layout": 3}))
    series = {"series": [str(n) for n in range(count)]}
    group.write("OME/.zgroup", _json({"zarr_format": 2}))
    group.write("OME/.zattrs", _json(series))


def read_attributes(group: Path) -> dict[str, Any]:
    """Attributes of a Zarr group of version 2 or 3; none if there are none."""
    for name, inner in (("zarr.json", "attributes"), (".zattrs", "")):
        with suppress(OSError, ValueError):
            known = json.loads((group / name).read_text(encoding="utf-8"))
            found = known.get(inner) if inner and isinstance(known, dict) else known
            return found if isinstance(found, dict) else {}
    return {}


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1).encode()

"""Automatic masks that are not searched twice: by model, settings and pixels.

Each file is plain arrays, of which NumPy says itself when they are damaged; nothing is
ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
import zlib
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite import __version__
from napari_sam_suite.engine.auto import Automatic
from napari_sam_suite.engine.errors import OutputError
from napari_sam_suite.engine.finder import Found
from napari_sam_suite.engine.formats.atomic import replacing
from napari_sam_suite.engine.masks import Masks
from napari_sam_suite.engine.quota import keep_within

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.params import AutoParams

logger = logging.getLogger(__name__)

QUOTA = 2**30
"""Bytes of masks kept on disk unless told otherwise."""

_LAYOUT = "3"
_FIELDS = ("boxes", "area", "scores", "stability", "level", "points", "crops")
_DAMAGE = (
    OSError, ValueError, TypeError, AttributeError, LookupError, EOFError, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip


class RememberedAutomatic:
    """Automatic masks as a `Finder`, from a folder where they are already known.

    Parameters
    ----------
    params : AutoParams
        Thresholds left open are those recommended for the model.
    folder : Path
        Where masks are kept; made if it is not there. Any number of processes may share
        it.
    quota : int
        Bytes kept; the files used longest ago go first.

    Attributes
    ----------
    searched : int
        Frames that were not known yet.
    """

    name = "auto"

    def __init__(
        self, params: AutoParams, folder: Path | str, quota: int = QUOTA
    ) -> None:
        self.params = params
        self.folder = Path(folder).expanduser()
        self.quota = quota
        self.searched = 0

    def __call__(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        frame: FrameIndex,
        *,
        report: Report,
        stop: Stop,
    ) -> Found:
        """Find everything in one frame, or remember what was found."""
        path = self.folder / f"{self.key(model, rgb)}.npz"
        known = _read(path)
        if known is not None:
            report(1, 1, "Known from before")
            return Found(known)
        self.searched += 1
        found = Automatic(self.params)(model, rgb, frame, report=report, stop=stop)
        try:
            _write(path, found.masks)
            keep_within(self.folder, "*.npz", self.quota)
        except OutputError as error:
            # Remembering is a favour: without it the work takes longer, no more.
            logger.warning("masks are not kept on disk: %s", error)
        return found

    def key(self, model: SamModel, rgb: NDArray[np.uint8]) -> str:
        """What the masks of a frame depend on: model, weights, settings and pixels."""
        settings = self.params.resolved(model.spec).model_dump(
            mode="json", include=set(type(self.params).model_fields) - _AFTERWARDS
        )
        # What is "auto" is read from the model's own settings while it searches.
        told: list[Any] = [
            _LAYOUT,
            __version__,
            model.spec.id,
            model.identity,
            asdict(model.spec.auto),
            rgb.shape,
            settings,
        ]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(rgb).data)
        return digest.hexdigest()[:40]


# They make polygons of masks, and how many points are asked at once changes nothing.
_AFTERWARDS = {"smoothing", "padding", "parts", "points_per_batch"}


def _write(path: Path, masks: Masks) -> None:
    bits = np.concatenate([*masks.packed, np.empty(0, np.uint8)])
    lengths = np.array([len(one) for one in masks.packed], np.int64)
    arrays = {name: getattr(masks, name) for name in _FIELDS}
    with replacing(path) as part, part.open("wb") as file:
        np.savez(
            file, allow_pickle=False, shape=masks.shape, bits=bits, lengths=lengths,
            **arrays,
        )  # fmt: skip


def _read(path: Path) -> Masks | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _FIELDS}
            ends = np.cumsum(file["lengths"])
            height, width = file["shape"].tolist()
            packed = np.split(file["bits"], ends[:-1]) if len(ends) else []
    except _DAMAGE as error:
        logger.warning("%s is damaged and is made again: %s", path.name, error)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return None
    with suppress(OSError):
        os.utime(path)  # used last; unlike touch, it makes no new file
    return Masks(shape=(height, width), packed=packed, **arrays)

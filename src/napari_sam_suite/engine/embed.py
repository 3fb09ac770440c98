"""What the image encoder said before: kept in memory by bytes, on disk by quota.

Encoding is most of the time of a click, so every capability asks through `Remembering`,
and a region that any of them has looked at is not encoded again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.errors import OutputError
from napari_sam_suite.engine.formats.atomic import replacing
from napari_sam_suite.engine.models.protocol import MULTIMASK, Embedding, to_numpy
from napari_sam_suite.engine.quota import keep_within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.models.memory import VideoMemory
    from napari_sam_suite.engine.models.protocol import (
        Array,
        Decoded,
        Device,
        Prompts,
        SamModel,
    )

logger = logging.getLogger(__name__)

MEMORY = 2**29
"""Bytes of embeddings kept in memory unless told otherwise."""
QUOTA = 2**31
"""Bytes of embeddings kept on disk unless told otherwise."""

_LAYOUT = "2"
"""Of the files; another one makes older files unknown, and the quota removes them."""


class EmbeddingCache:
    """Embeddings by what they were made from; the one used longest ago goes first.

    Files hold 16-bit floats, half the size, with a digest: a damaged file is a missing
    one, and is removed. Files appear whole, so that any number of processes may share
    a folder, as any number of threads may share a cache. Where there is a folder, what
    is in memory is rounded in the same way, so that a result does not depend on whether
    an image was encoded before; without one it is as the model made it.

    Parameters
    ----------
    memory : int
        Bytes kept in memory.
    folder : path, optional
        Where files are kept; without it there are none.
    quota : int
        Bytes kept in `folder`.
    """

    def __init__(
        self,
        memory: int = MEMORY,
        folder: Path | str | None = None,
        quota: int = QUOTA,
    ) -> None:
        self.memory = memory
        self.folder = None if folder is None else Path(folder).expanduser()
        self.quota = quota
        self._kept: OrderedDict[tuple[str, str], Embedding] = OrderedDict()
        self._lock = threading.RLock()

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        with self._lock:
            return sum(embedding.nbytes for embedding in self._kept.values())

    def get(self, key: str, device: Device) -> Embedding | None:
        """The embedding of `key` on a device, or None if it is not known."""
        here = (key, str(device))
        with self._lock:
            if here in self._kept:
                self._kept.move_to_end(here)
                return self._kept[here]
        found = self._read(key, device)
        if found is not None:
            self._keep(here, found)
        return found

    def put(self, key: str, device: Device, embedding: Embedding) -> Embedding:
        """Remember an embedding, as far as memory and quota allow.

        Returns
        -------
        Embedding
            What `get` gives from now on, and to be used in place of `embedding`.
        """
        folder = self.folder
        if folder is not None:
            half = _halve(embedding)
            if half is not None:
                embedding = _restore(embedding, half, device)
                self._write(folder, key, embedding, half)
        self._keep((key, str(device)), embedding)
        return embedding

    def forget(self) -> None:
        """Give the memory back; files stay."""
        with self._lock:
            self._kept.clear()

    def _keep(self, here: tuple[str, str], embedding: Embedding) -> None:
        with self._lock:
            self._kept[here] = embedding
            total = self.nbytes
            while total > self.memory:
                _, oldest = self._kept.popitem(last=False)
                total -= oldest.nbytes

    # -- files -------------------------------------------------------------------

    def _read(self, key: str, device: Device) -> Embedding | None:
        folder = self.folder
        if folder is None:
            return None
        from safetensors import safe_open

        path = _path(folder, key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                told = file.metadata()
                half = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if _digest(half) != told["digest"]:
                raise ValueError("the digest is another one")
            kinds = json.loads(told["dtypes"])
            features = {
                name: _revived(array, kinds[name], device)
                for name, array in half.items()
            }
            shape, scaled = json.loads(told["shape"]), json.loads(told["scaled"])
            padded: bool = json.loads(told["padded"])
        except FileNotFoundError:
            return None  # another process has made room
        except Exception as error:  # noqa: BLE001 - readers raise many types
            logger.warning("%s is damaged and is made again: %s", path.name, error)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            os.utime(path)  # used last; unlike touch, it makes no new file
        return Embedding(features, tuple(shape), tuple(scaled), padded)

    def _write(
        self,
        folder: Path,
        key: str,
        embedding: Embedding,
        half: dict[str, NDArray[Any]],
    ) -> None:
        from safetensors.numpy import save_file

        told = {
            "digest": _digest(half),
            "dtypes": json.dumps(
                {n: _kind(level) for n, level in embedding.features.items()}
            ),
            "shape": json.dumps(embedding.shape),
            "scaled": json.dumps(embedding.scaled),
            "padded": json.dumps(embedding.padded),
        }
        try:
            with replacing(_path(folder, key)) as part:
                save_file(half, part, told)
            keep_within(folder, "*.safetensors", self.quota)
        except OutputError as error:
            # Remembering is a favour: without it the work takes longer, no more.
            logger.warning("embeddings are not kept on disk: %s", error)
            self.folder = None


class Remembering:
    """A model that does not encode the same pixels twice; a `SamModel` itself.

    Parameters
    ----------
    model : SamModel
        The model that is asked.
    cache : EmbeddingCache
        Where its embeddings are kept.
    """

    def __init__(self, model: SamModel, cache: EmbeddingCache) -> None:
        self.model = model
        self.cache = cache
        self.spec = model.spec
        self.input_size = model.input_size
        self.device = model.device

    @property
    def identity(self) -> str:
        """Its weights and precision."""
        return self.model.identity

    @property
    def batch(self) -> int:
        """Prompts in one decoder call that suit the device."""
        return self.model.batch

    @batch.setter
    def batch(self, size: int) -> None:
        self.model.batch = size

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Embed RGB images (H, W, 3), uint8, of which the unknown are encoded."""
        keys = [self._key(image) for image in images]
        known = {key: self.cache.get(key, self.device) for key in dict.fromkeys(keys)}
        new = [key for key, found in known.items() if found is None]
        if new:
            pixels = [images[keys.index(key)] for key in new]
            for key, embedding in zip(new, self._encode(pixels), strict=True):
                known[key] = self.cache.put(key, self.device, embedding)
        return [found for key in keys if (found := known[key]) is not None]

    def move(self, device: Device) -> None:
        """Go to another device; what was remembered on this one is let go."""
        self.cache.forget()
        self.model.move(device)
        self.device = self.model.device

    def decode(
        self,
        embedding: Embedding,
        prompts: Prompts,
        *,
        tokens: Sequence[int] = MULTIMASK,
        min_iou: float = 0.0,
    ) -> Decoded:
        """Draw masks for prompts; see `SamModel.decode`."""
        try:
            return self.model.decode(embedding, prompts, tokens=tokens, min_iou=min_iou)
        except Exception as error:
            self._make_room(error)
            raise

    def video_memory(self, length: int) -> VideoMemory:
        """Begin to remember objects in a movie; see `SamModel.video_memory`."""
        return self.model.video_memory(length)

    def _encode(self, pixels: list[NDArray[np.uint8]]) -> list[Embedding]:
        try:
            return self.model.encode(pixels)
        except Exception as error:
            if not self._make_room(error):
                raise
        return self.model.encode(pixels)

    def _make_room(self, error: Exception) -> bool:
        """Whether memory ran out and something could be let go."""
        from napari_sam_suite.engine.asking import is_out_of_memory, release_memory

        if not is_out_of_memory(error) or not self.cache.nbytes:
            return False
        self.cache.forget()
        release_memory()
        return True

    def _key(self, image: NDArray[np.uint8]) -> str:
        """Pixels, which hold image, composite and tile, and who looks at them."""
        told: list[Any] = [_LAYOUT, self.spec.id, self.identity, self.input_size]
        digest = hashlib.sha256(repr([*told, image.shape]).encode())
        digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()[:40]


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.safetensors"


def _halve(embedding: Embedding) -> dict[str, NDArray[Any]] | None:
    """Its features as files hold them, or None if a number is too large for 16 bits."""
    half = {}
    for name, level in embedding.features.items():
        value = to_numpy(level)
        if np.issubdtype(value.dtype, np.floating):
            with np.errstate(over="ignore"):
                value = value.astype(np.float16)
            if not np.isfinite(value).all():
                return None
        half[name] = np.ascontiguousarray(value)
    return half


def _restore(
    embedding: Embedding, half: dict[str, NDArray[Any]], device: Device
) -> Embedding:
    """The embedding as it is when it is read again."""
    features = {
        name: _revived(half[name], _kind(level), device)
        for name, level in embedding.features.items()
    }
    return replace(embedding, features=features)


def _digest(features: dict[str, NDArray[Any]]) -> str:
    """SHA-256 of the bytes of arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(features):
        digest.update(np.ascontiguousarray(features[name]).data)
    return digest.hexdigest()


def _kind(level: Array) -> str:
    """``"torch.float32"`` of a tensor, ``"float32"`` of an array."""
    return str(level.dtype)


def _revived(array: NDArray[Any], kind: str, device: Device) -> Array:
    """An array of a file as what it was before it was written."""
    package, _, dtype = kind.rpartition(".")
    if not package:
        return array.astype(dtype)
    import torch

    return torch.tensor(array).to(str(device), getattr(torch, dtype))

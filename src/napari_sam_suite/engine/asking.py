"""A model asked in batches that fit its device's memory."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from napari_sam_suite.engine.models.protocol import Decoded, Embedding, SamModel

logger = logging.getLogger(__name__)

_FULL = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "failed to allocate memory",
)


class Asker:
    """Embeds images and decodes points, fewer at a time when memory runs out.

    The encoder gets one image at a time, scaled to the model's input on the CPU, so
    there is nothing that would need less: neither a smaller image nor a smaller tile.
    """

    def __init__(self, model: SamModel) -> None:
        self.model = model
        self._most = 0

    def encode(self, pixels: NDArray[np.uint8]) -> Embedding:
        """Embed one RGB image (H, W, 3).

        Raises
        ------
        OutOfMemory
            If the device has too little memory.
        """
        try:
            return self.model.encode([pixels])[0]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise self._too_little() from error

    def decode(
        self,
        embedding: Embedding,
        grid: NDArray[Any],
        ask: Callable[[Embedding, NDArray[Any]], Decoded],
        size: int | None = None,
    ) -> Iterator[tuple[Decoded, NDArray[Any]]]:
        """Decode points in batches, halved for as long as memory runs out.

        Parameters
        ----------
        embedding : Embedding
            Of the image.
        grid : ndarray, shape (n, ...)
            (y, x) of the points, or whatever `ask` knows its prompts by.
        ask : callable
            Asks the model about some of the points.
        size : int, optional
            Points at a time; what suits the device by default.

        Raises
        ------
        OutOfMemory
            If not even one point fits.
        """
        start = 0
        while start < len(grid):
            wanted = size or self.model.batch
            points = grid[start : start + min(wanted, self._most or wanted)]
            decoded = self._ask_if_it_fits(embedding, points, ask)
            if decoded is not None:
                yield decoded, points
                start += len(points)
                continue
            self._most = half = len(points) // 2
            self.model.batch = min(self.model.batch, half)
            logger.warning("out of memory: %d points at a time from here", half)
            release_memory()

    def _ask_if_it_fits(
        self,
        embedding: Embedding,
        points: NDArray[Any],
        ask: Callable[[Embedding, NDArray[Any]], Decoded],
    ) -> Decoded | None:
        """The answer, or None when memory ran out.

        The error ends in here: it holds on to all that the attempt had allocated.
        """
        try:
            return ask(embedding, points)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(points) == 1:
                raise self._too_little() from error
            return None

    def _too_little(self) -> OutOfMemory:
        where = str(self.model.device)
        return OutOfMemory(
            f"There is too little memory on {where} for {self.model.spec.id}.",
            "Choose a smaller model, or close other programs."
            if where == "cpu"
            else "Choose a smaller model or the CPU.",
        )


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the device's memory is used up."""
    torch = sys.modules.get("torch")
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)
    )


def release_memory() -> None:
    """Give cached device memory back before trying again."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()

"""A SAM model without a network: a click selects the blob of one colour around it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import label

from napari_sam_suite.engine.models.protocol import (
    MULTIMASK,
    Decoded,
    Embedding,
    Prompts,
)
from napari_sam_suite.engine.models.registry import AutoDefaults, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Event

    from numpy.typing import NDArray

FAKE = ModelSpec(
    id="fake",
    family="sam2",
    config="fake",
    title="Fake",
    input_size=256,
    auto=AutoDefaults(pred_iou_thresh=0.8),
)
BLACK = 0.1
"""Predicted IoU of a mask of black background, below every model's threshold."""


class FakeSam:
    """Draws for every point the connected blob of exactly its colour.

    Parameters
    ----------
    input_size : int
        Side of the model's input; its logits have a quarter of it, so that an image
        of that quarter's size is segmented to the pixel.
    scores : sequence of float
        Predicted IoU of the output tokens 0 to 3.
    score : callable, optional
        Instead: the predicted IoU from the token and the colour (3 numbers).
    keep_aspect : bool
        Pad the image like SAM 1, instead of stretching it like SAM 2.
    batch : int
        Prompts that suit the device.
    memory : int, optional
        More prompts than this at once run out of memory.
    delay : float
        Seconds that one decoder call takes.
    gate : Event, optional
        Every decoder call waits until it is set; `waiting` says that one does.
    """

    spec = FAKE
    identity = "fake"

    def __init__(
        self,
        *,
        input_size: int = 256,
        scores: Sequence[float] = (0.9, 0.85, 0.95, 0.9),
        score: Callable[[int, NDArray[np.uint8]], float] | None = None,
        keep_aspect: bool = False,
        batch: int = 16,
        memory: int | None = None,
        delay: float = 0.0,
        gate: Event | None = None,
    ) -> None:
        self.device = torch.device("cpu")
        self.input_size = input_size
        self.batch = batch
        self.memory = memory
        self.delay = delay
        self.gate = gate
        self.waiting = False
        self.failure: Exception | None = None
        self.encoded: list[tuple[int, int]] = []
        self.decoded: list[int] = []
        self._keep_aspect = keep_aspect
        self._blobs: dict[tuple[int, ...], tuple[Embedding, NDArray[np.int32]]] = {}
        self._score = score or (lambda token, colour: scores[token])

    def move(self, device: torch.device) -> None:
        """Another device has memory of its own."""
        self.device = device
        self.memory = None

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        return [self._embed(image) for image in images]

    def decode(
        self,
        embedding: Embedding,
        prompts: Prompts,
        *,
        tokens: Sequence[int] = MULTIMASK,
        min_iou: float = 0.0,
    ) -> Decoded:
        time.sleep(self.delay)
        if self.gate is not None:
            self.waiting = not self.gate.is_set()
            self.gate.wait()
            self.waiting = False
        self.decoded.append(len(prompts))
        if self.failure is not None:
            raise self.failure
        if self.memory is not None and len(prompts) > self.memory:
            raise torch.OutOfMemoryError("the fake device is full")
        image = embedding.features["image"].numpy()
        logits, iou, asked, drawn = [], [], [], []
        for number, point in enumerate(_middles(prompts)):
            y, x = np.clip(point.astype(int), 0, np.array(embedding.shape) - 1)
            colour = image[y, x]
            same = self._same(embedding, colour)
            at = self._at((y, x), embedding)
            mask = (same == same[at]) & (same > 0)
            for token in tokens:
                score = self._score(token, colour) if colour.any() else BLACK
                if min_iou > 0 and not score > min_iou:
                    continue
                logits.append(np.where(mask, 8.0, -8.0))
                iou.append(score)
                asked.append(number)
                drawn.append(token)
        side = self.input_size // 4
        return Decoded(
            torch.from_numpy(np.array(logits, np.float32).reshape(-1, side, side)),
            torch.tensor(iou, dtype=torch.float32),
            torch.tensor(asked, dtype=torch.int64),
            torch.tensor(drawn, dtype=torch.int64),
        )

    def _embed(self, image: NDArray[np.uint8]) -> Embedding:
        height, width = image.shape[:2]
        self.encoded.append((height, width))
        scaled = (self.input_size, self.input_size)
        if self._keep_aspect:
            scale = self.input_size / max(height, width)
            scaled = (int(height * scale + 0.5), int(width * scale + 0.5))
        features = {"image": torch.from_numpy(image.copy())}
        return Embedding(features, (height, width), scaled, padded=self._keep_aspect)

    def _same(
        self, embedding: Embedding, colour: NDArray[np.uint8]
    ) -> NDArray[np.int32]:
        """Numbered blobs of a colour at low resolution."""
        key = (id(embedding), *colour.tolist())
        if key not in self._blobs:
            alike = (self._low(embedding) == colour).all(-1)
            # With the embedding, so that its id stays its own.
            self._blobs[key] = embedding, label(alike, np.ones((3, 3)))[0]
        return self._blobs[key][1]

    def _low(self, embedding: Embedding) -> NDArray[np.uint8]:
        """The image as the decoder sees it, (low, low, 3); padding is black."""
        image = embedding.features["image"].numpy()
        side = self.input_size // 4
        low = np.zeros((side, side, 3), np.uint8)
        rows, columns = (
            ((np.arange(side) + 0.5) * 4 * n / s).astype(int)
            for n, s in zip(embedding.shape, embedding.scaled, strict=True)
        )
        rows, columns = rows[rows < image.shape[0]], columns[columns < image.shape[1]]
        low[: len(rows), : len(columns)] = image[np.ix_(rows, columns)]
        return low

    def _at(self, point: tuple[int, int], embedding: Embedding) -> tuple[int, int]:
        side = self.input_size // 4
        y, x = (
            min(int((p + 0.5) * s / n / 4), side - 1)
            for p, n, s in zip(point, embedding.shape, embedding.scaled, strict=True)
        )
        return y, x


def _middles(prompts: Prompts) -> NDArray[np.float64]:
    """Where each prompt is: its first point, or the middle of its box or mask."""
    if prompts.points.shape[1]:
        return prompts.points[:, 0]
    assert prompts.boxes is not None, "the fake knows points and boxes"
    return (prompts.boxes[:, :2] + prompts.boxes[:, 2:]) / 2


def scene(
    shape: tuple[int, int], *boxes: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """RGB image, black with a rectangle (y0, x0, y1, x1) of its own colour each."""
    image = np.zeros((*shape, 3), np.uint8)
    for number, (y0, x0, y1, x1) in enumerate(boxes, 1):
        image[y0:y1, x0:x1] = (255 - 7 * (number % 20), 10 * (number % 25), number)
    return image

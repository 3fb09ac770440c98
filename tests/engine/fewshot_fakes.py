"""A SAM model whose features are the colours of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch.nn.functional import adaptive_avg_pool2d

from engine.fakes import FakeSam
from napari_sam_suite.engine.models.protocol import MULTIMASK, Embedding
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.models.protocol import Decoded, Prompts

RED, BLUE, GREEN = (220, 20, 20), (20, 20, 220), (20, 200, 20)


class ColourSam(FakeSam):
    """As `FakeSam`, with coarse features of shape (1, 3, side / 16, side / 16)."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._inner: dict[int, tuple[Embedding, Embedding]] = {}

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        return [self._with_colours(inner) for inner in super().encode(images)]

    def decode(
        self,
        embedding: Embedding,
        prompts: Prompts,
        *,
        tokens: Sequence[int] = MULTIMASK,
        min_iou: float = 0.0,
    ) -> Decoded:
        inner = self._inner[id(embedding)][1]
        return super().decode(inner, prompts, tokens=tokens, min_iou=min_iou)

    def _with_colours(self, inner: Embedding) -> Embedding:
        image = inner.features["image"].float().permute(2, 0, 1)[None] / 255
        side = self.input_size // 16
        outer = Embedding(
            {"image": adaptive_avg_pool2d(image, side)}, inner.shape, inner.scaled
        )
        self._inner[id(outer)] = (outer, inner)
        return outer


def dots(
    shape: tuple[int, int],
    *spots: tuple[int, int, tuple[int, int, int]],
    radius: int = 4,
) -> NDArray[np.uint8]:
    """RGB image of coloured discs (y, x, colour) on black."""
    image = np.zeros((*shape, 3), np.uint8)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for cy, cx, colour in spots:
        image[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = colour
    return image


def tagged(
    shape: tuple[int, int], *spots: tuple[int, int, str], radius: int = 4
) -> Objects:
    """Objects for discs (y, x, tag)."""
    labels = np.zeros(shape, np.int64)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for number, (cy, cx, _) in enumerate(spots, 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return Objects.from_labels(labels).with_tags([tag for _, _, tag in spots])

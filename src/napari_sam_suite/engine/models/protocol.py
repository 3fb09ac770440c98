"""What every SAM model can do, and the three things that pass through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from napari_sam_suite.engine.models.registry import ModelSpec

Precision = Literal["auto", "float32", "bfloat16", "float16"]

SINGLE = (0,)
"""The output token trained for unambiguous prompts."""
MULTIMASK = (1, 2, 3)
"""The three output tokens that cover the ambiguity of a single click."""


@dataclass(frozen=True)
class Embedding:
    """What the image encoder gave for one image or tile.

    Attributes
    ----------
    features : dict of str to torch.Tensor
        ``"image"`` of shape (1, C, h, w); SAM 2 adds ``"fine"`` (4h, 4w) and
        ``"middle"`` (2h, 2w), the high-resolution features of its decoder.
    shape : (int, int)
        Height and width of the image in pixels.
    scaled : (int, int)
        Height and width that the image fills in the model's square input. SAM 2
        stretches, so this is the whole square; SAM 1 keeps the aspect and pads.
    padded : bool
        Whether the model is of the kind that pads, for square images too.
    """

    features: dict[str, torch.Tensor]
    shape: tuple[int, int]
    scaled: tuple[int, int]
    padded: bool = False

    @property
    def nbytes(self) -> int:
        """Memory the features take, in bytes."""
        return sum(t.numel() * t.element_size() for t in self.features.values())


@dataclass(frozen=True)
class Prompts:
    """B prompts on one image, every one of them for one object.

    Attributes
    ----------
    points : ndarray, shape (B, P, 2)
        (y, x) in image pixels; P may be 0.
    labels : ndarray, shape (B, P)
        1 inside, 0 outside, -1 for a point that is not there.
    boxes : ndarray, shape (B, 4), optional
        (y0, x0, y1, x1) in image pixels.
    masks : torch.Tensor, shape (B, 1, 4h, 4w), optional
        Low-resolution logits of an earlier answer.
    """

    points: NDArray[np.float64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64] | None = None
    masks: torch.Tensor | None = None

    @classmethod
    def clicks(cls, points: NDArray[np.floating]) -> Prompts:
        """One inside point for each object; ``points`` is (B, 2), (y, x)."""
        array = np.asarray(points, np.float64).reshape(-1, 1, 2)
        return cls(array, np.ones(array.shape[:2], np.int64))

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, part: slice) -> Prompts:
        return Prompts(
            self.points[part],
            self.labels[part],
            None if self.boxes is None else self.boxes[part],
            None if self.masks is None else self.masks[part],
        )


@dataclass(frozen=True)
class Decoded:
    """K masks that the decoder gave, in the order of their prompts and tokens.

    Attributes
    ----------
    logits : torch.Tensor, shape (K, 4h, 4w), float32
        Low-resolution mask logits.
    iou : torch.Tensor, shape (K,), float32
        The model's own estimate of each mask's quality.
    prompt, token : torch.Tensor, shape (K,), int64
        Which prompt asked for the mask and which output token drew it.
    """

    logits: torch.Tensor
    iou: torch.Tensor
    prompt: torch.Tensor
    token: torch.Tensor

    def __len__(self) -> int:
        return len(self.iou)


class SamModel(Protocol):
    """One promptable segmentation model on one device."""

    spec: ModelSpec
    device: torch.device
    input_size: int
    batch: int
    """Prompts in one decoder call that suit the device."""

    @property
    def identity(self) -> str:
        """Tells these weights in this precision from all others."""
        ...

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Embed RGB images of shape (H, W, 3), uint8."""
        ...

    def move(self, device: torch.device) -> None:
        """Go to another device, in float32; embeddings made before stay behind."""
        ...

    def decode(
        self,
        embedding: Embedding,
        prompts: Prompts,
        *,
        tokens: Sequence[int] = MULTIMASK,
        min_iou: float = 0.0,
    ) -> Decoded:
        """Draw masks for prompts.

        Only those whose predicted IoU is above `min_iou` are drawn; 0 draws all.
        """
        ...

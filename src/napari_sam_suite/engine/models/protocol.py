"""What every SAM model can do, and the three things that pass through it.

A model on torch gives tensors on its device, one on onnxruntime gives arrays; whoever
looks inside asks for `maps` and `Decoded.numpy`, and needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.models.memory import VideoMemory
    from napari_sam_suite.engine.models.registry import ModelSpec

Precision = Literal["auto", "float32", "bfloat16", "float16"]

Array = Any
"""A ``torch.Tensor`` on the model's device, or a ``numpy.ndarray``."""

SINGLE = (0,)
"""The output token trained for unambiguous prompts."""
MULTIMASK = (1, 2, 3)
"""The three output tokens that cover the ambiguity of a single click."""
EVERY = (*SINGLE, *MULTIMASK)
"""All four output tokens."""

_MAPS = ("image", "middle", "fine", "guide")
"""Feature maps in the order that descriptors have them in, however they were made."""


@dataclass(frozen=True)
class Embedding:
    """What the image encoder gave for one image or tile.

    Attributes
    ----------
    features : dict of str to Array
        ``"image"`` of shape (1, C, h, w); SAM 2 adds ``"fine"`` (4h, 4w) and
        ``"middle"`` (2h, 2w), the high-resolution features of its decoder. A model with
        a guide adds ``"guide"`` (1, 5, 4h, 4w); see `proposals.propose`.
    shape : (int, int)
        Height and width of the image in pixels.
    scaled : (int, int)
        Height and width that the image fills in the model's square input. SAM 2
        stretches, so this is the whole square; SAM 1 keeps the aspect and pads.
    padded : bool
        Whether the model is of the kind that pads, for square images too.
    """

    features: dict[str, Array]
    shape: tuple[int, int]
    scaled: tuple[int, int]
    padded: bool = False

    @property
    def nbytes(self) -> int:
        """Memory the features take, in bytes."""
        return sum(level.nbytes for level in self.features.values())

    def maps(self) -> dict[str, NDArray[np.float32]]:
        """Every feature map as an array (C, h, w) on the CPU, in float32.

        The coarse ``"image"`` comes first, then ``"middle"``, ``"fine"``, ``"guide"``
        and any other, in whatever order the model or a file gave them.
        """
        known = [name for name in _MAPS if name in self.features]
        names = dict.fromkeys([*known, *self.features])
        return {name: to_numpy(self.features[name][0]) for name in names}


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
    masks : Array, shape (B, 1, 4h, 4w), float32, optional
        Low-resolution logits of an earlier answer.
    """

    points: NDArray[np.float64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64] | None = None
    masks: Array | None = None

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
    logits : Array, shape (K, 4h, 4w), float32
        Low-resolution mask logits.
    iou : Array, shape (K,), float32
        The model's own estimate of each mask's quality.
    prompt, token : Array, shape (K,), int64
        Which prompt asked for the mask and which output token drew it.
    """

    logits: Array
    iou: Array
    prompt: Array
    token: Array

    def __len__(self) -> int:
        return len(self.iou)

    def numpy(self) -> Decoded:
        """The same as arrays on the CPU."""
        parts = (self.logits, self.iou, self.prompt, self.token)
        return Decoded(*map(to_numpy, parts))


def to_numpy(array: Array) -> NDArray[Any]:
    """An array on the CPU; floating-point tensors become float32."""
    if isinstance(array, np.ndarray):
        return array
    tensor = array.detach()
    found: NDArray[Any] = (
        (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
    )
    return found


class Device(Protocol):
    """Where a model runs; ``torch.device`` is one."""

    @property
    def type(self) -> str:
        """``"cpu"``, ``"cuda"`` or ``"mps"``."""
        ...


class SamModel(Protocol):
    """One promptable segmentation model on one device."""

    spec: ModelSpec
    input_size: int
    batch: int
    """Prompts in one decoder call that suit the device."""

    @property
    def device(self) -> Device:
        """Where it runs."""
        ...

    @property
    def identity(self) -> str:
        """Tells these weights in this precision from all others."""
        ...

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Embed RGB images of shape (H, W, 3), uint8."""
        ...

    def move(self, device: Any) -> None:
        """Go to another `Device`, in float32; embeddings made before stay behind."""
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

    def video_memory(self, length: int) -> VideoMemory:
        """Begin to remember objects in a movie of `length` frames.

        Raises
        ------
        ModelError
            If the model has no memory; `ModelSpec.has_memory` tells beforehand.
        """
        ...


def weights_of(model: SamModel) -> str:
    """Tells the weights of a model from others, in whatever precision they run."""
    return model.identity.rpartition("-")[0] or model.identity

"""A model that learns: a copy of its decoder on the encoder of the original."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch

from napari_sam_suite.engine.embed import Remembering
from napari_sam_suite.engine.errors import ModelError
from napari_sam_suite.engine.models.adapter import Adapter
from napari_sam_suite.engine.models.protocol import (
    MULTIMASK,
    Decoded,
    Embedding,
    Prompts,
    SamModel,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from napari_sam_suite.engine.models.memory import VideoMemory

_ALL = (0, *MULTIMASK)
_BEFORE_DECODER = ("conv_s0", "conv_s1")
"""Parts of SAM 2's mask decoder that run with the encoder."""
_SHARED = ("image_encoder", "memory_attention", "memory_encoder")


class Trainee:
    """A model in training; a `SamModel` itself, so that it can be tried out.

    The original is never changed. Images are encoded by it, through whatever remembers
    its embeddings, since the encoder is the same.

    Parameters
    ----------
    base : SamModel
        The model to begin from; `original` is the same without what remembers.

    Raises
    ------
    ModelError
        If `base` is no network.
    """

    def __init__(self, base: SamModel) -> None:
        adapter = base.model if isinstance(base, Remembering) else base
        if not isinstance(adapter, Adapter):
            raise ModelError(
                f"{base.spec.id} cannot be trained.",
                "Choose a model with its own weights, not an exported one.",
            )
        self.base = base
        self.original = adapter
        self.spec = base.spec
        self.device = base.device
        self.input_size = base.input_size
        network = adapter.network
        # The encoder is the larger part by far, and does not change.
        shared = [getattr(network, name, None) for name in _SHARED]
        network = copy.deepcopy(network, {id(p): p for p in shared if p is not None})
        # 16-bit floats without a scaled loss lose small gradients.
        wide = torch.float32 if adapter.dtype == torch.float16 else adapter.dtype
        self.adapter = type(adapter)(network, base.spec, adapter.device, wide)
        self.parameters = _trainable(self.adapter)

    @property
    def identity(self) -> str:
        """Its weights, as they are now."""
        return self.adapter.identity

    @property
    def batch(self) -> int:
        """Prompts in one decoder call that suit the device."""
        return self.adapter.batch

    @batch.setter
    def batch(self, size: int) -> None:
        self.adapter.batch = size

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Embed RGB images (H, W, 3), uint8."""
        return self.base.encode(images)

    def move(self, device: Any) -> None:
        """Go to another device."""
        self.base.move(device)
        self.adapter.move(device)
        self.device = device

    def decode(
        self,
        embedding: Embedding,
        prompts: Prompts,
        *,
        tokens: Sequence[int] = MULTIMASK,
        min_iou: float = 0.0,
    ) -> Decoded:
        """Draw masks for prompts; see `SamModel.decode`."""
        return self.adapter.decode(embedding, prompts, tokens=tokens, min_iou=min_iou)

    def video_memory(self, length: int) -> VideoMemory:
        """See `SamModel.video_memory`."""
        return self.base.video_memory(length)

    def refresh(self) -> None:
        """Forget what was computed from the weights, which are others now."""
        self.adapter.refresh()

    def weights(self) -> dict[str, Tensor]:
        """Copies of what learns, on the CPU, by name."""
        return {n: p.detach().cpu().clone() for n, p in self.parameters.items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights that `weights` gave."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])
        self.refresh()

    def answer(self, embedding: Embedding, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Logits (B, 4, h, w) and ratings (B, 4) of all answers, with gradients."""
        with torch.autocast(
            self.device.type,
            dtype=self.adapter.dtype,
            enabled=self.adapter.dtype != torch.float32,
        ):
            drawn = self.adapter.answer(embedding, prompts, _ALL)
        logits, iou = cast("Tensor", drawn.logits), cast("Tensor", drawn.iou)
        shape = (len(prompts), len(_ALL))
        grid = logits.shape[-2:]
        return logits.view(*shape, *grid).float(), iou.view(shape).float()


def _trainable(adapter: Adapter) -> dict[str, nn.Parameter]:
    """Parameters of prompt encoder and mask decoder by their names in the network."""
    parts = {id(p) for part in adapter.learning_parts() for p in part.parameters()}
    return {
        name: parameter
        for name, parameter in adapter.network.named_parameters()
        if id(parameter) in parts and not any(f".{n}." in name for n in _BEFORE_DECODER)
    }

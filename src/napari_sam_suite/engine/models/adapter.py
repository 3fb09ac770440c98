"""What the adapters of SAM 1 and SAM 2 have in common."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch

from napari_sam_suite.engine.errors import ModelError
from napari_sam_suite.engine.models.decoder import ImageKeys, SharedDecoder
from napari_sam_suite.engine.models.device import inference
from napari_sam_suite.engine.models.protocol import (
    MULTIMASK,
    Decoded,
    Embedding,
    Prompts,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam_suite.engine.models.memory import VideoMemory
    from napari_sam_suite.engine.models.registry import ModelSpec

_CACHE_FLOATS = 2**21
"""Numbers in the image keys of one decoder call that stay in a CPU's cache."""
_GPU_BATCH = 256
_SAMPLE = 256
"""Numbers of every tensor of which its weights are recognised, about."""


class Adapter(ABC):
    """A SAM network behind the common protocol.

    On a CPU several threads may encode and decode at once: what prompts on one image
    share is kept by each thread for itself.

    Parameters
    ----------
    network : torch.nn.Module
        The upstream network; put into evaluation mode.
    spec : ModelSpec
        What it is.
    device : torch.device
        Where it runs; the network is moved there.
    dtype : torch.dtype
        Number format of its matrix products.
    """

    def __init__(
        self, network: Any, spec: ModelSpec, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.network = network.eval()
        self.spec = spec
        self.input_size, decoder, self._prompt_encoder = self._parts(network)
        self._mask_decoder = decoder
        self.decoder = SharedDecoder(decoder, self._prompt_encoder)
        self._shared = threading.local()
        self._weights = ""
        self.move(device, dtype)

    @property
    def identity(self) -> str:
        """Tells these weights in this precision from all others."""
        if not self._weights:
            self._weights = _fingerprint(self.network)
        return f"{self._weights}-{self.dtype}"

    @abstractmethod
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Embed RGB images of shape (H, W, 3), uint8."""

    @abstractmethod
    def prepare(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """RGB images (H, W, 3), uint8, as the encoder takes them, for `finish`."""

    @abstractmethod
    def look(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """What the encoder's trunk says of RGB images (H, W, 3), before its neck.

        The features have names of their own; `finish` makes an embedding of them.
        """

    @abstractmethod
    def finish(self, seen: Embedding, *, frozen: bool = False) -> Embedding:
        """The embedding that `encode` gives, from what `prepare` or `look` gave.

        With gradients if the caller has them on; if `frozen`, of the guide alone.
        """

    def decode(
        self,
        embedding: Embedding,
        prompts: Prompts,
        *,
        tokens: Sequence[int] = MULTIMASK,
        min_iou: float = 0.0,
    ) -> Decoded:
        """Draw masks for prompts; see `SamModel.decode`."""
        with inference(self.device, self.dtype):
            return self.answer(embedding, prompts, tokens, min_iou)

    def answer(
        self,
        embedding: Embedding,
        prompts: Prompts,
        tokens: Sequence[int],
        min_iou: float = 0.0,
    ) -> Decoded:
        """Draw masks as `decode` does, with gradients if the caller has them on.

        What prompts on one image share is kept, so between two steps of an optimiser
        `refresh` is needed.
        """
        sparse, dense = self._embed(embedding, prompts)
        if prompts.masks is None and sparse.shape[1] <= self.decoder.max_tokens:
            shared = self._share(embedding)
            return self.decoder.decode(shared, sparse, tokens, min_iou)
        logits, iou = self._mask_decoder.predict_masks(
            image_embeddings=embedding.features["image"],
            image_pe=self._prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            **self._more(embedding, len(sparse)),
        )[:2]
        return _pick(logits.float(), iou.float(), tokens, min_iou)

    def learning_parts(self) -> tuple[Any, Any]:
        """Prompt encoder and mask decoder: what fine-tuning changes at least."""
        return self._prompt_encoder, self._mask_decoder

    @property
    def neck(self) -> Any:
        """The last layers of the image encoder: fine-tuning may change them too."""
        return self.network.image_encoder.neck

    def refresh(self) -> None:
        """Forget what was computed from the weights, after they changed."""
        self._shared = threading.local()
        self._weights = ""
        self.decoder.refresh()

    def move(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Go to another device; embeddings made before stay behind."""
        self.network = self.network.to(device)
        self.device = device
        self.dtype = dtype
        self.refresh()
        # On a CPU what fits the caches, on a GPU what keeps it busy.
        size = (self.input_size // 16) ** 2 * self._prompt_encoder.embed_dim
        cpu = device.type == "cpu"
        self.batch: int = max(1, _CACHE_FLOATS // size) if cpu else _GPU_BATCH

    def video_memory(self, length: int) -> VideoMemory:
        """Begin to remember objects in a movie; see `SamModel.video_memory`."""
        raise ModelError(
            f"{self.spec.id} has no video memory.",
            "Set `method` to frames, or choose a checkpoint of SAM 2.",
        )

    @abstractmethod
    def _parts(self, network: Any) -> tuple[int, Any, Any]:
        """Input size, mask decoder and prompt encoder of the network."""

    @abstractmethod
    def _embed(self, embedding: Embedding, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Prompt tokens (B, N, C) and the dense prompt."""

    @abstractmethod
    def _more(self, embedding: Embedding, count: int) -> dict[str, Any]:
        """What else upstream's own decoder wants for `count` prompts."""

    def _earlier(self, prompts: Prompts) -> Tensor | None:
        """The masks among the prompts, on the device."""
        if prompts.masks is None:
            return None
        return torch.as_tensor(prompts.masks, device=self.device)

    def _share(self, embedding: Embedding) -> ImageKeys:
        kept: tuple[Embedding, ImageKeys] | None = getattr(self._shared, "kept", None)
        if kept is None or kept[0] is not embedding:
            kept = self._shared.kept = (embedding, self.decoder.share(embedding))
        return kept[1]


def _fingerprint(network: Any) -> str:
    """Hash of a sample of every tensor of a network: quick, whatever its size."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        values = tensor.detach().flatten()
        step = max(1, len(values) // _SAMPLE)
        sample = values[::step].float().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(sample.tobytes())
    return digest.hexdigest()[:16]


def _pick(
    logits: Tensor, iou: Tensor, tokens: Sequence[int], min_iou: float
) -> Decoded:
    """Choose from all masks (B, T, h, w) the asked tokens above `min_iou`."""
    wanted = torch.as_tensor(list(tokens), device=iou.device)
    logits, iou = logits[:, wanted], iou[:, wanted]
    keep = iou > min_iou if min_iou > 0 else torch.ones_like(iou, dtype=torch.bool)
    prompt, column = keep.nonzero(as_tuple=True)
    return Decoded(logits[keep], iou[keep], prompt, wanted[column])

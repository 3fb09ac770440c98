"""SAM 2 and SAM 2.1 (Ravi et al. 2024) behind the common protocol.

The only module that imports ``sam2``: the import initialises hydra for the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from napari_sam_suite.engine.models.decoder import ImageKeys, SharedDecoder
from napari_sam_suite.engine.models.device import inference
from napari_sam_suite.engine.models.protocol import (
    MULTIMASK,
    Decoded,
    Embedding,
    Prompts,
)
from napari_sam_suite.engine.models.registry import ModelSpec

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Sam2Model:
    """A SAM 2 image model.

    Parameters
    ----------
    network : sam2.modeling.sam2_base.SAM2Base
        The network, in evaluation mode.
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
        self.network = network.to(device).eval()
        self.spec = spec
        self.device = device
        self.dtype = dtype
        self.input_size: int = network.image_size
        self.batch = _batch(device, self.input_size // 16, network.hidden_dim)
        self.decoder = SharedDecoder(
            network.sam_mask_decoder, network.sam_prompt_encoder
        )
        self._shared: tuple[Embedding, ImageKeys] | None = None

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Embed RGB images of shape (H, W, 3), uint8, each stretched to a square."""
        with inference(self.device, self.dtype):
            batch = torch.stack([self._prepare(image) for image in images])
            pyramid = self.network.forward_image(batch)["backbone_fpn"]
            fine, middle, coarse = pyramid[-3:]
            if self.network.directly_add_no_mem_embed:
                coarse = coarse + self.network.no_mem_embed.view(1, -1, 1, 1)
            return [
                Embedding(
                    {
                        "image": coarse[i : i + 1].contiguous(),
                        "middle": middle[i : i + 1].contiguous(),
                        "fine": fine[i : i + 1].contiguous(),
                    },
                    (image.shape[0], image.shape[1]),
                    (self.input_size, self.input_size),
                )
                for i, image in enumerate(images)
            ]

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
            sparse, dense = self._embed(embedding, prompts)
            if prompts.masks is None and sparse.shape[1] <= self.decoder.max_tokens:
                shared = self._share(embedding)
                return self.decoder.decode(shared, sparse, tokens, min_iou)
            return self._decode_plainly(embedding, sparse, dense, tokens, min_iou)

    def _prepare(self, image: NDArray[np.uint8]) -> Tensor:
        size = [self.input_size, self.input_size]
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        scaled = vision.resize(pixels.float() / 255, size, antialias=True)
        return vision.normalize(scaled, list(_MEAN), list(_STD)).to(self.device)

    def _embed(self, embedding: Embedding, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Prompt tokens (B, N, C) and the dense prompt; a box is two labelled points."""
        points, labels = prompts.points, prompts.labels
        if prompts.boxes is not None:
            corners = prompts.boxes.reshape(-1, 2, 2)
            points = np.concatenate([corners, points], axis=1)
            marks = np.broadcast_to(np.array([2, 3]), (len(corners), 2))
            labels = np.concatenate([marks, labels], axis=1)
        # Same order of float32 operations as upstream, to get the same numbers.
        xy = torch.as_tensor(points[..., ::-1].astype(np.float32), device=self.device)
        height, width = embedding.shape
        xy = xy / torch.tensor([width, height], device=self.device) * self.input_size
        marks = torch.as_tensor(labels.astype(np.int32), device=self.device)
        given = (xy, marks) if points.shape[1] else None
        masks = None if prompts.masks is None else prompts.masks.to(self.device)
        sparse, dense = self.network.sam_prompt_encoder(given, None, masks)
        return sparse.expand(len(prompts), -1, -1), dense

    def _share(self, embedding: Embedding) -> ImageKeys:
        if self._shared is None or self._shared[0] is not embedding:
            self._shared = (embedding, self.decoder.share(embedding))
        return self._shared[1]

    def _decode_plainly(
        self,
        embedding: Embedding,
        sparse: Tensor,
        dense: Tensor,
        tokens: Sequence[int],
        min_iou: float,
    ) -> Decoded:
        """Upstream's own decoder, for the prompts that the shared one leaves out."""
        features = embedding.features
        high = [
            features[name].expand(len(sparse), -1, -1, -1)
            for name in ("fine", "middle")
        ]
        logits, iou, _, _ = self.network.sam_mask_decoder.predict_masks(
            image_embeddings=features["image"],
            image_pe=self.network.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=True,
            high_res_features=high,
        )
        return pick(logits.float(), iou.float(), tokens, min_iou)


def pick(logits: Tensor, iou: Tensor, tokens: Sequence[int], min_iou: float) -> Decoded:
    """Choose from all masks (B, T, h, w) the asked tokens above `min_iou`."""
    wanted = torch.as_tensor(list(tokens), device=iou.device)
    logits, iou = logits[:, wanted], iou[:, wanted]
    keep = iou > min_iou if min_iou > 0 else torch.ones_like(iou, dtype=torch.bool)
    prompt, column = keep.nonzero(as_tuple=True)
    return Decoded(logits[keep], iou[keep], prompt, wanted[column])


def _batch(device: torch.device, side: int, channels: int) -> int:
    """Prompts in one call: what fits the CPU's caches, or fills a GPU."""
    if device.type == "cpu":
        return max(1, 2**21 // (side * side * channels))
    return 256

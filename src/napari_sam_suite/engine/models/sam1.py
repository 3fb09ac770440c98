"""SAM 1 (Kirillov et al. 2023) behind the common protocol."""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from segment_anything.modeling.image_encoder import get_rel_pos
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from napari_sam_suite.engine.models.decoder import ImageKeys, SharedDecoder
from napari_sam_suite.engine.models.device import inference
from napari_sam_suite.engine.models.protocol import (
    MULTIMASK,
    Decoded,
    Embedding,
    Prompts,
)
from napari_sam_suite.engine.models.registry import ModelSpec
from napari_sam_suite.engine.models.sam2 import pick


class Sam1Model:
    """A SAM 1 model; parameters as for `Sam2Model`.

    The encoder's attention runs through the fused kernel, with the relative
    positions as its bias: the same numbers without the two (heads, n, n) copies.
    """

    def __init__(
        self, network: Any, spec: ModelSpec, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.network = network.to(device).eval()
        for block in network.image_encoder.blocks:
            block.attn.forward = MethodType(_fused_attention, block.attn)
        self.spec = spec
        self.device = device
        self.dtype = dtype
        self.input_size: int = network.image_encoder.img_size
        self.batch = 2 if device.type == "cpu" else 256
        self.decoder = SharedDecoder(network.mask_decoder, network.prompt_encoder)
        self._transform = ResizeLongestSide(self.input_size)
        self._shared: tuple[Embedding, ImageKeys] | None = None

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Embed RGB images (H, W, 3), uint8, their longer side scaled, then padded."""
        embeddings = []
        with inference(self.device, self.dtype):
            for image in images:
                scaled = self._transform.apply_image(image)
                pixels = torch.as_tensor(scaled, device=self.device)
                batch = self.network.preprocess(pixels.permute(2, 0, 1)[None])
                features = {"image": self.network.image_encoder(batch).contiguous()}
                embeddings.append(
                    Embedding(
                        features,
                        (image.shape[0], image.shape[1]),
                        (scaled.shape[0], scaled.shape[1]),
                    )
                )
        return embeddings

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
            logits, iou = self.network.mask_decoder.predict_masks(
                image_embeddings=embedding.features["image"],
                image_pe=self.network.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
            )
            return pick(logits.float(), iou.float(), tokens, min_iou)

    def _embed(self, embedding: Embedding, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Prompt tokens (B, N, C) and the dense prompt."""
        shape = embedding.shape
        given = boxes = None
        if prompts.points.shape[1]:
            xy = self._transform.apply_coords(prompts.points[..., ::-1], shape)
            given = (
                torch.as_tensor(self._numbers(xy), device=self.device),
                torch.as_tensor(prompts.labels.astype(np.int32), device=self.device),
            )
        if prompts.boxes is not None:
            corners = prompts.boxes.reshape(-1, 2, 2)[..., ::-1].reshape(-1, 4)
            scaled = self._transform.apply_boxes(corners, shape)
            boxes = torch.as_tensor(scaled.astype(np.float32), device=self.device)
        masks = None if prompts.masks is None else prompts.masks.to(self.device)
        sparse, dense = self.network.prompt_encoder(given, boxes, masks)
        return sparse.expand(len(prompts), -1, -1), dense

    def _numbers(self, xy: NDArray[np.float64]) -> NDArray[np.floating]:
        # Upstream adds half a pixel in float64; MPS has no float64.
        return xy.astype(np.float32) if self.device.type == "mps" else xy

    def _share(self, embedding: Embedding) -> ImageKeys:
        if self._shared is None or self._shared[0] is not embedding:
            self._shared = (embedding, self.decoder.share(embedding))
        return self._shared[1]


def _fused_attention(self: Any, x: Tensor) -> Tensor:
    """The encoder's attention on (B, H, W, C) through the fused kernel.

    One head at a time where the bias is large, so that its (n, n) table is the only
    big one alive.
    """
    b, h, w, _ = x.shape
    qkv = self.qkv(x).reshape(b, h * w, 3, self.num_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    if not self.use_rel_pos:
        out = F.scaled_dot_product_attention(q, k, v)
    else:
        rows = get_rel_pos(h, h, self.rel_pos_h)
        columns = get_rel_pos(w, w, self.rel_pos_w)
        step = self.num_heads if h * w <= 1024 else 1
        parts = []
        for i in range(0, self.num_heads, step):
            part = slice(i, i + step)
            grid = q[:, part].reshape(b, -1, h, w, q.shape[-1])
            bias = (
                torch.einsum("bnhwc,hkc->bnhwk", grid, rows)[..., :, None]
                + torch.einsum("bnhwc,wkc->bnhwk", grid, columns)[..., None, :]
            ).reshape(b, -1, h * w, h * w)
            parts.append(
                F.scaled_dot_product_attention(
                    q[:, part], k[:, part], v[:, part], attn_mask=bias
                )
            )
        out = torch.cat(parts, dim=1)
    out = out.transpose(1, 2).reshape(b, h, w, -1)
    return self.proj(out)  # type: ignore[no-any-return]

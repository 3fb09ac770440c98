"""SAM 1 (Kirillov et al. 2023) behind the common protocol."""

from __future__ import annotations

from dataclasses import replace
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.modeling.image_encoder import get_rel_pos
from segment_anything.utils.transforms import ResizeLongestSide

from napari_sam_suite.engine.models.adapter import Adapter
from napari_sam_suite.engine.models.device import inference
from napari_sam_suite.engine.models.protocol import Embedding, Prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

_FEW_TOKENS = 1024
"""Windows up to this many tokens need no care for the size of their bias."""


class Sam1Model(Adapter):
    """A SAM 1 model around a ``segment_anything.modeling.Sam``.

    The encoder's attention runs through the fused kernel, with the relative
    positions as its bias: the same numbers without the two (heads, n, n) copies.
    """

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Embed RGB images (H, W, 3), uint8, their longer side scaled, then padded."""
        return self._encode(images, self.network.image_encoder, "image")

    def look(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """What the blocks say of RGB images (H, W, 3), uint8."""
        return self._encode(images, self._trunk, "blocks")

    def prepare(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """RGB images (H, W, 3), uint8, as squares (1, 3, S, S) for the blocks."""
        return self._encode(images, lambda batch: batch, "pixels")

    def finish(self, seen: Embedding, *, frozen: bool = False) -> Embedding:
        """The embedding of one image; see `Adapter.finish`."""
        features = seen.features
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            blocks = features.get("blocks")
            if blocks is None:
                blocks = self._trunk(features["pixels"])
            image = self.neck(blocks).contiguous()
        return replace(seen, features={"image": image})

    def _encode(
        self,
        images: Sequence[NDArray[np.uint8]],
        encoder: Callable[[Tensor], Tensor],
        name: str,
    ) -> list[Embedding]:
        embeddings = []
        with inference(self.device, self.dtype):
            for image in images:
                scaled = self._transform.apply_image(image)
                pixels = torch.as_tensor(scaled, device=self.device)
                batch = self.network.preprocess(pixels.permute(2, 0, 1)[None])
                features = {name: encoder(batch).contiguous()}
                embeddings.append(
                    Embedding(
                        features,
                        (image.shape[0], image.shape[1]),
                        (scaled.shape[0], scaled.shape[1]),
                        padded=True,
                    )
                )
        return embeddings

    def _trunk(self, batch: Tensor) -> Tensor:
        """The image encoder without its neck, (B, C, h, w)."""
        encoder = self.network.image_encoder
        x = encoder.patch_embed(batch)
        if encoder.pos_embed is not None:
            x = x + encoder.pos_embed
        for block in encoder.blocks:
            x = block(x)
        seen: Tensor = x.permute(0, 3, 1, 2)
        return seen

    def _parts(self, network: Any) -> tuple[int, Any, Any]:
        for block in network.image_encoder.blocks:
            block.attn.forward = MethodType(_fused_attention, block.attn)
        side: int = network.image_encoder.img_size
        self._transform = ResizeLongestSide(side)
        return side, network.mask_decoder, network.prompt_encoder

    def _embed(self, embedding: Embedding, prompts: Prompts) -> tuple[Tensor, Tensor]:
        shape = embedding.shape
        given = boxes = None
        if prompts.points.shape[1]:
            xy = self._transform.apply_coords(prompts.points[..., ::-1], shape)
            if self.device.type == "mps":  # has no float64, in which upstream adds
                xy = xy.astype(np.float32)
            labels = prompts.labels.astype(np.int32)
            given = (
                torch.as_tensor(xy, device=self.device),
                torch.as_tensor(labels, device=self.device),
            )
        if prompts.boxes is not None:
            corners = prompts.boxes.reshape(-1, 2, 2)[..., ::-1].reshape(-1, 4)
            scaled = self._transform.apply_boxes(corners, shape)
            boxes = torch.as_tensor(scaled.astype(np.float32), device=self.device)
        masks = self._earlier(prompts)
        sparse, dense = self._prompt_encoder(given, boxes, masks)
        return sparse.expand(len(prompts), -1, -1), dense

    def _more(self, embedding: Embedding, count: int) -> dict[str, Any]:
        return {}


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
        step = self.num_heads if h * w <= _FEW_TOKENS else 1
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

"""SAM's mask decoder, arranged for many prompts on one image.

The decoder of SAM 1 and SAM 2 (Kirillov et al. 2023, Ravi et al. 2024) treats every
prompt as its own image. For prompts without a mask, the same numbers come out of
fewer operations:

* before the first cross-attention all prompts see the same image keys, so they are
  projected once per image and not once per prompt;
* later projections of the image keys are moved onto the few prompt tokens
  (``(K W) q = K (W q)``), so no projected copy of the keys is ever made;
* the predicted IoU depends on the tokens only, so masks that the caller will
  discard are never upscaled;
* the two 2x2 transposed convolutions are matrix products, and pixels are put in
  order only after the last of them.

All of it is algebra: results differ from the original by rounding alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sam_suite.engine.models.protocol import Decoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam_suite.engine.models.protocol import Embedding


@dataclass(frozen=True)
class ImageKeys:
    """What all prompts on one image share.

    `grid` is the embedding's (h, w), `keys` its (h w, C) tokens with the dense prompt
    added; `first_key`, `first_value` and `first_query` are their projections for the
    first layer, (1, heads, h w, d). `middle` and `fine` are the high-resolution
    features in the order in which the upscaling meets them.
    """

    grid: tuple[int, int]
    keys: Tensor
    first_key: Tensor
    first_value: Tensor
    first_query: Tensor
    middle: Tensor | None
    fine: Tensor | None


class SharedDecoder:
    """The mask decoder of one model, for any number of mask-free prompts.

    Parameters
    ----------
    decoder, prompt_encoder : torch.nn.Module
        The modules of ``segment_anything`` or ``sam2``; their weights are used in
        place, so training or moving them is seen here after `refresh`.
    """

    # The upstream modules carry no types: everything read from them is Any.
    def __init__(self, decoder: Any, prompt_encoder: Any) -> None:
        self._decoder = decoder
        self._prompt_encoder = prompt_encoder
        self._first, self._second = self._decoder.transformer.layers
        self._final = self._decoder.transformer.final_attn_token_to_image
        self._heads: int = self._final.num_heads
        self._fine = bool(getattr(decoder, "use_high_res_features", False))
        self._extra = int(bool(getattr(decoder, "pred_obj_scores", False)))
        self._positions: tuple[Tensor, ...] | None = None

    @property
    def max_tokens(self) -> int:
        """Prompt tokens up to which this arrangement is the cheaper one."""
        outputs = 1 + self._extra + int(self._decoder.num_mask_tokens)
        return max(int(self._final.embedding_dim) // self._heads // 2 - outputs, 3)

    def refresh(self) -> None:
        """Forget what was computed from the weights, after they changed."""
        self._positions = None

    def share(self, embedding: Embedding) -> ImageKeys:
        """Compute what every prompt on this image needs."""
        image = embedding.features["image"]
        dense = self._prompt_encoder.no_mask_embed.weight.reshape(1, -1)
        keys = (image[0].flatten(1).T + dense).contiguous()
        position = self._position()[0]
        to_image = self._first.cross_attn_token_to_image
        to_tokens = self._first.cross_attn_image_to_token
        placed = keys + position
        return ImageKeys(
            grid=(image.shape[-2], image.shape[-1]),
            keys=keys,
            first_key=self._split(to_image.k_proj(placed)[None]).contiguous(),
            first_value=self._split(to_image.v_proj(keys)[None]).contiguous(),
            first_query=self._split(to_tokens.q_proj(placed)[None]).contiguous(),
            middle=_blocks(embedding.features["middle"], 1) if self._fine else None,
            fine=_blocks(embedding.features["fine"], 2) if self._fine else None,
        )

    def decode(
        self, shared: ImageKeys, sparse: Tensor, tokens: Sequence[int], min_iou: float
    ) -> Decoded:
        """Draw the masks of prompts embedded as `sparse`, (B, N, C)."""
        start = self._extra
        hidden, keys = self._attend(shared, self._tokens(sparse))
        wanted = torch.as_tensor(list(tokens), device=sparse.device)
        iou = _at_least_float32(self._decoder.iou_prediction_head(hidden[:, start]))
        iou = iou[:, wanted]
        keep = iou > min_iou if min_iou > 0 else torch.ones_like(iou, dtype=torch.bool)
        prompt, column = keep.nonzero(as_tuple=True)
        alive, row = torch.unique_consecutive(prompt, return_inverse=True)
        first = start + 1
        queries = hidden[alive, first : first + self._decoder.num_mask_tokens]
        keys = keys if len(alive) == len(keys) else keys[alive]
        logits = self._draw(shared, keys, queries, tokens)[row, column]
        logits = _at_least_float32(logits)
        return Decoded(logits, iou[prompt, column], prompt, wanted[column])

    # -- the two-way transformer -------------------------------------------------

    def _tokens(self, sparse: Tensor) -> Tensor:
        d = self._decoder
        outputs = [d.iou_token.weight, d.mask_tokens.weight]
        if self._extra:
            outputs.insert(0, d.obj_score_token.weight)
        fixed = torch.cat(outputs)[None].expand(len(sparse), -1, -1)
        return torch.cat([fixed, sparse], dim=1)

    def _attend(self, shared: ImageKeys, tokens: Tensor) -> tuple[Tensor, Tensor]:
        one, two = self._first, self._second
        _, second_key, second_query, final_key = self._position()

        q = one.norm1(one.self_attn(q=tokens, k=tokens, v=tokens))
        q = one.norm2(q + self._first_look(shared, q + tokens))
        q = one.norm3(q + one.mlp(q))
        keys = one.norm4(self._answer_first(shared, q + tokens, q))

        placed = q + tokens
        q = two.norm1(q + two.self_attn(q=placed, k=placed, v=q))
        look = two.cross_attn_token_to_image
        q = two.norm2(q + self._look(look, q + tokens, keys, second_key))
        q = two.norm3(q + two.mlp(q))
        answer = two.cross_attn_image_to_token
        keys = two.norm4(self._answer(answer, q + tokens, q, keys, second_query))

        look = self._look(self._final, q + tokens, keys, final_key)
        return self._decoder.transformer.norm_final_attn(q + look), keys

    def _first_look(self, shared: ImageKeys, q: Tensor) -> Tensor:
        """Tokens attend to the image, whose keys are still the same for all."""
        attention = self._first.cross_attn_token_to_image
        b, n, _ = q.shape
        query = self._split(attention.q_proj(q).reshape(1, b * n, -1))
        out = F.scaled_dot_product_attention(
            query, shared.first_key, shared.first_value
        )
        return attention.out_proj(out.transpose(1, 2).reshape(b, n, -1))  # type: ignore[no-any-return]

    def _answer_first(self, shared: ImageKeys, k: Tensor, v: Tensor) -> Tensor:
        """The image attends to the tokens for the first time."""
        attention = self._first.cross_attn_image_to_token
        scores = self._scaled(attention.k_proj(k)) @ shared.first_query.mT
        base = (shared.keys + attention.out_proj.bias)[None].expand(len(k), -1, -1)
        return self._give(attention, scores, v, base)

    def _look(self, attention: Any, q: Tensor, keys: Tensor, placed: Tensor) -> Tensor:
        """Tokens attend to the image: the key projection moved onto the query."""
        b, n, _ = q.shape
        query = self._scaled(attention.q_proj(q))
        weights = torch.softmax(self._scores(attention.k_proj, query, keys, placed), -1)
        seen = torch.bmm(weights.flatten(1, 2), keys).view(b, self._heads, n, -1)
        value_weight = attention.v_proj.weight.view(self._heads, query.shape[-1], -1)
        out = (seen @ value_weight.mT).transpose(1, 2).reshape(b, n, -1)
        return attention.out_proj(out + attention.v_proj.bias)  # type: ignore[no-any-return]

    def _answer(
        self, attention: Any, k: Tensor, v: Tensor, keys: Tensor, placed: Tensor
    ) -> Tensor:
        """The image attends to the tokens: the query projection moved onto the key."""
        key = self._scaled(attention.k_proj(k))
        scores = self._scores(attention.q_proj, key, keys, placed)
        return self._give(attention, scores, v, keys + attention.out_proj.bias)

    def _scores(
        self, projection: Any, small: Tensor, keys: Tensor, placed: Tensor
    ) -> Tensor:
        """Products of token projections with projected image keys, never projecting.

        `small` is (B, heads, N, d) and `placed` the projected positions,
        (1, heads, h w, d), bias included. Returns (B, heads, N, h w).
        """
        b, heads, n, size = small.shape
        moved = small @ projection.weight.view(heads, size, -1)
        scores = torch.bmm(moved.view(b, heads * n, -1), keys.mT)
        grouped: Tensor = scores.view(b, heads, n, -1)
        return grouped.add_(small @ placed.mT)

    def _give(self, attention: Any, scores: Tensor, v: Tensor, base: Tensor) -> Tensor:
        """Add to the image what its attention over the tokens brings.

        The token index is not the last one, so that the softmax runs along pixels.
        """
        weights = torch.softmax(scores, 2).flatten(1, 2)
        return torch.baddbmm(base, weights.mT, self._values(attention, v))

    def _scaled(self, x: Tensor) -> Tensor:
        """Heads apart, and scaled as attention scores are."""
        split = self._split(x)
        scale: float = split.shape[-1] ** -0.5
        return split * scale

    def _values(self, attention: Any, v: Tensor) -> Tensor:
        """Token values already passed through the output projection."""
        value = self._split(attention.v_proj(v))
        weight: Tensor = attention.out_proj.weight.view(
            -1, self._heads, value.shape[-1]
        )
        out: Tensor = value @ weight.permute(1, 2, 0)
        return out.reshape(len(v), -1, len(weight))

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, heads d) -> (B, heads, N, d)."""
        heads: Tensor = x.view(*x.shape[:2], self._heads, -1)
        return heads.transpose(1, 2)

    def _position(self) -> tuple[Tensor, ...]:
        """The position encoding and what later layers make of it, once per model."""
        if self._positions is None:
            dense = self._prompt_encoder.get_dense_pe()[0].flatten(1).T
            encoding = dense.to(self._final.k_proj.weight.dtype).contiguous()
            second = self._second

            def project(layer: Any) -> Tensor:
                # The layer's bias belongs here: the moved projection has none.
                return self._split(layer(encoding)[None]).contiguous()

            self._positions = (
                encoding,
                project(second.cross_attn_token_to_image.k_proj),
                project(second.cross_attn_image_to_token.q_proj),
                project(self._final.k_proj),
            )
        return self._positions

    # -- masks -------------------------------------------------------------------

    def _draw(
        self, shared: ImageKeys, keys: Tensor, queries: Tensor, tokens: Sequence[int]
    ) -> Tensor:
        """Upscale image keys (B, h w, C) and draw one mask for each token.

        Every pixel is kept as a block of its own, (y, x, dy, dx, ...), until the
        masks, 16 times smaller than the features, are put in order.
        """
        one, norm, act, two, last = self._decoder.output_upscaling
        b = len(keys)
        h, w = shared.grid
        if not b:
            return keys.new_zeros((0, len(tokens), 4 * h, 4 * w))
        x = _transposed_convolution(keys, one)
        if shared.middle is not None:
            x += shared.middle
        x = F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
        x = _transposed_convolution(act(x).flatten(1, 2), two)
        if shared.fine is not None:
            x += shared.fine
        x = last(x)
        mlps = self._decoder.output_hypernetworks_mlps
        hyper = torch.stack([mlps[t](queries[:, t]) for t in tokens], dim=1)
        # (B, T, C) @ (B, C, h w 4 4): blocks (y x, dy dx, ey ex) for every token
        masks = torch.bmm(hyper, x.reshape(b, -1, x.shape[-1]).mT)
        masks = masks.view(b, len(tokens), h, w, 2, 2, 2, 2)
        masks = masks.permute(0, 1, 2, 4, 6, 3, 5, 7)
        return masks.reshape(b, len(tokens), 4 * h, 4 * w)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.element_size() < 4 else x


def _transposed_convolution(x: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """A 2x2, stride-2 transposed convolution of (B, n, C) as one matrix product.

    Returns (B, n, 4, C'): every pixel's block of four, in (dy, dx) order.
    """
    c, out = layer.weight.shape[:2]
    weight = layer.weight.permute(0, 2, 3, 1).reshape(c, 4 * out)
    bias = None if layer.bias is None else layer.bias.repeat(4)
    return F.linear(x, weight.T, bias).view(*x.shape[:2], 4, out)


def _blocks(features: Tensor, depth: int) -> Tensor:
    """(1, C, 2^d h, 2^d w) features in the block order of `depth` upscalings.

    Returns (1, h w 4^(d-1), 4, C), matching `_transposed_convolution`.
    """
    _, c, height, width = features.shape
    h, w = height >> depth, width >> depth
    if depth == 1:
        x = features.view(c, h, 2, w, 2).permute(1, 3, 2, 4, 0)
    else:
        x = features.view(c, h, 2, 2, w, 2, 2).permute(1, 4, 2, 5, 3, 6, 0)
    return x.reshape(1, -1, 4, c).contiguous()

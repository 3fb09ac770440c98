"""The model in training: windows of the 512-px frame, EMA, checkpoints.

Crops smaller than the model's frame are encoded and prompted *as a window of
it*: the absolute position codes of the trunk and of the prompts are those of the
window's place, so weights trained on 256-px crops serve the full frame.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch._dynamo
import torch._inductor.config
from torch import Tensor, nn

from napari_sam_suite.engine.models.nano.guide import Guide

if TYPE_CHECKING:
    from pathlib import Path

    from sam2.modeling.sam2_base import SAM2Base

FRAME = 512


@dataclass(frozen=True)
class Window:
    """A square of ``size`` px at (y, x) of the 512-px frame; multiples of 128."""

    y: int
    x: int
    size: int

    def cut(self, grid: Tensor, stride: int) -> Tensor:
        """Cut the window out of a (..., 512/stride, 512/stride) grid."""
        y, x, n = self.y // stride, self.x // stride, self.size // stride
        return grid[..., y : y + n, x : x + n]


@dataclass
class Encoded:
    """Image features of one batch."""

    embedding: Tensor
    high_res: list[Tensor]
    dense: Tensor


class Trainee(nn.Module):
    """The model and its guide, the dense head that also steers the encoder."""

    def __init__(self, model: SAM2Base) -> None:
        super().__init__()
        self.model = model
        self.head = Guide(model.hidden_dim)

    def encode(self, images: Tensor, window: Window, frozen: bool = False) -> Encoded:
        """Encode (B, 3, size, size) crops lying at ``window``.

        ``frozen`` keeps the trunk and the neck out of the gradient.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            features = self._features(images, window)
        decoder = self.model.sam_mask_decoder
        embedding = features[2] + self.model.no_mem_embed.view(1, -1, 1, 1)
        high_res = [decoder.conv_s0(features[0]), decoder.conv_s1(features[1])]
        return Encoded(embedding, high_res, self.head(features[0]))

    def _features(self, images: Tensor, window: Window) -> list[Tensor]:
        trunk = self.model.image_encoder.trunk
        x = trunk.patch_embed(images)
        position = trunk._get_pos_embed((FRAME // 4, FRAME // 4)).permute(0, 3, 1, 2)
        x = x + window.cut(position, 4).permute(0, 2, 3, 1)
        levels = []
        for index, block in enumerate(trunk.blocks):
            x = block(x)
            if index in trunk.stage_ends:
                levels.append(x.permute(0, 3, 1, 2))
        features, _ = self.model.image_encoder.neck(levels)
        return list(features)

    def decode(
        self,
        encoded: Encoded,
        window: Window,
        points: Tensor,
        kinds: Tensor,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Answer K prompts on each of B images.

        Parameters
        ----------
        encoded : Encoded
        window : Window
        points : (B, K, P, 2) tensor
            (x, y) in px of the crop, pixel centres at whole numbers.
        kinds : (B, K, P) tensor
            0 background, 1 object, 2 and 3 box corners.
        masks : (B, K, size/4, size/4) tensor, optional
            Logits of an earlier answer.

        Returns
        -------
        logits : (B, K, 4, size/4, size/4) tensor
        iou : (B, K, 4) tensor
        """
        batch, count = points.shape[:2]
        prompts = self.model.sam_prompt_encoder
        shift = torch.tensor([window.x, window.y], device=points.device)
        sparse = prompts._embed_points(
            points.flatten(0, 1) + shift, kinds.flatten(0, 1), pad=True
        )
        if masks is None:
            dense = prompts.no_mask_embed.weight.view(1, -1, 1, 1)
        else:
            dense = prompts._embed_masks(masks.flatten(0, 1)[:, None])
        spread = [
            part.repeat_interleave(count, dim=0)
            for part in (encoded.embedding, *encoded.high_res)
        ]
        logits, iou, _, _ = self.model.sam_mask_decoder.predict_masks(
            image_embeddings=spread[0],
            image_pe=window.cut(prompts.get_dense_pe(), 16),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=spread[1:],
        )
        return logits.unflatten(0, (batch, count)), iou.unflatten(0, (batch, count))


def plain_attention(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
    """``scaled_dot_product_attention`` written out.

    With bfloat16 on a CPU its gradient is three times as fast as that of torch's own.
    """
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return scores.softmax(-1) @ value


def one_thread() -> None:
    """Keep the operations of the calling thread, compiled ones too, on one core."""
    torch.set_num_threads(1)
    torch._inductor.config.cpp.threads = 1


def quicken(network: Trainee) -> None:
    """Have blocks and decoder compiled, once for each shape that they meet."""
    torch._dynamo.config.recompile_limit = 64
    torch.nn.functional.scaled_dot_product_attention = plain_attention
    for block in network.model.image_encoder.trunk.blocks:
        block.compile(dynamic=False)
    decoder = network.model.sam_mask_decoder
    decoder.predict_masks = torch.compile(decoder.predict_masks, dynamic=False)


class Average:
    """Exponential moving average of the weights."""

    def __init__(self, network: Trainee, decay: float = 0.998) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: Trainee, step: int) -> None:
        """Move towards the weights after ``step``; faster at the beginning."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = zip(self.network.parameters(), network.parameters(), strict=True)
        for mean, value in pairs:
            mean.lerp_(value, 1 - decay)


def save_atomic(value: object, path: Path) -> None:
    """``torch.save`` that leaves the old file whole if it is interrupted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    torch.save(value, temporary)
    os.replace(temporary, path)


def export(network: Trainee, path: Path) -> None:
    """Write the model with its guide as fp16 safetensors."""
    from safetensors.torch import save_file

    parts = dict(network.model.state_dict())
    parts |= {f"guide.{name}": v for name, v in network.head.state_dict().items()}
    state = {name: v.detach().half().cpu().contiguous() for name, v in parts.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    save_file(state, temporary)
    temporary.chmod(0o644)
    os.replace(temporary, path)


@torch.no_grad()
def prime_prompts(network: Trainee, gain: float = 4.0, shrink: float = 0.15) -> None:
    """Start the decoder as "near in position means similar".

    Trained on the dense head, image features are three times as large as the
    position codes added to them, and with independent random projections a click
    and the pixels around it have nothing to do with each other: the decoder then
    stays on a plateau for many hundred steps. So features and prompt embeddings are
    made small beside the codes (the dense head makes up for it), and queries and
    keys start from one projection, whose product is a kernel of the codes.
    """
    model = network.model
    for convolution in model.image_encoder.neck.convs:
        convolution.conv.weight.mul_(shrink)
        convolution.conv.bias.mul_(shrink)
    network.head.layers[0].weight.div_(shrink)
    prompts, decoder = model.sam_prompt_encoder, model.sam_mask_decoder
    tables = [*prompts.point_embeddings, prompts.not_a_point_embed]
    tables += [prompts.no_mask_embed, decoder.iou_token, decoder.mask_tokens]
    for table in tables:
        table.weight.mul_(0.1 if table is prompts.no_mask_embed else 0.3)
    transformer = decoder.transformer
    crossings = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        crossings += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in crossings:
        nn.init.orthogonal_(attention.q_proj.weight, gain / 2)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.q_proj.bias.zero_()
        attention.k_proj.bias.zero_()

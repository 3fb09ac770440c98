"""Encoder and decoder of a model as plain functions of tensors, ready to be traced."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sam_suite.engine.onnx.parity import AMBIGUOUS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sam_suite.engine.models.adapter import Adapter
    from napari_sam_suite.engine.models.ports import Masks

_LIMIT = 32.0
"""SAM 2's decoder gives logits within plus and minus this."""
_LABELS = (-1, 0, 1, 2, 3)
"""Not a point, outside, inside, first and second corner of a box."""


class Encoder(nn.Module):
    """The image encoder.

    A normalised image (1, 3, S, S) goes in. SAM 1 gives its embedding
    (1, C, S/16, S/16), SAM 2 the high-resolution features (1, C/8, S/4, S/4) and
    (1, C/4, S/8, S/8) first, and last what its guide says, (1, 5, S/4, S/4), if it has
    one.
    """

    def __init__(self, model: Adapter) -> None:
        super().__init__()
        self.network = model.network  # all of it: what is not in here is no weight
        self.model: Any = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Embed an image."""
        if self.model.spec.family == "sam1":
            return (self.network.image_encoder(image),)
        pyramid = self.network.image_encoder(image)["backbone_fpn"]
        levels = self.model._levels(pyramid)
        order = ("fine", "middle", "image", "guide")
        return tuple(levels[name] for name in order if name in levels)


class Decoder(nn.Module):
    """Prompt encoder and mask decoder, for B prompts with P points each on one image.

    Labels are numbers like coordinates, so that all inputs are float32, and a box is
    two points. Without points there are no prompt tokens, as in the original.
    """

    kinds: Tensor
    labels: Tensor
    no_mask: Tensor
    grid: Tensor

    def __init__(self, model: Adapter, masks: Masks) -> None:
        super().__init__()
        parts = model.network
        self.family = model.spec.family
        self.side = model.input_size
        self.masks = masks
        sam1 = self.family == "sam1"
        self.decoder = parts.mask_decoder if sam1 else parts.sam_mask_decoder
        prompts = parts.prompt_encoder if sam1 else parts.sam_prompt_encoder
        self.places, self.downscaling = prompts.pe_layer, prompts.mask_downscaling
        kinds = [prompts.not_a_point_embed, *prompts.point_embeddings]
        self.register_buffer("kinds", torch.cat([kind.weight for kind in kinds]))
        self.register_buffer("labels", torch.tensor(_LABELS, dtype=torch.float32))
        none = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        self.register_buffer("no_mask", none)
        self.register_buffer("grid", prompts.get_dense_pe())

    def answer(
        self,
        image: Tensor,
        points: Tensor,
        labels: Tensor,
        mask: Tensor,
        has_mask: Tensor,
        fine: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (B, M, S/4, S/4) and predicted IoU (B, M)."""
        count = points.shape[1]
        if self.family == "sam2":
            # one padding point where there are points: slices keep that in the graph
            points = torch.cat([points, torch.zeros_like(points[:, :1])], 1)
            labels = torch.cat([labels, torch.zeros_like(labels[:, :1]) - 1], 1)
        more = {"repeat_image": True, "high_res_features": fine} if fine else {}
        logits, iou = self.decoder.predict_masks(
            image_embeddings=image,
            image_pe=self.grid,
            sparse_prompt_embeddings=self._embed(points, labels),
            dense_prompt_embeddings=self._dense(mask, has_mask),
            **more,
        )[:2]
        if self.masks == "three":
            return logits[:, 1:], iou[:, 1:]
        if self.masks == "single":
            return logits[:, :1], iou[:, :1]
        return self._best(logits, iou, count) if self.masks == "best" else (logits, iou)

    def _embed(self, points: Tensor, labels: Tensor) -> Tensor:
        """Prompt tokens (B, P, C); pixel centres are half a pixel in."""
        encoded: Tensor = self.places._pe_encoding((points + 0.5) / self.side)
        mark = labels.unsqueeze(-1)
        kind = (mark == self.labels).to(encoded.dtype) @ self.kinds
        return encoded * (mark >= 0).to(encoded.dtype) + kind

    def _dense(self, mask: Tensor, has_mask: Tensor) -> Tensor:
        given = has_mask.reshape(-1, 1, 1, 1)
        seen: Tensor = self.downscaling(mask)
        return given * seen + (1 - given) * self.no_mask

    def _best(self, logits: Tensor, iou: Tensor, count: Any) -> tuple[Tensor, Tensor]:
        """The best of three for few points, the first mask for more."""
        first = torch.zeros_like(iou)
        first[:, 0] = 1
        clear: Tensor = torch.as_tensor(count > AMBIGUOUS).to(iou.dtype)
        rank = iou + first * (2000 * clear - 1000)
        chosen = rank.argmax(1, keepdim=True)
        place = chosen[..., None, None].expand(-1, -1, *logits.shape[-2:])
        return logits.gather(1, place), iou.gather(1, chosen)


class Sam2Decoder(Decoder):
    """SAM 2's decoder with the inputs and outputs of `contract`."""

    def forward(
        self,
        image_embed: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Masks and their predicted IoU."""
        logits, iou = self.answer(
            image_embed,
            point_coords,
            point_labels,
            mask_input,
            has_mask_input,
            [high_res_feats_0, high_res_feats_1],
        )
        return logits.clamp(-_LIMIT, _LIMIT), iou


class Sam1Decoder(Decoder):
    """SAM 1's decoder with the inputs and outputs of `contract`."""

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks of the image's own size, their predicted IoU, and the small masks."""
        low, iou = self.answer(
            image_embeddings, point_coords, point_labels, mask_input, has_mask_input, []
        )
        return self._enlarge(low, orig_im_size), iou, low

    def _enlarge(self, low: Tensor, size: Tensor) -> Tensor:
        """To the model's input, cut off what was padded, and to the image."""
        full = F.interpolate(low, (self.side, self.side), mode="bilinear")
        filled = torch.floor(size * (self.side / size.max()) + 0.5).to(torch.int64)
        kept = full[..., : filled[0], : filled[1]]
        height, width = size.to(torch.int64)
        return F.interpolate(kept, (height, width), mode="bilinear")


@contextmanager
def fixed_positions(model: Adapter) -> Iterator[None]:
    """Within it, SAM 2's position embedding is a constant.

    It depends on the size of the image alone, which is fixed in an export, and
    browsers cannot compute its bicubic scaling.
    """
    if model.spec.family == "sam1":
        yield
        return
    trunk = model.network.image_encoder.trunk
    side = trunk.patch_embed(torch.zeros(1, 3, model.input_size, model.input_size))
    embedding = trunk._get_pos_embed(side.shape[1:3]).detach()
    trunk._get_pos_embed = lambda hw: embedding
    try:
        yield
    finally:
        del trunk._get_pos_embed

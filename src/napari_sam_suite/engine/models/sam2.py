"""SAM 2 and SAM 2.1 (Ravi et al. 2024) behind the common protocol."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision.transforms.v2 import functional as vision

from napari_sam_suite.engine.models.adapter import Adapter
from napari_sam_suite.engine.models.device import inference
from napari_sam_suite.engine.models.memory import VideoMemory
from napari_sam_suite.engine.models.protocol import Embedding, Prompts
from napari_sam_suite.engine.models.pyramid import Places, build, can_build, pointwise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Sam2Model(Adapter):
    """A SAM 2 image model around a ``sam2.modeling.sam2_base.SAM2Base``."""

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Embed RGB images of shape (H, W, 3), uint8, each stretched to a square."""
        with inference(self.device, self.dtype):
            batch = torch.stack([self._prepare(image) for image in images])
            levels = self._levels(self._pyramid(self._trunk(batch)))
            return [
                Embedding(
                    {name: level[i : i + 1].clone() for name, level in levels.items()},
                    (image.shape[0], image.shape[1]),
                    (self.input_size, self.input_size),
                )
                for i, image in enumerate(images)
            ]

    def prepare(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """RGB images (H, W, 3), uint8, as squares (1, 3, S, S) for the trunk."""
        side = self.input_size
        return [
            Embedding(
                {"pixels": self._prepare(image)[None]}, image.shape[:2], (side, side)
            )
            for image in images
        ]

    def look(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """What the trunk says of RGB images (H, W, 3), uint8: its four stages."""
        prepared = self.prepare(images)
        with inference(self.device, self.dtype):
            stages = self._trunk(torch.cat([p.features["pixels"] for p in prepared]))
            return [
                replace(
                    one,
                    features={
                        f"stage{k}": stage[i : i + 1].clone()
                        for k, stage in enumerate(stages)
                    },
                )
                for i, one in enumerate(prepared)
            ]

    def finish(self, seen: Embedding, *, frozen: bool = False) -> Embedding:
        """The embedding of one image; see `Adapter.finish`."""
        network = self.network
        learning = torch.is_grad_enabled()
        with torch.set_grad_enabled(learning and not frozen):
            pyramid = self._pyramid(self._stages(seen))
            features = self._levels(pyramid)
        if frozen and learning and "guide" in features:
            features["guide"] = network.guide(pyramid[-3])
        return replace(seen, features=features)

    def _stages(self, seen: Embedding) -> list[Tensor]:
        """The trunk's stages of one image, as they were seen or made now."""
        if "pixels" in seen.features:
            return self._trunk(seen.features["pixels"])
        return [seen.features[name] for name in sorted(seen.features)]

    def _trunk(self, batch: Tensor) -> list[Tensor]:
        """The trunk's stages of prepared images (B, 3, S, S), the finest first."""
        trunk = self.network.image_encoder.trunk
        if "_get_pos_embed" not in trunk.__dict__:  # an export has its own
            trunk._get_pos_embed = Places(trunk)
        stages: list[Tensor] = trunk(batch)
        return stages

    def _pyramid(self, stages: Sequence[Tensor]) -> Sequence[Tensor]:
        """What the neck makes of the trunk's stages, the finest first."""
        if self.dtype == torch.float32 and can_build(self.neck):
            levels = build(self.neck, stages)
        else:
            levels = self.neck(stages)[0]
        return levels[: len(levels) - self.network.image_encoder.scalp]

    def _levels(self, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
        """What an embedding holds, from the features of the neck, the finest first."""
        network = self.network
        fine, middle, coarse = pyramid[-3:]
        levels = {}
        if hasattr(network, "guide"):
            levels["guide"] = network.guide(fine)
        if network.directly_add_no_mem_embed:
            coarse = coarse + network.no_mem_embed.view(1, -1, 1, 1)
        if network.use_high_res_features_in_sam:
            fine = pointwise(network.sam_mask_decoder.conv_s0, fine)
            middle = pointwise(network.sam_mask_decoder.conv_s1, middle)
        return {"image": coarse, "middle": middle, "fine": fine, **levels}

    def video_memory(self, length: int) -> VideoMemory:
        """Begin to remember objects in a movie; see `SamModel.video_memory`."""
        if self.network.memory_attention is None or self.network.memory_encoder is None:
            return super().video_memory(length)
        return VideoMemory(self, length)

    def _prepare(self, image: NDArray[np.uint8]) -> Tensor:
        size = [self.input_size, self.input_size]
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        scaled = vision.resize(pixels.float() / 255, size, antialias=True)
        normal: Tensor = vision.normalize(scaled, list(_MEAN), list(_STD))
        return normal.to(self.device)

    def _parts(self, network: Any) -> tuple[int, Any, Any]:
        return network.image_size, network.sam_mask_decoder, network.sam_prompt_encoder

    def _embed(self, embedding: Embedding, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Prompt tokens and the dense prompt; a box is two labelled points."""
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
        given = None
        if points.shape[1]:
            given = (xy, torch.as_tensor(labels.astype(np.int32), device=self.device))
        masks = self._earlier(prompts)
        sparse, dense = self._prompt_encoder(given, None, masks)
        return sparse.expand(len(prompts), -1, -1), dense

    def _more(self, embedding: Embedding, count: int) -> dict[str, Any]:
        high = [
            embedding.features[name].expand(count, -1, -1, -1)
            for name in ("fine", "middle")
        ]
        return {"repeat_image": True, "high_res_features": high}

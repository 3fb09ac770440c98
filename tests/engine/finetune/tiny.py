"""A real SAM 2 network that trains in milliseconds, and scenes that it can learn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_sam_suite.engine.finetune.data import Sample
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.models.registry import AutoDefaults, ModelSpec
from napari_sam_suite.engine.models.sam1 import Sam1Model
from napari_sam_suite.engine.models.sam2 import Sam2Model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_sam_suite.engine.masks import Masks

SIDE = 128
SPEC = ModelSpec(
    id="tiny",
    family="sam2",
    config="tiny",
    title="Tiny",
    input_size=SIDE,
    auto=AutoDefaults(pred_iou_thresh=0.5, stability_score_thresh=0.5, tile=0.5),
)


class CountedSam2(Sam2Model):
    """Keeps every image that its encoder was given."""

    def encode(self, images: Sequence[np.ndarray]) -> list[Any]:
        self.__dict__.setdefault("seen", []).extend(image.copy() for image in images)
        return super().encode(images)


def tiny_model(dtype: torch.dtype = torch.float32, seed: int = 0) -> CountedSam2:
    """SAM 2 for images of 128 px with seeded random weights."""
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam2_base import SAM2Base

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        trunk = Hiera(
            embed_dim=16,
            num_heads=1,
            stages=(1, 1, 1, 1),
            window_spec=(8, 4, 4, 4),
            window_pos_embed_bkg_spatial_size=(4, 4),
            global_att_blocks=(),
        )
        neck = FpnNeck(
            position_encoding=PositionEmbeddingSine(
                num_pos_feats=32, image_size=SIDE, warmup_cache=False
            ),
            d_model=32,
            backbone_channel_list=trunk.channel_list,
            fpn_top_down_levels=[0, 1, 2, 3],
            fpn_interp_model="nearest",
        )
        network = SAM2Base(
            image_encoder=ImageEncoder(trunk=trunk, neck=neck, scalp=1),
            memory_attention=None,
            memory_encoder=None,
            num_maskmem=1,
            image_size=SIDE,
            backbone_stride=16,
            directly_add_no_mem_embed=True,
            use_high_res_features_in_sam=True,
            multimask_output_in_sam=True,
            iou_prediction_use_sigmoid=True,
        )
    return CountedSam2(network, SPEC, torch.device("cpu"), dtype)


def tiny_sam1(seed: int = 0) -> Sam1Model:
    """SAM 1 for images of 128 px with seeded random weights."""
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    width, grid = 32, SIDE // 16
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = Sam(
            image_encoder=ImageEncoderViT(
                img_size=SIDE,
                embed_dim=16,
                depth=2,
                num_heads=2,
                out_chans=width,
                use_rel_pos=True,
                window_size=4,
                global_attn_indexes=(1,),
            ),
            prompt_encoder=PromptEncoder(width, (grid, grid), (SIDE, SIDE), 16),
            mask_decoder=MaskDecoder(
                num_multimask_outputs=3,
                transformer=TwoWayTransformer(
                    depth=2, embedding_dim=width, num_heads=2, mlp_dim=32
                ),
                transformer_dim=width,
                iou_head_hidden_dim=32,
            ),
        )
    spec = replace(SPEC, id="tiny-sam1", family="sam1")
    return Sam1Model(network, spec, torch.device("cpu"), torch.float32)


class Heard:
    """What a training tells its job; it may be stopped after some epochs or steps."""

    def __init__(self, stop: Callable[[Heard], bool] | None = None) -> None:
        self.epochs: list[Any] = []
        self.notices: list[str] = []
        self.texts: list[str] = []
        self._stop = stop

    def stopping(self) -> bool:
        return self._stop is not None and self._stop(self)

    def report(self, done: int, total: int, text: str = "") -> None:
        self.texts.append(text)

    def give(self, part: Any) -> None:
        self.epochs.append(part)

    def notice(self, text: str) -> None:
        self.notices.append(text)


def masks_of(shape: tuple[int, int], *masks: np.ndarray) -> Masks:
    builder = MaskBuilder(shape)
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        builder.add(mask[window], (int(rows[0]), int(columns[0])))
    return builder.build()


def square(shape: tuple[int, int], y: int, x: int, side: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def sample(seed: int = 0, shape: tuple[int, int] = (64, 64)) -> Sample:
    """Bright squares on a noisy dark ground."""
    rng = np.random.default_rng(seed)
    places = [(8, 8, 16), (8, 40, 12), (38, 14, 18), (40, 42, 14)]
    masks = [square(shape, y + int(rng.integers(4)), x, s) for y, x, s in places]
    image = rng.integers(20, 50, (*shape, 3))
    for mask in masks:
        image[mask] = rng.integers(150, 230) + rng.integers(-10, 10, (mask.sum(), 1))
    return Sample(f"field {seed}", image.astype(np.uint8), masks_of(shape, *masks))

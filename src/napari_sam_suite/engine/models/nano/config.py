"""Architecture and weights of the embedded model ``sam2-nano``.

The network is the ``sam2`` package's own ``SAM2Base`` with a small Hiera trunk
and a narrow mask decoder; it is assembled here in plain Python so that no
configuration framework is needed to load it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.errors import CheckpointMissing

if TYPE_CHECKING:
    import torch
    from sam2.modeling.sam2_base import SAM2Base

IMAGE_SIZE = 512
STRIDE = 16
WIDTH = 128
FEATURE_SIZES = ((128, 128), (64, 64), (32, 32))
WEIGHTS = Path(__file__).with_name("weights.safetensors")
VERIFIER = Path(__file__).with_name("verifier.safetensors")
CARD = Path(__file__).with_name("card.json")

_POSITION_SEED = 20
_LOWEST_FREQUENCY = 0.3
_HIGHEST_FREQUENCY = 8.0


@dataclass(frozen=True)
class Trunk:
    """Size of a Hiera trunk with four stages.

    Attributes
    ----------
    width : int
        Channels of the first stage; every further one has twice as many.
    blocks : (int, int, int, int)
        Blocks of each stage.
    attend_globally : tuple of int
        Blocks, counted through all stages, that attend beyond their window.
    """

    width: int = 32
    blocks: tuple[int, int, int, int] = (1, 2, 8, 2)
    attend_globally: tuple[int, ...] = (6, 10)


def build_nano(*, pretrained: bool = True, weights: Path | None = None) -> SAM2Base:
    """Build ``sam2-nano`` on the CPU, in float32 and evaluation mode.

    Parameters
    ----------
    pretrained : bool
        Load the weights that travel inside the package. ``False`` leaves the
        network randomly initialised (training starts from there).
    weights : pathlib.Path, optional
        Another safetensors file of the same architecture.

    Returns
    -------
    sam2.modeling.sam2_base.SAM2Base
        Takes (B, 3, 512, 512) images normalised with ImageNet mean and standard
        deviation; its mask decoder answers (N, 3, 128, 128) logits. It carries
        no video memory: ``memory_attention`` and ``memory_encoder`` are ``None``.

    Raises
    ------
    CheckpointMissing
        If the weights file does not exist.
    """
    model = assemble(Trunk())
    if pretrained or weights is not None:
        load_weights(model, weights or WEIGHTS)
    return model


def assemble(trunk: Trunk) -> SAM2Base:
    """Return the network of `build_nano` with another trunk and random weights."""
    from sam2.modeling.sam2_base import SAM2Base

    model = SAM2Base(
        image_encoder=_image_encoder(trunk),
        memory_attention=None,
        memory_encoder=None,
        num_maskmem=1,
        image_size=IMAGE_SIZE,
        backbone_stride=STRIDE,
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        iou_prediction_use_sigmoid=True,
    )
    layer = model.sam_prompt_encoder.pe_layer
    layer.positional_encoding_gaussian_matrix.copy_(_position_frequencies())
    return model.eval()


def load_weights(model: SAM2Base, path: Path) -> None:
    """Load a safetensors file into ``model``, casting to the model's own type.

    Raises
    ------
    CheckpointMissing
        If ``path`` does not exist.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointMissing(
            f"The weights of sam2-nano are missing: {path} does not exist.",
            "Reinstall the package, or train them with training/train.py.",
        )
    state = {name: value.float() for name, value in load_file(path).items()}
    if any(name.startswith("guide.") for name in state):
        add_guide(model)
    model.load_state_dict(state)


def add_guide(model: SAM2Base) -> None:
    """Give a network the head that its weights know: ``model.guide``."""
    from napari_sam_suite.engine.models.nano.guide import Guide

    model.guide = Guide(model.hidden_dim)


def read_card() -> dict[str, Any]:
    """Return the model card: input convention, scores, recommended thresholds."""
    card: dict[str, Any] = json.loads(CARD.read_text(encoding="utf-8"))
    return card


def _image_encoder(size: Trunk) -> torch.nn.Module:
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine

    trunk = Hiera(
        embed_dim=size.width,
        num_heads=1,
        stages=size.blocks,
        window_spec=(8, 4, 8, 4),
        window_pos_embed_bkg_spatial_size=(8, 8),
        global_att_blocks=size.attend_globally,
    )
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(
            num_pos_feats=WIDTH, image_size=IMAGE_SIZE, warmup_cache=False
        ),
        d_model=WIDTH,
        backbone_channel_list=trunk.channel_list,
        fpn_top_down_levels=[0, 1, 2, 3],
        fpn_interp_model="nearest",
    )
    encoder: torch.nn.Module = ImageEncoder(trunk=trunk, neck=neck, scalp=1)
    return encoder


def _position_frequencies() -> torch.Tensor:
    """(2, 64) spatial frequencies in cycles per half image, log-uniform in size.

    SAM draws them from a unit Gaussian, whose wavelengths of half an image and
    more cannot tell two touching nuclei apart until a large network has learned
    to; a spread up to the Nyquist limit of the 32-token grid can at once.
    """
    import torch

    rng = np.random.default_rng(_POSITION_SEED)
    count = WIDTH // 2
    low, high = np.log(_LOWEST_FREQUENCY), np.log(_HIGHEST_FREQUENCY)
    size = np.exp(np.linspace(low, high, count))
    angle = rng.permutation(np.arange(count)) * np.pi / count
    matrix = np.stack([size * np.cos(angle), size * np.sin(angle)])
    return torch.from_numpy(matrix.astype(np.float32))

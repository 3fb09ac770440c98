"""The short ways through the image encoder lead to upstream's numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("sam2")
import torch

from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.pyramid import Places, build, can_build, pointwise

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model("sam2-nano", device="cpu", precision="float32")


@pytest.fixture
def image() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)
    noise[20:60, 30:80] //= 4
    return noise


def test_an_embedding_is_what_the_modules_of_sam2_make(model: Any, image: Any) -> None:
    network = model.network
    with torch.inference_mode():
        batch = model._prepare(image)[None]
        fine, middle, coarse = network.image_encoder(batch)["backbone_fpn"]
        wanted = {
            "image": coarse + network.no_mem_embed.view(1, -1, 1, 1),
            "middle": network.sam_mask_decoder.conv_s1(middle),
            "fine": network.sam_mask_decoder.conv_s0(fine),
            "guide": network.guide.layers(fine),
        }
    (embedding,) = model.encode([image])
    assert embedding.features.keys() == wanted.keys()
    for name, level in wanted.items():
        torch.testing.assert_close(
            embedding.features[name], level, rtol=1e-5, atol=1e-5
        )


def test_what_look_and_finish_make_is_the_same(model: Any, image: Any) -> None:
    (seen,) = model.look([image])
    (embedding,) = model.encode([image])
    with torch.inference_mode():
        again = model.finish(seen)
    for name, level in embedding.features.items():
        assert torch.equal(level, again.features[name])


def test_a_neck_learns_the_same_either_way(model: Any) -> None:
    neck = model.neck
    sizes = [(128, 128), (64, 64), (32, 32), (16, 16)]
    widths = neck.backbone_channel_list[::-1]
    stages = [
        torch.randn(1, width, *size) for width, size in zip(widths, sizes, strict=True)
    ]
    gradients = []
    for levels in (build(neck, stages), neck(stages)[0]):
        neck.zero_grad()
        torch.stack([level.square().mean() for level in levels]).sum().backward()
        gradients.append([p.grad.clone() for p in neck.parameters()])
    neck.zero_grad()
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_a_neck_of_another_kind_is_left_to_sam2(model: Any) -> None:
    assert can_build(model.neck)
    kind = model.neck.fpn_interp_model
    try:
        model.neck.fpn_interp_model = "bilinear"
        assert not can_build(model.neck)
    finally:
        model.neck.fpn_interp_model = kind


def test_positions_are_made_once_until_the_weights_are_others(model: Any) -> None:
    trunk = model.network.image_encoder.trunk
    places = Places(trunk)
    with torch.no_grad():
        first = places((16, 16))
        assert places((16, 16)) is first
        assert places((8, 8)).shape[1:3] == (8, 8)
        trunk.pos_embed.add_(1)
        try:
            torch.testing.assert_close(places((16, 16)), first + 1)
        finally:
            trunk.pos_embed.sub_(1)


def test_positions_learn_when_gradients_are_wanted(model: Any) -> None:
    places = Places(model.network.image_encoder.trunk)
    with torch.no_grad():
        places((16, 16))
    assert places((16, 16)).requires_grad


def test_a_convolution_of_one_pixel_is_a_product() -> None:
    layer = torch.nn.Conv2d(5, 3, 1)
    features = torch.randn(2, 5, 4, 6)
    torch.testing.assert_close(pointwise(layer, features), layer(features))

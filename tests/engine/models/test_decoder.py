"""The rearranged mask decoder gives the numbers of the original one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_sam_suite.engine.models.decoder import SharedDecoder
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.nano.config import build_nano
from napari_sam_suite.engine.models.protocol import MULTIMASK, Embedding, Prompts

FAMILIES = ["sam1", "sam2"]


def small_sam1() -> tuple[torch.nn.Module, torch.nn.Module]:
    from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer

    decoder = MaskDecoder(
        transformer_dim=64,
        transformer=TwoWayTransformer(
            depth=2, embedding_dim=64, mlp_dim=96, num_heads=4
        ),
    )
    return decoder, PromptEncoder(
        embed_dim=64,
        image_embedding_size=(8, 8),
        input_image_size=(128, 128),
        mask_in_chans=16,
    )


def small_sam2() -> tuple[torch.nn.Module, torch.nn.Module]:
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.prompt_encoder import PromptEncoder
    from sam2.modeling.sam.transformer import TwoWayTransformer

    decoder = MaskDecoder(
        transformer_dim=64,
        transformer=TwoWayTransformer(
            depth=2, embedding_dim=64, mlp_dim=96, num_heads=4
        ),
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
    )
    return decoder, PromptEncoder(
        embed_dim=64,
        image_embedding_size=(8, 8),
        input_image_size=(128, 128),
        mask_in_chans=16,
    )


@pytest.fixture(params=FAMILIES)
def heads(request):
    """A decoder and prompt encoder in float64, and an embedding for them."""
    torch.manual_seed(1)
    decoder, encoder = (small_sam1 if request.param == "sam1" else small_sam2)()
    for parameter in [*decoder.parameters(), *encoder.parameters()]:
        # Default initialisations are small enough to hide mistakes.
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    features = {"image": torch.randn(1, 64, 8, 8, dtype=torch.float64)}
    if request.param == "sam2":
        features["middle"] = torch.randn(1, 16, 16, 16, dtype=torch.float64)
        features["fine"] = torch.randn(1, 8, 32, 32, dtype=torch.float64)
    embedding = Embedding(features, (128, 128), (128, 128))
    encoder.double().pe_layer.float()  # it makes float32 coordinates by itself
    return decoder.double().eval(), encoder.eval(), embedding


def original(heads, sparse):
    decoder, encoder, embedding = heads
    dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(
        len(sparse), -1, 8, 8
    )
    more = {}
    if "fine" in embedding.features:
        more["repeat_image"] = True
        more["high_res_features"] = [
            embedding.features["fine"],
            embedding.features["middle"],
        ]
    return decoder.predict_masks(
        image_embeddings=embedding.features["image"],
        image_pe=encoder.get_dense_pe().double(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        **more,
    )[:2]


@pytest.mark.parametrize("prompts", [1, 5])
@pytest.mark.parametrize("tokens", [0, 1, 2, 5, 16])
def test_same_numbers_as_the_original_in_float64(heads, prompts, tokens):
    decoder, encoder, embedding = heads
    sparse = torch.randn(prompts, tokens, 64, dtype=torch.float64)
    with torch.inference_mode():
        logits, iou = original(heads, sparse)
        shared = SharedDecoder(decoder, encoder)
        ours = shared.decode(shared.share(embedding), sparse, (0, 1, 2, 3), 0.0)
    scale = logits.abs().max()
    assert scale > 1
    # The position encoding is float32 inside, so 1e-10 is the rounding of the rest.
    assert (ours.logits.view_as(logits) - logits).abs().max() < 1e-10 * scale
    assert (ours.iou.view_as(iou) - iou).abs().max() < 1e-10


def test_masks_below_the_quality_threshold_are_not_drawn(heads):
    decoder, encoder, embedding = heads
    sparse = torch.randn(7, 2, 64, dtype=torch.float64)
    with torch.inference_mode():
        logits, iou = original(heads, sparse)
        ranked = iou[:, 1:].flatten().sort().values
        threshold = float(ranked[13:15].mean())  # between two masks, not on one
        shared = SharedDecoder(decoder, encoder)
        image = shared.share(embedding)
        ours = shared.decode(image, sparse, MULTIMASK, threshold)
        none = shared.decode(image, sparse, MULTIMASK, 1e9)
    if threshold <= 0:
        pytest.fail("the fixture must give positive qualities")
    keep = iou[:, 1:] > threshold
    assert 0 < keep.sum() < keep.numel()
    assert torch.allclose(ours.logits, logits[:, 1:][keep], rtol=0, atol=1e-9)
    assert torch.equal(ours.prompt, keep.nonzero()[:, 0])
    assert torch.equal(ours.token, keep.nonzero()[:, 1] + 1)
    assert len(none) == 0
    assert none.logits.shape == (0, 32, 32)


def test_gradients_flow_as_in_the_original(heads):
    decoder, encoder, embedding = heads
    sparse = torch.randn(2, 2, 64, dtype=torch.float64)
    weight = decoder.transformer.layers[1].cross_attn_token_to_image.k_proj.weight
    original(heads, sparse)[0].square().mean().backward()
    expected = weight.grad.clone()
    weight.grad = None
    shared = SharedDecoder(decoder, encoder)
    decoded = shared.decode(shared.share(embedding), sparse, (0, 1, 2, 3), 0.0)
    decoded.logits.square().mean().backward()
    assert expected.abs().max() > 0
    assert torch.allclose(weight.grad, expected, rtol=1e-8)


@pytest.fixture(scope="module")
def nano():
    return load_model("sam2-nano", device="cpu", random_weights=True)


@pytest.fixture(scope="module")
def embedding(nano):
    image = np.random.default_rng(0).integers(0, 255, (90, 130, 3), np.uint8)
    return nano.encode([image])[0]


def test_a_box_is_two_labelled_points(nano, embedding):
    boxes = np.array([[10.0, 20.0, 60.0, 90.0]])
    corners = np.array([[[10.0, 20.0], [60.0, 90.0]]])
    empty = np.zeros((1, 0, 2)), np.zeros((1, 0), np.int64)
    as_box = nano.decode(embedding, Prompts(*empty, boxes=boxes))
    as_points = nano.decode(embedding, Prompts(corners, np.array([[2, 3]])))
    assert torch.equal(as_box.logits, as_points.logits)


def test_mask_prompts_and_long_prompts_take_the_original_decoder(nano, embedding):
    clicks = Prompts.clicks(np.array([[30.0, 40.0], [50.0, 60.0]]))
    first = nano.decode(embedding, clicks, tokens=(0,))
    again = Prompts(clicks.points, clicks.labels, masks=first.logits[:, None])
    refined = nano.decode(embedding, again, tokens=(0,))
    assert refined.logits.shape == first.logits.shape
    assert not torch.allclose(refined.logits, first.logits)
    rng = np.random.default_rng(2)
    many = Prompts(rng.uniform(0, 90, (2, 20, 2)), np.ones((2, 20), np.int64))
    assert nano.decode(embedding, many).logits.shape == (6, 128, 128)


def test_points_without_number_can_be_asked_for(nano, embedding):
    nothing = Prompts(np.zeros((1, 0, 2)), np.zeros((1, 0), np.int64))
    assert len(nano.decode(embedding, nothing, tokens=(0,))) == 1


def test_autocast_ends_with_the_call(nano, embedding):
    half = load_model(
        "sam2-nano", device="cpu", random_weights=True, precision="bfloat16"
    )
    clicks = Prompts.clicks(np.array([[30.0, 40.0]]))
    low = half.decode(embedding, clicks)
    full = nano.decode(embedding, clicks)
    assert low.logits.dtype == torch.float32
    assert not torch.equal(low.logits, full.logits)
    assert torch.allclose(low.iou, full.iou, atol=0.02)
    assert not torch.is_autocast_enabled("cpu")
    assert not torch.is_inference_mode_enabled()


def test_the_network_is_that_of_the_card():
    parameters = sum(p.numel() for p in build_nano(pretrained=False).parameters())
    assert 4e6 <= parameters <= 10e6

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_sam_suite.engine.errors import CheckpointMissing
from napari_sam_suite.engine.models.nano.config import (
    FEATURE_SIZES,
    IMAGE_SIZE,
    WEIGHTS,
    build_nano,
    read_card,
)
from napari_sam_suite.engine.synthetic.scene import synthesize


@pytest.fixture(scope="module")
def model():
    return build_nano()


@torch.inference_mode()
def click(model, image, points):
    """Best-of-three masks (N, Y, X) and their predicted IoU, for (y, x) clicks."""
    card = read_card()
    rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255
    pixels = F.interpolate(pixels, (IMAGE_SIZE,) * 2, mode="bilinear", antialias=True)
    mean, std = (torch.tensor(card[k]).view(3, 1, 1) for k in ("mean", "std"))
    features = model.forward_image((pixels - mean) / std)["backbone_fpn"]
    size = np.array(image.shape[:2])
    places = ((np.asarray(points) + 0.5) * IMAGE_SIZE / size - 0.5)[:, ::-1]
    coords = torch.from_numpy(places.astype(np.float32).copy())[:, None]
    sparse, dense = model.sam_prompt_encoder(
        points=(coords, torch.ones(len(coords), 1, dtype=torch.int)),
        boxes=None,
        masks=None,
    )
    logits, iou, _, _ = model.sam_mask_decoder(
        image_embeddings=features[2] + model.no_mem_embed.view(1, -1, 1, 1),
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
        repeat_image=True,
        high_res_features=features[:2],
    )
    best = iou.argmax(1)
    rows = torch.arange(len(iou))
    chosen = F.interpolate(
        logits[rows, best][:, None], image.shape[:2], mode="bilinear"
    )
    return chosen[:, 0].numpy() > 0, iou[rows, best].numpy()


def test_it_is_small():
    count = sum(p.numel() for p in build_nano(pretrained=False).parameters())
    assert 3e6 < count < 1e7
    assert WEIGHTS.stat().st_size < 20e6


def test_features_have_the_sizes_the_adapter_expects(model):
    with torch.inference_mode():
        features = model.forward_image(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE))
    sizes = tuple(tuple(f.shape[-2:]) for f in features["backbone_fpn"])
    assert sizes == FEATURE_SIZES


def test_untrained_models_of_one_seed_are_equal():
    torch.manual_seed(0)
    first = build_nano(pretrained=False).state_dict()
    torch.manual_seed(0)
    second = build_nano(pretrained=False).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(CheckpointMissing, match="nowhere"):
        build_nano(weights=tmp_path / "nowhere.safetensors")


def test_weights_are_finite_and_loaded_as_float32(model):
    for value in model.parameters():
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()


def test_the_card_says_how_to_use_the_model():
    card = read_card()
    assert card["image_size"] == IMAGE_SIZE
    settings = card["recommended"]
    for name in ("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh"):
        assert 0 < settings[name] < 1


def test_one_click_on_a_synthetic_nucleus_finds_it(model):
    found = []
    for seed in (11, 12, 13):
        scene = synthesize("nuclei", (256, 256), seed, diameter=36, noise=0.02)
        for value in range(1, min(5, int(scene.labels.max())) + 1):
            truth = scene.labels == value
            y, x = (int(v.mean()) for v in np.nonzero(truth))
            (mask,), _ = click(model, scene.image, [(y, x)])
            found.append((mask & truth).sum() / (mask | truth).sum())
    assert np.mean(found) > 0.75


def test_predicted_iou_tells_objects_from_background(model):
    scene = synthesize("nuclei", (256, 256), 21, diameter=36, noise=0.02)
    ys, xs = np.nonzero(scene.labels)
    inside = list(zip(ys[::97], xs[::97], strict=True))
    ys, xs = np.nonzero(scene.labels == 0)
    outside = list(zip(ys[::4001], xs[::4001], strict=True))
    _, on = click(model, scene.image, inside)
    _, off = click(model, scene.image, outside)
    assert np.median(on) > np.median(off) + 0.3

"""What only a CUDA device can show; run with ``-m gpu``."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.jobs import Engine
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.protocol import Prompts
from napari_sam_suite.engine.params import AutoParams

pytestmark = pytest.mark.gpu

EVERYTHING = {
    "pred_iou_thresh": 0.0,
    "stability_score_thresh": 0.0,
    "box_nms_thresh": 1.0,
}


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)


@pytest.mark.parametrize("model", ["sam2-nano", "sam2.1_hiera_tiny"])
def test_cuda_gives_the_numbers_of_the_cpu(model, image):
    clicks = Prompts.clicks(np.random.default_rng(1).uniform(0, 200, (8, 2)))
    answers = {}
    for device in ("cpu", "cuda"):
        one = load_model(model, device=device, precision="float32", random_weights=True)
        answers[device] = one.decode(one.encode([image])[0], clicks)
    cpu, cuda = answers["cpu"], answers["cuda"]
    assert torch.allclose(cpu.logits, cuda.logits.cpu(), atol=1e-3)
    assert torch.allclose(cpu.iou, cuda.iou.cpu(), atol=1e-4)


def test_bfloat16_is_the_default_of_sam2_and_leaves_no_trace(image):
    model = load_model("sam2-nano", device="cuda", random_weights=True)
    assert model.dtype == torch.bfloat16
    before = torch.backends.cuda.matmul.allow_tf32
    automatic_masks(model, image, AutoParams(points_per_side=4, **EVERYTHING))
    assert torch.backends.cuda.matmul.allow_tf32 == before
    assert not torch.is_autocast_enabled("cuda")


def test_the_device_is_only_touched_by_the_engine_thread(image):
    with Engine(device="cuda", random_weights=True) as engine:
        source = open_image(image, axes="YXS", name="noise")
        found = engine.segment(source, AutoParams(points_per_side=4, **EVERYTHING))
    assert len(found) > 0


def test_memory_comes_back_when_the_engine_closes(image):
    held = torch.cuda.memory_allocated()
    with Engine(device="cuda", random_weights=True) as engine:
        source = open_image(image, axes="YXS", name="noise")
        engine.segment(source, AutoParams(points_per_side=4, **EVERYTHING))
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() <= held + 2**20

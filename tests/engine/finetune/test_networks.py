"""All networks learn: SAM 1, SAM 2, and the embedded one, which becomes better."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from engine.finetune.tiny import (
    Heard,
    masks_of,
    sample,
    tiny_model,
    tiny_sam1,
)
from napari_sam_suite.engine.finetune.data import Sample
from napari_sam_suite.engine.finetune.loop import finetune
from napari_sam_suite.engine.finetune.params import FinetuneParams
from napari_sam_suite.engine.models.load import load_model

if TYPE_CHECKING:
    from pathlib import Path

ONCE = FinetuneParams(
    epochs=1, views=1, prompts=2, variants=0, validation=0, calibrate=False
)


def state(model: Any) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in model.network.state_dict().items()}


def learns(model: Any, train: str, out: Path) -> set[str]:
    """Names of all tensors that one epoch changes."""
    heard, before = Heard(), state(model)
    finetune(model, [sample()], ONCE.with_(train=train), out, heard)
    assert math.isfinite(heard.epochs[-1].loss)
    now = model.network.state_dict()
    assert all(torch.equal(before[n], now[n]) for n in before), "the base is its own"
    from napari_sam_suite.engine.finetune.files import read_state, run_folder

    found = read_state(run_folder(out) / "last.safetensors")
    assert found is not None
    last = {n.removeprefix("now/"): t for n, t in found[0].items() if "now/" in n}
    return {n for n, value in last.items() if not torch.equal(before[n], value)}


@pytest.mark.parametrize("make", [tiny_model, tiny_sam1])
@pytest.mark.parametrize("shape", [(64, 64), (40, 70)])
def test_what_the_trunk_says_is_finished_as_inference_does_it(
    make: Any, shape: tuple[int, int]
) -> None:
    model = make()
    rgb = np.random.default_rng(1).integers(0, 255, (*shape, 3)).astype(np.uint8)
    expected = model.encode([rgb])[0]
    with torch.no_grad():
        both = [model.finish(see([rgb])[0]) for see in (model.look, model.prepare)]
    for found in both:
        assert (found.shape, found.scaled, found.padded) == (
            expected.shape,
            expected.scaled,
            expected.padded,
        )
        assert found.features.keys() == expected.features.keys()
        for name, value in expected.features.items():
            assert torch.equal(found.features[name], value)


@pytest.mark.parametrize("train", ["decoder", "neck", "encoder"])
def test_sam_1_learns(tmp_path: Path, train: str) -> None:
    changed = learns(tiny_sam1(), train, tmp_path / "a.safetensors")
    parts = {"mask_decoder", "prompt_encoder"}
    assert {n.split(".")[0] for n in changed} - {"image_encoder"} == parts
    encoder = {n for n in changed if n.startswith("image_encoder")}
    if train == "decoder":
        assert not encoder
    elif train == "neck":
        assert encoder
        assert all(n.startswith("image_encoder.neck") for n in encoder)
    else:
        names = {n.split(".")[1] for n in encoder}
        assert names == {"neck", "blocks", "patch_embed", "pos_embed"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sam2.1_hiera_tiny", "sam_vit_b_01ec64"])
def test_public_architectures_learn_on_a_cpu(tmp_path: Path, name: str) -> None:
    model = load_model(name, device="cpu", random_weights=True)
    changed = learns(model, "decoder", tmp_path / "a.safetensors")
    assert changed
    assert not any(n.startswith("image_encoder") for n in changed)


def grain(seed: int) -> Sample:
    """Discs that differ from the ground by the grain of their noise alone."""
    rng = np.random.default_rng(seed)
    side = 96
    fine = rng.normal(0, 30, (side, side))
    coarse = np.kron(rng.normal(0, 30, (side // 4, side // 4)), np.ones((4, 4)))
    y, x = np.mgrid[:side, :side]
    places = [(20, 22, 12), (24, 70, 14), (68, 28, 15), (72, 74, 12)]
    discs = [
        (y - cy - rng.integers(-4, 5)) ** 2 + (x - cx - rng.integers(-4, 5)) ** 2 < r**2
        for cy, cx, r in places
    ]
    image = np.where(np.any(discs, 0), coarse, fine) + 128
    rgb = np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, 2)
    return Sample(f"grain {seed}", rgb, masks_of((side, side), *discs))


def test_the_embedded_model_becomes_better_at_a_kind_it_does_not_know(
    tmp_path: Path,
) -> None:
    heard = Heard()
    params = FinetuneParams(
        epochs=2,
        learning_rate=1e-3,
        views=8,
        prompts=6,
        batch_size=2,
        variants=0,
        tile="off",
        calibrate=False,
    )
    samples = [grain(k) for k in range(4)]
    model = load_model("sam2-nano", device="cpu")
    outcome = finetune(model, samples, params, tmp_path / "a.safetensors", heard)
    assert outcome.better
    assert outcome.best.iou > outcome.base.iou + 0.1
    assert outcome.best.f1 > outcome.base.f1

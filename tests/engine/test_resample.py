from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from napari_sam_suite.engine.resample import Enlargement

SIZES = [(1, 1), (2, 3), (17, 64), (64, 64), (63, 65), (100, 31), (257, 130), (511, 8)]


def noise(low: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 4, (low, low)).astype(np.float32)


def resize(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return interpolate(values, size, mode="bilinear", align_corners=False)


def stretched(logits: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """SAM 2: the square is stretched onto the image in one step."""
    return resize(torch.from_numpy(logits)[None, None], shape)[0, 0].numpy()


def unpadded(
    logits: np.ndarray, square: int, scaled: tuple[int, int], shape: tuple[int, int]
) -> np.ndarray:
    """SAM 1: to the input's size, padding cut off, then to the image."""
    values = resize(torch.from_numpy(logits)[None, None], (square, square))
    return resize(values[..., : scaled[0], : scaled[1]], shape)[0, 0].numpy()


def long_side(square: int, shape: tuple[int, int]) -> tuple[int, int]:
    scale = square / max(shape)
    return int(shape[0] * scale + 0.5), int(shape[1] * scale + 0.5)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("low", [16, 64])
def test_one_step_is_torchs_bilinear_interpolation(
    low: int, shape: tuple[int, int]
) -> None:
    logits = noise(low)
    ours = Enlargement.of(low, 4 * low, (4 * low, 4 * low), shape).enlarge(logits)
    assert ours.dtype == np.float32
    # Where torch shrinks, it rounds the places of pixels in several ways.
    near = 1e-5 if min(shape) >= low else 2e-4
    np.testing.assert_allclose(ours, stretched(logits, shape), rtol=0, atol=near)


@pytest.mark.parametrize("shape", [s for s in SIZES if s[0] != s[1]])
def test_two_steps_cut_off_the_padding_between_them(shape: tuple[int, int]) -> None:
    logits = noise(32)
    scaled = long_side(128, shape)
    ours = Enlargement.of(32, 128, scaled, shape).enlarge(logits)
    expected = unpadded(logits, 128, scaled, shape)
    assert ours.shape == shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [31, 64, 128, 256, 300])
def test_a_square_image_of_sam1_is_enlarged_in_two_steps_too(side: int) -> None:
    logits = noise(32)
    ours = Enlargement.of(32, 128, (128, 128), (side, side), padded=True)
    expected = unpadded(logits, 128, (128, 128), (side, side))
    np.testing.assert_allclose(ours.enlarge(logits), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("family", ["sam1", "sam2"])
def test_a_window_holds_the_values_of_the_whole(
    shape: tuple[int, int], family: str
) -> None:
    scaled = (128, 128) if family == "sam2" else long_side(128, shape)
    enlargement = Enlargement.of(32, 128, scaled, shape)
    logits = noise(32)
    whole = enlargement.enlarge(logits)
    rng = np.random.default_rng(1)
    for _ in range(20):
        y0, y1 = np.sort(rng.choice(shape[0] + 1, 2, replace=False))
        x0, x1 = np.sort(rng.choice(shape[1] + 1, 2, replace=False))
        part = enlargement.enlarge(logits, (int(y0), int(y1), int(x0), int(x1)))
        np.testing.assert_array_equal(part, whole[y0:y1, x0:x1])


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("family", ["sam1", "sam2"])
def test_no_pixel_above_the_threshold_lies_outside_the_window(
    shape: tuple[int, int], family: str
) -> None:
    scaled = (128, 128) if family == "sam2" else long_side(128, shape)
    enlargement = Enlargement.of(32, 128, scaled, shape)
    rng = np.random.default_rng(2)
    for _ in range(30):
        logits = np.full((32, 32), -6, np.float32)
        y, x = rng.integers(0, 32, 2)
        logits[y : y + rng.integers(1, 6), x : x + rng.integers(1, 6)] = 8
        above = enlargement.enlarge(logits) > -5.9
        window = enlargement.window(logits, -5.9)
        if window is not None:
            above[window[0] : window[1], window[2] : window[3]] = False
        assert not above.any()


def test_the_window_of_a_small_mask_is_small() -> None:
    logits = np.full((64, 64), -6, np.float32)
    logits[10:12, 30:33] = 6
    window = Enlargement.of(64, 256, (256, 256), (256, 512)).window(logits, 0)
    assert window is not None
    y0, y1, x0, x1 = window
    assert (y1 - y0) * (x1 - x0) < 0.02 * 256 * 512


def test_without_a_logit_above_the_threshold_there_is_no_window() -> None:
    enlargement = Enlargement.of(16, 64, (64, 64), (30, 40))
    assert enlargement.window(np.full((16, 16), -1, np.float32), 0) is None


def test_what_lies_in_the_padding_has_no_window() -> None:
    logits = np.full((64, 64), -6, np.float32)
    logits[60:] = 6
    enlargement = Enlargement.of(64, 256, (128, 256), (50, 100))
    assert not (enlargement.enlarge(logits) > 0).any()
    assert enlargement.window(logits, 0) is None

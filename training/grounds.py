"""Grounds that are laid under crops: smooth noise, or a photograph's texture.

The photographs ship with scikit-image. They teach what to look past, so pictures that
are themselves full of round things (gravel, the moon) are not among them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage
from skimage import data
from skimage.color import rgb2gray
from skimage.transform import resize
from skimage.util import img_as_float

PHOTOGRAPHS = ("brick", "camera", "cat", "coffee", "grass", "retina")


def ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """A ground (size, size) float32 with mean 0 and deviation 1."""
    drawn = _noise(rng, size) if rng.random() < 0.5 else _texture(rng, size)
    drawn = drawn - drawn.mean()
    return (drawn / max(float(drawn.std()), 1e-6)).astype(np.float32)


def _noise(rng: np.random.Generator, size: int) -> np.ndarray:
    sigma = float(np.exp(rng.uniform(np.log(2), np.log(16))))
    return ndimage.gaussian_filter(rng.normal(size=(size, size)), sigma)


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """A window of a photograph without its slow changes, turned and mirrored."""
    photograph = _photographs()[rng.integers(len(PHOTOGRAPHS))]
    side = int(min(*photograph.shape, size * rng.uniform(0.4, 1.4)))
    y, x = (int(rng.integers(0, n - side + 1)) for n in photograph.shape)
    window = np.rot90(photograph[y : y + side, x : x + side], rng.integers(4))
    if rng.random() < 0.5:
        window = window[:, ::-1]
    window = resize(window, (size, size), order=1, anti_aliasing=side > size)
    return window - ndimage.gaussian_filter(window, size / rng.uniform(6, 16))


@cache
def _photographs() -> list[np.ndarray]:
    loaded = [getattr(data, name)() for name in PHOTOGRAPHS]
    return [img_as_float(p) if p.ndim == 2 else rgb2gray(p) for p in loaded]

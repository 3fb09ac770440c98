"""Bilinear scaling with antialiasing, as torch and Pillow do it, without torch."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

if TYPE_CHECKING:
    from numpy.typing import NDArray


def resize(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Scale an image to another height and width.

    Every output pixel is the mean of the input around it, weighted by a triangle that
    reaches to the neighbouring output pixels, or input pixels when it is enlarged: what
    ``torch.nn.functional.interpolate`` calls bilinear with ``antialias=True``.

    Parameters
    ----------
    image : ndarray, shape (H, W) or (H, W, C), float32
        Any values.
    size : (int, int)
        Wanted height and width.

    Returns
    -------
    ndarray, shape (*size) or (*size, C), float32
    """
    rows = _triangles(image.shape[0], size[0])
    columns = _triangles(image.shape[1], size[1])
    channels = image.shape[2:]
    tall = rows @ image.reshape(image.shape[0], -1)
    wide = tall.reshape(size[0], image.shape[1], -1).transpose(1, 0, 2)
    scaled = columns @ wide.reshape(image.shape[1], -1)
    scaled = scaled.reshape(size[1], size[0], *channels)
    return np.ascontiguousarray(scaled.swapaxes(0, 1), np.float32)


@lru_cache(maxsize=32)
def _triangles(length: int, wanted: int) -> csr_array:
    """Weights (wanted, length) of the inputs in every output; rows add up to 1."""
    scale = length / wanted
    reach = max(scale, 1.0)
    centre = (np.arange(wanted) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach + 0.5).astype(np.int64), length)
    taps = first[:, None] + np.arange(int((last - first).max()))
    weight = 1 - np.abs((taps - centre[:, None] + 0.5) / reach)
    weight = np.where(taps < last[:, None], weight.clip(0), 0)
    weight /= weight.sum(1, keepdims=True)
    row = np.broadcast_to(np.arange(wanted)[:, None], taps.shape)
    held = weight > 0
    return csr_array(
        (weight[held].astype(np.float32), (row[held], taps[held])), (wanted, length)
    )

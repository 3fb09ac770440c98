"""Whether outlines are right, by a small network that also sees the examples.

The model rates its masks before it has drawn them, and from what it learnt of all kinds
of images. This network looks at every finished mask, at what is around it and at the
examples that a person drew, as in a relation network (Sung et al. 2018, "Learning to
compare"), and tells whether the mask outlines one object as they do. It was trained on
scenes with known truth, real ones and drawn ones, whose own objects served as examples
(`training/verifying.py`); what it is trained for is telling, so it holds for kinds of
objects that it has never seen.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from napari_sam_suite.engine.fewshot.patches import draw_patches
from napari_sam_suite.engine.models.nano.config import VERIFIER

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.protocol import Embedding
    from napari_sam_suite.engine.tiles import Region

FINE = 16
"""Channels of the finest features that the network was trained with."""
COARSE, BLEND = 160, 32
"""Channels of the coarser features, and what they are blended to."""
HIDDEN = 96
"""Width of the comparison."""
SUMMARY, SIGNS = 96, 6
"""Numbers that a picture is summed up in, and numbers beside them; see `look_at`."""
COLUMNS = SUMMARY + SIGNS
_USUAL = (5.0, 0.7, 0.8, 0.7, -0.5, 0.0)
_SPREAD = (1.5, 0.2, 0.2, 0.15, 0.8, 0.5)
"""Mean and spread of the signs, about."""
_GROUPS, _SMOOTH = 4, 1e-5
"""Groups of channels that are brought to one level and spread."""
_LEAST_SPREAD = 0.1
_FAR = 4.0

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Verifier:
    """The network: five layers of convolutions, a summary, and a comparison.

    Three layers bring the pictures to the places of their coarse parts; two more look
    at both together, and add what they see.

    It is small enough for NumPy, so that it answers alike wherever a model runs.

    Attributes
    ----------
    weights : dict
        As `training/verifying.py` names them.
    """

    weights: dict[str, Floats]

    def sum_up(self, pictures: Floats, coarse: Floats) -> Floats:
        """Sum up (N, 24, 24, 24) and (N, 160, 6, 6), see `draw_patches`, in (N, 96)."""
        x = pictures.transpose(0, 2, 3, 1)
        mask = x[..., -1:].reshape(len(x), 6, 4, 6, 4, 1).mean((2, 4))
        for k, stride in enumerate((1, 2, 2)):
            x = self._see(x, k, stride)
        blended = self._linear("blend", coarse.transpose(0, 2, 3, 1))
        x = np.concatenate([x, blended], -1)
        for k in (3, 4):
            x = x + self._see(x, k)
        inside = (x * mask).sum((1, 2)) / (mask.sum((1, 2)) + 1e-3)
        return self._linear("summary", np.concatenate([x.mean((1, 2)), inside], 1))

    def compare(self, looks: Floats, examples: Floats) -> Floats:
        """Log-odds (N,) of masks by looks (N, 102) at them and (n, 102) at examples."""
        seen, signs = looks[:, :SUMMARY], looks[:, SUMMARY:]
        others, size = examples[:, :SUMMARY], examples[:, SUMMARY]
        mean = np.broadcast_to(others.mean(0), seen.shape)
        off = seen - mean
        larger = signs[:, :1] - size.mean()
        unusual = np.minimum(np.abs(larger / _spread(size)), _FAR)
        nearest = others[cdist(seen, others).argmin(1)]
        views = [seen, mean, off / _spread(others), np.abs(off), np.abs(seen - nearest)]
        every = np.concatenate([*views, signs[:, 1:], larger, unusual], 1)
        hidden = np.maximum(self._linear("compare", every), 0)
        # The second answer, of the IoU itself, only helps to train.
        return self._linear("decide", hidden)[:, 0]

    def _see(self, x: Floats, k: int, stride: int = 1) -> Floats:
        x = _convolve(x, *self._layer(f"layers.{k}"), stride)
        found: Floats = np.maximum(_level(x, *self._layer(f"norms.{k}")), 0)
        return found

    def _layer(self, name: str) -> tuple[Floats, Floats]:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def _linear(self, name: str, x: Floats) -> Floats:
        weight, bias = self._layer(name)
        return x @ weight.T + bias


def _convolve(x: Floats, weight: Floats, bias: Floats, stride: int) -> Floats:
    """Pictures (N, Y, X, C), with an empty edge, under kernels (D, C, 3, 3)."""
    n, rows, columns, channels = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shape = (n, -(-rows // stride), -(-columns // stride))
    views = np.empty((*shape, 3, 3, channels), np.float32)
    for i in range(3):
        for j in range(3):
            views[:, :, :, i, j] = padded[
                :, i : i + rows : stride, j : j + columns : stride
            ]
    kernels = weight.transpose(2, 3, 1, 0).reshape(9 * channels, -1)
    found: Floats = views.reshape(-1, 9 * channels) @ kernels + bias
    return found.reshape(*shape, -1)


def _level(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """Wu and He 2018, "Group normalization", of (N, Y, X, C)."""
    n, channels = len(x), x.shape[-1]
    flat = x.reshape(n, -1, channels)
    squares = np.einsum("npc,npc->nc", flat, flat) / flat.shape[1]
    means, squares = (
        sums.reshape(n, _GROUPS, -1).mean(2).repeat(channels // _GROUPS, 1)
        for sums in (flat.mean(1), squares)
    )
    scale = weight / np.sqrt(np.maximum(squares - means**2, 0) + _SMOOTH)
    levelled: Floats = flat * scale[:, None] + (bias - means * scale)[:, None]
    return levelled.reshape(x.shape)


def _spread(examples: Floats) -> Floats:
    """Standard deviation of examples (n, ...), of one as if they were alike."""
    squares = ((examples - examples.mean(0)) ** 2).sum(0)
    spread: Floats = np.sqrt(squares / max(len(examples) - 1, 1)) + _LEAST_SPREAD
    return spread


@cache
def load_verifier(path: Path = VERIFIER) -> Verifier:
    """The network that travels inside the package."""
    from safetensors.numpy import load_file

    return Verifier(load_file(path))


@cache
def verifier_id(path: Path = VERIFIER) -> str:
    """Tells the network from those of other releases."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def can_verify(embedding: Embedding) -> bool:
    """Whether an embedding is of the model that the network was trained with."""
    features = embedding.features
    return "guide" in features and features["fine"].shape[1] == FINE


def look_at(
    embedding: Embedding,
    masks: Masks,
    rgb: NDArray[np.uint8],
    region: Region,
    rated: NDArray[np.floating] | float = 0.0,
    guided: NDArray[np.floating] | float = 0.0,
) -> NDArray[np.float32]:
    """What the verifier has to see of masks.

    Parameters
    ----------
    embedding : Embedding
        Of the region.
    masks : Masks
        N of them, none empty, in the coordinates of the frame.
    rgb : ndarray, shape (H, W, 3), uint8
        The whole frame.
    region : Region
        Where the embedding lies in the frame.
    rated, guided : ndarray, shape (N,), optional
        See `quality.rating_odds` and `guided.guide_odds`; not for examples, whose
        outlines a person drew.

    Returns
    -------
    ndarray, shape (N, 102), float32
        A picture of each, summed up in 96 numbers, and signs: the logarithm of the area
        in places of the guide, the model's ratings, how full the box is, and the
        odds given. Of a model without a verifier (N, 0).
    """
    if not can_verify(embedding):
        return np.zeros((len(masks), 0), np.float32)
    verifier = load_verifier()
    summed = [np.zeros((0, SUMMARY), np.float32)]
    for pictures, coarse in draw_patches(embedding, masks, rgb, region):
        summed.append(verifier.sum_up(pictures, coarse))
    signs = signs_of(embedding, masks, rated, guided)
    return np.concatenate([np.concatenate(summed), signs], 1)


def signs_of(
    embedding: Embedding,
    masks: Masks,
    rated: NDArray[np.floating] | float,
    guided: NDArray[np.floating] | float,
) -> NDArray[np.float32]:
    """Signs (N, 6) beside the pictures, each about 0 with a spread of 1."""
    grid = np.array(embedding.features["guide"].shape[-2:])
    places = float(np.prod(grid / embedding.shape))
    sides = (masks.boxes[:, 2:] - masks.boxes[:, :2]).astype(np.float64)
    columns = [
        np.log(masks.area * places),
        masks.scores,
        masks.stability,
        masks.area / sides.prod(1),
        np.broadcast_to(rated, len(masks)),
        np.broadcast_to(guided, len(masks)),
    ]
    signs = (np.stack(columns, 1) - _USUAL) / _SPREAD
    return signs.astype(np.float32)


def verify(
    looks: NDArray[np.floating], examples: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Log-odds (N,) that masks outline objects as the examples do.

    Parameters
    ----------
    looks, examples : ndarray, shape (N, 102) and (n, 102)
        From `look_at`; n > 0.
    """
    several, few = np.asarray(looks, np.float32), np.asarray(examples, np.float32)
    return load_verifier().compare(several, few).astype(np.float64)

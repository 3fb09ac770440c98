"""Crops of training images, cut at a random scale, warped and degraded.

Objects of 6 to 400 px are seen whatever the size they were imaged at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.measure import label as connected
from torch.utils.data import DataLoader, IterableDataset

from data import SHARES
from grounds import ground

if TYPE_CHECKING:
    from collections.abc import Iterator

    from data import Item

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
FRAME = 512
TILE_SCALE = 2.0


def _crop_scale(rng: np.random.Generator, item: Item) -> float:
    """Model pixels per image pixel: as in tiles, as in a whole image, or any."""
    side = max(item.image.shape[:2])
    chance = rng.random()
    if chance < 0.5:
        scale = TILE_SCALE * np.exp(rng.normal(0, 0.3))
    elif chance < 0.65:
        scale = FRAME / side * np.exp(rng.normal(0, 0.3))
    else:
        scale = np.exp(rng.uniform(np.log(12), np.log(170))) / item.diameter
    return float(np.clip(scale, FRAME / side / 2.2, 12.0))


def _window(
    rng: np.random.Generator, item: Item, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Cut a window that may be larger than the image (mirrored at the edges)."""
    image, labels, parts = item.image, item.labels, item.parts
    pad_y = max(0, height - labels.shape[0])
    pad_x = max(0, width - labels.shape[1])
    if pad_y or pad_x:
        pad = ((0, pad_y), (0, pad_x))
        rest = ((0, 0),) * (image.ndim - 2)
        image = np.pad(image, pad + rest, mode="symmetric")
        labels = connected(np.pad(labels, pad, mode="symmetric"), connectivity=1)
        parts = None
    y = rng.integers(0, labels.shape[0] - height + 1)
    x = rng.integers(0, labels.shape[1] - width + 1)
    if rng.random() < 0.5 and labels.any():
        ys, xs = np.nonzero(labels[::4, ::4])
        if len(ys):
            pick = rng.integers(len(ys))
            y = int(np.clip(4 * ys[pick] - height // 2, 0, labels.shape[0] - height))
            x = int(np.clip(4 * xs[pick] - width // 2, 0, labels.shape[1] - width))
    box = (slice(y, y + height), slice(x, x + width))
    return image[box], labels[box], None if parts is None else parts[box]


def _resize(
    image: np.ndarray, labels: np.ndarray, size: int, angle: float, warp: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resample to ``size`` px, turned by ``angle`` radians about the centre and warped.

    ``image`` becomes (C, size, size) float in 0..255, ``labels`` (L, size, size);
    ``warp`` is from `_warp`.
    """
    outer = size if angle == 0 else int(np.ceil(size * 1.42 / 2)) * 2
    pixels = torch.from_numpy(np.ascontiguousarray(image)).float()
    pixels = pixels[None, None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)[None]
    pixels = F.interpolate(
        pixels, (outer, outer), mode="bilinear", antialias=True, align_corners=False
    )
    ids = torch.from_numpy(np.ascontiguousarray(labels).astype(np.float32))[None]
    ids = F.interpolate(ids, (outer, outer), mode="nearest-exact")
    if angle or warp.any():
        cos, sin = np.cos(angle) * size / outer, np.sin(angle) * size / outer
        theta = torch.tensor([[[cos, -sin, 0], [sin, cos, 0]]], dtype=torch.float32)
        grid = F.affine_grid(theta, [1, 1, size, size], align_corners=False)
        grid = grid + warp * (size / outer)
        pixels = F.grid_sample(
            pixels, grid, padding_mode="reflection", align_corners=False
        )
        ids = F.grid_sample(
            ids, grid, mode="nearest", padding_mode="zeros", align_corners=False
        )
    return pixels[0], ids[0].round().int()


def _warp(rng: np.random.Generator, size: int) -> torch.Tensor:
    """A smooth displacement (1, size, size, 2), the side being 2; mostly none."""
    if rng.random() < 0.65:
        return torch.zeros(1, 1, 1, 2)
    knots = int(rng.integers(4, 9))
    moved = rng.normal(0, rng.uniform(0.05, 0.22) / knots, (1, 2, knots, knots))
    field = F.interpolate(torch.from_numpy(moved).float(), (size, size), mode="bicubic")
    return field.permute(0, 2, 3, 1)


def _grey_levels(
    rng: np.random.Generator, pixels: torch.Tensor, limits: np.ndarray
) -> torch.Tensor:
    """Rescale as a composite would: limits, gamma, inversion, lower contrast."""
    low, high = limits[rng.integers(0, 3)], limits[rng.integers(3, 6)]
    if rng.random() < 0.3:
        high = low + (high - low) * rng.uniform(0.6, 1.3)
    pixels = ((pixels - low) / max(float(high - low), 1.0)).clamp(0, 1)
    if rng.random() < 0.6:
        pixels = pixels ** float(np.exp(rng.normal(0, 0.4)))
    if rng.random() < 0.2:
        rises = rng.dirichlet(np.full(6, 1.5))
        curve = np.interp(pixels.numpy(), np.linspace(0, 1, 7), [0, *rises.cumsum()])
        pixels = torch.from_numpy(curve.astype(np.float32))
    if rng.random() < 0.12:
        pixels = 1 - pixels
    if rng.random() < 0.3:
        depth = rng.uniform(0.35, 1.0)
        pixels = pixels * depth + rng.uniform(0, 1 - depth)
    return pixels


def _colours(rng: np.random.Generator, pixels: torch.Tensor) -> torch.Tensor:
    """Colour jitter for RGB; grey copies or a tint for one channel."""
    if len(pixels) == 1:
        pixels = pixels.repeat(3, 1, 1)
        if rng.random() < 0.15:
            tint = torch.tensor(rng.uniform(0, 1, 3), dtype=torch.float32)
            pixels = pixels * (tint / tint.max()).view(3, 1, 1)
        return pixels
    chance = rng.random()
    if chance < 0.15:
        weights = torch.tensor(rng.dirichlet([1, 1, 1]), dtype=torch.float32)
        return (pixels * weights.view(3, 1, 1)).sum(0, keepdim=True).repeat(3, 1, 1)
    if chance < 0.25:
        pixels = pixels[torch.from_numpy(rng.permutation(3))]
    mix = np.eye(3) + rng.normal(0, 0.08, (3, 3))
    mix = torch.tensor(mix / mix.sum(1, keepdims=True), dtype=torch.float32)
    gain = torch.tensor(np.exp(rng.normal(0, 0.12, 3)), dtype=torch.float32)
    return torch.einsum("ij,jyx->iyx", mix, pixels) * gain.view(3, 1, 1)


def _degrade(rng: np.random.Generator, pixels: torch.Tensor) -> torch.Tensor:
    """Blur, noise, uneven light and ground."""
    chance = rng.random()
    if chance < 0.2:
        sigma = float(rng.uniform(0.4, 2.0))
        blurred = ndimage.gaussian_filter(pixels.numpy(), (0, sigma, sigma))
        pixels = torch.from_numpy(blurred)
    elif chance < 0.3:
        blurred = ndimage.gaussian_filter(pixels.numpy(), (0, 1.0, 1.0))
        pixels = pixels + (pixels - torch.from_numpy(blurred)) * rng.uniform(0.5, 1.5)
    if rng.random() < 0.3:
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 31)))
        shape = (1 if rng.random() < 0.7 else 3, *pixels.shape[1:])
        noise = torch.randn(shape, generator=generator)
        pixels = pixels + noise * float(rng.uniform(0.01, 0.08))
    if rng.random() < 0.2:
        laid = torch.from_numpy(ground(rng, pixels.shape[-1]))
        pixels = pixels + laid * float(rng.uniform(0.02, 0.07))
    if rng.random() < 0.12:
        sigma = float(np.exp(rng.uniform(np.log(6), np.log(40))))
        wide = ndimage.gaussian_filter(pixels.numpy(), (0, sigma, sigma))
        wide = torch.from_numpy(wide - wide.mean((1, 2), keepdims=True))
        pixels = pixels - float(rng.uniform(0.3, 0.9)) * wide
    if rng.random() < 0.2:
        size = pixels.shape[-1]
        ramp = torch.linspace(-1, 1, size)
        a, b = rng.uniform(-0.3, 0.3, 2)
        pixels = pixels * (1 + a * ramp[None, :, None] + b * ramp[None, None, :])
    return pixels.clamp(0, 1)


def make_sample(
    rng: np.random.Generator, item: Item, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut and augment one training crop.

    Returns
    -------
    image : float tensor (3, size, size), normalised with ``MEAN`` and ``STD``
    labels : int tensor (2, size, size): objects, and their parts
    """
    scale = _crop_scale(rng, item) * np.exp(rng.normal(0, 0.12, 2))
    angle = float(rng.uniform(-np.pi, np.pi)) if rng.random() < 0.35 else 0.0
    extent = size / scale * (1.42 if angle else 1.0)
    height, width = np.clip(extent.round().astype(int), 12, 2400)
    image, labels, parts = _window(rng, item, int(height), int(width))
    if parts is None:
        parts = np.zeros_like(labels)
    stack = np.stack([labels, parts])
    turns, mirrored = rng.integers(4), rng.random() < 0.5
    image, stack = np.rot90(image, turns), np.rot90(stack, turns, axes=(1, 2))
    if mirrored:
        image, stack = image[:, ::-1], stack[:, :, ::-1]
    pixels, ids = _resize(image, stack, size, angle, _warp(rng, size))
    if len(pixels) == 1:
        pixels = _grey_levels(rng, pixels, item.limits)
    else:
        pixels = pixels / 255
        if rng.random() < 0.5:
            pixels = _grey_levels(rng, pixels * 255, item.limits)
    pixels = _degrade(rng, _colours(rng, pixels))
    return (pixels - MEAN) / STD, ids


class Crops(IterableDataset):
    """Endless stream of (image, labels, complete) crops, by ``SHARES``."""

    def __init__(self, items: list[Item], size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.pools = {g: [i for i in items if i.group == g] for g in SHARES}

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, bool]]:
        worker = torch.utils.data.get_worker_info()
        torch.set_num_threads(1)
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        groups = [g for g in SHARES if self.pools[g]]
        shares = np.array([SHARES[g] for g in groups])
        shares = shares / shares.sum()
        while True:
            pool = self.pools[groups[rng.choice(len(groups), p=shares)]]
            item = pool[rng.integers(len(pool))]
            yield (*make_sample(rng, item, self.size), item.complete)


def loader(
    items: list[Item], size: int, batch: int, seed: int, workers: int
) -> DataLoader:
    """Batches of crops from background processes."""
    return DataLoader(
        Crops(items, size, seed),
        batch_size=batch,
        num_workers=workers,
        prefetch_factor=3 if workers else None,
        multiprocessing_context="fork" if workers else None,
    )

"""What an embedding says about masks: features averaged inside each of them.

A mask is laid over the cells of a feature map by area, so that even a line one pixel
wide has its weight, and the image is encoded once for any number of masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.protocol import Embedding
    from napari_sam_suite.engine.tiles import Region

_CHUNK = 2**24
"""Numbers in the weights of the masks that are pooled at a time."""
_RING = 0.5
"""Width of the surroundings of a mask, as a part of its diameter."""
_SHAPES = 7
"""Descriptor columns that come from a mask's outline alone."""

Grid = tuple[int, int]
Scale = tuple[float, float]


def cells_per_pixel(embedding: Embedding, grid: Grid) -> Scale:
    """Feature cells per image pixel, down and across.

    SAM 1 pads its square input, so an image may fill only a part of the cells.

    Parameters
    ----------
    embedding : Embedding
        Of the image or tile.
    grid : (int, int)
        Rows and columns of one of its feature maps.
    """
    square = max(embedding.scaled)
    down, across = (
        scaled / length * cells / square
        for scaled, length, cells in zip(
            embedding.scaled, embedding.shape, grid, strict=True
        )
    )
    return down, across


def coverage(
    crop: NDArray[np.bool_], origin: tuple[int, int], scale: Scale, grid: Grid
) -> tuple[NDArray[np.float32], Grid]:
    """Area of a mask in every cell that it touches.

    Parameters
    ----------
    crop : ndarray, shape (h, w), bool
        The mask.
    origin : (int, int)
        (y, x) of its first pixel.
    scale : (float, float)
        Cells per pixel, see `cells_per_pixel`.
    grid : (int, int)
        Rows and columns of the feature map.

    Returns
    -------
    weights : ndarray, shape (a, b), float32
        In units of a cell's area; what lies outside the grid is left out.
    first : (int, int)
        Row and column of the first cell.
    """
    down, top = _overlap(crop.shape[0], origin[0], scale[0], grid[0])
    across, left = _overlap(crop.shape[1], origin[1], scale[1], grid[1])
    return down @ crop.astype(np.float32) @ across.T, (top, left)


def _overlap(
    length: int, start: int, scale: float, cells: int
) -> tuple[NDArray[np.float32], int]:
    """How much of each pixel (columns) lies in each cell (rows), and the first cell."""
    edges = (start + np.arange(length + 1)) * scale
    first = int(np.clip(np.floor(edges[0]), 0, cells - 1))
    last = int(np.clip(np.ceil(edges[-1]), first + 1, cells))
    low = np.arange(first, last)[:, None]
    shared = np.minimum(edges[1:], low + 1) - np.maximum(edges[:-1], low)
    return np.maximum(shared, 0).astype(np.float32), first


def pool(
    features: NDArray[np.float32],
    masks: Masks,
    origin: tuple[int, int],
    scale: Scale,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean features inside masks and around them.

    Parameters
    ----------
    features : ndarray, shape (C, h, w)
        One feature map of an image or tile.
    masks : Masks
        In the coordinates of the frame.
    origin : (int, int)
        (y, x) of the tile in the frame.
    scale : (float, float)
        Cells per pixel.

    Returns
    -------
    inside, around : ndarray, shape (N, C), float32
        Weighted by area. The surroundings are the mask's box, grown by half the
        mask's diameter, without the mask. A mask that covers nothing has the mean of
        the map.
    """
    channels, height, width = features.shape
    flat = features.reshape(channels, -1).T
    mean = flat.mean(0)
    inside = np.empty((len(masks), channels), np.float32)
    around = np.empty_like(inside)
    size = max(1, _CHUNK // (height * width))
    for start in range(0, len(masks), size):
        part = range(start, min(start + size, len(masks)))
        weights = np.zeros((len(part), height, width), np.float32)
        rings = np.zeros_like(weights)
        for row, i in enumerate(part):
            _lay(masks, i, origin, scale, weights[row], rings[row])
        inside[start : part.stop] = _mean(weights, flat, mean)
        around[start : part.stop] = _mean(rings, flat, mean)
    return inside, around


def _lay(
    masks: Masks,
    i: int,
    origin: tuple[int, int],
    scale: Scale,
    weights: NDArray[np.float32],
    ring: NDArray[np.float32],
) -> None:
    """Write the weights of one mask and of what is around it."""
    crop, (y0, x0) = masks.crop(i)
    grid = weights.shape[0], weights.shape[1]
    if not crop.size:
        return
    y0, x0 = y0 - origin[0], x0 - origin[1]
    laid, (top, left) = coverage(crop, (y0, x0), scale, grid)
    here = np.s_[top : top + laid.shape[0], left : left + laid.shape[1]]
    weights[here] = laid
    # At least one cell, or a small object would have no surroundings.
    reach = _RING * float(np.sqrt(masks.area[i]))
    wide = [max(reach, 1 / s) for s in scale]
    rows = _span(y0 - wide[0], y0 + crop.shape[0] + wide[0], scale[0], grid[0])
    columns = _span(x0 - wide[1], x0 + crop.shape[1] + wide[1], scale[1], grid[1])
    ring[rows, columns] = 1
    ring[here] = np.maximum(ring[here] - laid, 0)


def _span(first: float, last: float, scale: float, cells: int) -> slice:
    low = int(np.clip(np.floor(first * scale), 0, cells - 1))
    return slice(low, int(np.clip(np.ceil(last * scale), low + 1, cells)))


def _mean(
    weights: NDArray[np.float32],
    flat: NDArray[np.float32],
    fallback: NDArray[np.float32],
) -> NDArray[np.float32]:
    w = weights.reshape(len(weights), -1)
    total = w.sum(1, keepdims=True)
    means: NDArray[np.float32] = (w @ flat) / np.maximum(total, 1e-12)
    return np.where(total > 1e-9, means, fallback)


def descriptors(
    embedding: Embedding,
    masks: Masks,
    rgb: NDArray[np.uint8],
    region: Region,
) -> NDArray[np.float32]:
    """Describe masks by the embedding of the region that they lie in.

    Parameters
    ----------
    embedding : Embedding
        Of the region.
    masks : Masks
        In the coordinates of the frame.
    rgb : ndarray, shape (H, W, 3), uint8
        The whole frame.
    region : Region
        Where the embedding lies in the frame.

    Returns
    -------
    ndarray, shape (N, D), float32
        For every feature map the mean inside and its difference to the mean around;
        then the same of the pixels' colours and their spread inside; then the
        logarithms of area, length and width, elongation, fullness and roundness.
    """
    parts = []
    for features in embedding.maps().values():
        scale = cells_per_pixel(embedding, (features.shape[1], features.shape[2]))
        inside, around = pool(features, masks, region.origin, scale)
        parts += [inside, inside - around]
    part = rgb[region.y0 : region.y1, region.x0 : region.x1]
    pixels = np.divide(part, 255, dtype=np.float32)
    parts += list(_colours(pixels, masks, region.origin))
    parts.append(np.array(list(_outlines(masks)), np.float32).reshape(-1, _SHAPES))
    return np.concatenate(parts, 1)


def _colours(
    pixels: NDArray[np.float32], masks: Masks, origin: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Mean colour, its difference to the surroundings, and its spread, each (N, 3)."""
    mean = np.zeros((len(masks), 3), np.float32)
    contrast, spread = np.zeros_like(mean), np.zeros_like(mean)
    for i in range(len(masks)):
        crop, (y0, x0) = masks.crop(i)
        if not crop.size:
            continue
        reach = max(1, round(_RING * float(np.sqrt(masks.area[i]))))
        y0, x0 = y0 - origin[0], x0 - origin[1]
        (top, bottom), (left, right) = (
            (max(0, first - reach), min(first + side + reach, length))
            for first, side, length in zip(
                (y0, x0), crop.shape, pixels.shape[:2], strict=True
            )
        )
        box = pixels[top:bottom, left:right]
        # A mask drawn by hand may reach out of its tile.
        shown = crop[max(top - y0, 0) :, max(left - x0, 0) :]
        inner = np.zeros(box.shape[:2], bool)
        part = inner[max(y0 - top, 0) :, max(x0 - left, 0) :]
        part = part[: shown.shape[0], : shown.shape[1]]
        part[:] = shown[: part.shape[0], : part.shape[1]]
        if not inner.any():
            continue
        mean[i], spread[i] = box[inner].mean(0), box[inner].std(0)
        outer = box[~inner]
        contrast[i] = mean[i] - outer.mean(0) if len(outer) else 0
    return mean, contrast, spread


def _outlines(masks: Masks) -> Iterator[tuple[float, ...]]:
    """Size and shape of every mask, from its pixels alone."""
    for i in range(len(masks)):
        crop, _ = masks.crop(i)
        if not crop.size:
            yield (0.0,) * _SHAPES
            continue
        y, x = np.nonzero(crop)
        area = float(len(y))
        spread = np.cov(np.stack([y, x])) if area > 1 else np.zeros((2, 2))
        small, large = np.sqrt(np.linalg.eigvalsh(spread + np.eye(2) / 12) * 12)
        padded = np.pad(crop, 1)
        edge = np.count_nonzero(padded[1:] != padded[:-1]) + np.count_nonzero(
            padded[:, 1:] != padded[:, :-1]
        )
        yield (
            float(np.log(area)),
            float(np.log(large)),
            float(np.log(small)),
            float(small / large),
            area / crop.size,
            float(area / (large * small)),
            # Perimeter of pixels is 4/pi times that of a smooth outline.
            float(4 * np.pi * area / (edge * np.pi / 4) ** 2),
        )

"""Shapes and textures that synthetic scenes are made of.

Every function draws from the generator it is given, so that one seed fixes a whole
scene. Sizes are in pixels, label images are uint16 with 0 as background.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage import segmentation
from skimage.morphology import disk

Field = NDArray[np.floating[Any]]
Labels = NDArray[np.uint16]


def texture(rng: np.random.Generator, shape: tuple[int, int], grain: float) -> Field:
    """Smooth noise of zero mean and unit deviation; ``grain`` in pixels."""
    grain = max(1.0, grain)
    small = tuple(int(np.ceil(n / grain)) + 3 for n in shape)
    coarse = rng.standard_normal(small).astype(np.float32)
    if grain > 1:
        coarse = ndimage.zoom(coarse, grain, order=3 if grain < 24 else 1)
    y, x = (
        int(rng.integers(0, c - n + 1))
        for c, n in zip(coarse.shape, shape, strict=True)
    )
    field = coarse[y : y + shape[0], x : x + shape[1]]
    result: Field = (field - field.mean()) / max(float(field.std()), 1e-6)
    return result.astype(np.float32)


def disc(
    rng: np.random.Generator,
    radius: float,
    stretch: float,
    wave: float,
    turn: float | None = None,
) -> NDArray[np.bool_]:
    """A filled ellipse of mean ``radius`` with a wavy outline.

    ``turn`` is the angle (radians) of its long axis from the y axis to the x axis,
    random by default.
    """
    reach = int(np.ceil(radius * stretch * (1 + 2 * wave))) + 1
    ys, xs = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    turn = rng.uniform(0, np.pi) if turn is None else turn
    u = (ys * np.cos(turn) + xs * np.sin(turn)) / np.sqrt(stretch)
    v = (xs * np.cos(turn) - ys * np.sin(turn)) * np.sqrt(stretch)
    angle = np.arctan2(u, v)
    edge = np.full_like(u, radius)
    for order in (2, 3, 4, 5):
        size = rng.normal(0, wave / order) * radius
        edge += size * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    inside: NDArray[np.bool_] = u * u + v * v <= np.maximum(edge, 1.2) ** 2
    return inside


def rod(
    rng: np.random.Generator, width: float, length: float, turn: float
) -> NDArray[np.bool_]:
    """A filled capsule, slightly bent."""
    reach = int(np.ceil(length / 2 + width)) + 1
    ys, xs = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    along = ys * np.sin(turn) + xs * np.cos(turn)
    across = ys * np.cos(turn) - xs * np.sin(turn)
    across = across + rng.normal(0, 0.25) * along**2 / max(length, 1.0)
    past = np.maximum(np.abs(along) - (length - width) / 2, 0)
    inside: NDArray[np.bool_] = past**2 + across**2 <= (width / 2) ** 2
    return inside


def stamp(
    labels: Labels, mask: NDArray[np.bool_], y: int, x: int, value: int, overlap: float
) -> bool:
    """Write ``mask`` centred on (y, x) over free pixels, unless too few are free.

    ``overlap`` is the share of the mask that other objects may already hold; a
    negative one keeps a gap of about that many pixels around every object.
    """
    top, left = y - mask.shape[0] // 2, x - mask.shape[1] // 2
    y0, x0 = max(0, top), max(0, left)
    y1 = min(labels.shape[0], top + mask.shape[0])
    x1 = min(labels.shape[1], left + mask.shape[1])
    if y1 <= y0 or x1 <= x0:
        return False
    part = mask[y0 - top : y1 - top, x0 - left : x1 - left]
    there = labels[y0:y1, x0:x1]
    if overlap < 0:
        gap = round(-overlap)
        claim = ndimage.binary_dilation(part, disk(gap)) if gap else part
        if np.any(there[claim]):
            return False
    elif np.count_nonzero(there[part]) > overlap * max(int(part.sum()), 1):
        return False
    free = part & (there == 0)
    if np.count_nonzero(free) < 8:
        return False
    there[free] = value
    return True


def scatter(
    rng: np.random.Generator,
    shape: tuple[int, int],
    diameter: float,
    cover: float,
    *,
    overlap: float,
    clusters: float = 0.0,
    stretch: tuple[float, float] = (1.0, 1.3),
    wave: float = 0.12,
    spread: float = 0.18,
) -> Labels:
    """Scatter wavy ellipses until about ``cover`` of the area is tried.

    ``clusters`` is the share of objects that are put beside an earlier one.
    """
    labels = np.zeros(shape, np.uint16)
    wanted = cover * shape[0] * shape[1] / (0.785 * diameter**2)
    tries = int(np.clip(wanted * 1.6, 2, 500))
    placed: list[tuple[int, int]] = []
    for _ in range(tries):
        radius = max(2.5, diameter / 2 * np.exp(rng.normal(0, spread)))
        y, x = (int(v) for v in rng.uniform(0, shape))
        if placed and rng.random() < clusters:
            near = placed[int(rng.integers(len(placed)))]
            turn = rng.uniform(0, 2 * np.pi)
            step = diameter * rng.uniform(0.75, 1.1)
            y = int(near[0] + step * np.sin(turn))
            x = int(near[1] + step * np.cos(turn))
        mask = disc(rng, radius, float(rng.uniform(*stretch)), wave)
        if stamp(labels, mask, y, x, len(placed) + 1, overlap):
            placed.append((y, x))
    return tidy(labels)


def tessellate(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float, holes: float
) -> Labels:
    """Cells of a jittered lattice with warped borders; some are left out."""
    steps = np.maximum(np.round(np.array(shape) / diameter).astype(int), 1) + 2
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in steps), indexing="ij"), -1)
    seeds = (grid.reshape(-1, 2) - 0.5) * (np.array(shape) / (steps - 2))
    seeds = seeds + rng.normal(0, 0.24 * diameter, seeds.shape)
    warp = rng.uniform(0.02, 0.12) * diameter
    rows, columns = np.indices(shape, np.float32)
    points = np.stack([rows, columns], -1)
    for axis in range(2):
        points[..., axis] += warp * texture(rng, shape, diameter / 3)
    owner = cKDTree(seeds).query(points.reshape(-1, 2))[1].reshape(shape)
    keep = rng.random(len(seeds)) >= holes
    labels = np.where(keep[owner], owner + 1, 0).astype(np.uint16)
    return tidy(labels)


def tidy(labels: Labels) -> Labels:
    """Ids 1..N in one connected piece each (the largest), specks removed."""
    out = np.zeros_like(labels)
    count = 0
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        pieces, found = ndimage.label(labels[box] == value)
        sizes = np.bincount(pieces.ravel())[1:] if found else np.zeros(0, int)
        if len(sizes) and sizes.max() >= 8:
            count += 1
            out[box][pieces == int(sizes.argmax()) + 1] = count
    return out


def per_object(
    rng: np.random.Generator, labels: Labels, low: float, high: float
) -> Field:
    """One random level per object, spread over its pixels; 0 outside."""
    levels = rng.uniform(low, high, int(labels.max()) + 1).astype(np.float32)
    levels[0] = 0
    result: Field = levels[labels]
    return result


def borders(labels: Labels, mode: str = "thick") -> NDArray[np.bool_]:
    """Pixels on the outlines of objects; ``mode`` as in scikit-image."""
    found: NDArray[np.bool_] = segmentation.find_boundaries(labels, mode=mode)
    return found


def depth(labels: Labels) -> Field:
    """Distance (px) of each pixel to the outside of its own object."""
    inner = (labels > 0) & ~borders(labels, "inner")
    far: Field = ndimage.distance_transform_edt(inner) + (labels > 0)
    return far.astype(np.float32)


def specks(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Field:
    """Debris: a few small bright spots in 0..1, not part of the truth."""
    field = np.zeros(shape, np.float32)
    count = int(rng.integers(0, 12))
    ys, xs = (rng.integers(0, n, count) for n in shape)
    field[ys, xs] = rng.uniform(0.2, 1.0, count)
    blurred = ndimage.gaussian_filter(field, max(0.7, size))
    peak = float(blurred.max())
    result: Field = blurred / peak if peak > 0 else blurred
    return result

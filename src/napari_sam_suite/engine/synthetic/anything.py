"""Objects that look like nothing in particular, on grounds of any kind.

No microscope is imitated. Shapes, textures, levels, rims and clutter are drawn
independently of each other, as in SynthMorph (Hoffmann et al. 2022) and AnyStar (Dey
et al. 2023), so that a model learns that an object is what differs from its ground,
whichever way it does.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_sam_suite.engine.synthetic.canvas import Canvas
from napari_sam_suite.engine.synthetic.shapes import (
    Field,
    Labels,
    borders,
    depth,
    per_object,
    rod,
    scatter,
    stamp,
    tessellate,
    texture,
    tidy,
)


def paint_anything(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Canvas:
    """Objects of one random make on a ground of another."""
    labels = _layout(rng, shape, diameter)
    inside = _matter(rng, shape, diameter)
    ground = _matter(rng, shape, diameter) + _clutter(rng, shape, diameter)
    step = float(rng.uniform(0.05, 0.5)) * float(rng.choice([-1.0, 1.0]))
    inside = inside + step * (1 + rng.uniform(0, 0.5) * per_object(rng, labels, -1, 1))
    inside = inside + _grains(rng, shape, diameter)
    soft = ndimage.gaussian_filter((labels > 0) * 1.0, rng.uniform(0.3, 1.0))
    light = ground + (inside - ground) * soft
    # neighbours that touch need a seam, and faint objects an outline
    if abs(step) < 0.15 or _touch(labels) or rng.random() < 0.4:
        light = light + _rim(rng, labels, diameter)
    if rng.random() < 0.25:
        light = light + _halo(rng, labels, diameter)
    low, high = np.percentile(light, (0.1, 99.9))
    light = np.clip((light - low) / max(float(high - low), 1e-6), 0, 1)
    return Canvas(light.astype(np.float32), labels)


def _layout(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Labels:
    """Where objects lie: apart, heaped, side by side as cells, or long ones."""
    chance = rng.random()
    if chance < 0.2:
        return tessellate(rng, shape, diameter, rng.uniform(0.1, 0.7))
    if chance < 0.35:
        return _bars(rng, shape, diameter)
    apart = rng.random() < 0.5
    return scatter(
        rng,
        shape,
        diameter,
        rng.uniform(0.05, 0.4 if apart else 0.9),
        overlap=-rng.uniform(0.6, 4) if apart else rng.uniform(0.02, 0.2),
        clusters=float(rng.choice([0.0, 0.3, 0.7])),
        stretch=(1.0, float(rng.choice([1.2, 1.8, 3.0]))),
        wave=rng.uniform(0.02, 0.4),
        spread=rng.uniform(0.05, 0.45),
    )


def _bars(rng: np.random.Generator, shape: tuple[int, int], diameter: float) -> Labels:
    labels = np.zeros(shape, np.uint16)
    width = max(4.0, diameter / rng.uniform(1.4, 3))
    tries = int(rng.uniform(0.1, 0.8) * shape[0] * shape[1] / (width * 3 * width))
    turn, agree = rng.uniform(0, np.pi), rng.choice([0.2, 3.0])
    gap = -rng.uniform(0.6, 3) if rng.random() < 0.5 else 0.1
    for count in range(int(np.clip(tries, 3, 400))):
        y, x = (int(v) for v in rng.uniform(0, shape))
        length = width * rng.uniform(1.5, 5)
        mask = rod(
            rng, width * rng.uniform(0.8, 1.2), length, turn + rng.normal(0, agree)
        )
        stamp(labels, mask, y, x, count + 1, gap)
    return tidy(labels)


def _matter(rng: np.random.Generator, shape: tuple[int, int], diameter: float) -> Field:
    """A texture around 0: noises of several grains, perhaps striped or cellular."""
    field = np.zeros(shape, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        grain = float(np.exp(rng.uniform(np.log(1.0), np.log(1.5 * diameter))))
        field += rng.uniform(0.0, 0.12) * texture(rng, shape, grain)
    chance = rng.random()
    if chance < 0.25:
        bent = texture(rng, shape, diameter / rng.uniform(0.7, 2))
        ys, xs = np.indices(shape, np.float32)
        turn, wide = rng.uniform(0, np.pi), rng.uniform(3, max(4.0, diameter / 3))
        along = (ys * np.sin(turn) + xs * np.cos(turn)) / wide
        wave = np.sin(2 * np.pi * (along + rng.uniform(0, 0.8) * bent))
        field += rng.uniform(0.03, 0.15) * wave.astype(np.float32)
    elif chance < 0.4:
        cells = borders(tessellate(rng, shape, diameter * rng.uniform(0.3, 0.8), 0.0))
        walls = ndimage.gaussian_filter(cells * 1.0, rng.uniform(0.5, 1.5))
        field += rng.uniform(-0.4, 0.4) * walls.astype(np.float32)
    return field


def _clutter(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Field:
    """Things on the ground that are no objects: walls, threads, small dots."""
    field = np.zeros(shape, np.float32)
    if rng.random() < 0.35:
        size = diameter * rng.uniform(1.5, 4)
        walls = borders(tessellate(rng, shape, size, 0.0), "thick")
        walls = ndimage.gaussian_filter(walls * 1.0, rng.uniform(0.5, 2))
        field += rng.uniform(-0.6, 0.6) * walls.astype(np.float32)
    if rng.random() < 0.35:
        level = texture(rng, shape, diameter * rng.uniform(0.5, 2))
        thread = np.exp(-((level / rng.uniform(0.05, 0.15)) ** 2))
        field += rng.uniform(-0.4, 0.4) * thread
    if rng.random() < 0.4:
        field += _grains(rng, shape, diameter)
    return field


def _grains(rng: np.random.Generator, shape: tuple[int, int], diameter: float) -> Field:
    """Small bright or dark bodies, a fifth of an object wide; often none."""
    field = np.zeros(shape, np.float32)
    if rng.random() < 0.5:
        return field
    sigma = max(0.6, diameter * rng.uniform(0.02, 0.08))
    dots = rng.random(shape) < rng.uniform(0.1, 1.0) / (6 * sigma) ** 2
    spots = ndimage.gaussian_filter(dots * 1.0, sigma) * (2 * np.pi * sigma**2)
    field += rng.uniform(-0.6, 0.6) * np.clip(spots, 0, 1).astype(np.float32)
    return field


def _touch(labels: Labels) -> bool:
    """Whether more than a few pixels of outlines lie between two objects."""
    inner = borders(labels, "inner")
    outer = ndimage.minimum_filter(labels, 3) == 0
    return bool((inner & ~outer).sum() > 0.05 * max(int(inner.sum()), 1))


def _rim(rng: np.random.Generator, labels: Labels, diameter: float) -> Field:
    """Outlines, brighter or darker; some with gaps."""
    wide = rng.uniform(0.6, max(0.9, 0.06 * diameter))
    rim = np.exp(-(((depth(labels) - 1) / wide) ** 2)) * (labels > 0)
    if rng.random() < 0.25:
        rim = rim * (texture(rng, labels.shape, diameter) > rng.uniform(-1.5, 0))
    sign = float(rng.choice([-1.0, 1.0]))
    field: Field = (sign * rng.uniform(0.15, 0.6) * rim).astype(np.float32)
    return field


def _halo(rng: np.random.Generator, labels: Labels, diameter: float) -> Field:
    """Light or shade that objects cast around them."""
    away = ndimage.distance_transform_edt(labels == 0)
    halo = np.exp(-away / (rng.uniform(0.02, 0.12) * diameter + 0.5))
    field: Field = (rng.uniform(-0.4, 0.4) * halo * (labels == 0)).astype(np.float32)
    return field

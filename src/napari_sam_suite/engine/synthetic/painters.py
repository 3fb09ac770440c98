"""The painters of synthetic scenes: one per kind of microscopy.

Shapes are ellipses with a wavy outline, bent capsules, or the cells of a warped
Voronoi diagram; each kind paints them its own way, in intensities of 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from napari_sam_suite.engine.synthetic.anything import paint_anything
from napari_sam_suite.engine.synthetic.bacteria import paint_colony
from napari_sam_suite.engine.synthetic.canvas import Canvas
from napari_sam_suite.engine.synthetic.shapes import (
    Field,
    Labels,
    borders,
    depth,
    disc,
    per_object,
    rod,
    scatter,
    specks,
    stamp,
    tessellate,
    texture,
    tidy,
)
from napari_sam_suite.engine.synthetic.tissue import (
    paint_immunostained,
    paint_stained,
)


def _glow(
    rng: np.random.Generator, labels: Labels, diameter: float, contrast: float
) -> Field:
    """Fluorescent bodies: a level each, inner texture, soft shoulders, haze."""
    shape = labels.shape
    level = per_object(rng, labels, 1 - contrast, 1.0)
    grain = texture(rng, shape, diameter / rng.uniform(4, 12))
    body = level * (1 + rng.uniform(0, 0.25) * grain)
    dome = np.clip(depth(labels) / (rng.uniform(0.02, 0.3) * diameter + 0.5), 0, 1)
    body = body * (0.55 + 0.45 * dome)
    haze = ndimage.gaussian_filter(body, diameter * 0.5) * rng.uniform(0, 0.35)
    light: Field = body + haze + rng.uniform(0.01, 0.15)
    return light


def _paint_nuclei(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Canvas:
    labels = scatter(
        rng, shape, diameter, rng.uniform(0.05, 0.3), overlap=-rng.uniform(1, 4)
    )
    light = _glow(rng, labels, diameter, rng.uniform(0.1, 0.75))
    light += rng.uniform(0, 0.5) * specks(rng, shape, diameter / 12)
    return Canvas(light, labels)


def _paint_touching(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Canvas:
    labels = scatter(
        rng,
        shape,
        diameter,
        rng.uniform(0.4, 0.9),
        overlap=rng.uniform(0.05, 0.25),
        clusters=0.75,
        stretch=(1.0, 1.45),
    )
    light = _glow(rng, labels, diameter, rng.uniform(0.15, 0.6))
    if rng.random() < 0.5:
        seam = borders(labels, "inner")
        light = light * (1 - rng.uniform(0.1, 0.5) * seam)
    return Canvas(light.astype(np.float32), labels)


def _paint_cells(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Canvas:
    """Cytoplasm with a nucleus in each cell; the nucleus is the object's part."""
    labels = scatter(
        rng,
        shape,
        diameter,
        rng.uniform(0.3, 0.8),
        overlap=rng.uniform(0.02, 0.2),
        clusters=0.5,
        stretch=(1.0, 1.6),
        wave=0.25,
    )
    parts = np.zeros_like(labels)
    deep = depth(labels)
    share = rng.uniform(0.45, 0.65)
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = (labels[box] == value) * deep[box]
        y, x = np.unravel_index(int(inside.argmax()), inside.shape)
        radius = max(2.5, share * float(inside.max()))
        core = np.zeros(inside.shape, np.uint16)
        stamp(core, disc(rng, radius, 1.1, 0.05), int(y), int(x), value, 0.0)
        parts[box][(core > 0) & (inside > 0)] = value
    sign = rng.choice([1.0, 1.0, -0.6])
    light = 0.45 * _glow(rng, labels, diameter, 0.4)
    light = light + sign * 0.3 * ndimage.gaussian_filter((parts > 0) * 1.0, 0.8)
    return Canvas(np.clip(light, 0, None).astype(np.float32), labels, parts)


def _paint_membrane(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Canvas:
    labels = tessellate(rng, shape, diameter, rng.choice([0.0, 0.1, 0.4]))
    wall = borders(labels, "thick").astype(np.float32)
    wall = ndimage.gaussian_filter(wall, rng.uniform(0.5, 0.05 * diameter + 0.6))
    wall /= max(float(wall.max()), 1e-6)
    patchy = 1 + rng.uniform(0, 0.35) * texture(rng, shape, diameter)
    inside = per_object(rng, labels, 0.0, 0.35)
    inside = inside * (1 + 0.2 * texture(rng, shape, diameter / 6))
    light = wall * np.clip(patchy, 0.15, None) + inside + rng.uniform(0.02, 0.15)
    return Canvas(light.astype(np.float32), labels)


def _paint_phase(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Canvas:
    """Phase contrast: grey bodies near the background's grey, bright halos."""
    labels = scatter(
        rng,
        shape,
        diameter,
        rng.uniform(0.1, 0.6),
        overlap=rng.uniform(0, 0.12),
        clusters=0.4,
        stretch=(1.0, 2.2),
        wave=rng.uniform(0.1, 0.5),
        spread=0.3,
    )
    body = (labels > 0).astype(np.float32)
    width = rng.uniform(0.03, 0.1) * diameter + 0.7
    halo = ndimage.gaussian_filter(body, 2 * width) * (1 - body)
    rim = borders(labels, "inner").astype(np.float32)
    rim = ndimage.gaussian_filter(rim, rng.uniform(0.4, 1.2))
    light = 0.45 + rng.uniform(0.2, 1.0) * halo - rng.uniform(0, 0.5) * rim
    light = light - body * rng.uniform(-0.08, 0.15)
    light = light + body * 0.08 * texture(rng, shape, max(2.0, diameter / 8))
    dots = ndimage.gaussian_filter((rng.random(shape) < 0.01) * body, 0.9)
    light = light - dots * rng.uniform(0, 1.2)
    light = light + 0.02 * texture(rng, shape, diameter)
    light = light + rng.uniform(0, 0.4) * specks(rng, shape, diameter / 10)
    return Canvas(light.astype(np.float32), labels)


def _paint_rods(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Canvas:
    """Bacteria, alone or in rafts; bright or as dark bodies in phase contrast."""
    labels = np.zeros(shape, np.uint16)
    width = max(4.0, diameter / 2.5)
    turn, agree = rng.uniform(0, np.pi), rng.choice([0.15, 0.6, 3.0])
    cover = rng.uniform(0.15, 1.3)
    tries = int(np.clip(cover * shape[0] * shape[1] / (width * 3 * width), 3, 500))
    for count in range(tries):
        y, x = (int(v) for v in rng.uniform(0, shape))
        angle = turn + rng.normal(0, agree) + 0.6 * np.sin(3 * y / shape[0])
        length = width * rng.uniform(1.4, 6)
        mask = rod(rng, width * rng.uniform(0.85, 1.15), length, angle)
        stamp(labels, mask, y, x, count + 1, 0.12)
    labels = tidy(labels)
    if rng.random() < 0.5:
        return Canvas(_glow(rng, labels, width, 0.4), labels)
    body = ndimage.gaussian_filter((labels > 0) * 1.0, rng.uniform(0.5, 1.2))
    rim = borders(labels, "inner") * rng.uniform(0, 0.3)
    halo = ndimage.gaussian_filter(body, width) - 0.6 * body
    light = 0.6 - body * rng.uniform(0.2, 0.5) + rim + rng.uniform(0, 0.5) * halo
    return Canvas(light.astype(np.float32), labels)


def _paint_yeast(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Canvas:
    """Round budding cells in transmitted light: dark and bright rings."""
    labels = scatter(
        rng,
        shape,
        diameter,
        rng.uniform(0.2, 0.8),
        overlap=0.06,
        clusters=0.7,
        stretch=(1.0, 1.15),
        wave=0.03,
        spread=0.28,
    )
    deep = depth(labels)
    outside = ndimage.distance_transform_edt(labels == 0)
    wide = rng.uniform(0.04, 0.1) * diameter + 0.8
    ring = np.exp(-(((deep - wide) / wide) ** 2)) * (labels > 0)
    halo = np.exp(-((outside / wide) ** 2)) * (labels == 0)
    sign = rng.choice([-1.0, 1.0])
    light = 0.5 + sign * (rng.uniform(0.2, 0.5) * ring - rng.uniform(0.1, 0.4) * halo)
    grain = texture(rng, shape, diameter / 6)
    light = light + (labels > 0) * (rng.uniform(-0.1, 0.1) + 0.05 * grain)
    return Canvas(light.astype(np.float32), labels)


def _paint_organelles(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Canvas:
    """Electron microscopy: textured ground, dark membranes, striped insides."""
    labels = scatter(
        rng,
        shape,
        diameter,
        rng.uniform(0.15, 0.6),
        overlap=-1.0,
        stretch=(1.0, 1.9),
        wave=0.2,
        spread=0.35,
    )
    ground = 0.55 + 0.1 * texture(rng, shape, 3) + 0.06 * texture(rng, shape, 14)
    walls = borders(tessellate(rng, shape, 3 * diameter, 0.0))
    ground = ground - 0.3 * ndimage.gaussian_filter(walls * 1.0, 1.0)
    phase = 2 * np.pi * texture(rng, shape, diameter / 1.5)
    stripes = np.sin(phase * rng.uniform(0.8, 2)) * rng.uniform(0, 0.15)
    inside = 0.5 + per_object(rng, labels, -0.25, 0.15) + stripes
    inside = inside + 0.08 * texture(rng, shape, 2)
    edge = borders(labels, "inner").astype(np.float32)
    edge = ndimage.gaussian_filter(edge, rng.uniform(0.5, 1.2))
    light = np.where(labels > 0, inside, ground) - rng.uniform(0.2, 0.7) * edge
    return Canvas(light.astype(np.float32), labels)


Painter = Callable[[np.random.Generator, tuple[int, int], float], Canvas]
PAINTERS: dict[str, Painter] = {
    "nuclei": _paint_nuclei,
    "touching nuclei": _paint_touching,
    "cells": _paint_cells,
    "membrane": _paint_membrane,
    "phase": _paint_phase,
    "rods": _paint_rods,
    "yeast": _paint_yeast,
    "organelles": _paint_organelles,
    "stained": paint_stained,
    "immunostained": paint_immunostained,
    "colony": paint_colony,
    "anything": paint_anything,
}
"""How each kind is drawn, from a generator, a shape and a typical diameter."""

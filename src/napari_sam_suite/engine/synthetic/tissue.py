"""Painters of stained tissue: sections and smears in colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_sam_suite.engine.synthetic.canvas import Canvas
from napari_sam_suite.engine.synthetic.shapes import (
    Field,
    Labels,
    borders,
    disc,
    per_object,
    scatter,
    stamp,
    texture,
    tidy,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STAINS = {
    "haematoxylin": ((0.36, 0.22, 0.55), (0.90, 0.66, 0.80)),
    "purple on white": ((0.35, 0.20, 0.60), (0.94, 0.92, 0.95)),
    "purple on purple": ((0.33, 0.20, 0.62), (0.72, 0.62, 0.88)),
    "brown": ((0.38, 0.24, 0.16), (0.86, 0.86, 0.92)),
    "blue": ((0.15, 0.25, 0.55), (0.85, 0.88, 0.90)),
}
_DYES = np.array([[0.65, 0.70, 0.29], [0.27, 0.51, 0.82]])
"""Absorption of haematoxylin and DAB in RGB (near Ruifrok and Johnston 2001)."""


def paint_stained(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Canvas:
    """Stained tissue in colour: dark nuclei on a mottled ground, fibres, gaps."""
    labels = scatter(
        rng,
        shape,
        diameter,
        rng.uniform(0.1, 0.6),
        overlap=rng.uniform(0, 0.15),
        clusters=0.3,
        stretch=(1.0, 2.0),
        wave=0.18,
        spread=0.3,
    )
    dark, ground = (np.array(c) for c in list(_STAINS.values())[rng.integers(5)])
    dark = dark + rng.normal(0, 0.05, 3)
    ground = ground + rng.normal(0, 0.04, 3)
    mottle = 0.06 * texture(rng, shape, diameter) + 0.04 * texture(rng, shape, 4)
    fibres = np.sin(2.5 * texture(rng, shape, 2 * diameter) + 3 * mottle)
    tissue = np.clip(rng.uniform(0, 0.25) * (1 + fibres), 0, 1) + mottle
    dye = per_object(rng, labels, rng.uniform(0.3, 0.8), 1.0)
    dye = dye * (1 + 0.18 * texture(rng, shape, max(1.5, diameter / 7)))
    dye = ndimage.gaussian_filter(dye, rng.uniform(0.3, 0.06 * diameter + 0.4))
    mix = np.clip(np.maximum(dye, 0.6 * tissue + 0.3 * dye), 0, 1.1)[..., None]
    light = ground * (1 - mix) + dark * mix
    if rng.random() < 0.5:
        gaps = ndimage.gaussian_filter(
            (texture(rng, shape, 2 * diameter) > 1.1) & (labels == 0), 1.5
        )[..., None]
        light = light * (1 - gaps) + 0.95 * gaps
    return Canvas(light.astype(np.float32), labels)


def paint_immunostained(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Canvas:
    """Blue nuclei in tissue whose glands carry a brown marker.

    Glands are sheets of columns: long pale nuclei that stand on the gland's edge and
    point to its lumen, each in a cell of its own with a brown wall.
    """
    diameter = min(diameter, 0.1 * min(shape))
    bulk = ndimage.gaussian_filter(
        texture(rng, shape, rng.uniform(4, 9) * diameter), 0.5 * diameter
    )
    gland = bulk > rng.uniform(-0.7, 0.6)
    lumen = bulk > rng.uniform(1.1, 2.2)
    axis = np.stack(np.gradient(bulk))
    axis = axis / np.maximum(np.hypot(*axis), 1e-6)
    columns = _columns(rng, gland & ~lumen, axis, diameter)
    spindles = scatter(rng, shape, 0.7 * diameter, 0.35, overlap=0, stretch=(1.5, 3.5))
    spindles = np.where(gland | lumen, 0, spindles)
    labels = tidy(np.where(spindles, spindles + len(np.unique(columns)), columns))
    tissue = ndimage.gaussian_filter((gland & ~lumen) * 1.0, 0.1 * diameter + 0.5)
    brown = tissue * _marker(rng, columns, axis, diameter)
    over = ndimage.gaussian_filter(
        per_object(rng, labels, 0.3, rng.uniform(0.5, 0.95)) * (labels > 0), 0.7
    )
    brown = brown * (1 - over) * rng.choice([0.0, 1.0, 1.0, 1.0, 1.0])
    blue = per_object(rng, labels, 0.25, rng.uniform(0.45, 1.1))
    blue = blue * (1 - rng.uniform(0, 0.6) * tissue)
    blue = blue * (1 + 0.2 * texture(rng, shape, max(1.5, diameter / 6)))
    blue = ndimage.gaussian_filter(blue, rng.uniform(0.3, 0.06 * diameter + 0.4))
    fibres = np.abs(texture(rng, shape, 0.6 * diameter))
    blue = blue + rng.uniform(0.02, 0.1) * fibres * (1 - lumen) * (1 - 0.7 * tissue)
    dyes = _DYES + rng.normal(0, 0.05, (2, 3))
    dyes[0, :2] -= rng.uniform(0, 0.25) * np.array([0, 1])
    density = np.stack([blue, np.clip(brown, 0, None)], -1) @ np.clip(dyes, 0, None)
    light = rng.uniform(0.93, 1.0, 3) * np.exp(-1.6 * np.clip(density, 0, None))
    return Canvas(light.astype(np.float32), labels)


def _columns(
    rng: np.random.Generator, gland: NDArray[np.bool_], axis: Field, diameter: float
) -> Labels:
    """Nuclei inside `gland` that lie along the (y, x) directions `axis`."""
    labels = np.zeros(gland.shape, np.uint16)
    inside = np.argwhere(gland)
    if not len(inside):
        return labels
    slim = rng.uniform(1.1, 2.8)
    crowd = rng.uniform(0.5, 1.6)
    tries = int(np.clip(crowd * len(inside) / (0.785 * diameter**2), 2, 600))
    for value in range(1, tries + 1):
        y, x = (int(v) for v in inside[rng.integers(len(inside))])
        radius = max(2.5, diameter / 2 * np.exp(rng.normal(0, 0.18)))
        turn = float(np.arctan2(axis[1, y, x], axis[0, y, x])) + rng.normal(0, 0.2)
        stretch = float(max(1.0, slim * np.exp(rng.normal(0, 0.15))))
        mask = disc(rng, radius, stretch, 0.1, turn)
        stamp(labels, mask, y, x, value, rng.choice([-1.0, 0.0, 0.1]))
    return np.where(gland, labels, 0).astype(np.uint16)


def _marker(
    rng: np.random.Generator, nuclei: Labels, axis: Field, diameter: float
) -> Field:
    """Brown in the cells around `nuclei`: thick patchy walls, streaked insides."""
    shape = nuclei.shape
    near = ndimage.distance_transform_edt(
        nuclei == 0, return_distances=False, return_indices=True
    )
    walls = borders(nuclei[tuple(near)]).astype(np.float32)
    if not nuclei.any():
        walls = np.zeros(shape, np.float32)
    walls = ndimage.gaussian_filter(walls, rng.uniform(0.03, 0.12) * diameter + 0.4)
    walls = walls / max(float(walls.max()), 1e-6)
    patchy = np.clip(1 + rng.uniform(0.2, 0.6) * texture(rng, shape, diameter), 0, 2)
    streaks = _comb(texture(rng, shape, max(1.5, 0.12 * diameter)), axis, diameter)
    mottle = np.clip(1 + rng.uniform(0.1, 0.5) * streaks, 0.1, 2.5)
    inside = rng.uniform(0.2, 0.8)
    field: Field = (inside + rng.uniform(0.4, 1.4) * walls * patchy) * mottle
    return field


def _comb(field: Field, axis: Field, length: float) -> Field:
    """`field` smeared over `length` pixels along the (y, x) directions `axis`."""
    rows, columns = np.indices(field.shape, np.float32)
    total = np.zeros_like(field)
    for step in np.linspace(-length / 2, length / 2, 9):
        places = (rows + step * axis[0], columns + step * axis[1])
        total += ndimage.map_coordinates(field, places, order=1, mode="reflect")
    result: Field = total / max(float(total.std()), 1e-6)
    return result

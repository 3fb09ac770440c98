"""Synthetic microscopy with exact truth: sample data, tests and training.

``synthesize`` draws one scene of a kind (nuclei, membranes, phase contrast, rods,
stained tissue, ...) together with its instance labels. The same seed always gives
the same pixels. Shapes are ellipses with a wavy outline, bent capsules, or the
cells of a warped Voronoi diagram; each kind then paints them its own way and a
common microscope model adds uneven light, blur and noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.synthetic_shapes import (
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

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STAINS = {
    "haematoxylin": ((0.36, 0.22, 0.55), (0.90, 0.66, 0.80)),
    "purple on white": ((0.35, 0.20, 0.60), (0.94, 0.92, 0.95)),
    "purple on purple": ((0.33, 0.20, 0.62), (0.72, 0.62, 0.88)),
    "brown": ((0.38, 0.24, 0.16), (0.86, 0.86, 0.92)),
    "blue": ((0.15, 0.25, 0.55), (0.85, 0.88, 0.90)),
}


@dataclass(frozen=True)
class Scene:
    """One synthetic image and its truth.

    Attributes
    ----------
    image : ndarray of uint8 or uint16, (Y, X) or (Y, X, 3)
        The picture; three channels for stained kinds.
    labels : ndarray of uint16, (Y, X)
        Instance ids 1..N, 0 is background.
    parts : ndarray of uint16, (Y, X), optional
        A part of each object (the nucleus of a cell) under the object's own id.
    kind : str
        The name it was asked for.
    seed : int
    """

    image: NDArray[np.uint8] | NDArray[np.uint16]
    labels: Labels
    parts: Labels | None
    kind: str
    seed: int


@dataclass
class _Canvas:
    """What a painter returns: intensities in 0..1 before the microscope."""

    light: Field
    labels: Labels
    parts: Labels | None = None


def synthesize(
    kind: str,
    shape: tuple[int, int] = (256, 256),
    seed: int = 0,
    *,
    diameter: float | None = None,
    noise: float | None = None,
    bits: int = 8,
) -> Scene:
    """Draw one scene.

    Parameters
    ----------
    kind : str
        One of ``KINDS``.
    shape : tuple of int
        (Y, X) in pixels, at least 16 each.
    seed : int
        Same seed, same pixels.
    diameter : float, optional
        Typical object diameter in pixels, 6 to 400. Drawn at random by default.
    noise : float, optional
        Standard deviation of the noise as a share of full scale. Drawn at random
        by default; 0 gives a clean image.
    bits : int
        8 for uint8, 9 to 16 for uint16 of that depth.

    Returns
    -------
    Scene

    Raises
    ------
    ParameterError
        If ``kind`` is unknown, or a number is out of its range.
    """
    if kind not in _PAINTERS:
        raise ParameterError(
            f"There is no kind of synthetic scene called {kind!r}.",
            f"Choose one of: {', '.join(KINDS)}.",
        )
    if min(shape) < 16 or not 8 <= bits <= 16:
        raise ParameterError(
            f"A synthetic scene cannot have the shape {shape} and {bits} bits.",
            "Ask for at least 16 x 16 px and 8 to 16 bits.",
        )
    if diameter is not None and not 6 <= diameter <= 400:
        raise ParameterError(
            f"The object diameter {diameter} is out of range.",
            "Choose a diameter from 6 to 400 px.",
        )
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    if diameter is None:
        diameter = float(np.exp(rng.uniform(np.log(10), np.log(min(shape) / 4))))
    canvas = _PAINTERS[kind](rng, shape, max(6.0, diameter))
    image = _photograph(rng, canvas.light, noise, bits)
    return Scene(image, canvas.labels, canvas.parts, kind, seed)


# --- painters: one per kind -------------------------------------------------


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
) -> _Canvas:
    labels = scatter(
        rng, shape, diameter, rng.uniform(0.05, 0.3), overlap=-rng.uniform(1, 4)
    )
    light = _glow(rng, labels, diameter, rng.uniform(0.1, 0.75))
    light += rng.uniform(0, 0.5) * specks(rng, shape, diameter / 12)
    return _Canvas(light, labels)


def _paint_touching(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> _Canvas:
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
    return _Canvas(light.astype(np.float32), labels)


def _paint_cells(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> _Canvas:
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
    return _Canvas(np.clip(light, 0, None).astype(np.float32), labels, parts)


def _paint_membrane(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> _Canvas:
    labels = tessellate(rng, shape, diameter, rng.choice([0.0, 0.1, 0.4]))
    wall = borders(labels, "thick").astype(np.float32)
    wall = ndimage.gaussian_filter(wall, rng.uniform(0.5, 0.05 * diameter + 0.6))
    wall /= max(float(wall.max()), 1e-6)
    patchy = 1 + rng.uniform(0, 0.35) * texture(rng, shape, diameter)
    inside = per_object(rng, labels, 0.0, 0.35)
    inside = inside * (1 + 0.2 * texture(rng, shape, diameter / 6))
    light = wall * np.clip(patchy, 0.15, None) + inside + rng.uniform(0.02, 0.15)
    return _Canvas(light.astype(np.float32), labels)


def _paint_phase(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> _Canvas:
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
    return _Canvas(light.astype(np.float32), labels)


def _paint_rods(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> _Canvas:
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
        return _Canvas(_glow(rng, labels, width, 0.4), labels)
    body = ndimage.gaussian_filter((labels > 0) * 1.0, rng.uniform(0.5, 1.2))
    rim = borders(labels, "inner") * rng.uniform(0, 0.3)
    halo = ndimage.gaussian_filter(body, width) - 0.6 * body
    light = 0.6 - body * rng.uniform(0.2, 0.5) + rim + rng.uniform(0, 0.5) * halo
    return _Canvas(light.astype(np.float32), labels)


def _paint_yeast(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> _Canvas:
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
    return _Canvas(light.astype(np.float32), labels)


def _paint_organelles(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> _Canvas:
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
    return _Canvas(light.astype(np.float32), labels)


def _paint_stained(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> _Canvas:
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
    return _Canvas(light.astype(np.float32), labels)


_Painter = Callable[[np.random.Generator, tuple[int, int], float], _Canvas]
_PAINTERS: dict[str, _Painter] = {
    "nuclei": _paint_nuclei,
    "touching nuclei": _paint_touching,
    "cells": _paint_cells,
    "membrane": _paint_membrane,
    "phase": _paint_phase,
    "rods": _paint_rods,
    "yeast": _paint_yeast,
    "organelles": _paint_organelles,
    "stained": _paint_stained,
}
KINDS: tuple[str, ...] = tuple(_PAINTERS)


def _photograph(
    rng: np.random.Generator, light: Field, noise: float | None, bits: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Uneven light, defocus, photon and camera noise, digits."""
    shape = light.shape[:2]
    level = float(rng.choice([0.01, 0.03, 0.08])) if noise is None else noise
    ys, xs = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    tilt = 1 + rng.uniform(-0.25, 0.25) * ys + rng.uniform(-0.25, 0.25) * xs
    sigma = float(rng.choice([0.0, 0.6, 1.2]))
    if light.ndim == 3:
        tilt = (0.5 + 0.5 * tilt)[..., None]
    if sigma:
        light = ndimage.gaussian_filter(light, sigma, axes=(0, 1))
    light = np.clip(light * tilt, 0, None)
    light = light / max(float(light.max()), 1e-6) if light.ndim == 2 else light
    if level > 0:
        photons = rng.standard_normal(light.shape) * np.sqrt(light) * level
        camera = rng.standard_normal(light.shape) * level * 0.5
        light = light + photons + camera
    top = 2**bits - 1
    digits: Field = np.clip(np.round(light * top * 0.95), 0, top)
    if bits == 8:
        return digits.astype(np.uint8)
    return digits.astype(np.uint16)

"""Rod-shaped bacteria in microcolonies: side by side, end to end, touching."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.segmentation import expand_labels

from napari_sam_suite.engine.synthetic.canvas import Canvas
from napari_sam_suite.engine.synthetic.shapes import (
    Field,
    Labels,
    depth,
    disc,
    per_object,
    rod,
    stamp,
    texture,
    tidy,
)


def paint_colony(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> Canvas:
    """Colonies in phase contrast, or fluorescent ones.

    In phase contrast bodies are dark and scatter light around them: alone they have a
    halo, in a crowd the light of the others fills the gaps.
    """
    width = max(4.0, diameter / 2)
    rows = _rows if rng.random() < 0.6 else _crowd
    labels = _kept(rng, rows(rng, shape, width), width)
    dome = np.clip(depth(labels) / (width * rng.uniform(0.2, 0.5)), 0, 1)
    body = np.sqrt(dome) * per_object(rng, labels, 0.7, 1.0)
    body = body * (1 + rng.uniform(0, 0.12) * texture(rng, shape, width / 2))
    body = ndimage.gaussian_filter(body, rng.uniform(0.06, 0.16) * width)
    around = ndimage.gaussian_filter(body, rng.uniform(0.8, 3) * width)
    if rng.random() < 0.25:
        light = body + rng.uniform(0.1, 0.6) * around + rng.uniform(0.02, 0.2)
    else:
        strength = rng.uniform(0.2, 0.55)
        light = 0.5 + strength * (rng.uniform(0.5, 1.1) * around - body)
        light = light + rng.uniform(0, 0.03) * texture(rng, shape, 4 * width)
    return Canvas(np.clip(light, 0, None).astype(np.float32), labels)


def _rows(rng: np.random.Generator, shape: tuple[int, int], width: float) -> Labels:
    """Rods end to end in bent rows side by side."""
    ys, xs = np.indices(shape, np.float32)
    turn = rng.uniform(0, np.pi)
    grain = width * rng.uniform(6, 20)
    bend = width * rng.uniform(0.2, 2.5)
    along = xs * np.cos(turn) + ys * np.sin(turn) + bend * texture(rng, shape, grain)
    across = ys * np.cos(turn) - xs * np.sin(turn) + bend * texture(rng, shape, grain)
    row = np.floor(across / width).astype(int)
    off = across - (row + 0.5) * width
    reach = sum(shape) + 4 * bend
    mean, spread = width * rng.uniform(2, 5), rng.uniform(0.15, 0.5)
    radius = width / 2 * rng.uniform(0.82, 1.0)
    labels = np.zeros(shape, np.int32)  # more ids than rods that can be seen
    count = 1
    for one in range(int(row.min()), int(row.max()) + 1):
        here = row == one
        number = int(3 * reach / mean) + 2
        lengths = np.maximum(mean * np.exp(rng.normal(0, spread, number)), 1.4 * width)
        ends = np.cumsum(lengths) - reach - rng.uniform(0, mean)
        which = np.clip(np.searchsorted(ends, along[here]), 1, number - 1)
        middle = (ends[which] + ends[which - 1]) / 2
        straight = lengths[which] / 2 - radius
        past = np.maximum(np.abs(along[here] - middle) - straight, 0)
        inside = past**2 + off[here] ** 2 <= radius**2
        labels[here] = np.where(inside, count + which, 0)
        count += number
    seen = np.unique(labels[labels > 0])
    names = np.zeros(count + 1, np.uint16)
    names[seen] = np.arange(1, len(seen) + 1)
    return tidy(names[labels])


def _crowd(rng: np.random.Generator, shape: tuple[int, int], width: float) -> Labels:
    """Rods pushed together, each a little to its own side."""
    labels = np.zeros(shape, np.uint16)
    way = rng.uniform(0, np.pi) + rng.uniform(0.3, 1.5) * texture(
        rng, shape, width * rng.uniform(8, 30)
    )
    mean, agree = rng.uniform(1.8, 5), rng.uniform(0.05, 0.35)
    tries = int(np.clip(4 * shape[0] * shape[1] / (mean * width**2), 3, 2500))
    for count in range(tries):
        y, x = (int(rng.integers(n)) for n in shape)
        if labels[y, x]:
            continue
        length = width * max(1.4, mean * np.exp(rng.normal(0, 0.3)))
        turn = float(way[y, x]) + rng.normal(0, agree)
        stamp(labels, rod(rng, width, length, turn), y, x, count + 1, 0.2)
    grown: Labels = expand_labels(tidy(labels), width * rng.uniform(0, 0.3))
    return grown


def _kept(rng: np.random.Generator, labels: Labels, width: float) -> Labels:
    """Those that lie in a few round colonies, or everywhere."""
    if rng.random() < 0.25:
        return labels
    shape = labels.shape
    inside = np.zeros(shape, np.uint16)
    for _ in range(int(rng.integers(1, 5))):
        most = max(1.6 * width, 0.45 * min(shape))
        radius = rng.uniform(1.5 * width, most)
        y, x = (int(rng.integers(n)) for n in shape)
        blob = disc(rng, radius, rng.uniform(1, 2.2), 0.25)
        stamp(inside, blob, y, x, 1, 1.0)
    share: Field = ndimage.mean(inside > 0, labels, np.arange(labels.max() + 1))
    keep = share > 0.5
    keep[0] = False
    return tidy(np.where(keep[labels], labels, 0).astype(np.uint16))

"""Synthetic microscopy with exact truth: sample data, tests and training.

``synthesize`` draws one scene of a kind (nuclei, membranes, phase contrast, rods,
stained tissue, ...) together with its instance labels. The same seed always gives
the same pixels. The kinds are painted in `painters` and `tissue`; here a common
microscope model adds uneven light, blur and noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.synthetic.painters import PAINTERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.synthetic.shapes import Field, Labels

KINDS: tuple[str, ...] = tuple(PAINTERS)


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
    if kind not in PAINTERS:
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
    canvas = PAINTERS[kind](rng, shape, max(6.0, diameter))
    image = _photograph(rng, canvas.light, noise, bits)
    return Scene(image, canvas.labels, canvas.parts, kind, seed)


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

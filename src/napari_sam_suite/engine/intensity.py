"""Arithmetic on intensities: their range, their share of a colour, their mixture."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Blend = Literal["lighten", "add", "screen"]
Limits = tuple[float, float]


def sample_values(plane: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Take finite values evenly from rows and columns.

    Parameters
    ----------
    plane : ndarray, shape (..., Y, X)
        Boolean, integer or real.
    count : int
        About how many.

    Returns
    -------
    ndarray of float64, shape (N,)
        Empty where there is no finite value.
    """
    stride = math.ceil(math.sqrt(max(1, plane.size / count)))
    values = plane[..., ::stride, ::stride].astype(np.float64).ravel()
    return values[np.isfinite(values)] if plane.dtype.kind == "f" else values


def percentile_limits(values: NDArray[np.float64], percentiles: Limits) -> Limits:
    """Intensities at two percentiles.

    Parameters
    ----------
    values : ndarray of float64, shape (N,)
        Finite.
    percentiles : tuple of float
        Low and high, 0..100.

    Returns
    -------
    tuple of float
        The whole range where two different percentiles fall on one intensity, as
        they do with a few bright spots on black; 0 and 1 without any value.
    """
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, percentiles)
    if low == high and percentiles[0] < percentiles[1]:
        low, high = values.min(), values.max()
    return float(low), float(high)


class Ramp:
    """Intensities to shares of full colour, 0..1.

    ``clip((v - low) / (high - low), 0, 1) ** gamma``; where low equals high, 1 above
    them and 0 elsewhere; 0 for NaN and infinite values.

    Parameters
    ----------
    dtype : numpy.dtype
        Of the intensities, in this machine's byte order.
    limits : tuple of float
        Low and high.
    gamma : float
        Exponent.
    """

    def __init__(self, dtype: np.dtype[Any], limits: Limits, gamma: float = 1.0):
        self._limits = limits
        self._gamma = gamma
        self._codes: np.dtype[Any] | None = None
        if dtype.kind in "biu" and dtype.itemsize <= 2:
            codes = np.arange(1 << (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
            self._codes = codes.dtype
            self._table = self._compute(
                codes if dtype.kind == "b" else codes.view(dtype)
            )

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return the share of each value, same shape."""
        if self._codes is None:
            return self._compute(values)
        return self._table.take(values.view(self._codes))

    def _compute(self, values: NDArray[Any]) -> NDArray[np.float32]:
        low, high = self._limits
        if low == high:
            share = (values > low).astype(np.float64)
        else:
            with np.errstate(over="ignore"):
                share = (values.astype(np.float64) - low) / (high - low)
            share = share.clip(0, 1)
            if self._gamma != 1:
                share **= self._gamma
        if values.dtype.kind == "f":
            share[~np.isfinite(values)] = 0
        return share.astype(np.float32)


def mix(
    shares: Sequence[NDArray[np.float32]], weights: Sequence[float], blend: Blend
) -> NDArray[np.float32]:
    """Blend several planes into one colour component.

    Parameters
    ----------
    shares : sequence of ndarray, shape (Y, X)
        In 0..1, at least one.
    weights : sequence of float
        How much of the component is in the colour of each plane, 0..1.
    blend : {"lighten", "add", "screen"}
        Largest value; sum, cut at 1; one minus the product of what is missing to 1.

    Returns
    -------
    ndarray of float32, shape (Y, X)
        In 0..1.
    """
    parts = [
        share * np.float32(weight)
        for share, weight in zip(shares, weights, strict=True)
        if weight
    ]
    if not parts:
        return np.zeros_like(shares[0])
    if blend == "lighten":
        return functools.reduce(np.maximum, parts)
    if blend == "add":
        total: NDArray[np.float32] = functools.reduce(np.add, parts).clip(max=1)
        return total
    missing = functools.reduce(np.multiply, [1 - part for part in parts])
    screened: NDArray[np.float32] = np.float32(1) - missing
    return screened

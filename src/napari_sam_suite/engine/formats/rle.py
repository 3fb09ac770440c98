"""Masks as COCO keeps them: runs of background and object, column by column.

The text form packs each run into characters of six bits, from the third on as the
difference to the run before the last (``rleToString`` of the COCO API, Lin et al.,
2014).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_BITS, _MORE, _SIGN, _ZERO = 0x1F, 0x20, 0x10, 48


def encode(
    crop: NDArray[np.bool_], origin: tuple[int, int], shape: tuple[int, int]
) -> dict[str, Any]:
    """Run-length encode a mask of which only a crop is given.

    Parameters
    ----------
    crop : (h, w) array of bool
    origin : tuple of int
        ``(y, x)`` of its first pixel.
    shape : tuple of int
        ``(H, W)`` of the whole mask.

    Returns
    -------
    dict
        ``size`` and ``counts``, the latter as text.
    """
    height, width = shape
    edges = np.diff(np.pad(crop.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    column, row = np.nonzero(edges == 1)
    start = (column + origin[1]) * height + row + origin[0]
    column, row = np.nonzero(edges == -1)
    stop = (column + origin[1]) * height + row + origin[0]
    # Objects as high as the image go on in the next column.
    apart = start[1:] != stop[:-1]
    if start.size:
        start, stop = start[np.r_[True, apart]], stop[np.r_[apart, True]]
    ends = np.append(np.stack([start, stop], axis=1).ravel(), height * width)
    counts = np.diff(ends, prepend=0).tolist()
    if not counts[-1]:
        counts.pop()
    return {"size": [height, width], "counts": _pack(counts)}


def decode(
    code: Any, shape: tuple[int, int]
) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Crop and origin of a run-length encoded mask.

    Parameters
    ----------
    code : dict
        ``size`` and ``counts``, the latter as text or as a list.
    shape : tuple of int
        ``(H, W)`` that it has to be of.

    Returns
    -------
    (h, w) array of bool
        The pixels from the first to the last one; ``(0, 0)`` where there is none.
    tuple of int
        ``(y, x)`` of the first.

    Raises
    ------
    ValueError
        If it is no mask of this shape.
    """
    height, width = shape
    if not isinstance(code, dict) or list(code.get("size") or ()) != [height, width]:
        raise ValueError(f"a mask is not of {height} x {width} pixels")
    counts = code.get("counts")
    counts = _unpack(counts) if isinstance(counts, str) else counts
    if not isinstance(counts, list):
        raise ValueError("a mask has no runs")
    runs = np.array(counts, dtype=np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError("the runs of a mask do not fill its image")
    ends = np.cumsum(runs)
    start, stop = ends[:-1:2], ends[1::2]
    start, stop = start[: stop.size][stop > start], stop[stop > start]
    if not start.size:
        return np.zeros((0, 0), dtype=bool), (0, 0)
    left, right = int(start[0]) // height, int(stop[-1] - 1) // height + 1
    change = np.zeros((right - left) * height + 1, dtype=np.int8)
    np.add.at(change, start - left * height, 1)
    np.add.at(change, stop - left * height, -1)
    strip = np.cumsum(change[:-1], dtype=np.int8).astype(bool).reshape(-1, height).T
    rows = np.flatnonzero(strip.any(axis=1))
    top = int(rows[0])
    return strip[top : int(rows[-1]) + 1], (top, left)


def _pack(counts: Sequence[int]) -> str:
    text = []
    for value, before in zip(counts, (0, 0, 0, *counts[1:]), strict=False):
        rest, more = value - before, True
        while more:
            bits = rest & _BITS
            rest >>= 5
            more = rest != (-1 if bits & _SIGN else 0)
            text.append(chr((bits | _MORE if more else bits) + _ZERO))
    return "".join(text)


def _unpack(text: str) -> list[int]:
    counts: list[int] = []
    codes = iter(ord(letter) - _ZERO for letter in text)
    for first in codes:
        value = 0
        for place, bits in enumerate(itertools.chain([first], codes)):
            if not 0 <= bits < 2 * _MORE or place > 10:
                raise ValueError("the text of a mask has letters that mean nothing")
            value |= (bits & _BITS) << 5 * place
            if not bits & _MORE:
                value -= (bits & _SIGN) << 5 * place + 1
                break
        else:
            raise ValueError("the text of a mask breaks off")
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts

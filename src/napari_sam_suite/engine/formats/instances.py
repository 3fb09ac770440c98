"""Whether an image has one number for each object, or intensities.

Nothing in a TIFF says so. What tells them apart is that an object is one piece or a
few, while an intensity comes back all over the image, beside others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FEW = 256
"""Pairs of neighbouring pixels from which it can be told what they are."""
_KINDS = 16
"""Numbers below this may be kinds of tissue, each in many pieces."""
_TOUCHING = 0.05
"""Least part of the pairs whose numbers differ, so that holes in objects are none."""
_PIECES = 5
"""Half of the intensities are in 5 pieces or more, usually in 30 to 300; of 88 real
label images half of the objects are in one, and at most in 1.5."""
_STEPS = 0.97
"""Least part of the differences that are 1, where a strong blur leaves few pieces."""


def check_numbers(labels: NDArray[Any], name: str = "This array") -> None:
    """Refuse numbers that no labels have: negative ones and fractions.

    Parameters
    ----------
    labels : array
        Of any type.
    name : str
        How the error calls the file.

    Raises
    ------
    ImageError
        If they cannot be labels.
    """
    if labels.dtype.kind == "i" and labels.min(initial=0) < 0:
        raise ImageError(
            f"{name} has negative numbers, which no labels are.",
            "A label image has 0 for background and a number from 1 for each object.",
        )
    if labels.dtype.kind not in "bui":
        raise ImageError(
            f"{name} does not hold labels but {labels.dtype} values.",
            "A label image has whole numbers, 0 for background.",
        )


def check_instances(labels: NDArray[Any], name: str) -> None:
    """Refuse intensities, which no count of objects fits.

    A blur so strong that each intensity is one piece is not told from touching objects
    which are numbered one after the other.

    Parameters
    ----------
    labels : (..., H, W) array of int or bool
        0 is background.
    name : str
        How the error calls the file.

    Raises
    ------
    ImageError
        If they do not look like labels.
    """
    if labels.size < _FEW:
        return
    planes = labels.reshape(-1, *labels.shape[-2:])
    planes = planes.view(np.uint8) if labels.dtype.kind == "b" else planes
    counts = [_pairs(lines) for plane in planes for lines in (plane, plane.T)]
    pairs, same, steps = (sum(each) for each in zip(*counts, strict=True))
    if pairs < _FEW:
        return
    # Of real label images, 0.92 and more are alike; of intensities usually a third. An
    # image without background asks for more, because all its pixels can be judged.
    least = 2 / 3 if np.count_nonzero(labels) > 0.9 * labels.size else 0.6
    if same < least * pairs:
        raise _refusal(
            name,
            f"only {same / pairs:.0%} of its neighbouring pixels have the same number",
        )
    touching = pairs - same
    stepped = steps >= _STEPS * touching
    if touching < _FEW or not (stepped or touching >= _TOUCHING * pairs):
        return
    pieces = _pieces(planes)
    usual = float(np.median(pieces)) if len(pieces) >= _KINDS else 1.0
    if usual >= (2 if stepped else _PIECES):
        raise _refusal(
            name, f"half of its numbers are in {usual:.0f} or more pieces that touch"
        )


def _refusal(name: str, why: str) -> ImageError:
    return ImageError(
        f"{name} does not look like a label image: {why}, as with intensities.",
        "Give label images, with one number for each object.",
    )


def _pairs(plane: NDArray[Any]) -> tuple[int, int, int]:
    """Neighbours in a row that are not 0: all, alike, and 1 apart."""
    one, other = plane[:, 1:], plane[:, :-1]
    there = (one != 0) & (other != 0)
    one, other = one[there], other[there]
    # Both ways, because unsigned numbers do not go below 0.
    steps = (one - other == 1) | (other - one == 1)
    return len(one), int(np.sum(one == other)), int(np.sum(steps))


def _pieces(planes: NDArray[Any]) -> NDArray[np.intp]:
    """In how many pieces each number of each plane is."""
    from skimage.measure import label

    counts = []
    for plane in planes:
        pieces = label(plane, background=0, connectivity=1)
        firsts = np.unique(pieces, return_index=True)[1]
        numbers = plane.ravel()[firsts]
        counts.append(np.unique(numbers[numbers != 0], return_counts=True)[1])
    return np.concatenate(counts)

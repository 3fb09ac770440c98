"""What an image file holds, whatever its format, and how a reader complains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import ImageError, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_sam_suite.engine.stack import Stack

_MICROMETERS = {
    **dict.fromkeys(("um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("\u00e5", "angstrom"), 1e-4),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
}


@dataclass(frozen=True)
class Calibration:
    """Size of a voxel.

    Attributes
    ----------
    scale : tuple of float
        In z, y and x; 1 where unknown.
    units : str
        ``"micrometer"`` or ``"pixel"``.
    """

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    units: str = "pixel"


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file holds: one stack per position, all alike.

    Attributes
    ----------
    count : int
        Number of stacks.
    stack : callable
        Returns the stack of a 0-based number below `count`.
    channel_names : tuple of str
        As the file has them; empty where it has none.
    calibration : Calibration
        Of the first stack.
    notices : tuple of str
        What the user should know of how it is understood.
    """

    count: int
    stack: Callable[[int], Stack]
    channel_names: tuple[str, ...] = ()
    calibration: Calibration = Calibration()
    notices: tuple[str, ...] = ()


def too_large(what: str, shape: tuple[int, int] | None = None) -> OutOfMemory:
    """Say that an image does not fit into memory.

    Parameters
    ----------
    what : str
        The beginning of the sentence.
    shape : (int, int), optional
        Rows and columns, where they are known.

    Returns
    -------
    OutOfMemory
    """
    size = f": it has {shape[0]} x {shape[1]} pixels" if shape else ""
    return OutOfMemory(
        f"{what} does not fit into the memory{size}.",
        "Close other programs, or cut the image into smaller ones.",
    )


def reason(error: Exception) -> str:
    """Put what a reader complained about into the end of a sentence.

    Parameters
    ----------
    error : Exception
        From a reading library.

    Returns
    -------
    str
        ``": its first line"``; empty where it would tell a person nothing.
    """
    lines = str(error).strip().splitlines()
    if not lines or not isinstance(error, OSError | ValueError | RuntimeError):
        return ""
    return f": {lines[0][:160].rstrip('. ')}"


def check_alike(stack: Stack, number: int, first: Stack, path: Path) -> Stack:
    """Return `stack`, the 0-based `number` in a file, if it is like the `first`.

    Raises
    ------
    ImageError
        If their shapes or kinds of number differ.
    """
    if (stack.sizes, stack.rgb, stack.dtype) == (first.sizes, first.rgb, first.dtype):
        return stack
    raise ImageError(
        f"{path.name!r} holds images that differ: number 1 has shape "
        f"{first.array.shape} of {first.dtype}, number {number + 1} "
        f"{stack.array.shape} of {stack.dtype}.",
        "Save them as separate files.",
    )


def check_colours(axes: str, declared: str, what: str) -> None:
    """Refuse axes by which the colours of a colour image would be rows or columns."""
    samples = declared.find("S")
    if len(axes) == len(declared) and axes.upper()[samples] in "YX" and samples >= 0:
        better = declared.translate(str.maketrans("QI", "TT"))
        raise ImageError(
            f"{what} is a colour image: axis {samples + 1} of {axes!r} holds red, "
            f"green and blue, so it cannot be {axes[samples].upper()}.",
            f'Give `axes` as "{better}".',
        )


def in_micrometers(sizes: Any, units: Any) -> Calibration:
    """Turn z, y, x sizes into micrometres; unknown unless y and x are known."""
    lengths = []
    for size, unit in zip(sizes, units, strict=True):
        text = str(unit).lower().replace("\\u00b5", "u")
        text = text.replace("\u00b5", "u").replace("\u03bc", "u")
        factor = _MICROMETERS.get(text.strip())
        known = factor is not None and isinstance(size, int | float) and size > 0
        lengths.append(size * factor if known else None)
    z, y, x = lengths
    if y is None or x is None:
        return Calibration()
    return Calibration((1.0 if z is None else z, y, x), "micrometer")

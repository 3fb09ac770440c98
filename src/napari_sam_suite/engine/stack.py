"""One position of an image: a lazy array whose axes have names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_sam_suite.engine.errors import ImageError
from napari_sam_suite.engine.frames import FrameIndex, Sizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

LETTERS = "PTZCYXS"
_MEANING = (
    "P is position, T time, Z depth, C channel, Y rows, X columns, "
    "S the colour samples of an RGB image"
)
_NAMELESS = "_"


class LazyArray(Protocol):
    """What an image may be stored in: numpy, dask, zarr, HDF5 and the like."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""
        ...

    @property
    def dtype(self) -> Any:
        """Type of a pixel."""
        ...

    def __getitem__(self, key: tuple[int | slice, ...], /) -> Any:
        """Part of the array; only that part is read."""
        ...


@dataclass(frozen=True, eq=False)
class Stack:
    """A lazy array with one letter per dimension; build it with `name_axes`.

    Attributes
    ----------
    array : LazyArray
        Boolean, integer or real; nothing of it is read before `read`.
    axes : str
        Letters of `LETTERS`, or ``_`` for a dimension of length 1 without meaning.
    rgb : bool
        Whether its channels are red, green and blue.
    channels : int
        How many leading channels to read; an alpha channel after them is not.
    """

    array: LazyArray
    axes: str
    rgb: bool
    channels: int

    @property
    def sizes(self) -> Sizes:
        """Lengths by name."""
        length = dict(zip(self.axes, self.array.shape, strict=True))
        return Sizes(
            position=length.get("P", 1),
            time=length.get("T", 1),
            z=length.get("Z", 1),
            channel=self.channels,
            y=length["Y"],
            x=length["X"],
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel, in this machine's byte order."""
        native: np.dtype[Any] = np.dtype(self.array.dtype).newbyteorder("=")
        return native

    def read(self, index: FrameIndex) -> NDArray[Any]:
        """Read the planes of one frame and nothing else.

        Parameters
        ----------
        index : FrameIndex
            Inside the stack.

        Returns
        -------
        ndarray, shape (C, Y, X)
            Values as stored.
        """
        part = self.array[tuple(self._pick(letter, index) for letter in self.axes)]
        if hasattr(part, "compute"):
            # the process's own scheduler may be a cluster, or a single thread
            part = part.compute(scheduler="threads")
        planes = np.asarray(part)
        kept = [letter for letter in self.axes if letter in "CSYX"]
        planes = planes.transpose([kept.index(a) for a in "CSYX" if a in kept])
        if planes.ndim == 2:
            planes = planes[np.newaxis]
        return planes.astype(self.dtype, copy=False)

    def _pick(self, letter: str, index: FrameIndex) -> int | slice:
        match letter:
            case "P":
                return index.position
            case "T":
                return index.time
            case "Z":
                return index.z
            case "C" | "S":
                return slice(0, self.channels)
            case "Y" | "X":
                return slice(None)
            case _:
                return 0


def name_axes(
    array: LazyArray, axes: str | None, *, what: str, channels: int | None = None
) -> Stack:
    """Give every dimension of an array its meaning, or say why that cannot be done.

    Parameters
    ----------
    array : LazyArray
        Of any shape.
    axes : str or None
        One letter of `LETTERS` per dimension, in any case. ``S``, of length 3 or 4,
        makes a colour image (alpha is dropped); so does a last ``C`` of length 3 in
        8 bits. Other letters are allowed where the length is 1. None is enough for
        two dimensions only.
    what : str
        How errors call the image.
    channels : int, optional
        How many leading channels to keep, none of which is a colour; all without it.

    Returns
    -------
    Stack

    Raises
    ------
    ImageError
        If `axes` does not fit the array, or the array is empty or not of numbers.
    """
    try:
        shape = tuple(int(length) for length in array.shape)
    except ValueError:  # a dask array may have nan there
        raise ImageError(
            f"{what} has dimensions of unknown length.",
            "Compute its chunk sizes first.",
        ) from None
    if axes is None and len(shape) == 2:
        axes = "YX"
    if axes is None:
        raise ImageError(
            f"{what} has shape {shape}, and nothing says which axis is which.",
            _hint(shape),
        )
    letters = _checked(axes.upper(), shape, what)
    if 0 in shape:
        raise ImageError(
            f"{what} is empty: its shape is {shape}.", "Choose an image with pixels."
        )
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "biuf":
        raise ImageError(
            f"{what} holds {dtype} values, which are not pixel intensities.",
            "Convert it to integers or real numbers first.",
        )
    length = dict(zip(letters, shape, strict=True))
    rgb = "S" in letters
    if letters[-1] == "C" and channels is None:
        rgb = length["C"] == 3 and dtype == np.uint8
    found = 3 if rgb else length.get("C", 1)
    return Stack(array, letters, rgb, found if channels is None else channels)


def _checked(axes: str, shape: tuple[int, ...], what: str) -> str:
    """Return `axes` with ``_`` for dimensions that carry nothing."""
    if len(axes) != len(shape):
        raise ImageError(
            f"{what} has shape {shape}, but axes {axes!r} names {len(axes)} of its "
            f"{len(shape)} dimensions."
            if len(axes) < len(shape)
            else f"{what} has shape {shape}: axes {axes!r} is too long for it.",
            _hint(shape),
        )
    length = dict(zip(axes, shape, strict=True))
    if len(length) != len(axes):
        raise ImageError(f"Axes {axes!r} repeats a letter.", _hint(shape))
    if not {"Y", "X"} <= length.keys():
        raise ImageError(f"Axes {axes!r} lacks Y or X.", _hint(shape))
    for letter in axes:
        if letter not in LETTERS and length[letter] != 1:
            raise ImageError(
                f"{what} has shape {shape} and axes {axes!r}: "
                f"the meaning of {letter!r} is not known.",
                _hint(shape),
            )
    if length.get("S", 3) not in (3, 4):
        raise ImageError(
            f"Axes {axes!r} makes {length['S']} colour samples of shape {shape}.",
            "An RGB image has 3, or 4 with transparency; use C for other channels.",
        )
    if "S" in length and length.get("C", 1) != 1:
        raise ImageError(
            f"{what} has {length['C']} channels that are RGB images themselves.",
            "Save each of them as an image of its own.",
        )
    nameless = {a for a in axes if a not in LETTERS} | (
        {"C"} if "S" in length else set()
    )
    return "".join(_NAMELESS if letter in nameless else letter for letter in axes)


def _hint(shape: tuple[int, ...]) -> str:
    examples = {3: "ZYX", 4: "TCYX", 5: "TZCYX", 6: "PTZCYX"}
    if len(shape) in (3, 4) and shape[-1] in (3, 4):
        examples = {3: "YXS", 4: "ZYXS"}
    example = examples.get(len(shape), "YX")
    return f'Give `axes`, one letter per dimension, such as "{example}": {_MEANING}.'

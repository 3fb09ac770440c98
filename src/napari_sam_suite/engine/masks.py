"""N masks of one image, as small as they can be kept.

A mask is a bit-packed crop of its bounding box, so thousands of them, overlapping
or not, take a few megabytes where full-size arrays would take gigabytes.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.resample import Enlargement


@dataclass(frozen=True)
class Masks:
    """Candidate or final masks of one frame.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the frame.
    boxes : ndarray, shape (N, 4), int32
        (y0, x0, y1, x1), half-open; four zeros for an empty mask.
    packed : list of ndarray, uint8
        Bits of each box, row by row (`numpy.packbits`).
    area : ndarray, shape (N,), int64
        Pixels in each mask.
    scores, stability : ndarray, shape (N,), float32
        Predicted IoU, and the IoU of the mask with itself at two thresholds.
    level : ndarray, shape (N,), int8
        Output token that drew it: 1-3 for ambiguous prompts, 0 for single ones.
    points : ndarray, shape (N, 2), float32
        (y, x) of the point that asked for it.
    crops : ndarray, shape (N, 4), int32
        The crop or tile it was found in, as a box.
    """

    shape: tuple[int, int]
    boxes: NDArray[np.int32]
    packed: list[NDArray[np.uint8]]
    area: NDArray[np.int64]
    scores: NDArray[np.float32]
    stability: NDArray[np.float32]
    level: NDArray[np.int8]
    points: NDArray[np.float32]
    crops: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def nbytes(self) -> int:
        """Memory of the packed crops, in bytes."""
        return sum(p.nbytes for p in self.packed)

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Masks:
        """No masks of a frame of `shape`."""
        return MaskBuilder(shape).build()

    @classmethod
    def concat(cls, parts: Sequence[Masks]) -> Masks:
        """All masks of several collections of the same frame, in order."""
        if len({p.shape for p in parts}) != 1:
            raise ValueError("masks of different frames cannot be joined")
        names = ("boxes", "area", "scores", "stability", "level", "points", "crops")
        joined = {n: np.concatenate([getattr(p, n) for p in parts]) for n in names}
        packed = [bits for p in parts for bits in p.packed]
        return cls(shape=parts[0].shape, packed=packed, **joined)

    def select(self, indices: NDArray[np.integer] | Sequence[int]) -> Masks:
        """The masks at `indices`, in that order."""
        i = np.asarray(indices, np.intp)
        return Masks(
            self.shape,
            self.boxes[i],
            [self.packed[k] for k in i],
            self.area[i],
            self.scores[i],
            self.stability[i],
            self.level[i],
            self.points[i],
            self.crops[i],
        )

    def crop(self, i: int) -> tuple[NDArray[np.bool_], tuple[int, int]]:
        """Mask `i` inside its box, (h, w) bool, and the box's (y0, x0)."""
        y0, x0, y1, x1 = (int(v) for v in self.boxes[i])
        size = (y1 - y0) * (x1 - x0)
        bits = np.unpackbits(self.packed[i], count=size)
        return bits.reshape(y1 - y0, x1 - x0).astype(bool), (y0, x0)

    def full(self, i: int) -> NDArray[np.bool_]:
        """Mask `i` in its frame, (H, W) bool."""
        out = np.zeros(self.shape, bool)
        crop, (y0, x0) = self.crop(i)
        out[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]] = crop
        return out

    def intersection(self, i: int, j: int, other: Masks | None = None) -> int:
        """Pixels that mask `i` shares with mask `j`, here or of `other` masks."""
        other = self if other is None else other
        a, b = self.boxes[i], other.boxes[j]
        y0, x0 = np.maximum(a[:2], b[:2])
        y1, x1 = np.minimum(a[2:], b[2:])
        if y0 >= y1 or x0 >= x1:
            return 0
        one, two = self._rows(i, y0, y1), other._rows(j, y0, y1)
        shared = one[:, x0 - a[1] : x1 - a[1]] & two[:, x0 - b[1] : x1 - b[1]]
        return int(np.count_nonzero(shared))

    def _rows(self, i: int, start: int, end: int) -> NDArray[np.uint8]:
        """Rows of the frame of mask `i` inside its box, (n, w) of 0 and 1."""
        y0, x0, _, x1 = self.boxes[i].tolist()
        width = x1 - x0
        first, last = (start - y0) * width, (end - y0) * width
        bits = np.unpackbits(self.packed[i][first // 8 : -(-last // 8)])
        return bits[first % 8 :][: last - first].reshape(-1, width)


@dataclass
class MaskBuilder:
    """Collects masks one by one; `build` makes them a `Masks`."""

    shape: tuple[int, int]
    _rows: list[tuple[object, ...]] = field(default_factory=list)

    def add(
        self,
        crop: NDArray[np.bool_],
        origin: tuple[int, int],
        *,
        score: float = 1.0,
        stability: float = 1.0,
        level: int = 0,
        point: tuple[float, float] = (np.nan, np.nan),
        region: tuple[int, int, int, int] | None = None,
    ) -> None:
        """Add a mask given anywhere around its pixels; the box is made tight."""
        tight, (y0, x0) = tighten(crop, origin)
        box = (y0, x0, y0 + tight.shape[0], x0 + tight.shape[1])
        area = int(np.count_nonzero(tight))
        bits = np.packbits(tight)
        where = region or (0, 0, *self.shape)
        self._rows.append((box, bits, area, score, stability, level, point, where))

    def add_like(
        self, masks: Masks, i: int, crop: NDArray[np.bool_], origin: tuple[int, int]
    ) -> None:
        """Add new pixels with everything else taken from mask `i` of `masks`."""
        y0, x0, y1, x1 = masks.crops[i].tolist()
        self.add(
            crop,
            origin,
            score=float(masks.scores[i]),
            stability=float(masks.stability[i]),
            level=int(masks.level[i]),
            point=(float(masks.points[i, 0]), float(masks.points[i, 1])),
            region=(y0, x0, y1, x1),
        )

    def __len__(self) -> int:
        return len(self._rows)

    def build(self) -> Masks:
        """The masks added so far."""
        columns: Iterable[tuple[object, ...]] = (
            zip(*self._rows, strict=True) if self._rows else ()
        )
        box, bits, area, score, stability, level, point, where = columns or ((),) * 8
        return Masks(
            self.shape,
            np.array(box, np.int32).reshape(-1, 4),
            list(bits),  # type: ignore[arg-type]
            np.array(area, np.int64),
            np.array(score, np.float32),
            np.array(stability, np.float32),
            np.array(level, np.int8),
            np.array(point, np.float32).reshape(-1, 2),
            np.array(where, np.int32).reshape(-1, 4),
        )


def pixel_ids(masks: Masks, names: Sequence[str]) -> list[str]:
    """An id for each mask: the same for the same pixels and the same name.

    Parameters
    ----------
    masks : Masks
        N of them. The second of two with the same pixels and name has another id.
    names : sequence of str
        One for each.
    """
    ids = []
    seen: Counter[bytes] = Counter()
    for name, box, bits in zip(names, masks.boxes.tolist(), masks.packed, strict=True):
        digest = hashlib.blake2b(f"{name} {box}".encode(), digest_size=16)
        digest.update(bits.tobytes())
        # Where duplicates are allowed, several masks have the same pixels.
        seen[digest.digest()] += 1
        if (number := seen[digest.digest()]) > 1:
            digest.update(str(number).encode())
        ids.append(str(uuid.UUID(bytes=digest.digest())))
    return ids


def tighten(
    crop: NDArray[np.bool_], origin: tuple[int, int]
) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The smallest part of `crop` with all its pixels; (0, 0) in size if empty."""
    rows = np.flatnonzero(crop.any(1))
    if not len(rows):
        return crop[:0, :0], (0, 0)
    columns = np.flatnonzero(crop.any(0))
    tight = crop[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return tight, (origin[0] + int(rows[0]), origin[1] + int(columns[0]))


@dataclass(frozen=True)
class Measured:
    """What one pass over a mask's window tells.

    `crop` is the mask inside its window (empty (0, 0) if there is nothing),
    `origin` the window's (y0, x0), `stability` the score of `stability_score`.
    """

    crop: NDArray[np.bool_]
    origin: tuple[int, int]
    stability: float


def measure(
    logits: NDArray[np.float32],
    enlargement: Enlargement,
    *,
    threshold: float = 0.0,
    offset: float = 1.0,
) -> Measured:
    """Threshold a mask at full resolution and score its stability.

    The stability score is the IoU of the mask at ``threshold + offset`` with the
    mask at ``threshold - offset`` (Kirillov et al. 2023, automatic masks).

    Parameters
    ----------
    logits : ndarray, shape (low, low), float32
        Low-resolution logits.
    enlargement : Enlargement
        How they become image pixels.
    """
    window = enlargement.window(logits, min(threshold - offset, threshold))
    if window is None:
        # Upstream divides 0 by 0 here, and NaN fails every threshold.
        return Measured(np.zeros((0, 0), bool), (0, 0), float("nan"))
    values = enlargement.enlarge(logits, window)
    high = int(np.count_nonzero(values > threshold + offset))
    low = int(np.count_nonzero(values > threshold - offset))
    stability = float(np.float32(high) / np.float32(low)) if low else float("nan")
    return Measured(values > threshold, (window[0], window[2]), stability)

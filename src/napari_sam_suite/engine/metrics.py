"""How well predicted objects agree with the truth: precision, recall, F1, AP.

Pairs are matched one to one at each IoU threshold, as many as possible and among those
with the greatest IoU. AP follows the Data Science Bowl 2018: the mean over IoU 0.50,
0.55 ... 0.95 of ``TP / (TP + FP + FN)``, here over all objects of all images.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from napari_sam_suite.engine.errors import ImageError
from napari_sam_suite.engine.formats.instances import check_instances
from napari_sam_suite.engine.formats.labels import read_labels
from napari_sam_suite.engine.formats.png_labels import read_pixels
from napari_sam_suite.engine.pairing import (
    is_label_name,
    label_stem,
    pair_names,
    short_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

# As others compute them, with their rounding, so that the figures can be compared.
AP_THRESHOLDS = tuple(np.arange(0.5, 1.0, 0.05).tolist())
MIN_AREA = 20
_TIFF = (".tif", ".tiff")
_PNG = ".png"


@dataclass(frozen=True, slots=True)
class Scores:
    """Counts for one image or, added up, for many.

    Attributes
    ----------
    truth, predicted : int
        Number of objects.
    matched : int
        Pairs at the IoU asked for.
    iou_sum : float
        Sum of the IoU of these pairs.
    ap_matched : tuple of int
        Pairs at each of `AP_THRESHOLDS`.
    images : int
        How many images these are.
    """

    truth: int = 0
    predicted: int = 0
    matched: int = 0
    iou_sum: float = 0.0
    ap_matched: tuple[int, ...] = (0,) * len(AP_THRESHOLDS)
    images: int = 0

    def __add__(self, other: Scores) -> Scores:
        pairs = zip(self.ap_matched, other.ap_matched, strict=True)
        return Scores(
            self.truth + other.truth,
            self.predicted + other.predicted,
            self.matched + other.matched,
            self.iou_sum + other.iou_sum,
            tuple(mine + theirs for mine, theirs in pairs),
            self.images + other.images,
        )

    @property
    def precision(self) -> float:
        """Share of the predicted objects that are true; NaN without any object."""
        return self._share(self.matched, self.predicted)

    @property
    def recall(self) -> float:
        """Share of the true objects that were found; NaN without any object."""
        return self._share(self.matched, self.truth)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN without any object."""
        return self._share(2 * self.matched, self.truth + self.predicted)

    @property
    def ap(self) -> float:
        """Mean over `AP_THRESHOLDS` of TP / (TP + FP + FN); NaN without any object."""
        total = self.truth + self.predicted
        return self._share(
            sum(tp / max(total - tp, 1) for tp in self.ap_matched), len(AP_THRESHOLDS)
        )

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the pairs; NaN without any object."""
        return self._share(self.iou_sum, self.matched)

    def as_dict(self) -> dict[str, float | None]:
        """Counts and measures by name, as JSON can hold them (NaN becomes `None`)."""
        measures: dict[str, float] = {
            name: getattr(self, name)
            for name in ("precision", "recall", "f1", "ap", "mean_iou")
        }
        counts: dict[str, float | None] = {
            "images": self.images,
            "truth": self.truth,
            "predicted": self.predicted,
            "matched": self.matched,
        }
        return counts | {k: None if math.isnan(v) else v for k, v in measures.items()}

    def _share(self, part: float, whole: float) -> float:
        if self.truth + self.predicted == 0:
            return math.nan
        return part / max(whole, 1)


class LabelPair(NamedTuple):
    """Label images of one picture; `predicted` is `None` where there is none."""

    name: str
    truth: Path
    predicted: Path | None


def evaluate_labels(
    predicted: NDArray[Any],
    truth: NDArray[Any],
    *,
    iou: float = 0.5,
    min_area: int = MIN_AREA,
) -> Scores:
    """Compare two label images.

    Parameters
    ----------
    predicted, truth : (..., H, W) arrays of int
        0 is background; the numbers need not agree. Further axes in front are taken
        as separate images and added up.
    iou : float
        Least overlap of a pair for precision, recall and F1, above 0 up to 1.
    min_area : int
        Objects with fewer pixels are left out on both sides.

    Returns
    -------
    Scores

    Raises
    ------
    ImageError
        If the shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ImageError(
            f"The prediction has shape {predicted.shape}, the truth {truth.shape}.",
            "Compare label images of the same picture.",
        )
    total = Scores()
    for index in np.ndindex(*truth.shape[:-2]):
        overlap = overlap_matrix(predicted[index], truth[index], min_area=min_area)
        matches = match_objects(overlap, iou)
        total += Scores(
            truth=overlap.shape[0],
            predicted=overlap.shape[1],
            matched=len(matches.iou),
            iou_sum=float(matches.iou.sum()),
            ap_matched=tuple(len(match_objects(overlap, t).iou) for t in AP_THRESHOLDS),
            images=1,
        )
    return total


def overlap_matrix(
    predicted: NDArray[Any], truth: NDArray[Any], *, min_area: int = 0
) -> sparse.coo_array:
    """IoU of all pairs of objects that share a pixel.

    Parameters
    ----------
    predicted, truth : (H, W) arrays of int
        0 is background.
    min_area : int
        Objects with fewer pixels are left out.

    Returns
    -------
    (n_truth, n_predicted) sparse array of float
        Rows and columns in the order of the numbers.
    """
    rows, row_areas = _compact(truth, min_area)
    columns, column_areas = _compact(predicted, min_area)
    both = (rows > 0) & (columns > 0)
    width = len(column_areas) + 1
    pairs, shared = np.unique(
        rows[both].astype(np.int64) * width + columns[both], return_counts=True
    )
    row, column = pairs // width - 1, pairs % width - 1
    union = row_areas[row] + column_areas[column] - shared
    shape = (len(row_areas), len(column_areas))
    return sparse.coo_array((shared / union, (row, column)), shape=shape)


class Matches(NamedTuple):
    """Rows and columns of an overlap matrix that belong together, and their IoU."""

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    iou: NDArray[np.float64]


def match_objects(overlap: sparse.coo_array, iou: float) -> Matches:
    """Match objects one to one: as many as possible, then with the greatest IoU.

    Parameters
    ----------
    overlap : (n_truth, n_predicted) sparse array
        Of `overlap_matrix`.
    iou : float
        Least IoU of a pair.

    Returns
    -------
    Matches
    """
    good = overlap.data >= iou
    row, column = overlap.coords[0][good], overlap.coords[1][good]
    value = overlap.data[good]
    # Above 0.5 almost every object has one partner at most: nothing to choose.
    choice = (np.bincount(row)[row] > 1) | (np.bincount(column)[column] > 1)
    if not choice.any():
        return Matches(row, column, value)
    rows, row_place = np.unique(row, return_inverse=True)
    columns, column_place = np.unique(column, return_inverse=True)
    kept = []
    graph = sparse.coo_array(
        (np.ones(len(row)), (row_place, column_place + len(rows))),
        shape=(len(rows) + len(columns),) * 2,
    )
    _, group = sparse.csgraph.connected_components(graph, directed=False)
    of_edge = group[row_place]
    for edges in np.split(
        np.argsort(of_edge, kind="stable"),
        np.cumsum(np.bincount(of_edge))[:-1],
    ):
        kept.append(edges[_assign(row[edges], column[edges], value[edges])])
    chosen = np.concatenate(kept)
    return Matches(row[chosen], column[chosen], value[chosen])


def _assign(
    row: NDArray[np.int64], column: NDArray[np.int64], value: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Which of the edges of one connected group to keep."""
    if len(row) == 1:
        return np.zeros(1, dtype=np.int64)
    rows, i = np.unique(row, return_inverse=True)
    columns, j = np.unique(column, return_inverse=True)
    gain = np.zeros((len(rows), len(columns)))
    # All IoUs together weigh less than one more pair.
    gain[i, j] = 1 + value / (len(value) + 1)
    edge = np.full(gain.shape, -1, dtype=np.int64)
    edge[i, j] = np.arange(len(row))
    best: NDArray[np.int64] = edge[linear_sum_assignment(gain, maximize=True)]
    return best[best >= 0]


def pair_label_files(predicted: str | Path, truth: str | Path) -> list[LabelPair]:
    """Find the prediction that goes with each true label image.

    Parameters
    ----------
    predicted, truth : str or Path
        Two files, or two folders of TIFF and PNG. Truth is what is named as labels are
        (``lab_<stem>.tif``, ``<stem>_cp_masks.png``), or else everything. The
        prediction is the first of ``lab_<stem>``, a file of the same name,
        ``img_<stem>`` and ``<stem>`` that is there, in the folder or below; then what
        `pair_names` takes for the same; and of what is then left, ``img_<stem>*`` or
        ``*<stem>*``, where no letter or digit adjoins the stem. PNG files that are
        not named as labels count where there is no TIFF.

    Returns
    -------
    list of LabelPair
        In the order of the names.

    Raises
    ------
    ImageError
        If a path is missing, there is no true label image, or several predictions may
        belong to one.
    """
    predicted, truth = Path(predicted), Path(truth)
    for path in (predicted, truth):
        if not path.exists():
            raise ImageError(f"{path} does not exist.", "Check the name.")
    if truth.is_file() and predicted.is_file():
        return [LabelPair(truth.stem, truth, predicted)]
    if predicted.is_file():
        raise ImageError(
            f"{predicted.name} is a file, but {truth} is a folder.",
            "Compare two files or two folders.",
        )
    if truth.is_file():
        found = [truth]
    else:
        files = _label_files(truth.iterdir())
        found = [p for p in files if is_label_name(p.stem)] or files
    if not found:
        raise ImageError(
            f"There is no label image in {truth}.", "Give label images, TIFF or PNG."
        )
    return _pair(predicted, found)


def evaluate_files(
    predicted: str | Path,
    truth: str | Path,
    *,
    iou: float = 0.5,
    min_area: int = MIN_AREA,
) -> Iterator[tuple[LabelPair, Scores]]:
    """Compare label files pair by pair; see `pair_label_files`, `evaluate_labels`.

    Yields
    ------
    LabelPair
        Where `predicted` is `None`, all objects count as missed.
    Scores
        Of this pair; add them up for the total.

    Raises
    ------
    ImageError
        If a file cannot be read or is not of labels, or sizes differ.
    """
    for pair in pair_label_files(predicted, truth):
        expected = _read_objects(pair.truth)
        if pair.predicted is None:
            found = np.zeros_like(expected)
        else:
            found = _read_objects(pair.predicted)
        if found.shape != expected.shape:
            raise ImageError(
                f"{pair.predicted} has shape {found.shape}, {pair.truth.name} has "
                f"{expected.shape}.",
                "Compare label images of the same picture.",
            )
        yield pair, evaluate_labels(found, expected, iou=iou, min_area=min_area)


def _read_objects(path: Path) -> NDArray[Any]:
    """A label image; one of intensities is refused."""
    labels = read_pixels(path) if path.suffix.lower() == _PNG else read_labels(path)
    check_instances(labels, path.name)
    return labels


def _label_files(paths: Iterable[Path]) -> list[Path]:
    """TIFFs, and PNGs that are named as labels; all PNGs where there is no TIFF."""
    files = sorted(paths, key=lambda p: (len(p.parts), p))
    tiffs = [p for p in files if p.suffix.lower() in _TIFF]
    drawn = {p.stem for p in tiffs}
    return tiffs + [
        p
        for p in files
        if p.suffix.lower() == _PNG
        and p.stem not in drawn
        and (not tiffs or is_label_name(p.stem))
    ]


def _name_truth(truths: list[Path]) -> list[str]:
    """Each without the words that say it is of labels, where that is its own."""
    plain = [label_stem(path.stem) for path in truths]
    counts = Counter(plain)
    return [
        short if counts[short] == 1 else path.stem
        for short, path in zip(plain, truths, strict=True)
    ]


def _pair(folder: Path, truths: list[Path]) -> list[LabelPair]:
    """A prediction for each truth, none of them twice; exact names come first."""
    there: dict[str, list[Path]] = {}
    files = _label_files(folder.rglob("*"))
    drawn = {short_name(path.stem) for path in files if is_label_name(path.stem)}
    for path in files:
        # What is not named as labels beside what is, is their image.
        if is_label_name(path.stem) or short_name(path.stem) not in drawn:
            there.setdefault(path.stem, []).append(path)
    stems = _name_truth(truths)
    chosen: dict[int, Path] = {}
    for pattern in ("lab_{stem}", "{own}", "img_{stem}", "{stem}"):
        for number, (stem, truth) in enumerate(zip(stems, truths, strict=True)):
            name = pattern.format(stem=stem, own=truth.stem)
            if number not in chosen and name in there:
                chosen[number] = there.pop(name)[0]
    rest = {truths[n].stem: n for n in range(len(truths)) if n not in chosen}
    for name, other in pair_names(list(rest), list(there)).items():
        chosen[rest[name]] = there.pop(other)[0]
    # The longer ones say more: cell_b_sam.tif is of cell_b, not of cell.
    for number in sorted(range(len(truths)), key=lambda n: -len(stems[n])):
        if number not in chosen and (hit := _loosely(there, stems[number])):
            chosen[number] = there.pop(hit)[0]
    return [
        LabelPair(stem, truth, chosen.get(number))
        for number, (stem, truth) in enumerate(zip(stems, truths, strict=True))
    ]


def _loosely(names: Iterable[str], stem: str) -> str | None:
    """The one name that has `stem` in it as a word of its own.

    Raises
    ------
    ImageError
        If there are several.
    """
    word = re.compile(rf"(?<![^\W_]){re.escape(stem)}(?![^\W_])")
    hits = sorted(name for name in names if word.search(name))
    hits = [name for name in hits if name.startswith(f"img_{stem}")] or hits
    if len(hits) > 1:
        raise ImageError(
            f"Several predictions may be of {stem!r}: {', '.join(hits[:3])}"
            f"{', ...' if len(hits) > 3 else '.'}",
            f"Keep one of them in the folder, or name it {stem}.tif.",
        )
    return hits[0] if hits else None


def _compact(
    labels: NDArray[Any], min_area: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels 1 to n without small objects, and the areas of these n."""
    numbers, place, areas = np.unique(labels, return_inverse=True, return_counts=True)
    kept = (numbers > 0) & (areas >= min_area)
    new = np.where(kept, np.cumsum(kept), 0)
    return new[place].reshape(labels.shape), areas[kept]

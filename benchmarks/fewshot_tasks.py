"""Few-shot tasks with known truth, drawn from folders of labelled images."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.fewshot.examples import Examples, choose_examples
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import ImageSource, open_image
from napari_sam_suite.engine.metrics import Scores, evaluate_labels
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam_suite.engine.masks import Masks

_FOLDERS = ("dsb2018", "usiigaci_phase", "em_chloroplast", "bbbc007_sparse")
_SMALLEST = 20
"""Objects below this many pixels do not count, as in the scorer."""
_WIDE = {"em_chloroplast": 4}
"""How much wider windows are where objects are large and few."""
SPARSE = ("dev_bbbc007_sparse", "dev_usiigaci_phase")
"""Folders whose truth leaves objects out: recall says more than F1."""


@dataclass
class Sample:
    """One image and its true objects."""

    name: str
    rgb: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read_groups(data: Path, largest: int) -> dict[str, list[Sample]]:
    """Images of all groups, the first plane of stacks, at most `largest` wide."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for part in _FOLDERS:
        folder, side = data / f"dev_{part}", largest * _WIDE.get(part, 1)
        with (folder / "manifest.csv").open() as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            frame = open_image(folder / row["image"]).frame(FrameIndex())
            labels = tifffile.imread(folder / row["image"].replace("img", "lab"))
            flat = labels.reshape(-1, *labels.shape[-2:])[0].astype(np.int64)
            kind = row["note"] if folder.name == "dev_dsb2018" else ""
            name = f"{folder.name} {kind}".strip()
            rgb, flat = crowded(compose(frame), flat, side)
            groups[name].append(Sample(row["image"], rgb, flat))
    return groups


def crowded(
    rgb: NDArray[np.uint8], labels: NDArray[np.int64], largest: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The middle, or of four quarters around it the one with most objects."""
    ways = [
        tuple(
            round(max(0, n - largest) * part)
            for n, part in zip(labels.shape, parts, strict=True)
        )
        for parts in (
            (0.5, 0.5),
            (0.25, 0.25),
            (0.25, 0.75),
            (0.75, 0.25),
            (0.75, 0.75),
        )
    ]
    windows = [np.s_[y : y + largest, x : x + largest] for y, x in ways]
    window = max(windows, key=lambda w: len(np.unique(labels[w])))
    return np.ascontiguousarray(rgb[window]), labels[window]


@dataclass
class Task:
    """Images as time points of one, its examples, and the truth without them."""

    image: ImageSource
    examples: Examples
    truth: list[NDArray[np.int64]]

    @classmethod
    def draw(
        cls, samples: list[Sample], count: int, most: int, rng: np.random.Generator
    ) -> Task:
        """Draw images and examples; half of these at most come from one image.

        There are more images than `most` where these have too few objects.
        """
        order = [samples[i] for i in rng.permutation(len(samples))]
        alike = _with_enough(order, 2 * count, most)
        shapes, truth, left = [], [], count
        for k, sample in enumerate(alike):
            found = Objects.from_labels(sample.labels, FrameIndex(time=k), tag="object")
            large = (found.features["area"] >= _SMALLEST).to_numpy()
            share = left if len(alike) == 1 else min(left, (count + 1) // 2)
            rows = rng.permutation(np.flatnonzero(large))[:share]
            left -= len(rows)
            shapes.append(found.select(rows))
            without = sample.labels.copy()
            without[np.isin(without, shapes[-1].features["label"])] = 0
            truth.append(without)
        stack = np.stack([s.rgb for s in alike])
        image = open_image(stack, axes="TYXC", name="images")
        examples = choose_examples(image, Objects.concat(shapes), ["object"])
        return cls(image, examples, truth)

    def score(self, found: list[Masks]) -> Scores:
        """Compare masks of all frames with the truth; examples do not count."""
        total = Scores()
        for k, (masks, truth) in enumerate(zip(found, self.truth, strict=True)):
            drawn, _ = self.examples.masks(FrameIndex(time=k))
            labels = to_labels(masks)
            for i in range(len(drawn)):
                labels[drawn.full(i)] = 0
            total += evaluate_labels(labels, truth, min_area=_SMALLEST)
        return total


def _with_enough(order: list[Sample], objects: int, most: int) -> list[Sample]:
    """The first samples of one size that have so many objects together."""
    for shape in dict.fromkeys(s.labels.shape for s in order):
        alike = [s for s in order if s.labels.shape == shape]
        counts = np.cumsum([_count(s.labels) for s in alike])
        if counts[-1] >= objects:
            return alike[: max(most, int(np.argmax(counts >= objects)) + 1)]
    raise ValueError(f"No images of one size have {objects} objects.")


def _count(labels: NDArray[np.int64]) -> int:
    """Objects that are large enough to count."""
    return int(np.count_nonzero(np.bincount(labels.ravel())[1:] >= _SMALLEST))


def to_labels(masks: Masks) -> NDArray[np.int32]:
    """Label image of masks that do not overlap."""
    labels = np.zeros(masks.shape, np.int32)
    for i in range(len(masks)):
        crop, (y0, x0) = masks.crop(i)
        window = labels[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]]
        window[crop] = i + 1
    return labels

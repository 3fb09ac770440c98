"""Training data: real fields and synthetic scenes, all in memory as uint8."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from skimage.io import imread

if TYPE_CHECKING:
    from pathlib import Path

SHARES = {
    "fluo": 0.16,
    "color": 0.23,
    "bright": 0.06,
    "phase": 0.22,
    "tissue": 0.05,
    "colony": 0.05,
    "anything": 0.14,
    "synthetic": 0.09,
}
DRAWN = {"immunostained": "tissue", "colony": "colony", "anything": "anything"}
"""Groups of the synthetic kinds that have one of their own."""
FOLD_SEED = 7
HELD_OUT = 0.12


@dataclass
class Item:
    """One image in memory with its truth.

    Attributes
    ----------
    image : ndarray of uint8, (Y, X) or (Y, X, 3)
    labels : ndarray of uint16, (Y, X)
        Instance ids, 0 is background.
    group : str
        Source the image is drawn under (a key of ``SHARES``).
    complete : bool
        Whether every object is labelled; if not, background answers count less.
    parts : ndarray of uint16, (Y, X), optional
        Parts of objects (a cell's nucleus), under the id of their object.
    """

    image: np.ndarray
    labels: np.ndarray
    group: str
    complete: bool = True
    parts: np.ndarray | None = None
    name: str = ""
    diameter: float = field(init=False)
    limits: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        areas = np.bincount(self.labels.ravel())[1:]
        areas = areas[areas > 0]
        self.diameter = float(np.sqrt(np.median(areas))) if len(areas) else 30.0
        grey = self.image[::2, ::2]
        self.limits = np.percentile(grey, [0, 0.2, 1, 99, 99.8, 100])


def load_real(root: Path) -> list[Item]:
    """Read ``train_dsb2018`` and ``train_usiigaci_phase`` below ``root``."""
    items = []
    for folder in ("train_dsb2018", "train_usiigaci_phase"):
        with (root / folder / "manifest.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            phase = folder.endswith("phase")
            image = np.asarray(imread(root / folder / row["image"]))
            labels = imread(root / folder / f"lab_{row['id']}.tif")
            group = "phase" if phase else row["note"].split(" ")[0]
            if group not in SHARES:
                group = "color" if image.ndim == 3 else "fluo"
            name = f"{folder}/{row['id']}"
            items.append(
                Item(image, labels.astype(np.uint16), group, not phase, name=name)
            )
    return items


def split(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """Training and held-out images, the share held out equal in every group."""
    rng = np.random.default_rng(FOLD_SEED)
    kinds: dict[tuple, list[Item]] = {}
    for item in items:
        kinds.setdefault((item.group, item.image.shape), []).append(item)
    train, held = [], []
    for key in sorted(kinds, key=str):
        members = kinds[key]
        order = rng.permutation(len(members))
        count = round(HELD_OUT * len(members)) if len(members) > 3 else 0
        held += [members[i] for i in order[:count]]
        train += [members[i] for i in order[count:]]
    return train, held


def load_synthetic(folder: Path) -> list[Item]:
    """Read the pools of scenes written by ``make_pool``; empty if there is none."""
    return [item for path in sorted(folder.glob("pool*.npz")) for item in _read(path)]


def _read(path: Path) -> list[Item]:
    pool = np.load(path)
    items = []
    for index in range(int(pool["count"])):
        parts = pool.get(f"p{index}", None)
        image, labels = pool[f"i{index}"], pool[f"l{index}"]
        kind = str(pool[f"k{index}"])
        group = DRAWN.get(kind, "synthetic")
        items.append(Item(image, labels, group, parts=parts, name=kind))
    return items

"""CPU time of files and of the hierarchy, for many objects.

Usage: python benchmarks/formats.py [COUNT]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely

from napari_sam_suite.engine.hierarchy.hierarchy import build_hierarchy
from napari_sam_suite.engine.hierarchy.params import HierarchyParams
from napari_sam_suite.engine.hierarchy.tree import find_parents
from napari_sam_suite.engine.measurements import measure
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS = 1000
"""Objects of which every pair is compared, for the ratio."""
ENDINGS = ("geojson", "parquet", "coco.json", "nimbus.json", "zip", "tif", "ome.zarr")


def discs(count: int) -> tuple[Objects, np.ndarray]:
    """Discs of three sizes that lie over each other, and their ranks."""
    rng = np.random.default_rng(0)
    side = int(12 * np.sqrt(count))
    radii = rng.choice([3, 8, 25], count, p=[0.6, 0.3, 0.1])
    centres = rng.uniform(0, side, (count, 2))
    polygons = [
        shapely.Point(*centre).buffer(radius, quad_segs=8)
        for centre, radius in zip(centres, radii, strict=True)
    ]
    source = {"sizes": {"y": side + 30, "x": side + 30}}
    return Objects(polygons, source=source), np.searchsorted([5, 10], radii)


def compare_pairs(objects: Objects, ranks: np.ndarray) -> None:
    """What a tree costs when every object is compared with every larger one."""
    for one, rank in zip(objects.polygons, ranks, strict=True):
        for other, above in zip(objects.polygons, ranks, strict=True):
            if above > rank:
                one.intersection(other)


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Print one line per measurement."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    few, few_ranks = discs(PAIRS)
    pairs = seconds(lambda: compare_pairs(few, few_ranks))
    tree = seconds(lambda: find_parents(few, few_ranks))
    print(f"tree of {PAIRS}: {tree:.3f} s, pair by pair {pairs:.2f} s")
    objects, ranks = discs(count)
    print(f"tree of {count}: {seconds(lambda: find_parents(objects, ranks)):.2f} s")
    hierarchy = build_hierarchy(objects, HierarchyParams(by="tertile"))
    print(f"  statistics {seconds(hierarchy.statistics):.2f} s")
    print(f"  text {seconds(hierarchy.to_text):.2f} s")
    print(f"  JSON {seconds(hierarchy.as_dict):.2f} s")
    print(f"measurements {seconds(lambda: measure(objects)):.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        for ending in ENDINGS:
            path = Path(folder) / f"objects.{ending}"
            written = seconds(lambda path=path: objects.save(path))
            read = seconds(lambda path=path: Objects.load(path))
            print(f"{ending:12} written {written:.2f} s, read {read:.2f} s")


if __name__ == "__main__":
    main()

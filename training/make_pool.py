"""Draw the pool of synthetic scenes that training mixes with real images."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from napari_sam_suite.engine.synthetic.scene import KINDS, synthesize


def main() -> None:
    """Draw from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("training/runs/nano/pool.npz"))
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    args = parser.parse_args()
    arrays: dict[str, np.ndarray] = {"count": np.array(args.count)}
    for index in range(args.count):
        kind = args.kinds[index % len(args.kinds)]
        scene = synthesize(kind, (args.size, args.size), args.seed + index)
        arrays[f"i{index}"], arrays[f"l{index}"] = scene.image, scene.labels
        arrays[f"k{index}"] = np.array(kind)
        if scene.parts is not None:
            arrays[f"p{index}"] = scene.parts
    args.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.out.with_suffix(".part.npz")
    np.savez(temporary, **arrays)
    os.replace(temporary, args.out)


if __name__ == "__main__":
    main()

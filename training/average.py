"""The mean of several checkpoints' averaged weights (Wortsman et al. 2022).

Stages that began from the same weights and ended apart are often better together.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def main() -> None:
    """Average from the command line; the result can be exported or trained further."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    states = [
        torch.load(path, weights_only=True, map_location="cpu", mmap=True)["average"]
        for path in args.checkpoints
    ]
    mean = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            every = torch.stack([state[name].double() for state in states])
            mean[name] = every.mean(0).to(first.dtype)
        else:
            mean[name] = first.clone()
    torch.save({"average": mean}, args.out)


if __name__ == "__main__":
    main()

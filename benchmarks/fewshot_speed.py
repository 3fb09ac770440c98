"""What few-shot costs beside the documented loop that encodes every candidate.

    python benchmarks/fewshot_speed.py IMAGE LABELS --model sam2-nano

A window of ``--side`` pixels is taken from the image, ten of its labelled objects are
the examples, and both ways search it with the same weights and the same candidates. The
loop encodes the image once and then, one by one, a crop of each example and candidate;
of these ``--timed`` are really encoded, and their mean stands for the others, as each
costs the same. All that comes before and after is the same work for both.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cost import clock
from fewshot import Counted
from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.fewshot import fast as fast_module
from napari_sam_suite.engine.fewshot.exact import crop_vectors
from napari_sam_suite.engine.fewshot.examples import choose_examples
from napari_sam_suite.engine.fewshot.finder import FewShot
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.objects import Objects


def _silent(*_: object) -> None:
    """Nobody listens."""


def _never() -> bool:
    return False


def main() -> None:
    """Measure one image and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--model", default="sam2-nano")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--timed", type=int, default=40, help="crops really encoded")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = Counted(load_model(args.model, device=args.device, precision="float32"))
    window = np.s_[: args.side, : args.side]
    rgb = np.ascontiguousarray(compose(open_image(args.image).frame(FrameIndex())))
    rgb = np.ascontiguousarray(rgb[window])
    labels = tifffile.imread(args.labels)[window].astype(np.int64)
    drawn = Objects.from_labels(labels, tag="object")
    rows = np.random.default_rng(0).permutation(len(drawn))[:10]
    examples = choose_examples(
        open_image(rgb[None], axes="TYXC"), drawn.select(rows), ["object"]
    )

    def search(image: np.ndarray) -> FewShot:
        finder = FewShot(FewShotParams(), examples, keep=True)
        finder(model, image, FrameIndex(), report=_silent, stop=_never)
        return finder

    spent = np.zeros(2)

    def timed(call: Any) -> Any:
        def call_and_note(*given: Any) -> Any:
            before = clock(model.device)
            value = call(*given)
            spent[:] += clock(model.device) - before
            return value

        return call_and_note

    # What only the fast way does with its candidates, to be taken off for the loop.
    for name in ("descriptors", "guide_odds"):
        setattr(fast_module, name, timed(getattr(fast_module, name)))
    warm = rgb[: args.side // 4, : args.side // 4]
    model.encode([np.ascontiguousarray(warm)])
    model.encoded = 0
    start = clock(model.device)
    seen = search(rgb).seen[FrameIndex()]
    fast, tiles = clock(model.device) - start, model.encoded
    some = np.linspace(0, len(seen.masks) - 1, args.timed).round().astype(int)
    start = clock(model.device)
    for i in some:
        crop_vectors(model, rgb, seen.masks.select([i]), 0.2, _silent, _never)
    crop = (clock(model.device) - start) / len(some)
    start = clock(model.device)
    for _ in range(3):
        model.encode([rgb])
    encode = (clock(model.device) - start) / 3
    calls = 1 + len(examples.objects) + len(seen.masks)
    # Candidates cost both the same.
    loop = fast - spent - tiles * encode + encode + (calls - 1) * crop
    found = {
        "side": args.side,
        "candidates": len(seen.masks),
        "encoder calls": {"fast": tiles, "loop": calls, "ratio": calls / tiles},
        "wall seconds": {"fast": fast[0], "loop": loop[0], "ratio": loop[0] / fast[0]},
        "cpu seconds": {"fast": fast[1], "loop": loop[1], "ratio": loop[1] / fast[1]},
    }
    print(json.dumps(found, indent=1))
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

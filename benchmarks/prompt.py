"""What prompts cost, what their outlines lose, and how well objects are followed.

    python benchmarks/prompt.py DATA --model sam2-nano [--parts click,boxes,iou,follow]
        [--images 2] [--alone] [--json rows.jsonl]

DATA is the folder of the example images. Times are CPU time of this process with one
thread, which a busy machine does not change. Parts:

``click``   from a prompt to its polygons, after the embedding, at 1024 x 1024
``boxes``   a thousand boxes on one frame, with its embeddings and without
``iou``     one box and one point for each true object of every folder ``dev_*`` of 2-D
            images: mean IoU with the truth of upstream's predictor on the whole frame,
            of our raw masks, and of the polygons made of them
``follow``  the objects of the first frame of ``dev_yeast_timelapse_2ch`` through time,
            against copies of it: mean IoU with the truth, and identities kept (IoU
            above 0.5 with the same cell)
``memory``  one step of SAM 2's video memory, random weights: seconds for an object

With ``--json`` every line of the result is appended to a file as one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch
from scipy.ndimage import distance_transform_edt, find_objects

from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.embed import EmbeddingCache, Remembering
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.jobs import Engine
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.polygons import polygonise
from napari_sam_suite.engine.prompts.answers import answer
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.engine.prompts.prompt import from_boxes, from_points, mask_of
from napari_sam_suite.engine.propagation.finder import start_propagate
from napari_sam_suite.engine.propagation.params import PropagateParams
from napari_sam_suite.engine.samples import demo_image
from quality import pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sam_suite.engine.polygons import Traced
    from napari_sam_suite.engine.prompts.answers import Answer
    from napari_sam_suite.engine.prompts.prompt import Prompt

    Row = dict[str, Any]

_PARTS = "click,boxes,iou,follow,memory"
_SMALLEST = 20
_KEPT = 0.5
"""IoU with the true cell above which an identity is kept."""


@dataclass(frozen=True)
class Patch:
    """A mask where it is: its pixels, and where in the image they begin."""

    crop: NDArray[np.bool_]
    origin: tuple[int, int]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Its first and last row and column: y0, x0, y1, x1."""
        (y, x), (h, w) = self.origin, self.crop.shape
        return y, x, y + h - 1, x + w - 1

    def within(self, shape: tuple[int, ...], origin: tuple[int, int] = (0, 0)) -> Patch:
        """The part of it in a window of an image."""
        low = np.maximum(self.origin, origin)
        end = np.minimum(
            np.add(self.origin, self.crop.shape), np.add(origin, shape[:2])
        )
        end = np.maximum(low, end)
        (y0, x0), (y1, x1) = low - self.origin, end - self.origin
        return Patch(self.crop[y0:y1, x0:x1], (int(low[0]), int(low[1])))


_NOTHING = Patch(np.zeros((0, 0), bool), (0, 0))


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="sam2-nano")
    parser.add_argument("--parts", default=_PARTS)
    parser.add_argument("--images", type=int, default=2, help="per folder, for iou")
    parser.add_argument("--alone", action="store_true", help="without upstream's")
    parser.add_argument("--steps", type=int, default=9, help="frames to follow")
    parser.add_argument("--json", type=Path, help="append rows to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts = args.parts.split(",")
    if unknown := set(parts) - set(_PARTS.split(",")):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {_PARTS}")
    loaded = load_model(args.model, device="cpu", precision="float32")
    model = Remembering(loaded, EmbeddingCache())
    for row in measure(parts, model, args):
        print("  ".join(f"{k} {_said(v)}" for k, v in row.items()), flush=True)
        if args.json:
            with args.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"model": args.model, **row}) + "\n")


def measure(
    parts: list[str], model: Remembering, args: argparse.Namespace
) -> Iterator[Row]:
    """The rows of the parts, one after the other."""
    if "click" in parts:
        yield click(model)
    if "boxes" in parts:
        yield from boxes(model)
    if "iou" in parts:
        for folder in sorted(args.data.glob("dev_*")):
            yield from compare(model, folder, args.images, args.alone)
    if "follow" in parts:
        folder = args.data / "dev_yeast_timelapse_2ch"
        yield from follow(folder, args.model, args.steps)
    if "memory" in parts:
        yield remember()


def large(side: int) -> NDArray[np.uint8]:
    """The demo image, repeated to a square."""
    rgb = compose(demo_image().frame(FrameIndex()))
    times = [-(-side // n) for n in rgb.shape[:2]]
    return np.tile(rgb, (*times, 1))[:side, :side]


def click(model: Remembering, count: int = 40) -> Row:
    """CPU ms from a click to its polygons, the embedding being there."""
    rgb = large(1024)
    points = np.random.default_rng(0).uniform(40, 980, (count, 2))
    params = PromptParams(answers="all")
    for point in points:
        answer(model, rgb, from_points([point]), params)  # the embeddings
    took = []
    for point in points:
        start = time.process_time()
        (found,) = answer(model, rgb, from_points([point]), params)
        for one in found:
            _outline(one, (1024, 1024), params)
        took.append(1000 * (time.process_time() - start))
    return {
        "part": "click",
        "median_ms": float(np.median(took)),
        "p90_ms": float(np.percentile(took, 90)),
    }


def boxes(model: Remembering, count: int = 1000) -> Iterator[Row]:
    """CPU s of many boxes on one image, with and without its embeddings."""
    rgb = large(1024)
    model.cache.forget()
    corner = np.random.default_rng(1).uniform(10, 970, (count, 2))
    prompts = from_boxes(np.concatenate([corner, corner + 40], 1))
    params = PromptParams()
    for what in ("with encoding", "after it"):
        start = time.process_time()
        found = answer(model, rgb, prompts, params)
        for (one,) in found:
            _outline(one, (1024, 1024), params)
        took = time.process_time() - start
        yield {"part": "boxes", "boxes": count, "what": what, "seconds": took}


def compare(
    model: Remembering, folder: Path, images: int, alone: bool
) -> Iterator[Row]:
    """Mean IoU of upstream's answers unless `alone`, of ours, and of their polygons."""
    ious: dict[str, list[tuple[float, float, float]]] = {"box": [], "point": []}
    for path, labels, _ in list(pairs(folder))[:images]:
        rgb = compose(open_image(path).frame(FrameIndex()))
        truth = [
            Patch(pixels, (window[0].start, window[1].start))
            for number, window in enumerate(find_objects(labels), 1)
            if window is not None
            and (pixels := labels[window] == number).sum() >= _SMALLEST
        ]
        if not truth or not np.ptp(rgb):
            continue
        asked = {
            "box": from_boxes([patch.box for patch in truth]),
            "point": from_points([_middle(patch) for patch in truth]),
        }
        for kind, prompts in asked.items():
            ours = _ious(model, rgb, prompts, truth)
            theirs = [float("nan")] * len(truth)
            if not alone:
                whole = _upstream(model, rgb, prompts)
                theirs = [
                    _overlap(Patch(mask, (0, 0)), patch)
                    for mask, patch in zip(whole, truth, strict=True)
                ]
            rows = zip(theirs, ours, strict=True)
            ious[kind] += [(first, *others) for first, others in rows]
    for kind, rows in ious.items():
        if rows:
            upstream, raw, ours = (float(v) for v in np.mean(rows, axis=0))
            yield {
                "part": "iou",
                "folder": folder.name,
                "prompt": kind,
                "objects": len(rows),
                "upstream": upstream,
                "raw": raw,
                "polygons": ours,
                "difference": ours - raw,
            }


def _ious(
    model: Remembering,
    rgb: NDArray[np.uint8],
    prompts: list[Prompt],
    truth: list[Patch],
) -> list[tuple[float, float]]:
    params = PromptParams()
    shape = (rgb.shape[0], rgb.shape[1])
    raw = answer(model, rgb, prompts, PromptParams(parts="all"))
    ours = answer(model, rgb, prompts, params)
    found = []
    for (one,), (other,), patch in zip(raw, ours, truth, strict=True):
        traced = _outline(other, shape, params)
        drawn = _NOTHING
        if traced.polygon is not None:
            pixels = mask_of(traced.polygon)
            drawn = Patch(pixels.crop, pixels.origin).within(shape)
        found.append(
            (_overlap(Patch(one.crop, one.origin), patch), _overlap(drawn, patch))
        )
    return found


def _upstream(
    model: Remembering, rgb: NDArray[np.uint8], prompts: list[Prompt]
) -> Iterator[NDArray[np.bool_]]:
    """What the predictor of the ``sam2`` package answers, each prompt on its own."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    adapter: Any = model.model
    predictor = SAM2ImagePredictor(adapter.network)
    # it takes an input of 1024 pixels for granted
    sides = [adapter.input_size // step for step in (4, 8, 16)]
    predictor._bb_feat_sizes = [(side, side) for side in sides]
    predictor.set_image(rgb)
    for prompt in prompts:
        said: dict[str, Any] = {"multimask_output": prompt.box is None}
        if prompt.box is not None:
            y0, x0, y1, x1 = prompt.box
            said["box"] = np.array([x0, y0, x1, y1])
        else:
            said["point_coords"] = np.array([[x, y] for y, x in prompt.inside])
            said["point_labels"] = np.ones(len(prompt.inside))
        masks, scores, _ = predictor.predict(**said)
        yield masks[int(np.argmax(scores))] > 0


def follow(folder: Path, model: str, steps: int) -> Iterator[Row]:
    """Objects of the first frame through time, against staying where they were."""
    truth = tifffile.imread(folder / "lab_000.tif")
    given = Objects.from_labels(truth[0])
    numbers = given.features["label"].to_numpy()
    start = time.process_time()
    with Engine(model, device="cpu", precision="float32") as engine:
        params = PropagateParams(steps=steps)
        image = open_image(folder / "img_000.tif")
        job = start_propagate(engine, image, given, params)
        objects = job.result()
    took = time.process_time() - start
    for notice in job.notices:
        print(" ", notice)
    for place in sorted(set(objects.features["time"]) - {0}):
        here = objects.at(FrameIndex(time=int(place)))
        drawn = dict(zip(here.features["track"], here.polygons, strict=True))
        followed, copied = [], []
        for track, number in enumerate(numbers, 1):
            real = truth[place] == number
            mask = np.zeros_like(real)
            if track in drawn:
                pixels = mask_of(drawn[track])
                _draw(mask, pixels.crop, pixels.origin)
            followed.append(_iou(mask, real))
            copied.append(_iou(truth[0] == number, real))
        yield {
            "part": "follow",
            "frame": int(place) + 1,
            "cells": len(numbers),
            "iou": float(np.mean(followed)),
            "iou_of_copies": float(np.mean(copied)),
            "identities": float(np.mean(np.array(followed) > _KEPT)),
            "identities_of_copies": float(np.mean(np.array(copied) > _KEPT)),
            "by": here.features["by"].value_counts().to_dict(),
            "seconds_per_frame": took / steps,
        }


def remember(frames: int = 8) -> Row:
    """CPU s of the video memory for one object, when its bank is full."""
    model = load_model("sam2.1_hiera_tiny", device="cpu", random_weights=True)
    rgb = large(1024)
    (embedding,) = model.encode([rgb])
    memory = model.video_memory(frames)
    mask = np.zeros(rgb.shape[:2], bool)
    mask[400:600, 400:600] = True
    memory.give(0, embedding, 1, mask)
    memory.turn(backward=False)
    took = 0.0
    for place in range(1, frames):
        start = time.process_time()
        memory.step(place, embedding, [1])
        took = time.process_time() - start
    return {"part": "memory", "seconds": took, "megabytes": memory.nbytes / 1e6}


def _outline(one: Answer, shape: tuple[int, int], params: PromptParams) -> Traced:
    """The polygon of an answer, as the engine makes it."""
    return polygonise(
        one.crop,
        one.origin,
        smoothing=params.smoothing,
        padding=params.padding,
        parts=params.parts,
        shape=shape,
    )


def _said(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _middle(patch: Patch) -> tuple[float, float]:
    depth = distance_transform_edt(np.pad(patch.crop, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), patch.crop.shape)
    return float(y + patch.origin[0]), float(x + patch.origin[1])


def _overlap(one: Patch, other: Patch) -> float:
    """IoU of two masks, each known where it is."""
    shared = one.within(other.crop.shape, other.origin)
    y, x = (a - b for a, b in zip(shared.origin, other.origin, strict=True))
    h, w = shared.crop.shape
    both = int((shared.crop & other.crop[y : y + h, x : x + w]).sum())
    return both / max(int(one.crop.sum()) + int(other.crop.sum()) - both, 1)


def _draw(
    canvas: NDArray[np.bool_], crop: NDArray[np.bool_], origin: tuple[int, int]
) -> None:
    """Put a crop onto a canvas, as far as it is on it."""
    y0, x0 = max(origin[0], 0), max(origin[1], 0)
    part = crop[y0 - origin[0] :, x0 - origin[1] :]
    window = canvas[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]]
    window |= part[: window.shape[0], : window.shape[1]]


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


if __name__ == "__main__":
    main()

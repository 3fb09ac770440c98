"""What prompts cost, what their outlines lose, and how well objects are followed.

    python benchmarks/prompt.py DATA --model sam2-nano [--parts click,boxes,iou,follow]

DATA is the folder of the example images. Times are CPU time of this process with one
thread, which a busy machine does not change. Prints: a click from the prompt to the
polygon, after the embedding, at 1024 x 1024; a thousand boxes with their embeddings
and without; the mean IoU with the truth of the model's raw masks and of the polygons
made of them; and objects followed through ``dev_yeast_timelapse_2ch`` against copies
of the first frame.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

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
    from numpy.typing import NDArray

    from napari_sam_suite.engine.prompts.answers import Answer
    from napari_sam_suite.engine.prompts.prompt import Prompt

_FOLDERS = ("dev_dsb2018", "dev_usiigaci_phase", "dev_bbbc039_16bit")
_SMALLEST = 20


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="sam2-nano")
    parser.add_argument("--parts", default="click,boxes,iou,follow")
    parser.add_argument("--images", type=int, default=4, help="per folder, for iou")
    parser.add_argument("--steps", type=int, default=9, help="frames to follow")
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts = args.parts.split(",")
    loaded = load_model(args.model, device="cpu", precision="float32")
    model = Remembering(loaded, EmbeddingCache())
    if "click" in parts:
        click(model)
    if "boxes" in parts:
        boxes(model)
    if "iou" in parts:
        for name in _FOLDERS:
            compare(model, args.data / name, args.images)
    if "follow" in parts:
        follow(args.data / "dev_yeast_timelapse_2ch", args.model, args.steps)


def large(side: int) -> NDArray[np.uint8]:
    """The demo image, repeated to a square."""
    rgb = compose(demo_image().frame(FrameIndex()))
    times = [-(-side // n) for n in rgb.shape[:2]]
    return np.tile(rgb, (*times, 1))[:side, :side]


def click(model: Remembering, count: int = 40) -> None:
    """CPU ms from a click to its polygon, the embedding being there."""
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
            polygonise(one.crop, one.origin, shape=(1024, 1024))
        took.append(1000 * (time.process_time() - start))
    print(
        f"click to three polygons, 1024 x 1024: median {np.median(took):.1f}, "
        f"90th percentile {np.percentile(took, 90):.1f} ms of CPU"
    )


def boxes(model: Remembering, count: int = 1000) -> None:
    """CPU s of many boxes on one image, with and without its embeddings."""
    rgb = large(1024)
    corner = np.random.default_rng(1).uniform(10, 970, (count, 2))
    prompts = from_boxes(np.concatenate([corner, corner + 40], 1))
    for what in ("with encoding", "after it"):
        start = time.process_time()
        found = answer(model, rgb, prompts, PromptParams())
        for (one,) in found:
            polygonise(one.crop, one.origin, shape=(1024, 1024))
        took = time.process_time() - start
        print(f"{count} boxes to polygons, {what}: {took:.1f} s of CPU")


def compare(model: Remembering, folder: Path, images: int) -> None:
    """Mean IoU of the masks as the model gave them, and of their polygons."""
    rows: dict[str, list[tuple[float, float]]] = {"box": [], "point": []}
    for path, labels, _ in list(pairs(folder))[:images]:
        rgb = compose(open_image(path).frame(FrameIndex()))
        truth = [
            (labels == number, window)
            for number, window in enumerate(find_objects(labels), 1)
            if window is not None and (labels[window] == number).sum() >= _SMALLEST
        ]
        if not truth:
            continue
        around = [
            (w[0].start, w[1].start, w[0].stop - 1, w[1].stop - 1) for _, w in truth
        ]
        asked = {
            "box": from_boxes(around),
            "point": from_points([_middle(mask) for mask, _ in truth]),
        }
        for kind, prompts in asked.items():
            rows[kind] += _ious(model, rgb, prompts, [mask for mask, _ in truth])
    for kind, ious in rows.items():
        raw, ours = np.mean(ious, axis=0)
        print(
            f"{folder.name}, {kind}: {len(ious)} objects, raw {raw:.4f}, "
            f"polygons {ours:.4f} ({ours - raw:+.4f})"
        )


def _ious(
    model: Remembering,
    rgb: NDArray[np.uint8],
    prompts: list[Prompt],
    truth: list[NDArray[np.bool_]],
) -> list[tuple[float, float]]:
    raw = answer(model, rgb, prompts, PromptParams(parts="all"))
    ours = answer(model, rgb, prompts, PromptParams())
    found = []
    for (one,), (other,), mask in zip(raw, ours, truth, strict=True):
        traced = polygonise(other.crop, other.origin, shape=mask.shape)
        drawn = np.zeros_like(mask)
        if traced.polygon is not None:
            pixels = mask_of(traced.polygon)
            _draw(drawn, pixels.crop, pixels.origin)
        found.append((_iou(_full(one, mask), mask), _iou(drawn, mask)))
    return found


def follow(folder: Path, model: str, steps: int) -> None:
    """Objects of the first frame through time, against staying where they were."""
    truth = tifffile.imread(folder / "lab_000.tif")
    given = Objects.from_labels(truth[0])
    start = time.process_time()
    with Engine(model, device="cpu", precision="float32") as engine:
        params = PropagateParams(steps=steps)
        image = open_image(folder / "img_000.tif")
        job = start_propagate(engine, image, given, params)
        objects = job.result()
    took = time.process_time() - start
    for notice in job.notices:
        print(" ", notice)
    for time_point in range(1, steps + 1):
        here = objects.at(FrameIndex(time=time_point))
        drawn = dict(zip(here.features["track"], here.polygons, strict=True))
        followed, copied = [], []
        for track, number in enumerate(given.features["label"], 1):
            real = truth[time_point] == number
            mask = np.zeros_like(real)
            if track in drawn:
                pixels = mask_of(drawn[track])
                _draw(mask, pixels.crop, pixels.origin)
            followed.append(_iou(mask, real))
            copied.append(_iou(truth[0] == number, real))
        kept, stayed = (np.mean(np.array(v) > 0.5) for v in (followed, copied))
        print(
            f"yeast, frame {time_point + 1}: IoU {np.mean(followed):.3f} (copies "
            f"{np.mean(copied):.3f}), identities kept {kept:.3f} ({stayed:.3f}), "
            f"by {here.features['by'].value_counts().to_dict()}"
        )
    print(f"yeast: {took / steps:.1f} s of CPU for a frame of {len(given)} objects")


def _middle(mask: NDArray[np.bool_]) -> tuple[float, float]:
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), mask.shape)
    return float(y), float(x)


def _full(one: Answer, like: NDArray[np.bool_]) -> NDArray[np.bool_]:
    full = np.zeros_like(like)
    _draw(full, one.crop, one.origin)
    return full


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

"""Scenes that the few-shot verifier learns from; see `verifying.py`.

Of every scene ten objects are examples; of the others there are the masks that the
model draws, right ones and wrong ones. Held-out images are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from skimage.transform import resize

from evaluate import as_rgb
from judging import reached
from napari_sam_suite.engine.fewshot.candidates import draw_candidates, grid_points
from napari_sam_suite.engine.fewshot.examples import draw_masks
from napari_sam_suite.engine.fewshot.fast import Sizes, embed, expected_points
from napari_sam_suite.engine.fewshot.guided import guide_odds
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.fewshot.patches import draw_patches
from napari_sam_suite.engine.fewshot.quality import rating_odds
from napari_sam_suite.engine.fewshot.verifier import signs_of
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.suppression import drop_duplicates
from napari_sam_suite.engine.synthetic.scene import KINDS, synthesize

if TYPE_CHECKING:
    from pathlib import Path

    from data import Item
    from napari_sam_suite.engine.masks import Masks

SHARES = {
    "fluo": 14,
    "color": 20,
    "bright": 6,
    "phase": 16,
    "anything": 26,
    "drawn": 18,
}
"""How often each kind of scene is drawn, in percent."""
_SMALLEST = 20
"""Pixels of objects that can be examples."""
_LOOSE = 0.55, 0.75
"""Parts of the model's thresholds that candidates must reach."""
_EXPECTED, _ELSEWHERE = 120, 150
"""Points asked at most, those of the guide and others."""
_KEPT = 80
"""Right candidates kept at most of a scene, and wrong ones."""
_SHARD = 50


@dataclass
class Scene:
    """Candidates of one scene beside its examples.

    Attributes
    ----------
    kind : str
    patches, examples : ndarray of float16, (N, 24, 24, 24) and (n, 24, 24, 24)
    coarse, around : ndarray of float16, (N, 160, 6, 6) and (n, 160, 6, 6)
        Of the masks and of the examples; see `draw_patches`.
    signs, sizes : ndarray of float32, (N, 6) and (n, 6)
    real : ndarray of float32, (N,)
        IoU with the object that a candidate shares most with.
    which : ndarray of int, (N,)
        The number of that object, 0 if there is none.
    """

    kind: str
    patches: np.ndarray
    coarse: np.ndarray
    signs: np.ndarray
    real: np.ndarray
    which: np.ndarray
    examples: np.ndarray
    around: np.ndarray
    sizes: np.ndarray


class Painter:
    """Draws scenes of all kinds, and bends them."""

    def __init__(self, items: list[Item], rng: np.random.Generator) -> None:
        self.rng = rng
        self.groups: dict[str, list[Item]] = {}
        for item in items:
            self.groups.setdefault(item.group, []).append(item)

    def draw(self) -> tuple[str, np.ndarray, np.ndarray, bool]:
        """Kind, RGB, labels, and whether every object is labelled."""
        names = [kind for kind in SHARES if kind in {*self.groups, "anything", "drawn"}]
        shares = np.array([SHARES[kind] for kind in names], float)
        kind = str(self.rng.choice(names, p=shares / shares.sum()))
        if kind in self.groups:
            item = self.groups[kind][self.rng.integers(len(self.groups[kind]))]
            image, labels, complete = item.image, item.labels, item.complete
        else:
            if kind == "drawn":
                kind = str(self.rng.choice([k for k in KINDS if k != "anything"]))
            side, seed = int(self.rng.integers(260, 520)), self.rng.integers(1e6, 1e9)
            width = float(np.exp(self.rng.uniform(np.log(10), np.log(80))))
            scene = synthesize(kind, (side, side), int(seed), diameter=width)
            image, labels, complete = scene.image, scene.labels, True
        return kind, *self._bend(as_rgb(image), labels.astype(np.int64)), complete

    def _bend(
        self, rgb: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """A window, enlarged or reduced, turned, with other grey levels."""
        rng = self.rng
        side = int(rng.integers(256, 600))
        y, x = (int(rng.integers(max(1, n - side + 1))) for n in labels.shape)
        window = np.s_[y : y + side, x : x + side]
        seen, labels = rgb[window] / 255, labels[window]
        factor = float(np.exp(rng.uniform(-0.4, 0.4)))
        shape = tuple(round(n * factor) for n in labels.shape)
        seen = resize(seen, shape, order=1, anti_aliasing=factor < 1)
        labels = resize(
            labels, shape, order=0, preserve_range=True, anti_aliasing=False
        ).astype(np.int64)
        turns = int(rng.integers(4))
        seen, labels = np.rot90(seen, turns), np.rot90(labels, turns)
        if rng.random() < 0.6:
            seen = seen.clip(0, 1) ** np.exp(rng.normal(0, 0.3))
        if rng.random() < 0.4:
            noise = rng.normal(0, rng.uniform(0.005, 0.05), labels.shape)
            seen = seen + noise[..., None]
        if rng.random() < 0.3:
            seen = 0.5 + (seen - 0.5) * rng.uniform(0.5, 1)
        if rng.random() < 0.1:
            seen = 1 - seen
        levels = (seen.clip(0, 1) * 255).round().astype(np.uint8)
        return np.ascontiguousarray(levels), np.ascontiguousarray(labels)


def look(model, painter: Painter) -> Scene | None:
    """Draw a scene and all that is learnt from it; None if it has too few objects."""
    kind, rgb, labels, complete = painter.draw()
    rng, shape = painter.rng, (labels.shape[0], labels.shape[1])
    objects = Objects.from_labels(labels, FrameIndex(), tag="object")
    large = np.flatnonzero((objects.features["area"] >= _SMALLEST).to_numpy())
    if len(large) < 3:
        return None
    chosen = rng.permutation(large)[:10]
    drawn = draw_masks(objects.select(chosen), shape)
    sizes, params = Sizes.of(drawn), FewShotParams()
    regions = sizes.regions(shape, model, params)
    region = regions[rng.integers(len(regions))]
    low, end = np.array(region.origin), np.array(region.box[2:])
    whole = (drawn.boxes[:, :2] >= low).all(1) & (drawn.boxes[:, 2:] <= end).all(1)
    examples = drawn.select(np.flatnonzero(whole))
    if len(examples) < 3:
        return None
    embedding = embed(model, rgb, region, lambda: False)
    limits = sizes.limits(model, params).loosened(*_LOOSE)
    pitch = max(0.7 * sizes.width, max(region.shape) / 32)
    points = [
        rng.permutation(some)[:most]
        for some, most in (
            (expected_points(embedding, region), _EXPECTED),
            (grid_points(region.shape, pitch), _ELSEWHERE),
        )
    ]
    masks = draw_candidates(
        model,
        embedding,
        np.concatenate(points),
        region,
        shape,
        limits,
        lambda: False,
    )
    if not len(masks):
        return None
    masks = drop_duplicates(masks, masks.scores * masks.stability, 0.95, region.origin)
    real, which = reached(masks, labels)
    mine = np.isin(which, objects.features["label"].to_numpy()[chosen]) & (real > 0.2)
    rows = _choose(masks, labels, real, ~mine, rng, complete=complete)
    if len(rows) < 4:
        return None
    masks = masks.select(rows)
    rated = rating_odds(masks, model.spec.auto)
    guided = guide_odds(embedding, masks, region)
    drawn, given = (
        [
            np.concatenate(parts).astype(np.float16)
            for parts in zip(*draw_patches(embedding, some, rgb, region), strict=True)
        ]
        for some in (masks, examples)
    )
    return Scene(
        kind,
        *drawn,
        signs_of(embedding, masks, rated, guided),
        real[rows].astype(np.float32),
        which[rows],
        *given,
        signs_of(embedding, examples, 0.0, 0.0),
    )


def _choose(
    masks: Masks,
    labels: np.ndarray,
    real: np.ndarray,
    known: np.ndarray,
    rng: np.random.Generator,
    *,
    complete: bool,
) -> np.ndarray:
    """Right and wrong ones; where labels are missing, only those on labels."""
    if not complete:
        for i in np.flatnonzero(known):
            crop, (y, x) = masks.crop(i)
            under = labels[y : y + crop.shape[0], x : x + crop.shape[1]][crop]
            known[i] = (under > 0).mean() > 0.3
    right, wrong = (
        rng.permutation(np.flatnonzero(known & some))[:_KEPT]
        for some in (real > 0.5, real <= 0.5)
    )
    return np.concatenate([right, wrong])


def gather(model, painter: Painter, work: Path, seed: int, count: int) -> None:
    """Add shards until there are scenes enough."""
    work.mkdir(parents=True, exist_ok=True)
    for shard in range(-(-count // _SHARD)):
        path = work / f"{seed}_{shard}.npz"
        if path.exists():
            continue
        painter.rng = np.random.default_rng([seed, shard])
        scenes: list[Scene] = []
        while len(scenes) < _SHARD:
            scene = look(model, painter)
            scenes += [scene] if scene else []
        arrays = {
            f"{name} {k}": np.asarray(value)
            for k, scene in enumerate(scenes)
            for name, value in vars(scene).items()
        }
        part = path.with_suffix(".part.npz")
        np.savez(part, **arrays)
        part.replace(path)
        print(f"{path.name}: {sum(len(s.real) for s in scenes)} masks", flush=True)


def load_scenes(work: Path) -> list[Scene]:
    """Everything gathered so far."""
    found = []
    for path in sorted(work.glob("*_*[0-9].npz")):
        shard = np.load(path)
        for k in range(_SHARD):
            values = {n: shard[f"{n} {k}"] for n in Scene.__dataclass_fields__}
            found.append(Scene(**{**values, "kind": str(values["kind"])}))
    return found

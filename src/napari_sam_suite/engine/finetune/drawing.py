"""Prompts drawn by lot on a view, as people and grids of points give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.finetune.views import HARDLY, NOTHING
from napari_sam_suite.engine.models.protocol import Prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from napari_sam_suite.engine.finetune.views import Scene

_AIMED = 0.67
"""Part of the clicks that fall on objects."""
_MIDDLE = 0.5
"""Part of those that fall near the middle of theirs."""
_SLOPPY = 0.1
"""Part of the boxes that are far off."""
_TRIES = 4


@dataclass(frozen=True)
class Asked:
    """Prompts on one view, and which object each one means.

    Attributes
    ----------
    prompts : Prompts
        In the view's pixels.
    objects : list of int
        Numbers of the scene's objects; -1 is background.
    """

    prompts: Prompts
    objects: list[int]

    def __len__(self) -> int:
        return len(self.objects)

    def select(self, rows: Sequence[int]) -> Asked:
        """Some of the prompts."""
        p, i = self.prompts, list(rows)
        prompts = Prompts(
            p.points[i],
            p.labels[i],
            None if p.boxes is None else p.boxes[i],
            None if p.masks is None else p.masks[i],
        )
        return Asked(prompts, [self.objects[k] for k in i])

    @classmethod
    def join(cls, parts: Sequence[Asked]) -> Asked:
        """Prompts of equally many points, without boxes and masks, as one list."""
        points = np.concatenate([p.prompts.points for p in parts])
        labels = np.concatenate([p.prompts.labels for p in parts])
        return cls(Prompts(points, labels), [k for p in parts for k in p.objects])


def draw_clicks(scene: Scene, count: int, rng: np.random.Generator) -> Asked:
    """Draw single clicks: two thirds on objects, the others as a grid would fall.

    Every object is equally likely, and half of its clicks are near its middle. Those
    that fall anywhere may meet an object as well; where they meet one that was left
    out because little of it can be seen, they are moved to the background.
    """
    aimed = round(count * _AIMED) if len(scene) else 0
    picked = [int(i) for i in rng.integers(len(scene), size=aimed)] if aimed else []
    points = [_inside(scene.mask(number), rng) for number in picked]
    for _ in range(count - aimed):
        point, number = _anywhere(scene, rng)
        points.append(point)
        picked.append(number)
    offset = rng.uniform(-0.5, 0.5, (count, 2))
    clicks = np.clip(np.array(points) + offset, 0, np.array(scene.shape) - 1)
    return Asked(Prompts.clicks(clicks), picked)


def draw_boxes(scene: Scene, objects: list[int], rng: np.random.Generator) -> Asked:
    """Boxes around some objects, a little off as people draw them; a tenth far off."""
    boxes = np.array([box_of(scene.mask(k)) for k in objects], float).reshape(-1, 4)
    side = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    spread = np.where(rng.random((len(boxes), 1)) < _SLOPPY, 0.1, 0.02) * side
    boxes = boxes + rng.standard_normal(boxes.shape) * np.minimum(spread, 10)
    none = np.zeros((len(boxes), 0, 2)), np.zeros((len(boxes), 0), np.int64)
    return Asked(Prompts(*none, boxes=boxes), objects)


def draw_corrections(
    scene: Scene,
    asked: Asked,
    logits: torch.Tensor,
    wrong: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Asked:
    """The same clicks once more, each with one where the answer was wrong.

    Parameters
    ----------
    scene : Scene
        Of the view.
    asked : Asked
        Clicks on objects.
    logits : Tensor, shape (B, 1, h, w)
        Answers to them, handed back to the model.
    wrong : ndarray, shape (B, h, w)
        Where they are wrong: the whole view, at the logits' resolution.
    rng : Generator
        Draws among the wrong pixels.
    """
    points, labels = [], []
    scale = np.array(scene.shape) / wrong.shape[1:]
    for number, places in zip(asked.objects, wrong, strict=True):
        mask = scene.mask(number)
        found = np.argwhere(places)
        if len(found):
            place = (found[rng.integers(len(found))] + 0.5) * scale - 0.5
        else:
            place = np.array(_inside(mask, rng), float)
        row, column = np.clip(np.round(place).astype(int), 0, np.array(mask.shape) - 1)
        points.append(place)
        labels.append(int(mask[row, column]))
    more = np.array(points).reshape(-1, 1, 2)
    kind = np.array(labels, np.int64).reshape(-1, 1)
    given = asked.prompts
    prompts = Prompts(
        np.concatenate([given.points, more], 1),
        np.concatenate([given.labels, kind], 1),
        masks=logits,
    )
    return Asked(prompts, asked.objects)


def draw_seed_points(scene: Scene, number: int, rng: np.random.Generator) -> Asked:
    """Five points inside an object and five outside, together one prompt."""
    mask = scene.mask(number)
    points, labels = [], []
    for label, where in ((1, mask), (0, ~mask)):
        found = np.argwhere(where)
        if not len(found):
            continue  # the object fills the view
        chosen = rng.choice(len(found), 5, replace=len(found) < 5)
        points += found[chosen].tolist()
        labels += [label] * 5
    points += [[0, 0]] * (10 - len(points))
    labels += [-1] * (10 - len(labels))
    prompts = Prompts(np.array([points], float), np.array([labels], np.int64))
    return Asked(prompts, [number])


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """(y0, x0, y1, x1) of a mask that is not empty, last pixels included."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])


def middle_of(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """The pixel of a mask that is nearest to its centre of mass."""
    found = np.argwhere(mask)
    nearest = ((found - found.mean(0)) ** 2).sum(1).argmin()
    y, x = found[nearest].tolist()
    return y, x


def _inside(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
    found = np.argwhere(mask)
    tries = found[rng.integers(len(found), size=_TRIES)]
    if rng.random() < _MIDDLE:
        nearest = ((tries - found.mean(0)) ** 2).sum(1).argmin()
    else:
        nearest = 0
    y, x = tries[nearest].tolist()
    return y, x


def _anywhere(scene: Scene, rng: np.random.Generator) -> tuple[tuple[int, int], int]:
    height, width = scene.shape
    y, x = int(rng.integers(height)), int(rng.integers(width))
    if scene.owner[y, x] == HARDLY:
        free = np.argwhere(scene.owner != HARDLY)
        if len(free):
            y, x = free[rng.integers(len(free))].tolist()
    return (y, x), max(int(scene.owner[y, x]), NOTHING)

"""How good a model is on views it does not learn from, asked the same every time."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.engine.finetune.drawing import Asked, draw_boxes, draw_clicks
from napari_sam_suite.engine.finetune.losses import actual_iou
from napari_sam_suite.engine.finetune.views import HARDLY
from napari_sam_suite.engine.proposals import propose

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.finder import Stop
    from napari_sam_suite.engine.finetune.lessons import Lesson, Lessons
    from napari_sam_suite.engine.finetune.trainee import Trainee
    from napari_sam_suite.engine.finetune.views import Scene

_CLICKS = 16
_BOXES = 6
_GOOD = 0.5
"""IoU from which an answer counts as the object."""
_THRESHOLDS = np.arange(0.05, 0.96, 0.05)
_SEED = 20


@dataclass(frozen=True)
class Score:
    """Means over all prompts, each 0..1.

    Attributes
    ----------
    iou : float
        Of the best rated answer to a click, with the object clicked on.
    box : float
        Of the answer to a box.
    f1 : float
        Of telling objects from background by the answers' ratings: a click on an object
        is right if its answer has an IoU of at least 0.5 and is rated above the
        threshold, one on the background if its answer is rated below.
    threshold : float
        The rating at which `f1` is best.
    guide : float or None
        F1 of the places that the guide proposes, where the model has one: each object
        should have one, and the background none.
    """

    iou: float
    box: float
    f1: float
    threshold: float = 0.5
    guide: float | None = None

    @property
    def value(self) -> float:
        """One number: what training tries to raise."""
        parts = [self.iou, self.box, self.f1]
        parts += [] if self.guide is None else [self.guide]
        return sum(parts) / len(parts)

    def as_dict(self) -> dict[str, float]:
        """As JSON can hold it."""
        return asdict(self) | {"value": self.value}


class Exam:
    """The same clicks and boxes on the same views, for every model.

    Parameters
    ----------
    lessons : Lessons
        Views that nobody learns from.
    """

    def __init__(self, lessons: Lessons) -> None:
        self._lessons = lessons
        self._asked: list[tuple[Asked, Asked]] = []
        for number in range(len(lessons)):
            rng = np.random.default_rng([_SEED, number])
            scene = lessons[number].scene
            clicks = draw_clicks(scene, _CLICKS, rng)
            some = rng.permutation(len(scene))[:_BOXES].tolist()
            self._asked.append((clicks, draw_boxes(scene, some, rng)))

    def score(self, trainee: Trainee, stop: Stop) -> Score:
        """Ask everything.

        Raises
        ------
        Cancelled
            If `stop` said so.
        """
        trainee.refresh()
        reached: list[NDArray[np.float32]] = []
        rated: list[NDArray[np.float32]] = []
        boxes: list[NDArray[np.float32]] = []
        found: list[tuple[int, int, int]] = []
        for number, (clicks, boxed) in enumerate(self._asked):
            if stop():
                raise Cancelled
            lesson = self._lessons[number]
            with torch.no_grad():
                lesson = replace(lesson, embedding=trainee.embed(lesson.embedding))
            real, rating = _ask(trainee, lesson, clicks, single=False)
            reached.append(np.where(np.array(clicks.objects) >= 0, real, np.nan))
            rated.append(rating)
            if len(boxed):
                boxes.append(_ask(trainee, lesson, boxed, single=True)[0])
            if trainee.guided:
                guide = lesson.embedding.maps()["guide"]
                found.append(_find(propose(guide, lesson.scene.shape), lesson.scene))
        score = _summarise(np.concatenate(reached), np.concatenate(rated), boxes)
        if not found:
            return score
        hits, points, objects = np.sum(found, 0).tolist()
        return replace(score, guide=2 * hits / max(1, points + objects))


def _find(points: NDArray[np.float64], scene: Scene) -> tuple[int, int, int]:
    """How many objects have a point, and how many points and objects there are.

    Points on objects that are hardly seen do not count.
    """
    places = np.clip(np.rint(points).astype(int), 0, np.array(scene.shape) - 1)
    owner = scene.owner[places[:, 0], places[:, 1]]
    hits = len(np.unique(owner[owner >= 0]))
    return hits, int((owner != HARDLY).sum()), len(scene)


def _ask(
    trainee: Trainee, lesson: Lesson, asked: Asked, *, single: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Actual IoU and rating of the answer that inference would take."""
    with torch.no_grad():
        logits, iou = trainee.answer(lesson.embedding, asked.prompts)
        low, side = logits.shape[-1], trainee.input_size
        there = lesson.shares(asked.objects, low, side).to(iou)
        rows = torch.arange(len(asked))
        best = 0 * rows if single else iou[:, 1:].argmax(1).cpu() + 1
        real = actual_iou(logits[rows, best][:, None], there)[:, 0]
        return real.float().cpu().numpy(), iou[rows, best].float().cpu().numpy()


def _summarise(
    reached: NDArray[np.float32],
    rated: NDArray[np.float32],
    boxes: list[NDArray[np.float32]],
) -> Score:
    """`reached` is the IoU of clicks on objects and NaN for others."""
    objects = ~np.isnan(reached)
    good = objects & (np.nan_to_num(reached) >= _GOOD)
    f1 = np.array(
        [
            2 * (good & (rated > t)).sum() / max(1, objects.sum() + (rated > t).sum())
            for t in _THRESHOLDS
        ]
    )
    # Of many that are about as good, the one in the middle is the safest.
    best = np.flatnonzero(f1 >= f1.max() - 0.005)
    threshold = float(_THRESHOLDS[best[len(best) // 2]])
    iou = float(reached[objects].mean()) if objects.any() else 0.0
    box = float(np.concatenate(boxes).mean()) if boxes else iou
    return Score(iou, box, float(f1.max()), round(threshold, 3))

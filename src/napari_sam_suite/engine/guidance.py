"""What a model's guide says of masks: they lean towards the object that was meant.

Every place of the image names the middle of its object (see `proposals`). Places that
name the middle of the object asked for belong to it, places that name another one do
not, and this is added to the logits of the mask decoder, which sees the same features
but decides place by place. It is the likelihood of Neven et al. 2019 ("Instance
segmentation by jointly optimizing spatial embeddings and clustering bandwidth"), as a
logit with bounds.

The model's own estimate of IoU is of the mask before, so it is given anew: by a
logistic regression from that estimate and from how far the guide agrees that the mask
is one whole object (`training/rating.py` fits it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit, logit

from napari_sam_suite.engine.clicked import bumps, siding
from napari_sam_suite.engine.extent import filling
from napari_sam_suite.engine.models.protocol import to_numpy
from napari_sam_suite.engine.proposals import UNIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.models.protocol import Decoded, Embedding, Prompts

STRENGTH = 3.0
"""Logit that is added where a place names the middle itself."""
REACH = 0.7
"""Distance of the named middle, in sizes of the object, at which nothing is added."""
MOST_AGAINST = 3.0
"""Strengths that are taken away at most, far from the middle."""
INSIDE = 0.5
"""Part of the guide's own logit of being in any object that is added."""
SURE = 4.0
"""That logit's bound."""
FILLED = 0.88
"""Side of the square of an object's area over that of its box: an ellipse."""
BOXED = 0.6
"""Part of the strength with a box, which says much by itself."""
TELLING = 0.35
"""Standard deviation, in sides of the box, of the middles that tell of its object."""
LEAST_TOLD = 1e-3
"""Places, weighed, that can tell of the object in a box."""
MARGIN = 1.0
"""Places that an object may reach beyond its box."""
NEVER = -20.0
"""Logit that is added outside the box."""
RATING = (0.36, 1.7, 0.586, -0.854, -0.69)
"""Weights of 1 and of the four signs of `Guidance.signs`, from training images."""
_WORST = 1e-3
"""Least estimate that is told from others."""
_FAR = 3.0
"""Most of the last sign."""
UNDRAWN = 0.5
"""Part of the least score wanted that an estimate before must reach to be drawn."""


@dataclass(frozen=True)
class Guidance:
    """A guide's maps of one image, in places of its maps.

    Attributes
    ----------
    inside : ndarray, shape (h, w)
        Logit of being in an object.
    named : ndarray, shape (2, h, w)
        (y, x) of the middle that each place names.
    size : ndarray, shape (h, w)
        Side of the square of the object's area.
    scale : ndarray, shape (2,)
        Places per pixel of the image, in y and x.
    """

    inside: NDArray[np.float32]
    named: NDArray[np.float32]
    size: NDArray[np.float32]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, embedding: Embedding) -> Guidance | None:
        """What the guide says of an embedded image; None if the model has none."""
        if "guide" not in embedding.features:
            return None
        guide = to_numpy(embedding.features["guide"])[0]
        shape = guide.shape[1:]
        places = np.indices(shape, np.float32)
        size = np.exp(guide[4]) * UNIT
        scale = np.array(shape) / np.array(embedding.shape)
        return cls(guide[0], places + guide[2:4] * UNIT, size, scale)

    def lean(self, decoded: Decoded, prompts: Prompts) -> Decoded:
        """Masks that lean towards what the guide says of their prompts' objects.

        Parameters
        ----------
        decoded : Decoded
            The decoder's answers, with logits of (K, h, w).
        prompts : Prompts
            What was asked, in pixels of the image. Boxes tell the middle and the size
            of what they are around; else every inside point names them, and else a
            mask has them.

        Returns
        -------
        Decoded
            On the CPU, rated anew.
        """
        decoded = decoded.numpy()
        logits = decoded.logits.copy()
        anyhow = INSIDE * self.inside.clip(-SURE, SURE)
        for b in np.unique(decoded.prompt).tolist():
            meant = self._meant(prompts, b)
            if meant is None:
                continue
            clicks = self._clicks(prompts, b)
            for k in np.flatnonzero(decoded.prompt == b):
                logits[k] += anyhow + meant.near
                if clicks is not None:
                    y, x = clicks.places
                    if prompts.boxes is None:
                        logits[k] -= siding(logits[k, y, x], clicks.inside)
                    logits[k] += bumps(
                        clicks.points, clicks.inside, meant.size, self.size.shape
                    )
                if prompts.boxes is not None:
                    low, high = self._placed(prompts.boxes[b])
                    half, area = self.scale / 2, self._told(low, high).area
                    logits[k] -= filling(logits[k], low - half, high + half, area)
        signs = self.signs(logits > 0, decoded.iou)
        score = expit(RATING[0] + signs @ RATING[1:])
        return replace(decoded, logits=logits, iou=score.astype(np.float32))

    def signs(
        self, masks: NDArray[np.bool_], iou: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """What a mask's quality is told by.

        Parameters
        ----------
        masks : ndarray of bool, shape (K, h, w)
            In places of the guide.
        iou : ndarray, shape (K,)
            The model's estimates.

        Returns
        -------
        ndarray, shape (K, 4)
            The estimate's logit; the mean chance of its places to be in an object; how
            far off its own middle are those that they name, in sizes of the mask; how
            far its size is off the one they tell, as a logarithm, 3 at most. An empty
            mask has the worst of all.
        """
        found = np.zeros((len(masks), 4))
        found[:, 0] = logit(np.clip(iou, _WORST, 1 - _WORST))
        found[:, 2:] = 1, _FAR
        chance = expit(self.inside)
        for k in range(len(masks)):
            y, x = np.nonzero(masks[k])
            if not len(y):
                found[k, 0] = logit(_WORST)
                continue
            off, other = self.doubts(y, x)
            found[k, 1:] = chance[y, x].mean(), off, min(_FAR, other)
        return found

    def doubts(self, y: NDArray[np.intp], x: NDArray[np.intp]) -> tuple[float, float]:
        """What speaks against some places being one object, and all of it.

        Parameters
        ----------
        y, x : ndarray of int, shape (N,)
            Rows and columns of the places, one at least.

        Returns
        -------
        (float, float)
            How far off their middle are those that they name, in sizes of a square of
            their number; how far their number is off the one they tell, as a logarithm.
        """
        off = np.hypot(self.named[0, y, x] - y.mean(), self.named[1, y, x] - x.mean())
        told = 2 * np.log(self.size[y, x]).mean()
        return float(off.mean() / np.sqrt(len(y))), float(abs(np.log(len(y)) - told))

    def _meant(self, prompts: Prompts, b: int) -> _Meant | None:
        """What favours the object of a prompt; None if it has no place."""
        points, labels = prompts.points[b], prompts.labels[b]
        inside = points[labels == 1]
        if prompts.boxes is not None:
            return self._boxed(prompts.boxes[b])
        if len(inside):
            return self._pointed(inside)
        if prompts.masks is not None:
            return self._masked(prompts.masks[b, 0] > 0)
        return None

    def _clicks(self, prompts: Prompts, b: int) -> _Clicks | None:
        """The clicks of a prompt; None if there is but one that means the object."""
        labels = prompts.labels[b]
        alone = int((labels == 1).sum() == 1 and prompts.boxes is None)
        if (labels >= 0).sum() <= alone:
            return None
        points = prompts.points[b][labels >= 0]
        places = (points + 0.5) * self.scale - 0.5
        return _Clicks(places, self._nearest(points), labels[labels >= 0] == 1)

    def _nearest(self, points: NDArray[np.float64]) -> tuple[NDArray[np.intp], ...]:
        """Rows and columns of the places that points of the image are in."""
        last = np.array(self.size.shape) - 1
        y, x = np.clip((points + 0.5) * self.scale, 0, last).astype(np.intp).T
        return y, x

    def _placed(
        self, box: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The first and the last place (y, x) of a box."""
        low, high = (box.reshape(2, 2) + 0.5) * self.scale - 0.5
        return low, high

    def _pointed(self, points: NDArray[np.float64]) -> _Meant:
        """What favours the objects at some points; their mean size."""
        y, x = self._nearest(points)
        sizes = self.size[y, x].clip(2.0)
        near = [
            self._near(self.named[:, y[i], x[i]], float(size))
            for i, size in enumerate(sizes)
        ]
        return _Meant(np.max(near, 0), float(sizes.mean()))

    def _masked(self, mask: NDArray[np.bool_]) -> _Meant:
        """What favours the object that a mask is of; its size."""
        y, x = np.nonzero(mask)
        if mask.shape != self.size.shape or not len(y):
            return _Meant(np.zeros(self.size.shape, np.float32), 2.0)
        middle, size = np.array([y.mean(), x.mean()]), max(2.0, float(np.sqrt(len(y))))
        return _Meant(self._near(middle, size), size)

    def _boxed(self, box: NDArray[np.float64]) -> _Meant:
        """What favours an object in a box and keeps it there; its size."""
        low, high = self._placed(box)
        told = self._told(low, high)
        added = np.float32(BOXED) * self._near(told.middle, told.size)
        outside = np.ones(added.shape, bool)
        outside[_around(low, high)] = False
        added[outside] += NEVER
        return _Meant(added, told.size)

    def _told(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> _Told:
        """Middle and size of the object in a box.

        The mean of what an ellipse in the box would have, and of what the places say
        that name the middle of the box.
        """
        inner = _around(low, high)
        middle = (low + high) / 2
        side = float(np.sqrt(np.maximum(high - low + self.scale, 1).prod()))
        size = FILLED * side
        off = np.hypot(*(self.named[k][inner] - middle[k] for k in range(2)))
        weight = expit(self.inside[inner]) * np.exp(
            -((off / (TELLING * side)) ** 2) / 2
        )
        total = float(weight.sum())
        if total < LEAST_TOLD:
            return _Told(middle, size, size**2)
        weight = weight / total
        named = np.array([(weight * self.named[k][inner]).sum() for k in range(2)])
        told = float(np.exp((weight * np.log(self.size[inner])).sum()))
        return _Told((middle + named) / 2, math.sqrt(size * told), told * told)

    def _near(self, middle: NDArray[np.floating], size: float) -> NDArray[np.float32]:
        """Logits (h, w): high where the middle named is near `middle`."""
        y, x = (self.named[axis] - np.float32(middle[axis]) for axis in range(2))
        near = 1 - (y * y + x * x) / np.float32((REACH * size) ** 2)
        found: NDArray[np.float32] = STRENGTH * near.clip(-MOST_AGAINST, None)
        return found


def blend(
    logits: NDArray[np.float32], iou: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """The mean of all answers to one click, each as much as it is worth.

    Parameters
    ----------
    logits : ndarray, shape (N, h, w)
        The answers, leaning.
    iou : ndarray, shape (N,)
        How they are rated.

    Returns
    -------
    (ndarray, float)
        Logits (h, w), and the mean rating.
    """
    worth = iou / max(float(iou.sum()), _WORST)
    mixed: NDArray[np.float32] = np.tensordot(worth, logits, 1).astype(np.float32)
    return mixed, float(worth @ iou)


def unlike(mask: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The order of masks (N, h, w), those with the least IoU with another first."""
    common = (others & mask).sum((1, 2))
    either = (others | mask).sum((1, 2))
    return np.argsort(common / np.maximum(either, 1), kind="stable")


class _Meant(NamedTuple):
    """Logits (h, w) in favour of an object, and its size in places."""

    near: NDArray[np.float32]
    size: float


class _Clicks(NamedTuple):
    """Clicks: (N, 2) points in places, the (y, x) they are in, and if on the object."""

    points: NDArray[np.float64]
    places: tuple[NDArray[np.intp], ...]
    inside: NDArray[np.bool_]


class _Told(NamedTuple):
    """Middle (y, x) and size of the object in a box; its area as the guide has it."""

    middle: NDArray[np.float64]
    size: float
    area: float


def _around(low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[slice, slice]:
    """Places of a box and a little more."""
    first = np.ceil(low - MARGIN).astype(int).clip(0)
    end = (np.floor(high + MARGIN).astype(int) + 1).clip(0)
    return slice(first[0], end[0]), slice(first[1], end[1])

"""How much a descriptor is like the examples of a tag.

SAM's features share a large common part, so the cosines of any two objects lie close
together. Whitening by everything that is not an example takes that part away:
directions in which everything varies count little, those in which the examples stand
apart count much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SHRINKAGE = 0.6
"""How far the covariance is drawn to the unit matrix; chosen on training images for
single cells, of which there are many. Descriptors of masks have more columns than there
are examples, and do better with 1."""
NEAREST = (0.0, 0.5, 1.0)
"""Weights of the nearest example beside what all examples share, to choose from."""
CLEARLY = 1.2
"""How much better the nearest example must separate to be looked at."""


@dataclass(frozen=True)
class Scorer:
    """Likeness to the examples of one tag: about 1 for them, 0 for the rest's mean.

    Fisher's linear discriminant with a shrunk covariance. Where it makes the examples
    more alike, judged by leaving each of them out, it is joined with the likeness to
    the nearest example: that serves tags whose examples are of several kinds.

    Attributes
    ----------
    centre, spread : ndarray, shape (D,)
        Mean and standard deviation of the rest.
    whiten : ndarray, shape (D, K)
        To a space in which the rest has about unit covariance.
    examples : ndarray, shape (n, K)
        Whitened descriptors of the examples.
    groups : ndarray, shape (n,), int
        Descriptors with the same number are of the same example.
    nearest : float
        Weight of the likeness to the nearest example.
    """

    centre: Array
    spread: Array
    whiten: Array
    examples: Array
    groups: NDArray[np.int64]
    nearest: float = 0.0

    @classmethod
    def fit(
        cls,
        examples: NDArray[np.floating],
        rest: NDArray[np.floating],
        groups: NDArray[np.integer] | None = None,
        *,
        shrinkage: float = SHRINKAGE,
    ) -> Self:
        """Learn from examples and from what else there is.

        Parameters
        ----------
        examples : ndarray, shape (n, D)
            Descriptors of one tag, n > 0.
        rest : ndarray, shape (m, D)
            Descriptors of everything else. With fewer than 2 nothing is whitened.
        groups : ndarray, shape (n,), optional
            Which descriptors are of the same example; each its own by default.
        shrinkage : float
            In 0..1; at 1 the columns are only standardised.
        """
        x = np.asarray(examples, np.float64)
        r = np.asarray(rest, np.float64)
        known = len(r) > 1
        centre = r.mean(0) if known else np.zeros(x.shape[1])
        spread = np.concatenate([x, r]).std(0) if known else np.ones(x.shape[1])
        spread[spread < 1e-6] = 1.0
        whiten = np.eye(x.shape[1])
        if known:
            z = (r - centre) / spread
            covariance = (1 - shrinkage) * (z.T @ z / len(z))
            covariance[np.diag_indices_from(covariance)] += shrinkage
            values, vectors = np.linalg.eigh(covariance)
            whiten = vectors / np.sqrt(np.maximum(values, 1e-9))
        own = np.arange(len(x)) if groups is None else np.asarray(groups, np.int64)
        points = (x - centre) / spread @ whiten
        choices = [cls(centre, spread, whiten, points, own, n) for n in NEAREST]
        plain, *others = choices
        best = max(others, key=lambda scorer: scorer._separation(r))
        clear = best._separation(r) > CLEARLY * max(plain._separation(r), 0.0)
        return best if clear else plain

    def score(self, descriptors: NDArray[np.floating]) -> Array:
        """Likeness of descriptors (N, D), shape (N,)."""
        x = np.asarray(descriptors, np.float64)
        points = (x - self.centre) / self.spread @ self.whiten
        return _likeness(points, self.examples, self.nearest)

    def held_out(self) -> Array:
        """Likeness of every example, as if it had not been given.

        Returns
        -------
        ndarray, shape (groups,)
            In the order of their numbers, of the first descriptor of each; empty for
            a single example.
        """
        each, firsts = self.held_out_each(), np.unique(self.groups, return_index=True)
        return each[firsts[1]] if len(each) else each

    def held_out_each(self) -> Array:
        """Likeness of all descriptors, as if their example had not been given.

        Returns
        -------
        ndarray, shape (n,)
            Empty for a single example.
        """
        numbers = np.unique(self.groups)
        if len(numbers) < 2:
            return np.zeros(0)
        scores = np.empty(len(self.groups))
        for number in numbers:
            mine = self.groups == number
            others = self.examples[~mine]
            scores[mine] = _likeness(self.examples[mine], others, self.nearest)
        return scores

    def _separation(self, rest: Array) -> float:
        """How far held-out examples lie above the rest, in standard deviations."""
        own = self.held_out()
        if not len(own) or not len(rest):
            return 0.0
        others = self.score(rest)
        spread = np.sqrt(own.var() + others.var() + 1e-12)
        return float((own.mean() - others.mean()) / spread)


def _likeness(points: Array, examples: Array, nearest: float) -> Array:
    mean = examples.mean(0)
    shared: Array = points @ mean / max(float(mean @ mean), 1e-12)
    if not nearest:
        return shared
    lengths = np.maximum((examples**2).sum(1), 1e-12)
    closest: Array = (points @ examples.T / lengths).max(1)
    return (1 - nearest) * shared + nearest * closest

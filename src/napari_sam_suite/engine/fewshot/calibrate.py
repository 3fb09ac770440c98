"""From scores to probabilities: what the examples say about each other.

Every example is scored as if it had not been given; unseen objects of the kind will
score about the same. The rest is known to score around 0. With one bell curve for each
and the same width for both, a score becomes the probability of being of the kind, and
0.5 is the threshold that needs no looking for. Where the examples have little in common
the curves lie on each other, everything is near 0.5, and the model's own rating of its
masks decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUGGESTED = 0.5
"""Threshold at which both kinds are equally likely."""
_FEW = 4
"""Examples from which their mean and spread can be trusted."""
_MEAN, _SPREAD = 0.5, 0.25
"""Of held-out scores that are assumed of fewer."""
_NARROWEST = 0.05
_STEEPEST = 30.0


@dataclass(frozen=True)
class Calibration:
    """Turns scores into probabilities.

    Attributes
    ----------
    middle : float
        Score at which both kinds are equally likely.
    slope : float
        Change of the log-odds with the score; 0 where the score says nothing.
    """

    middle: float
    slope: float

    @classmethod
    def of(cls, held_out: NDArray[np.floating], rest: NDArray[np.floating]) -> Self:
        """Calibrate by scores of examples, each held out, and of the rest.

        Parameters
        ----------
        held_out : ndarray, shape (n,)
            With fewer than 4 their mean and spread are assumed.
        rest : ndarray, shape (m,)
            What is known not to be of the kind.
        """
        known = len(held_out) >= _FEW
        high = float(held_out.mean()) if known else _MEAN
        wide = float(held_out.std()) if known else _SPREAD
        low = float(rest.mean()) if len(rest) else 0.0
        other = float(rest.std()) if len(rest) > 1 else _SPREAD
        variance = (max(wide, _NARROWEST) ** 2 + max(other, _NARROWEST) ** 2) / 2
        return cls((high + low) / 2, max(high - low, 0.0) / variance)

    def log_odds(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Logarithm of the odds of being of the kind."""
        odds = self.slope * (np.asarray(scores, np.float64) - self.middle)
        return np.clip(odds, -_STEEPEST, _STEEPEST)


def probability(log_odds: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probability from log-odds, between 0 and 1."""
    return np.asarray(1 / (1 + np.exp(-np.asarray(log_odds, np.float64))))

"""Which tag each candidate gets, and how surely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Judgement:
    """Which tag each of N candidates is most like, and how clearly.

    Attributes
    ----------
    tags, runners_up : list of str
        The best and the second tag; the second is empty if there is one tag only.
    similarity : ndarray, shape (N,)
        With the best tag: its probability in fast mode, the cosine in exact mode.
    margin : ndarray, shape (N,)
        Distance to the similarity of the second tag, or to 0, the background.
    rank : ndarray, shape (N,)
        Among several outlines of one object that of the highest is the best.
    """

    tags: list[str]
    runners_up: list[str]
    similarity: NDArray[np.float64]
    margin: NDArray[np.float64]
    rank: NDArray[np.float64]

    def select(self, rows: NDArray[np.integer]) -> Judgement:
        """Of some of the candidates."""
        return Judgement(
            [self.tags[i] for i in rows],
            [self.runners_up[i] for i in rows],
            self.similarity[rows],
            self.margin[rows],
            self.rank[rows],
        )

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        scores: NDArray[np.float64],
        ranks: NDArray[np.float64],
    ) -> Judgement:
        """Judge scores (N, T) of the tags `names`, with the rank (N, T) of each."""
        order = np.argsort(-scores, 1, kind="stable")
        best, second = (
            np.take_along_axis(numbers, order[:, k : k + 1], 1).sum(1)
            for numbers, k in ((scores, 0), (scores, 1))
        )
        rank = np.take_along_axis(ranks, order[:, :1], 1)[:, 0]
        runners_up = [names[i] for i in order[:, 1]] if len(names) > 1 else None
        return cls(
            [names[i] for i in order[:, 0]],
            runners_up or [""] * len(scores),
            best,
            best - second,
            rank,
        )

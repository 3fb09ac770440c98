"""How far a training is: scores epoch by epoch, the best one, and when it is over."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.finetune.scoring import Score

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_sam_suite.engine.finetune.params import FinetuneParams


@dataclass(frozen=True)
class Epoch:
    """What one epoch brought; a part of the training's job.

    Attributes
    ----------
    number, total : int
        Which of how many; 0 is the base model before training.
    loss : float
        Mean over the epoch; NaN for epoch 0.
    score : Score
        On the validation views.
    best : bool
        Whether no epoch before was as good.
    """

    number: int
    total: int
    loss: float
    score: Score
    best: bool


@dataclass
class Progress:
    """Where a training stands between two epochs."""

    epoch: int = 0
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    ended: str = ""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Progress:
        """Read what `as_dict` gave."""
        names = [f.name for f in fields(Score)]
        scores = [
            Score(**{name: row[name] for name in names if name in row})
            for row in told["history"]
        ]
        return cls(
            told["epoch"], told["best_epoch"], told["history"], scores, told["ended"]
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "ended": self.ended,
        }

    @property
    def base(self) -> Score:
        """Of the model that training began with."""
        return self.scores[0]

    @property
    def best(self) -> Score:
        """The highest so far."""
        return self.scores[self.best_epoch]

    def add(self, loss: float, score: Score) -> bool:
        """Take the next epoch; whether it is the best so far."""
        better = bool(self.scores) and score.value > self.best.value
        self.scores.append(score)
        self.epoch = len(self.scores) - 1
        if better:
            self.best_epoch = self.epoch
        told = None if math.isnan(loss) else round(loss, 6)
        self.history.append({"epoch": self.epoch, "loss": told, **score.as_dict()})
        return better

    def epochs(self, total: int) -> list[Epoch]:
        """All until now, for those who did not see them."""
        found: list[Epoch] = []
        best = self.base.value
        for score, row in zip(self.scores, self.history, strict=True):
            loss = math.nan if row["loss"] is None else row["loss"]
            better = score.value > best
            best = max(best, score.value)
            found.append(Epoch(row["epoch"], total, loss, score, better))
        return found

    def is_over(self, params: FinetuneParams) -> str:
        """Why there is no further epoch; empty if there is."""
        if self.ended:
            return self.ended
        if self.epoch >= (params.epochs or 0):
            return f"all {params.epochs} epochs are done"
        if self.epoch - self.best_epoch >= params.patience:
            return f"no better score in {params.patience} epochs"
        return ""

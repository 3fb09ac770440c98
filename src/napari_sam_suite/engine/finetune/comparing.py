"""Automatic masks of the same frames by the base model and by the tuned one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_sam_suite.engine.filters import refilter
from napari_sam_suite.engine.finetune.calibrate import (
    THRESHOLDS,
    Frames,
    auto_params,
    auto_scores,
    draw_candidates,
    find_thresholds,
    lowest_thresholds,
    margin,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from torch import Tensor

    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.finetune.data import Sample
    from napari_sam_suite.engine.finetune.trainee import Trainee
    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.metrics import Scores
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.models.registry import ModelSpec, Search
    from napari_sam_suite.engine.params import AutoParams

    Weights = dict[str, Tensor]
    Tile = int | Literal["auto", "off"]

_LIKE_ITS_OWN = 1.25
"""Sides of tiles over each other up to which they are the same."""
_JUDGED, _TRIED = 2, 6
"""Frames that a tuned model is judged by, and that tiles are tried on."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Automatic masks of validation frames by the base model and by the tuned one.

    Attributes
    ----------
    sample : Sample
        The first of the frames.
    before, after : Masks
        What each found in it.
    base, tuned : Scores
        Over all frames that were looked at, each with its own best settings.
    suits : dict
        Thresholds and search with which the tuned model is best, and the tile where it
        is the base's, as a card has them.
    share : float
        How far the tuned model is from the base: 1 as it was taught, 0.5 halfway, 0
        with the base's weights and other tiles; see `suit`.
    """

    sample: Sample
    before: Masks
    after: Masks
    base: Scores
    tuned: Scores
    suits: dict[str, float | str]
    share: float = 1.0

    @classmethod
    def of(
        cls, sample: Sample, before: _Judged, after: _Judged, share: float
    ) -> Comparison:
        """Of what was found before and after."""
        scores = before.scores, after.scores
        return cls(sample, before.shown, after.shown, *scores, after.suits, share)

    @property
    def better(self) -> bool:
        """Whether the tuned model finds more than the base model."""
        base, tuned = np.nan_to_num([self.base.f1, self.tuned.f1])
        return bool(tuned > base)


def compare(
    trainee: Trainee,
    start: Weights,
    samples: Sequence[Sample],
    tile: int | Literal["off"],
    guesses: tuple[float, float],
    *,
    report: Report,
    stop: Stop,
) -> Comparison:
    """Segment validation frames with the base model and with the tuned one.

    Both may use the best thresholds, the best search and the better tiles (those that
    suit the objects, or the base's) that are found on these frames, so that what is
    gained is the training's. The tuned model is judged as it is and halfway between
    it and the base (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022),
    which is better for objects that the base knows a little. The trainee is left with
    the better weights.

    Parameters
    ----------
    trainee : Trainee
        With its best weights.
    start : Weights
        Those it began with.
    samples : sequence of Sample
        Frames to judge by.
    tile : int or "off"
        Side of the tiles.
    guesses : (float, float)
        Ratings at which the search begins, for the base model and for the tuned one.
    report, stop : callable
        Progress, and the wish to stop.

    Raises
    ------
    Cancelled
        If `stop` said so.
    """
    words = "Comparing with the base model"
    judge = _Judge(samples[:_JUDGED], words, report, stop)
    guess, guess_tuned = guesses
    before = judge.best(trainee.base, trainee.guided, tile, guess)
    taught = trainee.weights()
    halfway = {name: (start[name] + value) / 2 for name, value in taught.items()}
    trainee.load(halfway)
    half = judge.best(trainee, trainee.guided, tile, (guess + guess_tuned) / 2)
    trainee.load(taught)
    whole = judge.best(trainee, trainee.guided, tile, guess_tuned)
    after = _better(half, whole)
    if after is half:
        trainee.load(halfway)
    return Comparison.of(samples[0], before, after, 0.5 if after is half else 1.0)


def suit(
    model: SamModel,
    samples: Sequence[Sample],
    tile: int | Literal["off"],
    *,
    report: Report,
    stop: Stop,
) -> Comparison | None:
    """Segment frames with a model's own tiles and with those that suit the objects.

    For a model that has not learnt from the frames, and that training did not better:
    where its objects are smaller or larger than it expects, tiles alone may help.

    Parameters
    ----------
    model : SamModel
        The base.
    samples : sequence of Sample
        Frames, of which up to six are looked at.
    tile : int or "off"
        Side of the tiles that suit the objects.
    report, stop : callable
        Progress, and the wish to stop.

    Returns
    -------
    Comparison or None
        With the share 0; none where the tiles hardly differ or do not clearly help.

    Raises
    ------
    Cancelled
        If `stop` said so.
    """
    if _like_its_own(tile, model.spec):
        return None
    words = "Looking for tiles that suit the objects"
    judge = _Judge(samples[:_TRIED], words, report, stop)
    own, suited = judge.usual(model, "auto"), judge.usual(model, tile)
    if suited.f1 <= own.f1 + margin(own.scores):
        return None
    return Comparison.of(samples[0], own, suited, 0.0)


class _Judged(NamedTuple):
    """Masks of the first frame, agreement of all, and the settings it was with."""

    shown: Masks
    scores: Scores
    suits: dict[str, float | str]

    @property
    def f1(self) -> float:
        return float(np.nan_to_num(self.scores.f1))


class _Judge:
    """Looks for automatic masks in the same frames, with any model and settings."""

    def __init__(
        self, samples: Sequence[Sample], words: str, report: Report, stop: Stop
    ) -> None:
        self._samples, self._words = samples, words
        self._report, self._stop = report, stop

    def _draw(self, model: SamModel, params: AutoParams) -> Frames:
        def told(done: int, total: int, _: str) -> None:
            self._report(done, total, self._words)

        return draw_candidates(
            model, self._samples, params, report=told, stop=self._stop
        )

    def usual(self, model: SamModel, tile: Tile) -> _Judged:
        """With the thresholds and the search that the model has."""
        params = auto_params(tile, search="auto").resolved(model.spec)
        frames = self._draw(model, params)
        suits = {name: float(getattr(params, name)) for name in THRESHOLDS}
        return _Judged(
            refilter(frames[0][0], params),
            auto_scores(frames, params),
            {**suits, "search": model.spec.auto.search},
        )

    def best(
        self, model: SamModel, guided: bool, tile: int | Literal["off"], guess: float
    ) -> _Judged:
        """With what suits: the tiles may be the model's own."""
        suited = self._searched(model, guided, tile, guess)
        if _like_its_own(tile, model.spec):
            return suited
        own = self._searched(model, guided, "auto", guess)
        own.suits["tile"] = model.spec.auto.tile
        return _better(suited, own)

    def _searched(
        self, model: SamModel, guided: bool, tile: Tile, guess: float
    ) -> _Judged:
        """With what suits: a guide may not know the objects."""
        grid = self._found(model, "grid", tile, guess)
        if not guided:
            return grid
        own = self._found(model, "guided", tile, guess)
        return grid if grid.f1 > own.f1 + margin(own.scores) else own

    def _found(
        self, model: SamModel, search: Search, tile: Tile, guess: float
    ) -> _Judged:
        params = auto_params(tile, search=search).resolved(model.spec)
        frames = self._draw(model, lowest_thresholds(params))
        thresholds, scores = find_thresholds(frames, params, guess)
        shown = refilter(frames[0][0], params.with_(**thresholds))
        return _Judged(shown, scores, {**thresholds, "search": search})


def _better(one: _Judged, other: _Judged) -> _Judged:
    return other if other.f1 > one.f1 else one


def _like_its_own(tile: int | Literal["off"], spec: ModelSpec) -> bool:
    """Whether tiles are hardly other than those that the model has anyway."""
    usual = spec.auto.tile * spec.input_size
    return tile == "off" or max(usual, tile) <= _LIKE_ITS_OWN * min(usual, tile)

"""Automatic masks of the same frames by the base model and by the tuned one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from napari_sam_suite.engine.filters import refilter
from napari_sam_suite.engine.finetune.calibrate import (
    THRESHOLDS,
    Frames,
    auto_params,
    auto_scores,
    draw_candidates,
    f1_of,
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
_JUDGED, _LEARNT, _TRIED = 2, 4, 6
"""Frames that a tuned model is judged by, held out and not, and to try tiles on."""
_NOTHING = 1e-9
"""F1 by which sums are off because of their rounding."""
_LEAST_GAIN = 0.02
"""What is gained that a model is believed better: one that seemed so by 0.004, cells of
phase contrast, had lost 0.08 on other images."""
_LEARNT_COUNTS = 0.5
"""What a gain counts on frames that were learnt from."""
_MOST_LOST = 0.05
"""F1 that a better model may have lost on frames held out, by chance."""
_GOOD_GUIDE = 0.6
"""F1 from which a guide knows the objects, so that no grid is tried in its place."""


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
    learnt : (Scores, Scores), optional
        The same two on frames that the tuned model has learnt from, with the same
        settings.
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
    learnt: tuple[Scores, Scores] | None = None

    @classmethod
    def of(
        cls, sample: Sample, before: _Judged, after: _Judged, share: float
    ) -> Comparison:
        """Of what was found before and after."""
        scores = before.scores, after.scores
        found, learnt = (before.shown, after.shown), None
        if before.learnt is not None and after.learnt is not None:
            learnt = before.learnt, after.learnt
        return cls(sample, *found, *scores, after.suits, share, learnt)

    @property
    def gain(self) -> float:
        """How much F1 rises, where frames that were learnt from count half.

        One validation frame tells little of the next one: its objects may be those
        that the base knows anyway.
        """
        gained = f1_of(self.tuned) - f1_of(self.base)
        if self.learnt is not None:
            base, tuned = self.learnt
            gained += _LEARNT_COUNTS * (f1_of(tuned) - f1_of(base))
        return gained

    @property
    def better(self) -> bool:
        """Whether the tuned model finds clearly more, and on validation frames no less.

        No less than chance may take away: within the standard error, and 0.05 at most.
        Tiles alone, without other weights, have been tried before; see `suit`.
        """
        lost = f1_of(self.base) - f1_of(self.tuned)
        allowed = min(margin(self.base), _MOST_LOST) if self.learnt else 0
        least = _LEAST_GAIN if self.share else 0.0
        return (
            self.gain > max(least - _NOTHING, _NOTHING) and lost <= allowed + _NOTHING
        )


def compare(
    trainee: Trainee,
    start: Weights,
    held: Sequence[Sample],
    learnt: Sequence[Sample],
    tile: int | Literal["off"],
    guesses: tuple[float, float],
    *,
    report: Report,
    stop: Stop,
) -> Comparison:
    """Segment validation frames with the base model and with the tuned one.

    Both may use the best thresholds, the best search and the better tiles (those that
    suit the objects, or the base's) that are found on these frames, so that what is
    gained is the training's. Frames that were learnt from are segmented with the same
    settings, and what is gained there counts half when it is asked whether the model
    is better; which weights are better, the validation frames say. The tuned model is
    judged as it is and halfway between it and the base (Wortsman et al., "Robust
    fine-tuning of zero-shot models", 2022), which is better for objects that the base
    knows a little. The trainee is left with the better weights.

    Parameters
    ----------
    trainee : Trainee
        With its best weights.
    start : Weights
        Those it began with.
    held : sequence of Sample
        Frames to choose settings on and to judge by.
    learnt : sequence of Sample
        Further frames to judge by, which the trainee has learnt from.
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
    judge = _Judge(held[:_JUDGED], words, report, stop)
    again = _Judge(learnt[:_LEARNT], words, report, stop)

    def found(model: SamModel, guess: float, *, grid: bool = False) -> _Judged:
        best = judge.best(model, trainee.guided, tile, guess, grid=grid)
        return best if not learnt else again.as_well(model, best)

    guess, guess_tuned = guesses
    before = found(trainee.base, guess)
    taught = trainee.weights()
    halfway = {name: (start[name] + value) / 2 for name, value in taught.items()}
    trainee.load(halfway)
    half = found(trainee, (guess + guess_tuned) / 2)
    trainee.load(taught)
    whole = found(trainee, guess_tuned)
    searches = half.suits["search"], whole.suits["search"]
    if trainee.guided and "grid" in searches:
        before = found(trainee.base, guess, grid=True)
    ways = [
        Comparison.of(held[0], before, after, share)
        for after, share in ((half, 0.5), (whole, 1.0))
    ]
    better = max(ways, key=lambda way: (way.better, f1_of(way.tuned), way.gain))
    if better.share < 1:
        trainee.load(halfway)
    return better


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
    """Masks of the first frame, agreement of all, and the settings it was with.

    `params` are the same settings as they are run, `learnt` the agreement of frames
    that were learnt from.
    """

    shown: Masks
    scores: Scores
    suits: dict[str, float | str]
    params: AutoParams
    learnt: Scores | None = None

    @property
    def f1(self) -> float:
        return f1_of(self.scores)


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
            params,
        )

    def as_well(self, model: SamModel, found: _Judged) -> _Judged:
        """What was found in other frames, with the agreement of these."""
        frames = self._draw(model, found.params)
        return found._replace(learnt=auto_scores(frames, found.params))

    def best(
        self,
        model: SamModel,
        guided: bool,
        tile: int | Literal["off"],
        guess: float,
        *,
        grid: bool = False,
    ) -> _Judged:
        """With what suits: the tiles may be the model's own.

        With `grid` one is tried even where the guide knows the objects.
        """
        suited = self._searched(model, guided, tile, guess, grid)
        if _like_its_own(tile, model.spec):
            return suited
        own = self._searched(model, guided, "auto", guess, grid)
        own.suits["tile"] = model.spec.auto.tile
        return _better(suited, own)

    def _searched(
        self, model: SamModel, guided: bool, tile: Tile, guess: float, grid: bool
    ) -> _Judged:
        """With what suits: a guide may not know the objects."""
        if not guided:
            return self._found(model, "grid", tile, guess)
        own = self._found(model, "guided", tile, guess)
        if own.f1 >= _GOOD_GUIDE and not grid:
            return own
        other = self._found(model, "grid", tile, guess)
        return other if other.f1 > own.f1 + margin(own.scores) else own

    def _found(
        self, model: SamModel, search: Search, tile: Tile, guess: float
    ) -> _Judged:
        params = auto_params(tile, search=search).resolved(model.spec)
        frames = self._draw(model, lowest_thresholds(params))
        thresholds, scores = find_thresholds(frames, params, guess)
        params = params.with_(**thresholds)
        shown = refilter(frames[0][0], params)
        return _Judged(shown, scores, {**thresholds, "search": search}, params)


def _better(one: _Judged, other: _Judged) -> _Judged:
    return other if other.f1 > one.f1 else one


def _like_its_own(tile: int | Literal["off"], spec: ModelSpec) -> bool:
    """Whether tiles are hardly other than those that the model has anyway."""
    usual = spec.auto.tile * spec.input_size
    return tile == "off" or max(usual, tile) <= _LIKE_ITS_OWN * min(usual, tile)

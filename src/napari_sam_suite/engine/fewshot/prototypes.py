"""What was learnt from examples: kept, saved, and used on other images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_sam_suite.engine.errors import ModelError, ParameterError
from napari_sam_suite.engine.fewshot.calibrate import Calibration, probability
from napari_sam_suite.engine.fewshot.fast import Sizes
from napari_sam_suite.engine.fewshot.judgement import Judgement
from napari_sam_suite.engine.fewshot.prototype_files import read_files, write_files
from napari_sam_suite.engine.fewshot.quality import size_odds
from napari_sam_suite.engine.fewshot.scorer import Scorer
from napari_sam_suite.engine.fewshot.verifier import verifier_id, verify
from napari_sam_suite.engine.models.protocol import weights_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam_suite.engine.models.protocol import SamModel

Mode = Literal["fast", "exact"]

_LIKENESS, _SURE = 0.7, 4.0
"""Weight of the likeness beside the outline, and the most that its log-odds can speak
for a candidate: of few examples they are too sure. Chosen on training images."""
_ALIKE, _VERIFIED, _RATED, _MORE = 0.5, 0.7, 0.3, 0.5
"""Weights of the likeness, of a verifier and of the model's own ratings where there is
a verifier, which knows much of both; and log-odds of every candidate then. Chosen on
training images, where a third more or less of each is about as good."""
_FOUND, _CLEAR, _MOVED = 0.75, 1.0, 0.5
"""Part of the examples that usually reach these log-odds, each judged without itself.
The bar is moved by half of what they have more, or miss. Chosen on training images,
where 0.5 to 0.8, 1 to 2 and 0.25 to 0.5 are about as good. With a verifier, which sees
the examples themselves, it is better not to move it."""
_FEW = 4
"""Examples that the model outlines rightly from which that can be said."""
_ARRAYS = (
    "vectors",
    "groups",
    "areas",
    "widths",
    "rated",
    "rest",
    "cells",
    "cell_rest",
    "looks",
)


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Descriptors of examples and of what is around them.

    Attributes
    ----------
    model, weights : str
        Id of the model that made the features, and what tells its weights from
        others.
    mode : {"fast", "exact"}
        Whether features were pooled from a shared embedding or from crops.
    tags, negatives : tuple of str
        What to find, and what is not meant.
    labels : tuple of str
        Tag of each descriptor.
    vectors : ndarray, shape (n, D), float32
        Descriptors of the examples as drawn and as the model draws them.
    groups : ndarray, shape (n,), int64
        Which example a descriptor is of.
    areas, widths : ndarray, shape (examples,), float32
        Their sizes in pixels; see `fast.Sizes`.
    rated : ndarray, shape (n,), float32
        What rates the outline of each descriptor: `Seen.odds`. Not a number for
        outlines that a person drew.
    looks : ndarray, shape (n, L), float32
        What a verifier sees of each; see `verifier.look_at`. L is 0 without one. Not
        numbers for objects that a person confirmed; see `accept`.
    rest : ndarray, shape (m, D), float32
        Descriptors of what is known to be no such object.
    cells, cell_rest : ndarray, shape (n, C) and (k, C), float32
        Of the coarse features inside examples and elsewhere.
    """

    model: str
    weights: str
    mode: Mode
    tags: tuple[str, ...]
    negatives: tuple[str, ...]
    labels: tuple[str, ...]
    vectors: NDArray[np.float32]
    groups: NDArray[np.int64]
    areas: NDArray[np.float32]
    widths: NDArray[np.float32]
    rest: NDArray[np.float32] = field(default_factory=lambda: _none())
    cells: NDArray[np.float32] = field(default_factory=lambda: _none())
    cell_rest: NDArray[np.float32] = field(default_factory=lambda: _none())
    rated: NDArray[np.float32] = field(default_factory=lambda: _none().reshape(-1))
    looks: NDArray[np.float32] = field(default_factory=lambda: _none())

    def __len__(self) -> int:
        return len(self.areas)

    @cached_property
    def scorers(self) -> dict[str, Scorer]:
        """One scorer per tag, those not meant included."""
        return {tag: self._fit(tag) for tag in (*self.tags, *self.negatives)}

    @cached_property
    def calibrations(self) -> dict[str, Calibration]:
        """What the scores of each tag mean."""
        return {
            tag: Calibration.of(scorer.held_out(), scorer.score(self._others(tag)))
            for tag, scorer in self.scorers.items()
        }

    @cached_property
    def allowances(self) -> dict[str, float]:
        """Log-odds given to every candidate of a tag where there is no verifier.

        Examples that pass the bar easily, each of them judged without itself, raise
        it, for what is like them will pass too. Those that hardly pass lower it, and
        far enough for most of them.
        """
        return {tag: self._allowance(tag) for tag in self.scorers}

    @cached_property
    def likeness(self) -> Scorer:
        """Scores single cells of the coarse features."""
        return Scorer.fit(self.cells, self.cell_rest)

    @cached_property
    def sizes(self) -> Sizes:
        """How large the examples are."""
        return Sizes(self.areas, self.widths)

    def _of(self, tag: str) -> NDArray[np.bool_]:
        return np.array([label == tag for label in self.labels], bool)

    def _others(self, tag: str) -> NDArray[np.float32]:
        return np.concatenate([self.rest, self.vectors[~self._of(tag)]])

    def _fit(self, tag: str) -> Scorer:
        mine = self._of(tag)
        return Scorer.fit(
            self.vectors[mine], self._others(tag), self.groups[mine], shrinkage=1.0
        )

    def _allowance(self, tag: str) -> float:
        mine, scorer = self._of(tag), self.scorers[tag]
        each = scorer.held_out_each()
        if not len(each) or not len(self.rated) or self.looks.size:
            return 0.0
        numbers = self.groups[mine]
        odds = self._weigh(tag, each, self.rated[mine], self.areas[numbers], None)
        outlined = np.isfinite(odds)
        best = [odds[outlined & (numbers == n)] for n in np.unique(numbers[outlined])]
        if len(best) < _FEW:
            return 0.0
        reached = float(np.quantile([o.max() for o in best], 1 - _FOUND))
        return max(-reached, _MOVED * (_CLEAR - reached))

    def _weigh(
        self,
        tag: str,
        scores: NDArray[np.floating],
        ratings: NDArray[np.floating] | float,
        areas: NDArray[np.number] | None,
        verified: NDArray[np.floating] | None,
    ) -> NDArray[np.float64]:
        """Log-odds (N,) of being of a tag, by likeness (N,) and outline."""
        alike = temper(self.calibrations[tag].log_odds(scores))
        if verified is None:
            odds = _LIKENESS * alike + ratings
        else:
            odds = _ALIKE * alike + _VERIFIED * verified + _RATED * ratings + _MORE
        return odds + self._sized(tag, areas)

    def _sized(
        self, tag: str, areas: NDArray[np.number] | None
    ) -> NDArray[np.float64] | float:
        return 0.0 if areas is None else size_odds(areas, self._areas(tag))

    def _verify(
        self, tag: str, looks: NDArray[np.floating] | None
    ) -> NDArray[np.float64] | None:
        if looks is None or not looks.size or not self.looks.size:
            return None
        drawn = self._drawn(tag)
        return verify(looks, self.looks[drawn]) if len(drawn) else None

    def _drawn(self, tag: str) -> NDArray[np.intp]:
        """The descriptor of every example of a tag as it was drawn: its first."""
        mine = np.flatnonzero(self._of(tag) & np.isfinite(self.looks).all(1))
        return mine[np.unique(self.groups[mine], return_index=True)[1]]

    def judge(
        self,
        descriptors: NDArray[np.floating],
        ratings: NDArray[np.floating] | float = 0.0,
        areas: NDArray[np.number] | None = None,
        looks: NDArray[np.floating] | None = None,
    ) -> Judgement:
        """Weigh for every tag how alike candidates are and how well outlined.

        Parameters
        ----------
        descriptors : ndarray, shape (N, D)
            What they look like.
        ratings : ndarray, shape (N,), optional
            See `fast.Seen.odds`.
        areas : ndarray, shape (N,), optional
            In pixels; unlike those of the examples of a tag they speak against it.
        looks : ndarray, shape (N, L), optional
            See `verifier.look_at`.
        """
        odds, ranks = [], []
        for tag, scorer in self.scorers.items():
            alike, verified = scorer.score(descriptors), self._verify(tag, looks)
            of_tag = self._weigh(tag, alike, ratings, areas, verified)
            odds.append(of_tag + self.allowances[tag])
            if verified is not None:
                # The core of an object is more like it than all of it, and the
                # verifier has seen the ratings.
                ranks.append(_VERIFIED * verified + self._sized(tag, areas))
        if len(ranks) < len(odds):
            ranks = odds
        scores = probability(np.stack(odds, 1))
        return Judgement.of(list(self.scorers), scores, np.stack(ranks, 1))

    def _areas(self, tag: str) -> NDArray[np.float32]:
        return self.areas[np.unique(self.groups[self._of(tag)])]

    def accept(
        self,
        vectors: NDArray[np.floating],
        labels: Sequence[str],
        sizes: Sizes,
    ) -> Prototypes:
        """The same with more examples, such as objects that a person confirmed.

        The verifier compares with outlines that a person drew, and not with these: on
        training images it became worse when it did.

        Raises
        ------
        ParameterError
            If a label is none of the tags.
        """
        known = (*self.tags, *self.negatives)
        for label in labels:
            if label not in known:
                raise ParameterError(
                    f"The prototypes know no tag {label!r}.",
                    f"Choose one of: {', '.join(known)}.",
                )
        more = np.arange(len(labels)) + int(self.groups.max(initial=-1)) + 1
        rated = self.rated
        if len(rated):
            unrated = np.full(len(labels), np.nan, np.float32)
            rated = np.concatenate([rated, unrated])
        looks = self.looks
        if looks.size:
            unseen = np.full((len(labels), looks.shape[1]), np.nan, np.float32)
            looks = np.concatenate([looks, unseen])
        return replace(
            self,
            rated=rated,
            looks=looks,
            labels=(*self.labels, *labels),
            vectors=np.concatenate([self.vectors, np.asarray(vectors, np.float32)]),
            groups=np.concatenate([self.groups, more]),
            areas=np.concatenate([self.areas, sizes.areas]),
            widths=np.concatenate([self.widths, sizes.widths]),
        )

    def reject(self, vectors: NDArray[np.floating]) -> Prototypes:
        """The same with descriptors of what a person said is no such object."""
        rest = np.concatenate([self.rest, np.asarray(vectors, np.float32)])
        return replace(self, rest=rest)

    def check(self, model: str, mode: Mode | None = None) -> None:
        """Make sure that they fit a model and a mode.

        Raises
        ------
        ParameterError
            If they were made otherwise.
        """
        if model != self.model:
            raise ParameterError(
                f"These prototypes were made with the model {self.model}, not {model}.",
                f"Choose {self.model}, or make them anew from the examples.",
            )
        if mode not in (None, self.mode):
            raise ParameterError(
                f"These prototypes were made in {self.mode} mode, not in {mode} mode.",
                f"Choose the mode {self.mode}, or make them anew from the examples.",
            )

    def check_weights(self, model: SamModel) -> None:
        """Make sure that a loaded model has the weights that they were made with.

        Raises
        ------
        ModelError
            If it has others, as after fine-tuning or in another release: whatever the
            image.
        """
        if weights_of(model) != self.weights:
            raise ModelError(
                f"These prototypes were made with other weights of {self.model}.",
                "Make them anew from the examples.",
            )

    def save(self, path: str | Path) -> None:
        """Write ``NAME.safetensors`` and, beside it, ``NAME.json``.

        Raises
        ------
        OutputError
            If the files cannot be written.
        """
        card = {
            "model": self.model,
            "weights": self.weights,
            "verifier": verifier_id(),
            "mode": self.mode,
            "tags": list(self.tags),
            "negatives": list(self.negatives),
            "labels": list(self.labels),
            "examples": len(self),
        }
        write_files(path, card, {name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, path: str | Path) -> Prototypes:
        """Read what `save` wrote.

        Looks of another verifier, as of another release, are left out: what is found
        is then judged without one.

        Raises
        ------
        ParameterError
            If a file is missing, damaged or something else.
        """
        return read_files(path, cls._of_files)

    @classmethod
    def _of_files(
        cls, card: dict[str, Any], arrays: dict[str, NDArray[Any]]
    ) -> Prototypes:
        if card["mode"] not in ("fast", "exact"):
            raise ValueError(card["mode"])
        if card.get("verifier") != verifier_id():
            arrays["looks"] = arrays["vectors"][:, :0]
        found = cls(
            model=card["model"],
            weights=card["weights"],
            mode=card["mode"],
            tags=tuple(card["tags"]),
            negatives=tuple(card["negatives"]),
            labels=tuple(card["labels"]),
            **{name: arrays[name] for name in _ARRAYS},
        )
        rows = len(found.labels)
        if not rows == len(found.vectors) == len(found.groups):
            raise ValueError("the files do not belong together")
        if found.looks.size and len(found.looks) != rows:
            raise ValueError("looks and descriptors do not belong together")
        return found


def temper(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds that grow to `_SURE` at most; what is unlike is as unlike as before."""
    above = np.maximum(log_odds, 0)
    return np.minimum(log_odds, 0) + _SURE * above / (_SURE + above)


def _none() -> NDArray[np.float32]:
    return np.zeros((0, 0), np.float32)

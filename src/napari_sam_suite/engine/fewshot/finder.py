"""The few-shot capability: examples or prototypes in, objects of every frame out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.fewshot.calibrate import SUGGESTED
from napari_sam_suite.engine.fewshot.choose import not_known, resolve
from napari_sam_suite.engine.fewshot.exact import (
    cosines,
    crop_vectors,
    exact_candidates,
    prototype,
)
from napari_sam_suite.engine.fewshot.examples import Examples, draw_masks
from napari_sam_suite.engine.fewshot.fast import Seen, embed, look, tile_key
from napari_sam_suite.engine.fewshot.judgement import Judgement
from napari_sam_suite.engine.fewshot.learn import Learner, learn_exact
from napari_sam_suite.engine.fewshot.progress import part_of
from napari_sam_suite.engine.finder import Found
from napari_sam_suite.engine.masks import Masks, pixel_ids
from napari_sam_suite.engine.suppression import share_out

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from napari_sam_suite.engine.fewshot.params import FewShotParams
    from napari_sam_suite.engine.fewshot.prototypes import Prototypes
    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.objects import Objects

_MOST = 512 * 2**20
"""Bytes of candidates that are kept, of all frames together."""
_UNVERIFIED = (
    "The prototypes were learnt without the verifier of this release, so what is found "
    "is judged by likeness and ratings alone; make them anew from the examples."
)
_SAFE = 2.0
"""Exact mode hides no mask smaller than this many times the largest example."""


@dataclass
class FewShot:
    """Finds what is like the examples in every frame, as a `Finder`.

    Attributes
    ----------
    params : FewShotParams
        Mode, threshold, sizes.
    examples : Examples, optional
        Learnt from at the first frame, unless there are prototypes.
    prototypes : Prototypes, optional
        Learnt before; set once they are learnt.
    known : Objects, optional
        Objects of the image to be searched that shall not be found again, as the
        examples themselves; unless overlaps are allowed, their pixels stay theirs.
    rejected : Objects, optional
        What somebody said is none: not found again either, but its pixels are free.
    keep : bool
        Keep what was seen in every frame, for `filter` with another threshold or
        other prototypes. Of more than 512 MB nothing is kept.
    too_much : str
        Why nothing was kept, in one sentence; empty if it was.
    """

    params: FewShotParams
    examples: Examples | None = None
    prototypes: Prototypes | None = None
    known: Objects | None = None
    rejected: Objects | None = None
    keep: bool = False
    seen: dict[FrameIndex, Seen] = field(default_factory=dict)
    ids: dict[FrameIndex, dict[str, int]] = field(default_factory=dict)
    """With `keep`: ids of the objects that were chosen, each with its candidate."""
    too_much: str = ""
    name = "few-shot"

    def __post_init__(self) -> None:
        if self.examples is None and self.prototypes is None:
            raise ParameterError(
                "There are neither examples nor prototypes.",
                "Tag some shapes, or load prototypes.",
            )
        self._name = str(uuid4())
        self._tiles: dict[str, Seen] = {}
        self._known: dict[FrameIndex, Masks] = {}
        self._found: dict[FrameIndex, dict[str, Masks]] = {}
        self._bytes = 0
        # Until a frame is answered: it may be tried again, or fail for good.
        self._unsaid: tuple[str, ...] = ()
        self._warned = False

    def check(self, spec: ModelSpec) -> None:
        """Make sure that everything fits the model, before it is loaded.

        Raises
        ------
        ParameterError
            If the prototypes were made with another model or in the other mode, or a
            parameter does not fit.
        """
        self.params.resolved(spec)
        if self.prototypes is not None:
            self.prototypes.check(spec.id, self.params.mode)

    def __call__(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        frame: FrameIndex,
        *,
        report: Report,
        stop: Stop,
    ) -> Found:
        """Find in one RGB frame (H, W, 3) what is like the examples."""
        self.check(model.spec)
        if self.prototypes is not None:
            self.prototypes.check_weights(model)
        exact = self.params.mode == "exact"
        first = int(self.prototypes is None)
        if self.prototypes is None:
            assert self.examples is not None, "checked when it was made"
            self._unsaid = self.examples.notices
            self.prototypes = self.learn(model, part_of(report, 0, 2 + exact), stop)
        prototypes, count = self.prototypes, first + 1 + exact
        if exact:
            comparing = part_of(report, first + 1, count)
            seen = self._look_exact(
                model, rgb, prototypes, part_of(report, first, count), comparing, stop
            )
        else:
            searching = part_of(report, first, count)
            seen = self._look(model, rgb, prototypes, searching, stop)
        known, rejected = (
            draw_masks(objects.at(frame), seen.masks.shape)
            if objects is not None
            else Masks.empty(seen.masks.shape)
            for objects in (self.known, self.rejected)
        )
        for others in (known, rejected):
            seen = seen.select(not_known(seen.masks, others))
        if seen.looks.size and not prototypes.looks.size and not self._warned:
            self._unsaid += (_UNVERIFIED,)
            self._warned = True
        notices, self._unsaid = self._unsaid, ()
        if self.keep:
            notices += self._keep(frame, seen, known)
        return replace(self._choose(frame, seen, known, prototypes), notices=notices)

    def filter(
        self,
        frame: FrameIndex,
        threshold: float | None = None,
        settled: Collection[str] = (),
        kept: Collection[str] = (),
    ) -> Found:
        """Choose again among what was seen in a frame, without the model.

        Parameters
        ----------
        frame : FrameIndex
            One that was searched with `keep`.
        threshold : float, optional
            In place of that of the parameters.
        settled : collection of str
            Ids of objects that somebody has decided on: neither they are chosen, nor
            what would be the same object, a part or the whole of one.
        kept : collection of str
            Of these, those that are there: their pixels stay theirs, unless overlaps
            are allowed.
        """
        if self.too_much:
            raise ParameterError(self.too_much)
        if self.prototypes is None or frame not in self.seen:
            raise ParameterError(
                "This frame was not searched.", "Search it first, with keep=True."
            )
        seen, ids, known = self.seen[frame], self.ids[frame], self._known[frame]
        free = np.ones(len(seen.masks), bool)
        rows = [ids[one] for one in settled if one in ids]
        if rows:
            free[:] = False
            free[not_known(seen.masks, seen.masks.select(rows))] = True
        there = [self._found[frame][one] for one in kept if one in ids]
        known = Masks.concat([known, *there])
        return self._choose(frame, seen, known, self.prototypes, threshold, free)

    def learn(self, model: SamModel, report: Report, stop: Stop) -> Prototypes:
        """What the examples teach, as the first frame would be searched with."""
        assert self.examples is not None, "checked when it was made"
        if self.params.mode == "exact":
            return learn_exact(model, self.examples, self.params, report, stop)
        learner = Learner(model, self.params, report, stop)
        prototypes = learner.learn(self.examples)
        self._tiles = learner.seen
        return prototypes

    def _keep(self, frame: FrameIndex, seen: Seen, known: Masks) -> tuple[str, ...]:
        """Keep what was seen; once it is too much, nothing, and say so."""
        if self.too_much:
            return ()
        if frame in self.seen:
            self._bytes -= self.seen[frame].nbytes + self._known[frame].nbytes
        self._bytes += seen.nbytes + known.nbytes
        if self._bytes > _MOST:
            for held in (self.seen, self.ids, self._known, self._found):
                held.clear()
            self.too_much = (
                "This run is too large to be filtered by another threshold; search "
                "fewer frames."
            )
            return (self.too_much,)
        self.seen[frame], self._known[frame] = seen, known
        self.ids[frame], self._found[frame] = {}, {}
        return ()

    def _look(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        prototypes: Prototypes,
        report: Report,
        stop: Stop,
    ) -> Seen:
        """Fast mode: every tile that was not looked at before is encoded once."""
        sizes = prototypes.sizes
        regions = sizes.regions((rgb.shape[0], rgb.shape[1]), model, self.params)
        parts = []
        for k, region in enumerate(regions):
            report(k, len(regions), "Finding similar objects")
            seen = self._tiles.get(tile_key(rgb, region))
            if seen is None:
                seen = look(
                    model,
                    rgb,
                    region,
                    embed(model, rgb, region, stop),
                    sizes,
                    prototypes.likeness,
                    self.params,
                    stop,
                )
            parts.append(seen)
        report(len(regions), len(regions), "Finding similar objects")
        return Seen.join(parts)

    def _look_exact(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        prototypes: Prototypes,
        proposing: Report,
        comparing: Report,
        stop: Stop,
    ) -> Seen:
        """Exact mode: automatic masks, each encoded on its own."""
        params = self.params.resolved(model.spec)
        if params.max_area is None:
            largest = int(np.ceil(_SAFE * prototypes.areas.max()))
            least = params.min_area or 0
            params = params.with_(max_area=min(max(1000, largest, least), 100_000))
        masks = exact_candidates(model, rgb, params, proposing, stop)
        vectors = crop_vectors(model, rgb, masks, params.occupancy, comparing, stop)
        none = np.zeros(len(masks))
        return Seen(masks, vectors, none, none.astype(bool), vectors[:, :0])

    def _choose(
        self,
        frame: FrameIndex,
        seen: Seen,
        known: Masks,
        prototypes: Prototypes,
        threshold: float | None = None,
        free: NDArray[np.bool_] | bool = True,
    ) -> Found:
        """Objects among the free candidates: similar enough, and nothing twice."""
        masks = seen.masks
        if not len(masks):
            return Found(masks)
        judged = self._judge(seen, prototypes)
        asked = self.params.threshold if threshold is None else threshold
        least = SUGGESTED if asked == "auto" else float(asked)
        passed = np.flatnonzero(free & (judged.similarity >= least))
        rows = passed[resolve(masks.select(passed), judged.rank[passed])]
        # What is not meant keeps other outlines of its place from being found.
        wanted = np.array([tag in prototypes.tags for tag in judged.tags], bool)
        rows = rows[wanted[rows]]
        best = masks.select(rows)
        if self.params.overlap == "exclusive":
            best, left = share_out(best, known, self.params.min_area or 1)
            rows = rows[left]
        columns = _columns(judged.select(rows))
        if frame in self.ids:
            # Other pixels, or another tag, make another object.
            names = [f"{self._name} {frame} {tag}" for tag in columns["tag"]]
            ids = pixel_ids(best, names)
            for k, name in enumerate(ids):
                if name not in self.ids[frame]:
                    self._found[frame][name] = best.select([k])
            self.ids[frame].update(zip(ids, rows.tolist(), strict=True))
            columns["id"] = list(ids)
        return Found(best, columns)

    def _judge(self, seen: Seen, prototypes: Prototypes) -> Judgement:
        if self.params.mode == "fast":
            return prototypes.judge(
                seen.vectors, seen.odds, seen.masks.area, seen.looks
            )
        names = [*prototypes.tags, *prototypes.negatives]
        means = [
            prototype(prototypes.vectors[np.array(prototypes.labels) == n])
            for n in names
        ]
        alike = np.stack([cosines(seen.vectors, m) for m in means], 1)
        # A cosine says nothing of the outline.
        rated = np.maximum(seen.masks.scores * seen.masks.stability, 0)
        return Judgement.of(names, alike, alike * rated[:, None])


def _columns(judged: Judgement) -> dict[str, list[object]]:
    return {
        "tag": list(judged.tags),
        "similarity": judged.similarity.tolist(),
        "runner_up": list(judged.runners_up),
        "margin": judged.margin.tolist(),
    }

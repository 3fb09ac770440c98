"""Objects of one frame carried on through time or z, frame by frame.

Each object is moved as the picture moves, and the model, any model, is prompted with
the moved mask, its box and its innermost point. Its answer is taken where it agrees
with the moved mask; where it does not, the moved mask is kept as long as the picture
below still looks the same. What is neither is not seen, and after a few such frames
lost.

Only the frames that some object was last seen in are in memory, one or two as a rule.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.finder import Found
from napari_sam_suite.engine.frames import (
    FrameIndex,
    Sizes,
    checked_frame,
    format_selection,
)
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.prompts.answers import Answer, answer
from napari_sam_suite.engine.prompts.finder import add_answer
from napari_sam_suite.engine.prompts.prompt import MaskPrompt, Prompt, check, mask_of
from napari_sam_suite.engine.propagation.motion import Motion, grey
from napari_sam_suite.engine.propagation.params import PropagateParams
from napari_sam_suite.engine.suppression import best_first, suppress_overlaps
from napari_sam_suite.engine.tiles import Region

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.objects import Objects

_ALIKE = 0.4
"""Correlation with what the motion predicts from which an object is still there."""
_SHRUNK = 0.3
"""Part of its area below which an object has left the frame or vanished."""
_NEAR = 0.3
"""IoU with the moved mask that an answer of the model alone must have."""


@dataclass(frozen=True)
class Track:
    """One object on its way, as it was last seen.

    Attributes
    ----------
    number : int
        Counted from 1 in the order of the objects that were given.
    tag : str
        Of the object it began with.
    name : str
        Id of the object that was seen last: the parent of the next.
    mask : MaskPrompt
        Its pixels there.
    seen : int
        Place of that frame along the axis.
    missed : tuple of int
        Places since then where it was looked for and not seen.
    """

    number: int
    tag: str
    name: str
    mask: MaskPrompt
    seen: int
    missed: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Sighting:
    """A track in a frame: its mask there, and who says so."""

    track: Track
    answer: Answer
    by: str


class Propagated:
    """Objects carried from frame to frame, as a `Finder`.

    It is given the frame where the objects are and then the others, away from it; when
    they go on at its other side, it begins again with the objects that were given.

    Parameters
    ----------
    objects : Objects
        Of one frame.
    params : PropagateParams
        Along which axis, and what is trusted.
    """

    name = "propagate"

    def __init__(self, objects: Objects, params: PropagateParams) -> None:
        self.params = params
        begin = objects.frames()[0]
        self._begin = self._place(begin)
        columns = objects.features[["tag", "id"]].itertuples(index=False)
        self._given = [
            Track(number, str(tag), str(name), mask_of(polygon), self._begin)
            for number, (polygon, (tag, name)) in enumerate(
                zip(objects.polygons, columns, strict=True), start=1
            )
        ]
        self._tracks = list(self._given)
        self._pictures: dict[int, NDArray[np.float32]] = {}
        self._first: NDArray[np.float32] | None = None
        self._side = 0

    def __call__(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        frame: FrameIndex,
        *,
        report: Report,
        stop: Stop,
    ) -> Found:
        """The objects in the next frame."""
        place, shape = self._place(frame), (rgb.shape[0], rgb.shape[1])
        if place == self._begin:
            self._first = self._pictures[place] = grey(rgb)
            return self._show_given(shape)
        self._turn(1 if place > self._begin else -1)
        lost = self._give_up(place)
        now = grey(rgb)
        seen = self._see(model, rgb, now, report, stop) if self._tracks else []
        builder = MaskBuilder(shape)
        for one in seen:
            add_answer(builder, one.answer, Prompt())
        masks = builder.build()
        # Of two that became one, the surer is kept; the other is not seen.
        kept = sorted(suppress_overlaps(masks, best_first(masks)).tolist())
        rows, again = [], []
        for k in kept:
            if seen[k].track.missed:
                again.append(seen[k].track)
            rows.append(self._go_on(seen[k], place))
        self._remember(place, now)
        notices = tuple(self._tell(lost, again))
        return Found(masks.select(kept), _columns(rows), notices=notices)

    def _place(self, frame: FrameIndex) -> int:
        return int(getattr(frame, self.params.axis))

    def _show_given(self, shape: tuple[int, int]) -> Found:
        builder = MaskBuilder(shape)
        rows = []
        for track in self._given:
            builder.add(track.mask.crop, track.mask.origin)
            rows.append((track.name, track.tag, track.number, "", 0, "given"))
        return Found(builder.build(), _columns(rows))

    def _turn(self, side: int) -> None:
        """Begin again when the frames go on at the other side of the first."""
        if self._side and side != self._side:
            self._tracks = list(self._given)
            self._pictures.clear()
            if self._first is not None:
                self._pictures[self._begin] = self._first
        self._side = side

    def _give_up(self, place: int) -> list[Track]:
        """Tracks that were not seen for too long are lost from here on."""
        most = self.params.max_gap + 1
        lost = [t for t in self._tracks if abs(place - t.seen) > most]
        self._tracks = [t for t in self._tracks if abs(place - t.seen) <= most]
        return lost

    def _see(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        now: NDArray[np.float32],
        report: Report,
        stop: Stop,
    ) -> list[_Sighting]:
        """Tracks that are still there."""
        needed = {track.seen for track in self._tracks}
        motions = {
            place: Motion(then, now, still=not self.params.motion)
            for place, then in self._pictures.items()
            if place in needed
        }
        moved = {}
        for track in self._tracks:
            mask = track.mask
            if track.seen in motions:
                carried = motions[track.seen].carry(mask.crop, mask.origin)
                mask = MaskPrompt(*carried)
            if np.count_nonzero(mask.crop) >= _SHRUNK * np.count_nonzero(
                track.mask.crop
            ):
                moved[track.number] = mask
        going = [track for track in self._tracks if track.number in moved]
        prompts = [_prompt(track, moved[track.number]) for track in going]
        checked = check(prompts, Sizes(y=rgb.shape[0], x=rgb.shape[1])).prompts
        answers = answer(model, rgb, checked, self.params, report=report, stop=stop)
        given = {p.number: a[0] for p, a in zip(checked, answers, strict=True) if a}
        sure = model.spec.auto.pred_iou_thresh
        seen = []
        for track in going:
            mask = moved[track.number]
            like = 0.0
            if track.seen in motions:
                like = motions[track.seen].likeness(mask.crop, mask.origin)
            one = self._judge(track, mask, like, given.get(track.number), sure)
            seen += [one] if one is not None else []
        return seen

    def _judge(
        self,
        track: Track,
        mask: MaskPrompt,
        like: float,
        given: Answer | None,
        sure: float,
    ) -> _Sighting | None:
        """The model's answer, else the moved mask, or None: not seen."""
        agreed = 0.0 if given is None else _iou(mask, given)
        if given is not None and (
            (agreed >= self.params.trust and like > 0)
            or (agreed >= _NEAR and like < _ALIKE and given.score >= sure)
        ):
            return _Sighting(track, given, "model")
        if like < _ALIKE:
            return None
        view = Region(0, 0, *mask.crop.shape)
        carried = Answer(mask.crop, mask.origin, like, np.nan, -1, view)
        return _Sighting(track, carried, "motion")

    def _go_on(self, one: _Sighting, place: int) -> tuple[object, ...]:
        """Row of the features table; the track goes on from here."""
        track, name = one.track, str(uuid4())
        mask = MaskPrompt(one.answer.crop, one.answer.origin)
        later = replace(track, name=name, mask=mask, seen=place, missed=())
        self._tracks[self._tracks.index(track)] = later
        gap = len(track.missed)
        return name, track.tag, track.number, track.name, gap, one.by

    def _remember(self, place: int, now: NDArray[np.float32]) -> None:
        """Keep this picture, and of the others those that are still needed."""
        self._tracks = [
            t if t.seen == place else replace(t, missed=(*t.missed, place))
            for t in self._tracks
        ]
        self._pictures[place] = now
        needed = {track.seen for track in self._tracks}
        self._pictures = {k: v for k, v in self._pictures.items() if k in needed}

    def _tell(self, lost: Sequence[Track], again: Sequence[Track]) -> Iterator[str]:
        """Sentences on tracks that ended, and on gaps that closed."""
        axis = self.params.axis
        by_end: dict[int, list[int]] = defaultdict(list)
        for track in lost:
            by_end[track.seen].append(track.number - 1)
        for end, numbers in sorted(by_end.items()):
            yield f"Lost after {axis} {end + 1}: track {format_selection(numbers)}."
        by_gap: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for track in again:
            by_gap[track.missed].append(track.number - 1)
        for gap, numbers in sorted(by_gap.items()):
            where = format_selection(gap)
            yield f"Not seen in {axis} {where}: track {format_selection(numbers)}."


def start_propagate(
    engine: Engine,
    image: ImageSource,
    objects: Objects,
    params: PropagateParams | None = None,
    *,
    frame: FrameIndex | None = None,
    composite: Composite | None = None,
) -> Job[Objects]:
    """Queue the objects of one frame to be carried on; each frame is a part of the job.

    Parameters
    ----------
    engine : Engine
        Whose model is asked.
    image, composite
        See `Engine.segment`.
    objects : Objects
        Those to begin with.
    params : PropagateParams, optional
        Along which axis, and how far.
    frame : FrameIndex, optional
        Where to begin, if the objects are of several frames.

    Returns
    -------
    Job of Objects
        Those of the first frame and all that follow from them, with the columns
        `track`, the number of the object that it was at first, `parent`, the id of
        the same object where it was seen before, `gap`, the frames between in which it
        was looked for in vain, and `by`: "given", "model", or "motion" where the model
        did not agree with how the picture moved.

    Raises
    ------
    ParameterError
        If there is nothing to begin with, or it is not clear where.
    FrameError
        If the frame is not in the image.
    """
    params = params or PropagateParams()
    frames = objects.frames()
    if not frames:
        raise ParameterError(
            "There are no objects to carry on.", "Find or draw some in one frame."
        )
    if frame is None and len(frames) > 1:
        raise ParameterError(
            f"The objects are of {len(frames)} frames.", "Say in which one to begin."
        )
    begin = checked_frame(frame or frames[0], image.sizes)
    here = objects.at(begin)
    if not len(here):
        raise ParameterError(
            f"There are no objects in {begin.label(image.sizes)}.",
            "Begin in a frame that has some.",
        )
    route = _route(begin, image.sizes, params)
    finder = Propagated(here, params)
    return engine.start(finder, image, frames=[begin, *route], composite=composite)


def _route(
    begin: FrameIndex, sizes: Sizes, params: PropagateParams
) -> list[FrameIndex]:
    """Frames to go through after the first, one direction after the other."""
    axis, length = params.axis, int(getattr(sizes, params.axis))
    place = int(getattr(begin, axis))
    most = params.steps or length
    forward = list(range(place + 1, min(length, place + most + 1)))
    backward = list(range(place - 1, max(-1, place - most - 1), -1))
    chosen = {
        "forward": forward,
        "backward": backward,
        "both": forward + backward,
    }[params.direction]
    if not chosen:
        raise ParameterError(
            f"There is no frame {params.direction} of {begin.label(sizes)} along "
            f"{axis}.",
            "Choose another axis, direction or frame to begin in.",
        )
    return [begin._replace(**{axis: index}) for index in chosen]


def _prompt(track: Track, mask: MaskPrompt) -> Prompt:
    """Everything that is known of an object: pixels, box and innermost point."""
    depth = distance_transform_edt(np.pad(mask.crop, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    point = float(y + mask.origin[0]), float(x + mask.origin[1])
    return Prompt(inside=(point,), box=mask.box, mask=mask, number=track.number)


def _columns(rows: Sequence[tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    names = ("id", "tag", "track", "parent", "gap", "by")
    return dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}


def _iou(mask: MaskPrompt, given: Answer) -> float:
    """IoU of two crops."""
    if not mask.crop.size or not given.crop.size:
        return 0.0
    builder = MaskBuilder((0, 0))
    builder.add(mask.crop, mask.origin)
    builder.add(given.crop, given.origin)
    both = builder.build()
    shared = both.intersection(0, 1)
    return shared / float(both.area.sum() - shared)

"""Objects of one frame carried on through time or z: who is who, and where.

How an object is found again is a `Follower`: by SAM 2's video memory, or from one frame
to the next by any model. Here is what both share: tracks and their parents, gaps, what
is lost, and which frames are gone through.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid4, uuid5

import numpy as np

from napari_sam_suite.engine.errors import ImageError, ParameterError
from napari_sam_suite.engine.finder import Found
from napari_sam_suite.engine.frames import (
    FrameIndex,
    Sizes,
    checked_frame,
    format_selection,
)
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.prompts.finder import add_answer
from napari_sam_suite.engine.prompts.prompt import MaskPrompt, Prompt, mask_of
from napari_sam_suite.engine.propagation.frames import ByFrames
from napari_sam_suite.engine.propagation.memory import ByMemory, why_not_memory
from napari_sam_suite.engine.propagation.params import PropagateParams
from napari_sam_suite.engine.propagation.stage import Stage
from napari_sam_suite.engine.propagation.track import Track, mark
from napari_sam_suite.engine.provenance import check_size
from napari_sam_suite.engine.raster import count_pixels
from napari_sam_suite.engine.suppression import best_first, suppress_overlaps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.propagation.track import Follower, Sighting


_COLUMNS = ("id", "tag", "track", "parent", "gap", "by")


class Propagated:
    """Objects carried from frame to frame, as a `Finder`.

    It is given the frame where the objects are and then the others, away from it; when
    they go on at its other side, it begins again with the objects that were given.

    Parameters
    ----------
    objects : Objects
        Of one frame.
    params : PropagateParams
        Along which axis, how, and what is trusted.
    length : int
        Frames along the axis.
    naming : str
        Ids are made from it, the same ones again; without it they are random.
    ends : collection of int
        The last place of each direction: tracks that are not seen there are lost.
    """

    name = "propagate"
    in_order = True
    """Each frame follows from the one before, so none can be left out."""

    def __init__(
        self,
        objects: Objects,
        params: PropagateParams,
        length: int,
        naming: str = "",
        ends: Collection[int] = (),
    ) -> None:
        self.params = params
        self._length = length
        self._naming = naming
        self._ends = frozenset(ends)
        begin = objects.frames()[0]
        self._begin = self._place(begin)
        self._marked = mark(objects)
        names = self._marked.features[["track", "tag", "id"]].itertuples(index=False)
        self._given = [
            Track(int(number), str(tag), str(name), mask_of(polygon), self._begin)
            for polygon, (number, tag, name) in zip(
                objects.polygons, names, strict=True
            )
        ]
        self._tracks = list(self._given)
        self._follower: Follower | None = None
        self._side = 0
        self._recalled: frozenset[int] = frozenset()
        # Until a frame is answered: it may be tried again, or fail for good.
        self._unsaid: list[str] = []
        self._lost: list[Track] = []

    def leave_out(self, count: int) -> None:
        """Say, with the first frame, how many objects are not carried on."""
        what = "1 object covers" if count == 1 else f"{count} objects cover"
        was = "was" if count == 1 else "were"
        self._unsaid.append(f"{what} no pixel of the image and {was} left out.")

    def resume(self, stage: Stage) -> list[int]:
        """Go on from what a run left that was broken off.

        Returns
        -------
        list of int
            Places along the axis whose frames are to be shown again, in this order,
            before the next one; they answer with nothing.
        """
        self._tracks = [going.track() for going in stage.tracks]
        self._side = stage.side
        self._follower = ByFrames(self.params)
        self._recalled = frozenset(track.seen for track in self._tracks)
        return [self._begin, *sorted(self._recalled - {self._begin})]

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
        if self._follower is None:
            self._follower = self._choose(model, shape)
        if place == self._begin:
            self._follower.begin(model, rgb, place, self._given)
            return self._show_given(shape)
        if place in self._recalled:
            self._follower.recall(rgb, place)
            return Found(MaskBuilder(shape).build())
        self._end_recall()
        self._turn(self._follower, 1 if place > self._begin else -1)
        self._lost += self._give_up(place)
        seen: list[Sighting] = []
        if self._tracks:
            seen = self._follower.look(
                model, rgb, place, self._tracks, report=report, stop=stop
            )
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
        self._tracks = [
            t if t.seen == place else replace(t, missed=(*t.missed, place))
            for t in self._tracks
        ]
        if place in self._ends:
            self._lost += [track for track in self._tracks if track.missed]
        self._follower.keep(place, self._tracks)
        self._unsaid += self._tell(self._lost, again)
        self._lost = []
        found = masks.select(kept)
        return Found(found, _columns(rows), None, self._say(), self._state())

    def _end_recall(self) -> None:
        """Make sure that all was shown again that the next frame follows from."""
        shown = getattr(self._follower, "pictures", {})
        for place in sorted(self._recalled - {self._begin, *shown}):
            raise ImageError(
                f"This frame follows from {self.params.axis} {place + 1}, which could "
                "not be read again.",
                "Put the image back as it was, and run again.",
            )
        self._recalled = frozenset()

    def _state(self) -> Callable[[], bytes] | None:
        """What the next frame needs; of the video memory there is no file."""
        if not isinstance(self._follower, ByFrames):
            return None
        side, tracks = self._side, tuple(self._tracks)
        return lambda: Stage.of(side, tracks).pack()

    def _place(self, frame: FrameIndex) -> int:
        return int(getattr(frame, self.params.axis))

    def _say(self) -> tuple[str, ...]:
        """What was not told yet."""
        said, self._unsaid = tuple(self._unsaid), []
        return said

    def _choose(self, model: SamModel, shape: tuple[int, int]) -> Follower:
        """By memory or by frames, and for ``auto`` a sentence on why."""
        method = self.params.resolved(model.spec).method
        if method == "auto":
            why = why_not_memory(model, self._given, shape)
            method = "memory" if why is None else "frames"
            self._unsaid += [why] if why else []
        if method == "memory":
            return ByMemory(self.params, self._length)
        return ByFrames(self.params)

    def _show_given(self, shape: tuple[int, int]) -> Found:
        builder = MaskBuilder(shape)
        for track in self._given:
            builder.add(track.mask.crop, track.mask.origin)
        columns = self._marked.features[list(_COLUMNS)]
        rows = list(columns.itertuples(index=False, name=None))
        given = builder.build()
        return Found(given, _columns(rows), None, self._say(), self._state())

    def _turn(self, follower: Follower, side: int) -> None:
        """Begin again when the frames go on at the other side of the first."""
        if side != self._side:
            self._tracks = list(self._given)
            follower.turn(backward=side < 0)
        self._side = side

    def _give_up(self, place: int) -> list[Track]:
        """Tracks that were not seen for too long are lost from here on."""
        most = self.params.max_gap + 1
        lost = [t for t in self._tracks if abs(place - t.seen) > most]
        self._tracks = [t for t in self._tracks if abs(place - t.seen) <= most]
        return lost

    def _go_on(self, one: Sighting, place: int) -> tuple[object, ...]:
        """Row of the features table; the track goes on from here."""
        track, name = one.track, str(uuid4())
        if self._naming:
            text = f"{self._naming}/{track.name}/{place}"
            name = str(uuid5(NAMESPACE_URL, text))
        mask = MaskPrompt(one.answer.crop, one.answer.origin)
        later = replace(track, name=name, mask=mask, seen=place, missed=())
        self._tracks[self._tracks.index(track)] = later
        gap = len(track.missed)
        return name, track.tag, track.number, track.name, gap, one.by

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
        `track`, a number that stays with the object, see `mark`; `parent`, the id of
        the same object in the frame where it was seen before, towards the first, and
        empty for those that were given; `gap`, the frames between in which it was
        looked for in vain; and `by`: "given", "memory", "model", or "motion" where the
        model did not agree with how the picture moved. Divisions are not looked for:
        of two daughters the one that is more like the mother goes on as the track.

    Raises
    ------
    ParameterError
        If there is nothing to begin with, it is not clear where, the objects are of an
        image of another size, or the memory is wanted of a model that has none.
    FrameError
        If the frame is not in the image.
    """
    if params is not None:
        params.resolved(engine.spec)
    check_size(objects.source, image)
    finder, frames = plan_propagation(image.sizes, objects, params, frame)
    return engine.start(finder, image, frames=frames, composite=composite)


def plan_propagation(
    sizes: Sizes,
    objects: Objects,
    params: PropagateParams | None = None,
    frame: FrameIndex | None = None,
    *,
    naming: str = "",
) -> tuple[Propagated, list[FrameIndex]]:
    """The finder that carries objects on, and the frames in the order it needs them.

    Parameters and errors are those of `start_propagate` and `Propagated`.
    """
    params = params or PropagateParams()
    frames = objects.frames()
    if not frames:
        raise ParameterError(
            "There are no objects to carry on.", "Find or draw some in one frame."
        )
    if frame is None and len(frames) > 1:
        raise ParameterError(
            f"The objects are of {len(frames)} frames.",
            "Say in which one to begin with `frame`.",
        )
    begin = checked_frame(frame or frames[0], sizes)
    here = objects.at(begin)
    if not len(here):
        raise ParameterError(
            f"There are no objects in {begin.label(sizes)}.",
            "Begin in a frame that has some.",
        )
    _check_places(here, sizes)
    shape = (sizes.y, sizes.x)
    seen = np.array([count_pixels(one, shape) > 0 for one in here.polygons])
    if not seen.any():
        raise ParameterError(
            f"The objects in {begin.label(sizes)} cover no pixel.",
            "Begin with objects that are a pixel or more wide.",
        )
    route = [begin, *_route(begin, sizes, params)]
    length = int(getattr(sizes, params.axis))
    places = [int(getattr(frame, params.axis)) for frame in route]
    ends = {min(places), max(places)}
    finder = Propagated(here.select(seen), params, length, naming, ends)
    if not seen.all():
        finder.leave_out(len(here) - int(seen.sum()))
    return finder, route


def _check_places(objects: Objects, sizes: Sizes) -> None:
    """Refuse objects that are not in the image at all."""
    beyond = sum(
        y1 < -0.5 or x1 < -0.5 or y0 > sizes.y - 0.5 or x0 > sizes.x - 0.5
        for y0, x0, y1, x1 in (polygon.bounds for polygon in objects.polygons)
    )
    if beyond:
        raise ParameterError(
            f"{beyond} of {len(objects)} objects are outside the image, which has "
            f"{sizes.y} rows and {sizes.x} columns.",
            "Give objects that were drawn on this image.",
        )


def _route(
    begin: FrameIndex, sizes: Sizes, params: PropagateParams
) -> list[FrameIndex]:
    """Frames to go through after the first, one direction after the other."""
    axis, length = params.axis, int(getattr(sizes, params.axis))
    if length == 1:
        raise ParameterError(*_no_way(axis, sizes))
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
            "Choose another `direction`, or another frame to begin in with `frame`.",
        )
    return [begin._replace(**{axis: index}) for index in chosen]


def _no_way(axis: str, sizes: Sizes) -> tuple[str, str]:
    """A sentence and a hint on an axis along which there is one frame only."""
    names = {"time": "time point", "z": "plane"}
    other = "z" if axis == "time" else "time"
    count = int(getattr(sizes, other))
    message = f"The image has only one {names[axis]}, so there is no way along {axis}."
    if count == 1:
        return message, "Open it with `axes` if its file does not say what they are."
    return message, f"Set `axis` to {other}: it has {count} {names[other]}s."


def _columns(rows: Sequence[tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    return dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True)) if rows else {}

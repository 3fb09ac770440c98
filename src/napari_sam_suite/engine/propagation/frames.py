"""Objects found again from one frame to the next, by any model.

Each object is moved as the picture moves, and the model is prompted with the moved
mask, its box and its innermost point. Its answer is taken where it agrees with the
moved mask; where it does not, the moved mask is kept as long as the picture below still
looks the same.

Only the frames that some object was last seen in are in memory, one or two as a rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_sam_suite.engine.frames import Sizes
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.prompts.answers import Answer, answer
from napari_sam_suite.engine.prompts.prompt import MaskPrompt, Prompt, check
from napari_sam_suite.engine.propagation.motion import Motion, grey
from napari_sam_suite.engine.propagation.track import Sighting
from napari_sam_suite.engine.tiles import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.propagation.params import PropagateParams
    from napari_sam_suite.engine.propagation.track import Track

_ALIKE = 0.4
"""Correlation with what the motion predicts from which an object is still there."""
_SHRUNK = 0.3
"""Part of its area below which an object has left the frame or vanished."""
_NEAR = 0.3
"""IoU with the moved mask that an answer of the model alone must have."""


class ByFrames:
    """Follows objects by how the picture moves; a `Follower`."""

    def __init__(self, params: PropagateParams) -> None:
        self.params = params
        self.pictures: dict[int, NDArray[np.float32]] = {}
        self._first: dict[int, NDArray[np.float32]] = {}
        self._now: NDArray[np.float32] | None = None

    def begin(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        place: int,
        tracks: Sequence[Track],
    ) -> None:
        """Keep the picture in which the objects were given."""
        self._first = {place: grey(rgb)}
        self.pictures = dict(self._first)

    def recall(self, rgb: NDArray[np.uint8], place: int) -> None:
        """Keep the picture of a frame that was gone through in an earlier run."""
        self.pictures[place] = grey(rgb)

    def turn(self, *, backward: bool) -> None:
        """Go on from the first frame."""
        self.pictures = dict(self._first)

    def look(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        place: int,
        tracks: Sequence[Track],
        *,
        report: Report,
        stop: Stop,
    ) -> list[Sighting]:
        """Tracks that are in the next frame."""
        self._now = now = grey(rgb)
        needed = {track.seen for track in tracks}
        motions = {
            seen: Motion(then, now, still=not self.params.motion)
            for seen, then in self.pictures.items()
            if seen in needed
        }
        moved = _move(tracks, motions)
        going = [track for track in tracks if track.number in moved]
        prompts = [_prompt(track, moved[track.number]) for track in going]
        checked = check(prompts, Sizes(y=rgb.shape[0], x=rgb.shape[1])).prompts
        answers = answer(model, rgb, checked, self.params, report=report, stop=stop)
        given = {
            prompt.number: some[0]
            for prompt, some in zip(checked, answers, strict=True)
            if some and some[0].crop.size
        }
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

    def keep(self, place: int, tracks: Sequence[Track]) -> None:
        """Keep this picture, and of the others those that are still needed."""
        if self._now is not None:
            self.pictures[place] = self._now
        needed = {track.seen for track in tracks}
        self.pictures = {k: v for k, v in self.pictures.items() if k in needed}

    def _judge(
        self,
        track: Track,
        mask: MaskPrompt,
        like: float,
        given: Answer | None,
        sure: float,
    ) -> Sighting | None:
        """The model's answer, else the moved mask, or None: not seen."""
        agreed = 0.0 if given is None else _iou(mask, given)
        if given is not None and (
            (agreed >= self.params.trust and like > 0)
            or (agreed >= _NEAR and like < _ALIKE and given.score >= sure)
        ):
            return Sighting(track, given, "model")
        if like < _ALIKE:
            return None
        view = Region(0, 0, *mask.crop.shape)
        carried = Answer(mask.crop, mask.origin, like, np.nan, -1, view)
        return Sighting(track, carried, "motion")


def _move(tracks: Sequence[Track], motions: dict[int, Motion]) -> dict[int, MaskPrompt]:
    """By number, the masks where their pixels are now; not of those that left."""
    moved = {}
    for track in tracks:
        mask = track.mask
        if track.seen in motions:
            mask = MaskPrompt(*motions[track.seen].carry(mask.crop, mask.origin))
        left, was = np.count_nonzero(mask.crop), np.count_nonzero(track.mask.crop)
        if left > 0 and left >= _SHRUNK * was:
            moved[track.number] = mask
    return moved


def _prompt(track: Track, mask: MaskPrompt) -> Prompt:
    """Everything that is known of an object: pixels, box and innermost point."""
    depth = distance_transform_edt(np.pad(mask.crop, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    point = float(y + mask.origin[0]), float(x + mask.origin[1])
    return Prompt(inside=(point,), box=mask.box, mask=mask, number=track.number)


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

"""Objects found again by SAM 2's video memory, for models that have one.

The frame is looked at as a whole, as in SAM 2's video predictor. What the model
remembers of each object is bounded, see `VideoMemory`, so long movies stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.asking import Asker, is_out_of_memory
from napari_sam_suite.engine.errors import Cancelled, OutOfMemory
from napari_sam_suite.engine.masks import measure
from napari_sam_suite.engine.prompts.answers import Answer
from napari_sam_suite.engine.propagation.track import Sighting
from napari_sam_suite.engine.resample import Enlargement
from napari_sam_suite.engine.tiles import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.models.memory import VideoMemory
    from napari_sam_suite.engine.models.protocol import Decoded, Embedding, SamModel
    from napari_sam_suite.engine.prompts.prompt import MaskPrompt
    from napari_sam_suite.engine.propagation.params import PropagateParams
    from napari_sam_suite.engine.propagation.track import Track

_SMALL = 16
"""Side, in pixels of the model's input, of objects too small for a look at the whole
frame: they have four pixels across in the model's masks."""
_MANY = 8
"""Objects that a CPU follows by memory in a bearable time, some seconds for each."""


def why_not_memory(
    model: SamModel, tracks: Sequence[Track], shape: tuple[int, int]
) -> str | None:
    """Why ``auto`` goes frame by frame; None for the memory.

    An empty text is a model that has no memory, of which there is nothing to tell.
    """
    if not model.spec.has_memory:
        return ""
    if model.device.type == "cpu" and len(tracks) > _MANY:
        return (
            f"Video memory takes seconds for each object on a CPU, and there are "
            f"{len(tracks)}: they are followed frame by frame. Set `method` to memory "
            "to wait for it."
        )
    sides = [np.sqrt(np.count_nonzero(track.mask.crop)) for track in tracks]
    if float(np.median(sides)) * model.input_size < _SMALL * max(shape):
        return (
            "The objects are too small for video memory, which looks at the whole "
            "frame at once: they are followed frame by frame."
        )
    return None


class ByMemory:
    """Follows objects by what SAM 2 remembers of them; a `Follower`.

    Parameters
    ----------
    params : PropagateParams
        Its `prompts_per_batch` is the number of objects in one step.
    length : int
        Frames along the axis.
    """

    def __init__(self, params: PropagateParams, length: int) -> None:
        self.params = params
        self.length = length
        self.memory: VideoMemory | None = None

    def begin(
        self,
        model: SamModel,
        rgb: NDArray[np.uint8],
        place: int,
        tracks: Sequence[Track],
    ) -> None:
        """Show the model the objects where they were given."""
        embedding = Asker(model).encode(np.ascontiguousarray(rgb))
        self.memory = model.video_memory(self.length)
        try:
            for track in tracks:
                mask = _full(track.mask, (rgb.shape[0], rgb.shape[1]))
                self.memory.give(place, embedding, track.number, mask)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                f"{model.device} has too little memory for {len(tracks)} objects.",
                "Set `method` to frames, or follow fewer of them.",
            ) from error

    def recall(self, rgb: NDArray[np.uint8], place: int) -> None:
        """Nothing: a run that was broken off begins again, see `Propagated`."""

    def turn(self, *, backward: bool) -> None:
        """Go on from the first frame, in this direction."""
        if self.memory is not None:
            self.memory.turn(backward=backward)

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
        memory = self.memory
        if memory is None:
            return []  # nothing could be seen where the objects were given
        by_number = {track.number: track for track in tracks}
        report(0, len(tracks), "Encoding")
        asker = Asker(model)
        embedding = asker.encode(np.ascontiguousarray(rgb))

        def ask(embedding: Embedding, part: NDArray[np.intp]) -> Decoded:
            if stop():
                raise Cancelled
            return memory.step(place, embedding, part.tolist())

        size = self.params.prompts_per_batch or memory.batch
        seen: list[Sighting] = []
        done = 0
        for decoded, part in asker.decode(embedding, np.array([*by_number]), ask, size):
            found = self._measure(model, embedding, decoded)
            for number, one in zip(part.tolist(), found, strict=True):
                if one.crop.size:
                    seen.append(Sighting(by_number[number], one, "memory"))
            done += len(part)
            report(done, len(tracks), "Following objects")
        return seen

    def keep(self, place: int, tracks: Sequence[Track]) -> None:
        """Forget the tracks that are lost."""
        if self.memory is not None:
            self.memory.forget([track.number for track in tracks])

    def _measure(
        self, model: SamModel, embedding: Embedding, decoded: Decoded
    ) -> list[Answer]:
        """Full-size masks; empty where the model says that the object is not there."""
        found = decoded.numpy()
        enlargement = Enlargement.of(
            found.logits.shape[-1],
            model.input_size,
            embedding.scaled,
            embedding.shape,
            padded=embedding.padded,
        )
        view = Region(0, 0, *embedding.shape)
        answers = []
        for logits, score, token in zip(
            found.logits, found.iou, found.token, strict=True
        ):
            one = measure(
                logits,
                enlargement,
                threshold=self.params.mask_threshold,
                offset=model.spec.auto.stability_score_offset,
            )
            crop, origin = one.crop, one.origin
            answers.append(
                Answer(crop, origin, float(score), one.stability, int(token), view)
            )
        return answers


def _full(mask: MaskPrompt, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of a mask in its frame, (H, W), as far as they are in it."""
    full = np.zeros(shape, bool)
    (y0, x0), (h, w) = mask.origin, mask.crop.shape
    top, left = max(y0, 0), max(x0, 0)
    part = mask.crop[top - y0 :, left - x0 :]
    window = full[top : max(y0 + h, top), left : max(x0 + w, left)]
    window[:] = part[: window.shape[0], : window.shape[1]]
    return full

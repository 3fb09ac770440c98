"""SAM 2's video memory (Ravi et al. 2024): objects known again from frame to frame.

The network's own memory attention and memory encoder do the work, and so do the methods
of ``sam2``'s ``SAM2Base`` that its video predictor is made of, so the logits are the
predictor's. Three things are different: frames come one at a time, already encoded, and
are not kept; objects that began in the same frame are decoded together; and of every
object only what the next frame looks at is remembered, so memory does not grow with the
length of the movie.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from napari_sam_suite.engine.models.device import inference
from napari_sam_suite.engine.models.protocol import Decoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam_suite.engine.models.adapter import Adapter
    from napari_sam_suite.engine.models.protocol import Embedding

_CERTAIN = 1e4
"""Logit of a pixel that a person has given: its sigmoid is 0 or 1 exactly."""
_GPU_BATCH = 16
"""Objects in one step on a GPU, each about 0.2 GB at an input of 1024 pixels."""


@dataclass(frozen=True)
class Impression:
    """What is remembered of some objects in one frame.

    Attributes
    ----------
    pointer : torch.Tensor, shape (B, C)
        What the decoder says of each object.
    features : torch.Tensor, shape (B, C', h, w), bfloat16, optional
        Mask and picture, encoded; let go when it is too long ago.
    """

    pointer: Tensor
    features: Tensor | None

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes."""
        kept = [t for t in (self.pointer, self.features) if t is not None]
        return sum(t.numel() * t.element_size() for t in kept)


class VideoMemory:
    """What a SAM 2 model remembers of objects while a movie goes by.

    Parameters
    ----------
    model : Adapter
        A SAM 2 with memory attention and memory encoder.
    length : int
        Frames in the whole movie. In a short one, distances in time mean more.
    """

    def __init__(self, model: Adapter, length: int) -> None:
        self._model = model
        self._network: Any = model.network
        self._length = length
        self._given: dict[int, Impression] = {}
        self._later: dict[int, dict[int, Impression]] = {}
        self._first = 0
        self._backward = False
        self._positions: list[Tensor] = []

    @property
    def batch(self) -> int:
        """Objects in one step that suit the device."""
        return 1 if self._model.device.type == "cpu" else _GPU_BATCH

    @property
    def nbytes(self) -> int:
        """Memory that the impressions take, in bytes."""
        later = [i for places in self._later.values() for i in places.values()]
        return sum(i.nbytes for i in [*self._given.values(), *later])

    def give(
        self, place: int, embedding: Embedding, number: int, mask: NDArray[np.bool_]
    ) -> None:
        """Say where an object is in the first frame.

        Parameters
        ----------
        place : int
            Of the frame in the movie; the same for all objects.
        embedding : Embedding
            Of the frame.
        number : int
            What the object is called from here on.
        mask : ndarray, shape (H, W), bool
            Its pixels.
        """
        side = self._network.image_size
        with inference(self._model.device, self._model.dtype):
            pixels = torch.from_numpy(mask[None, None].astype(np.float32))
            square = _scale(pixels, (side, side), antialias=True) >= 0.5
            square = square.float().to(self._model.device)
            seen, found = self._look(place, embedding, [number], square)
            # as the video predictor does it: from the small mask, without doubt
            large = _scale(found[3], (side, side))
            large = torch.where(large > 0, _CERTAIN, -_CERTAIN)
            self._given[number] = self._impress(seen, large, found)
        self._first = place

    def turn(self, *, backward: bool) -> None:
        """Go on from the first frame, in this direction."""
        self._backward = backward
        self._later.clear()

    def forget(self, keep: Sequence[int]) -> None:
        """Remember only these objects in the frames to come; `turn` brings all back."""
        self._later = {n: p for n, p in self._later.items() if n in set(keep)}

    def step(self, place: int, embedding: Embedding, numbers: Sequence[int]) -> Decoded:
        """Find objects in the next frame, and remember them there.

        Asking again about the same frame gives the same answer.

        Parameters
        ----------
        place : int
            Of the frame in the movie.
        embedding : Embedding
            Of the frame.
        numbers : sequence of int
            Which objects; those that were found before were all found in the same
            frames.

        Returns
        -------
        Decoded
            One mask for each; all its logits are -1024 if the object is not there.
        """
        with inference(self._model.device, self._model.dtype):
            seen, found = self._look(place, embedding, numbers, None)
            _, _, iou, low, high, _, _ = found
            now = self._impress(seen, high, found)
        for i, number in enumerate(numbers):
            parts = (now.pointer, now.features)
            own = [None if t is None else t[i : i + 1].clone() for t in parts]
            mine = self._later.setdefault(number, {})
            mine[place] = Impression(own[0], own[1])  # type: ignore[arg-type]
            self._fade(mine, place)
        which = iou.float().argmax(-1)
        best = iou.float().gather(1, which[:, None])[:, 0]
        token = which + 1 if iou.shape[1] > 1 else which
        return Decoded(low[:, 0].float(), best, torch.arange(len(numbers)), token)

    def _look(
        self,
        place: int,
        embedding: Embedding,
        numbers: Sequence[int],
        masks: Tensor | None,
    ) -> tuple[dict[str, Any], Any]:
        """Upstream's step for some objects: the frame's features, and its answer."""
        seen = self._features(embedding, len(numbers))
        _, found, _, _ = self._network._track_step(
            frame_idx=place,
            is_init_cond_frame=masks is not None,
            **seen,
            point_inputs=None,
            mask_inputs=masks,
            output_dict=self._remembered(numbers) if masks is None else {},
            num_frames=self._length,
            track_in_reverse=self._backward,
            prev_sam_mask_logits=None,
        )
        return seen, found

    def _features(self, embedding: Embedding, count: int) -> dict[str, Any]:
        """An embedding as upstream's methods take it, the same for `count` objects."""
        network, levels = self._network, embedding.features
        coarse = levels["image"]
        if network.directly_add_no_mem_embed:
            coarse = coarse - network.no_mem_embed.view(1, -1, 1, 1)
        pyramid = [levels["fine"], levels["middle"], coarse]
        # only the coarsest level's positions are looked at
        position = network.image_encoder.neck.position_encoding(coarse)
        return {
            "current_vision_feats": [_flat(level, count) for level in pyramid],
            "current_vision_pos_embeds": [_flat(position.to(coarse.dtype), count)],
            "feat_sizes": [tuple(level.shape[-2:]) for level in pyramid],
        }

    def _impress(self, seen: dict[str, Any], masks: Tensor, found: Any) -> Impression:
        """Encode the masks (B, 1, S, S) that were given or found in a frame."""
        features, positions = self._network._encode_new_memory(
            current_vision_feats=seen["current_vision_feats"],
            feat_sizes=seen["feat_sizes"],
            pred_masks_high_res=masks,
            object_score_logits=found[6],
            is_mask_from_pts=False,
        )
        self._positions = [p[:1] for p in positions]
        return Impression(found[5], features.to(torch.bfloat16))

    def _remembered(self, numbers: Sequence[int]) -> dict[str, Any]:
        """The impressions of some objects, side by side, as upstream wants them."""
        first = [self._given[n] for n in numbers]
        places = self._later.get(numbers[0], {})
        later = {t: [self._later[n][t] for n in numbers] for t in places}
        return {
            "cond_frame_outputs": {self._first: self._join(first)},
            "non_cond_frame_outputs": {t: self._join(i) for t, i in later.items()},
        }

    def _join(self, impressions: Sequence[Impression]) -> dict[str, Any]:
        count, device = len(impressions), self._model.device
        features = [i.features for i in impressions if i.features is not None]
        return {
            "maskmem_features": torch.cat(features).to(device) if features else None,
            "maskmem_pos_enc": [
                p.to(device).expand(count, -1, -1, -1) for p in self._positions
            ],
            "obj_ptr": torch.cat([i.pointer for i in impressions]).to(device),
        }

    def _fade(self, places: dict[int, Impression], now: int) -> None:
        """Let go what the next frame will not look at."""
        network = self._network
        stride = network.memory_temporal_stride_for_eval
        clear = (network.num_maskmem - 1) * stride
        faint = max(clear, network.max_obj_ptrs_in_encoder - 1)
        for place in list(places):
            if abs(now - place) >= faint:
                del places[place]
            elif abs(now - place) >= clear:
                places[place] = replace(places[place], features=None)


def _scale(masks: Tensor, size: tuple[int, int], *, antialias: bool = False) -> Tensor:
    """Masks (B, 1, h, w) at another size; as they are if it is theirs."""
    if tuple(masks.shape[-2:]) == size:
        return masks
    return interpolate(masks, size=size, mode="bilinear", antialias=antialias)


def _flat(level: Tensor, count: int) -> Tensor:
    """(1, C, h, w) as (h w, count, C)."""
    return level.expand(count, -1, -1, -1).flatten(2).permute(2, 0, 1)

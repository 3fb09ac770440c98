"""Views with what the encoder says about them: encoded once, learnt from often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from napari_sam_suite.engine.embed import EmbeddingCache
from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.engine.finetune.views import Scene, View, show

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.finetune.data import Sample
    from napari_sam_suite.engine.finetune.trainee import Trainee
    from napari_sam_suite.engine.models.protocol import Embedding

ROOM = 2**30
"""Bytes of embeddings kept in memory; more of them go to files of 16-bit floats."""
_NO_LIMIT = 2**62
_LEAST = 8
"""Side in the model's input of the smallest object: two pixels of its logits."""


@dataclass(frozen=True)
class Lesson:
    """One view: what `Trainee.look` says about it, and its objects."""

    embedding: Embedding
    scene: Scene

    def shares(self, objects: Sequence[int], low: int, side: int) -> Tensor:
        """Objects at the resolution of logits, each pixel the part that is inside.

        Parameters
        ----------
        objects : sequence of int
            Numbers of the scene's objects; those below 0, the background, give zeros.
        low, side : int
            Sides of the logits and of the model's input.

        Returns
        -------
        Tensor, shape (B, low, low)
        """
        height, width = self._filled(low, side)
        found = torch.zeros(len(objects), low, low)
        for row, number in enumerate(objects):
            if number >= 0:
                mask = torch.from_numpy(self.scene.mask(number))[None, None].float()
                found[row, :height, :width] = F.interpolate(
                    mask, (height, width), mode="bilinear", antialias=True
                )[0, 0]
        return found.clamp(0, 1)

    def find_errors(
        self, objects: Sequence[int], logits: Tensor, side: int
    ) -> NDArray[np.bool_]:
        """Where answers are wrong, on the view alone and not on what it is padded with.

        Parameters
        ----------
        objects : sequence of int
            What was meant.
        logits : Tensor, shape (B, low, low)
            Answers.
        side : int
            Of the model's input.

        Returns
        -------
        ndarray, shape (B, h, w)
            The whole view at the resolution of logits; h and w are `low` or less.
        """
        low = logits.shape[-1]
        height, width = self._filled(low, side)
        there = self.shares(objects, low, side).numpy() > 0.5
        wrong: NDArray[np.bool_] = (logits > 0).cpu().numpy() != there
        return wrong[:, :height, :width]

    def _filled(self, low: int, side: int) -> tuple[int, int]:
        """Rows and columns of logits that the view fills; the rest is padding."""
        height, width = (round(n * low / side) for n in self.embedding.scaled)
        return height, width


class Lessons:
    """All views of some frames; what of them stays as it is, is encoded once.

    Parameters
    ----------
    trainee : Trainee
        Looks at them; what it says does not change while it learns, or is not kept.
    samples, views : sequence
        Frames, and which parts of them.
    folder : Path
        Where embeddings go that do not fit into `room`.
    report, stop : callable
        Progress in views, and the wish to stop.
    room : int
        Bytes.
    """

    def __init__(
        self,
        trainee: Trainee,
        samples: Sequence[Sample],
        views: Sequence[View],
        folder: Path,
        *,
        report: Report,
        stop: Stop,
        room: int = ROOM,
    ) -> None:
        self._trainee = trainee
        self._samples = samples
        self.views = list(views)
        self._scenes: list[Scene] = []
        self._cache = EmbeddingCache(room)
        for number, view in enumerate(self.views):
            if stop():
                raise Cancelled
            report(number, len(self.views), "Encoding")
            if trainee.frozen:
                self._remember(number, folder, room)
            least = (_LEAST * max(view.region.shape) / trainee.input_size) ** 2
            self._scenes.append(Scene(view, samples[view.sample], least))

    def __len__(self) -> int:
        return len(self.views)

    def _remember(self, number: int, folder: Path, room: int) -> None:
        embedding = self._encode(number)
        if number == 0 and embedding.nbytes * len(self.views) > room:
            # Always from the file then: a number must not depend on when it is
            # asked for, or a resumed run would be another one.
            self._cache = EmbeddingCache(0, folder, _NO_LIMIT)
        self._cache.put(str(number), self._trainee.device, embedding)

    def __getitem__(self, number: int) -> Lesson:
        embedding = self._cache.get(str(number), self._trainee.device)
        if embedding is None:
            embedding = self._encode(number)
        return Lesson(embedding, self._scenes[number])

    def _encode(self, number: int) -> Embedding:
        view = self.views[number]
        return self._trainee.look(show(view, self._samples[view.sample].rgb))

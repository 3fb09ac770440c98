"""A synthetic scene for models without trained weights.

Random weights answer every prompt with noise, on which no filter behaves as it does on
a real image. Here a network still computes everything, and then its predicted quality
and its low-resolution logits are replaced by those of a field of cells: for every
point the cell under it, its surroundings and a part of it. Both the upstream loop and
ours see the same answers, so what is compared is all the work around them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cost import clock
from napari_sam_suite.engine.models.decoder import SharedDecoder

if TYPE_CHECKING:
    from collections.abc import Iterator


class Scene:
    """A field of about 256 round cells, put behind one model's decoder.

    Parameters
    ----------
    model : SamModel
        Patched in place; upstream's generator on ``model.network`` sees it too.
    seed : int
        Of the field and the qualities.

    Attributes
    ----------
    spent : ndarray, shape (2,)
        Wall and CPU seconds that playing the scene took, to be taken off.
    """

    def __init__(self, model: Any, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        network = model.network
        sam1 = model.spec.family == "sam1"
        self._encoder = network.prompt_encoder if sam1 else network.sam_prompt_encoder
        self._decoder = network.mask_decoder if sam1 else network.sam_mask_decoder
        self._device = model.device
        self.side = model.input_size
        self.low = self.side // 4
        grid = (np.arange(16) + 0.5) * self.low / 16
        y, x = np.meshgrid(grid, grid, indexing="ij")
        jitter = rng.uniform(-0.25, 0.25, (2, 256)) * self.low / 16
        self.centres = np.stack([y.ravel() + jitter[0], x.ravel() + jitter[1]], 1)
        self.radii = rng.uniform(0.25, 0.42, 256) * self.low / 16
        self.quality = rng.beta(55, 5, (self.low, self.low))
        self.asked = self.passed = 0
        self.spent = np.zeros(2)
        self._points = np.zeros((0, 2))
        self._threshold = 0.0
        self._install(model)

    @property
    def keep_rate(self) -> float:
        """Part of all masks whose quality passes the threshold."""
        return self.passed / max(self.asked, 1)

    def _install(self, model: Any) -> None:
        embed, head = self._encoder.forward, self._decoder.iou_prediction_head.forward
        plain, draw = self._decoder.predict_masks, SharedDecoder._draw
        decode = SharedDecoder.decode

        def watch(points: Any, boxes: Any, masks: Any) -> Any:
            with self._off_the_clock():
                self._points = points[0][:, 0].cpu().numpy().astype(float) / 4
            return embed(points, boxes, masks)

        def rate(token: Tensor) -> Tensor:
            head(token)
            with self._off_the_clock():
                rates = torch.as_tensor(self._rate(), dtype=token.dtype)
                return rates.to(token.device)

        def predict(*args: Any, **kwargs: Any) -> Any:
            masks, *rest = plain(*args, **kwargs)
            return self._logits(masks, np.arange(len(masks)), (0, 1, 2, 3)), *rest

        def redraw(this: Any, shared: Any, keys: Any, queries: Any, tokens: Any) -> Any:
            masks = draw(this, shared, keys, queries, tokens)
            with self._off_the_clock():
                good = self._rate()[:, list(tokens)] > self._threshold
            return self._logits(masks, np.flatnonzero(good.any(1)), tokens)

        def redecode(shared: Any, sparse: Any, tokens: Any, min_iou: float) -> Any:
            self._threshold = min_iou if min_iou > 0 else -1.0
            found = decode(model.decoder, shared, sparse, tokens, min_iou)
            self.asked += len(sparse) * len(tokens)
            self.passed += len(found)
            return found

        self._encoder.forward = watch
        self._decoder.iou_prediction_head.forward = rate
        self._decoder.predict_masks = predict
        model.decoder._draw = redraw.__get__(model.decoder)
        model.decoder.decode = redecode

    @contextmanager
    def _off_the_clock(self) -> Iterator[None]:
        """What happens in here is the scene's doing, and is taken off."""
        start = clock(self._device)
        yield
        self.spent += clock(self._device) - start

    def _nearest(self) -> tuple[np.ndarray, np.ndarray]:
        yx = self._points[:, ::-1]
        away = np.linalg.norm(yx[:, None] - self.centres[None], axis=-1)
        nearest = away.argmin(1)
        inside = away[np.arange(len(yx)), nearest] < self.radii[nearest]
        return nearest, inside

    def _rate(self) -> np.ndarray:
        """Predicted IoU of the four tokens of every prompt, (B, 4)."""
        nearest, inside = self._nearest()
        yx = self._points[:, ::-1].astype(int).clip(0, self.low - 1)
        cell = np.where(inside, self.quality[yx[:, 0], yx[:, 1]], 0.6)
        tie = (
            0.1 * self.quality[yx[:, 0], yx[:, 1]]
        )  # no two alike: order must not matter
        part, around = cell - 0.15, np.where(nearest % 4 == 0, 0.75, 0.6) + tie
        return np.stack([cell, part, cell, around], 1).astype(np.float32)

    def _logits(self, masks: Tensor, prompts: np.ndarray, tokens: Any) -> Tensor:
        """Steep logits: 20 a low-resolution pixel at the edge of a cell."""
        with self._off_the_clock():
            nearest, _ = self._nearest()
            line = np.arange(self.low, dtype=np.float32)
            scale = np.array([1.0, 0.6, 1.0, 2.2])[list(tokens)]
            for k, prompt in enumerate(prompts):
                y, x = self.centres[nearest[prompt]]
                away = np.hypot(
                    line[:, None] - np.float32(y), line[None] - np.float32(x)
                )
                radii = (self.radii[nearest[prompt]] * scale).astype(np.float32)
                found = (20 * (radii[:, None, None] - away)).clip(-30, 30)
                masks[k] = torch.from_numpy(found)
        return masks

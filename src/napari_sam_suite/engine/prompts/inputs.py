"""Prompts as a model takes them: arrays in the pixels of the view it looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.models.protocol import Prompts
from napari_sam_suite.engine.models.resize import resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.models.protocol import Embedding
    from napari_sam_suite.engine.prompts.prompt import MaskPrompt, Point, Prompt
    from napari_sam_suite.engine.tiles import Region

_CERTAIN = 1e-3
"""Chance that a pixel of a mask prompt is wrong; the model is told its logit."""
_BOUND = 32.0
"""Logits of an earlier answer are told up to here."""


def inside_view(point: Point, view: Region) -> bool:
    """Whether a point (y, x) of the image lies on a pixel of a view."""
    y, x = point
    return view.y0 - 0.5 <= y < view.y1 and view.x0 - 0.5 <= x < view.x1


def outside_points(prompt: Prompt, view: Region) -> list[Point]:
    """The points beside the object that the view shows."""
    return [point for point in prompt.outside if inside_view(point, view)]


def to_inputs(
    prompts: Sequence[Prompt], view: Region, masks: NDArray[np.float32] | None
) -> Prompts:
    """Prompts of one kind, with as many points each, in the coordinates of a view.

    Parameters
    ----------
    prompts : sequence of Prompt
        In pixels of the image.
    view : Region
        What the model looks at.
    masks : ndarray, shape (B, 1, low, low), float32, optional
        Logits that go with them.
    """
    points, labels, boxes = [], [], []
    for prompt in prompts:
        outside = outside_points(prompt, view)
        points.append([*prompt.inside, *outside])
        labels.append([1] * len(prompt.inside) + [0] * len(outside))
        whole = (view.y0, view.x0, view.y1 - 1, view.x1 - 1)
        boxes.append(whole if prompt.whole else prompt.box)
    shift = np.array(view.origin, np.float64)
    place = np.array(points, np.float64).reshape(len(prompts), -1, 2) - shift
    marks = np.array(labels, np.int64).reshape(len(prompts), -1)
    known = boxes[0] is not None
    box = np.array(boxes, np.float64) - np.tile(shift, 2) if known else None
    return Prompts(place, marks, box, masks)


def told_again(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """An earlier answer's logits (low, low) as the model takes them back."""
    return logits[None].clip(-_BOUND, _BOUND)


def mask_logits(
    mask: MaskPrompt, view: Region, embedding: Embedding, input_size: int
) -> NDArray[np.float32]:
    """A mask as the low-resolution logits that a model takes, (1, low, low) float32.

    The share of every low-resolution pixel that the mask covers, as a logit; a quarter
    of the model's input, of which SAM 1 fills only a part.
    """
    full = np.zeros(view.shape, np.float32)
    (y0, x0), (h, w) = mask.origin, mask.crop.shape
    top, left = max(y0, view.y0), max(x0, view.x0)
    bottom, right = min(y0 + h, view.y1), min(x0 + w, view.x1)
    if top < bottom and left < right:
        full[top - view.y0 : bottom - view.y0, left - view.x0 : right - view.x0] = (
            mask.crop[top - y0 : bottom - y0, left - x0 : right - x0]
        )
    low = input_size // 4
    height, width = (max(1, round(n / 4)) for n in embedding.scaled)
    square = np.zeros((1, low, low), np.float32)
    square[0, :height, :width] = resize(full, (height, width))
    square = square.clip(_CERTAIN, 1 - _CERTAIN)
    logits: NDArray[np.float32] = np.log(square / (1 - square))
    return logits

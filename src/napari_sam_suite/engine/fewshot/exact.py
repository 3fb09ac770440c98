"""The documented algorithm: every candidate is cut out and encoded on its own.

Crop with context, encode, pool the features under the mask, and compare with the mean
of the examples by cosine. This is what the few-shot workers of NimbusImage do, for SAM
and for SAM 2, with these differences: a crop never cuts a row off its object, masks are
padded as SAM 1 pads its crops, thin masks keep their weight when they are made small,
and crops are encoded several at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.asking import Asker, is_out_of_memory, release_memory
from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.engine.models.resize import resize
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.suppression import within_area

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.fewshot.params import FewShotParams
    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.protocol import Embedding, SamModel

QUALITY = 0.88
"""Predicted IoU that the documented algorithm asks of a candidate."""
STABILITY = 0.95
_BATCH = 8
"""Crops encoded at a time."""


def crop_window(
    box: tuple[int, int, int, int],
    area: int,
    shape: tuple[int, int],
    occupancy: float = 0.2,
) -> tuple[int, int, int, int]:
    """The square around an object of which it fills about `occupancy`.

    Parameters
    ----------
    box : (y0, x0, y1, x1)
        Of the object, half-open.
    area : int
        Its pixels.
    shape : (int, int)
        Of the image, whose border the window does not cross.
    occupancy : float
        Part of the window that the object shall fill.

    Returns
    -------
    (y0, x0, y1, x1)
        With side ``int(sqrt(area / occupancy))``, or that of the box if it is longer;
        moved inside the image, and always around the whole object.
    """
    y0, x0, y1, x1 = box
    side = max(int(np.sqrt(area / occupancy)), y1 - y0, x1 - x0)
    top, bottom = _place(y0, y1, side, shape[0])
    left, right = _place(x0, x1, side, shape[1])
    return top, left, bottom, right


def _place(first: int, last: int, side: int, length: int) -> tuple[int, int]:
    start = int(max(0, (first + last - 1) / 2 - side / 2))
    # Of an even number of pixels the middle lies between two, and rounding down
    # would cut the last one off.
    start = max(start, last - side)
    stop = min(length, start + side)
    return max(0, stop - side), stop


def pool_crop(
    features: NDArray[np.float32], mask: NDArray[np.bool_], scaled: tuple[int, int]
) -> NDArray[np.float32]:
    """Mean of the features under a mask of the same crop.

    Parameters
    ----------
    features : ndarray, shape (C, h, w)
        Coarse features of the crop.
    mask : ndarray, shape (H, W), bool
        Of the object in the crop.
    scaled : (int, int)
        What the crop fills of the model's square input.

    Returns
    -------
    ndarray, shape (C,), float32
        ``sum(F * m) / sum(m)``, where m is the mask made as large as the features,
        bilinearly and with antialiasing; the plain mean of an empty mask.
    """
    m = mask.astype(np.float32)
    if scaled[0] != scaled[1]:
        side = max(mask.shape)
        m = np.pad(m, ((0, side - mask.shape[0]), (0, side - mask.shape[1])))
    m = resize(m, (features.shape[1], features.shape[2]))
    total = m.sum()
    pooled: NDArray[np.float32] = (
        (features * m).sum((1, 2)) / total if total > 0 else features.mean((1, 2))
    )
    return pooled


def crop_vectors(
    model: SamModel,
    rgb: NDArray[np.uint8],
    masks: Masks,
    occupancy: float,
    report: Report,
    stop: Stop,
) -> NDArray[np.float32]:
    """Features of every mask from a crop of its own, shape (N, C), not normalised.

    Raises
    ------
    Cancelled
        If `stop` said so.
    OutOfMemory
        If not even one crop fits.
    """
    vectors: list[NDArray[np.float32]] = []
    for start in range(0, len(masks), _BATCH):
        if stop():
            raise Cancelled
        part = range(start, min(start + _BATCH, len(masks)))
        windows = [
            crop_window(
                tuple(masks.boxes[i].tolist()),
                int(masks.area[i]),
                masks.shape,
                occupancy,
            )
            for i in part
        ]
        crops = [np.ascontiguousarray(rgb[y0:y1, x0:x1]) for y0, x0, y1, x1 in windows]
        for i, window, embedding in zip(
            part, windows, _encode(model, crops), strict=True
        ):
            top, left, bottom, right = window
            mask = masks.full(i)[top:bottom, left:right]
            vectors.append(pool_crop(embedding.maps()["image"], mask, embedding.scaled))
        report(part.stop, len(masks), "Comparing")
    return np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)


def _encode(model: SamModel, crops: list[NDArray[np.uint8]]) -> list[Embedding]:
    """Embed crops together, or one by one where memory runs out."""
    try:
        return model.encode(crops)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    release_memory()
    asker = Asker(model)
    return [asker.encode(crop) for crop in crops]


def prototype(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean of raw vectors (n, C), then of length 1; a zero vector stays zero."""
    unit: NDArray[np.float64] = _unit(np.asarray(vectors, np.float64).mean(0)[None])
    return unit.reshape(-1)


def cosines(
    vectors: NDArray[np.floating], prototype: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Cosine of the angle between each vector (N, C) and the prototype (C,)."""
    unit = _unit(np.asarray(vectors, np.float64))
    result: NDArray[np.float64] = np.asarray(unit @ prototype, np.float64)
    return result


def exact_candidates(
    model: SamModel,
    rgb: NDArray[np.uint8],
    params: FewShotParams,
    report: Report,
    stop: Stop,
) -> Masks:
    """Automatic masks as the documented algorithm asks for them.

    A model whose ratings are on a scale of their own, as the embedded one's are, is
    asked for what suits it.
    """
    own = model.spec.auto if model.spec.embedded else None
    auto = AutoParams(
        points_per_side=params.points_per_side,
        pred_iou_thresh=own.pred_iou_thresh if own else QUALITY,
        stability_score_thresh=own.stability_score_thresh if own else STABILITY,
        min_mask_region_area=params.min_area,
        tile=params.tile,
        overlap="allow",
    )
    masks = automatic_masks(model, rgb, auto, report=report, stop=stop)
    return within_area(masks, params.min_area or 0, params.max_area or 0)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: NDArray[np.float64] = vectors / np.maximum(length, 1e-12)
    return result

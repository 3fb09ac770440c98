"""A generator of automatic masks that gives SAM's own records.

For code written against ``SAM2AutomaticMaskGenerator``: same parameters, same records,
our loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np

from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.errors import ImageError, ModelError
from napari_sam_suite.engine.models.registry import MODELS, find_model
from napari_sam_suite.engine.params import AutoParams

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.protocol import SamModel

SIZES = {
    "nano": "sam2-nano",
    "tiny": "sam2.1_hiera_tiny",
    "small": "sam2.1_hiera_small",
    "base_plus": "sam2.1_hiera_base_plus",
    "large": "sam2.1_hiera_large",
}
"""Model sizes by their short names."""


class Record(TypedDict):
    """One mask as SAM's generators describe it; boxes are (x, y, width, height)."""

    segmentation: NDArray[np.bool_]
    area: int
    bbox: list[float]
    predicted_iou: float
    point_coords: list[list[float]]
    stability_score: float
    crop_box: list[float]


class SamGenerator:
    """Automatic masks of RGB images with one model and fixed parameters."""

    def __init__(self, model: SamModel, params: AutoParams) -> None:
        self.model = model
        self.params = params

    def generate(self, image: ArrayLike) -> list[Record]:
        """Find everything in an image.

        Parameters
        ----------
        image : array, shape (H, W, 3)
            RGB: uint8, or floating point between 0 and 1.

        Returns
        -------
        list of dict
            SAM's records, the best first; empty if there is nothing.

        Raises
        ------
        ImageError
            If the image is not RGB in one of the two ranges.
        """
        masks = automatic_masks(self.model, _to_rgb(image), self.params)
        return [_record(masks, i) for i in range(len(masks))]


def build_sam_generator(
    model_size: str = "large",
    points_per_side: int = 32,
    points_per_batch: int = 64,
    pred_iou_thresh: float = 0.7,
    stability_score_thresh: float = 0.92,
    box_nms_thresh: float = 0.7,
    *,
    crop_n_layers: int = 1,
    stability_score_offset: float = 0.7,
    device: str | None = "auto",
    folder: Path | str | None = None,
    random_weights: bool = False,
) -> SamGenerator:
    """Build a generator whose defaults favour coverage over precision.

    Parameters
    ----------
    model_size : str
        ``"nano"``, ``"tiny"``, ``"small"``, ``"base_plus"`` or ``"large"``.
    points_per_side, points_per_batch, pred_iou_thresh, stability_score_thresh, \
box_nms_thresh, crop_n_layers, stability_score_offset
        See `AutoParams`.
    device : str, optional
        ``"auto"``, which None is too, ``"cuda"``, ``"mps"`` or ``"cpu"``.
    folder : Path, optional
        Where checkpoints are kept.
    random_weights : bool
        Skip the checkpoint: for tests and timing.

    Raises
    ------
    ModelError
        If the size is unknown or sam2 is not installed.
    CheckpointMissing
        If the checkpoint is not here; the hint says how to get it.
    """
    if model_size not in SIZES:
        raise ModelError(
            f"There is no model size {model_size!r}.",
            f"Choose one of: {', '.join(SIZES)}.",
        )
    params = AutoParams(
        points_per_side=points_per_side,
        points_per_batch=points_per_batch,
        pred_iou_thresh=pred_iou_thresh,
        stability_score_thresh=stability_score_thresh,
        stability_score_offset=stability_score_offset,
        box_nms_thresh=box_nms_thresh,
        crop_n_layers=crop_n_layers,
        tile="off",
        overlap="allow",
    )
    from napari_sam_suite.engine.models.load import load_model

    spec = find_model(SIZES[model_size], models=MODELS)
    model = load_model(
        spec, device=device or "auto", folder=folder, random_weights=random_weights
    )
    return SamGenerator(model, params)


def _to_rgb(image: ArrayLike) -> NDArray[np.uint8]:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ImageError(
            f"An image of shape {image.shape} is not RGB.", "Pass (H, W, 3)."
        )
    if image.dtype == np.uint8:
        return image.astype(np.uint8, copy=False)
    finite = np.issubdtype(image.dtype, np.floating) and bool(np.isfinite(image).all())
    if not finite or float(np.min(image)) < 0 or float(np.max(image)) > 1:
        raise ImageError(
            "The image is neither uint8 nor floating point between 0 and 1.",
            "Scale it first, for example with compose().",
        )
    return np.rint(image.astype(np.float64) * 255).astype(np.uint8)


def _record(masks: Masks, i: int) -> Record:
    y0, x0, y1, x1 = (float(v) for v in masks.boxes[i])
    top, left, bottom, right = (float(v) for v in masks.crops[i])
    y, x = (float(v) for v in masks.points[i])
    # Upstream measures a mask's box between pixel centres, and a crop's between edges.
    return Record(
        segmentation=masks.full(i),
        area=int(masks.area[i]),
        bbox=[x0, y0, max(x1 - x0 - 1, 0.0), max(y1 - y0 - 1, 0.0)],
        predicted_iou=float(masks.scores[i]),
        point_coords=[[x, y]],
        stability_score=float(masks.stability[i]),
        crop_box=[left, top, right - left, bottom - top],
    )

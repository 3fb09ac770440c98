"""Masks that may be what is looked for: prompts on one region, and their answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.asking import Asker
from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.engine.guidance import Guidance
from napari_sam_suite.engine.masks import MaskBuilder, Masks, measure, tighten
from napari_sam_suite.engine.models.protocol import MULTIMASK, Prompts
from napari_sam_suite.engine.resample import Enlargement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.finder import Stop
    from napari_sam_suite.engine.models.protocol import Decoded, Embedding, SamModel
    from napari_sam_suite.engine.tiles import Region


@dataclass(frozen=True)
class Limits:
    """What a mask must be to become a candidate.

    Attributes
    ----------
    score, stability : float
        Least predicted IoU and stability score.
    smallest, largest : int
        Area in pixels; `largest` 0 is no limit.
    """

    score: float = 0.0
    stability: float = 0.0
    smallest: int = 1
    largest: int = 0

    def loosened(self, score: float, stability: float) -> Limits:
        """The same with these parts of the least ratings."""
        return replace(
            self, score=score * self.score, stability=stability * self.stability
        )


def draw_candidates(
    model: SamModel,
    embedding: Embedding,
    points: NDArray[np.float64],
    region: Region,
    shape: tuple[int, int],
    limits: Limits,
    stop: Stop,
) -> Masks:
    """Ask for the three masks of every point and keep those within `limits`.

    Parameters
    ----------
    model : SamModel
        Its batch is halved for as long as memory runs out.
    embedding : Embedding
        Of the region.
    points : ndarray, shape (n, 2)
        (y, x) in the region.
    region : Region
        Masks that it cuts off are left out: another region shows them whole.
    shape : (int, int)
        Of the frame.
    limits : Limits
        Which masks are kept.
    stop : callable
        Looked at between batches.

    Returns
    -------
    Masks
        In the coordinates of the frame, in the order of their points.

    Raises
    ------
    Cancelled
        If `stop` said so.
    OutOfMemory
        If not even one point at a time fits.
    """
    builder = MaskBuilder(shape)
    asker = Asker(model)
    guidance = Guidance.of(embedding)

    def ask(embedding: Embedding, points: NDArray[np.float64]) -> Decoded:
        if stop():
            raise Cancelled
        prompts = Prompts.clicks(points)
        found = model.decode(embedding, prompts, tokens=MULTIMASK, min_iou=limits.score)
        return guidance.lean(found, prompts) if guidance else found

    for decoded, part in asker.decode(embedding, points, ask):
        _keep(decoded, part, embedding, region, limits, model.input_size, builder)
    return builder.build()


def _keep(
    decoded: Decoded,
    points: NDArray[np.float64],
    embedding: Embedding,
    region: Region,
    limits: Limits,
    input_size: int,
    builder: MaskBuilder,
) -> None:
    enlargement = Enlargement.of(
        decoded.logits.shape[-1],
        input_size,
        embedding.scaled,
        embedding.shape,
        padded=embedding.padded,
    )
    decoded = decoded.numpy()
    logits, scores, levels = decoded.logits, decoded.iou, decoded.token
    asked = points[decoded.prompt]
    for k in range(len(scores)):
        found = measure(logits[k], enlargement)
        crop, (y0, x0) = tighten(found.crop, found.origin)
        area = int(np.count_nonzero(crop))
        if not found.stability >= limits.stability or area < max(limits.smallest, 1):
            continue
        if limits.largest and area > limits.largest:
            continue
        origin = (y0 + region.y0, x0 + region.x0)
        box = (*origin, origin[0] + crop.shape[0], origin[1] + crop.shape[1])
        if region.cuts(box, builder.shape, near=1):
            continue
        builder.add(
            crop,
            origin,
            score=float(scores[k]),
            stability=found.stability,
            level=int(levels[k]),
            point=(asked[k][0] + region.y0, asked[k][1] + region.x0),
            region=region.box,
        )


def grid_points(shape: tuple[int, int], pitch: float) -> NDArray[np.float64]:
    """Points (n, 2) at most `pitch` pixels apart, evenly spread over `shape`."""
    lines = [
        (np.arange(n) + 0.5) * length / n - 0.5
        for length, n in ((s, max(1, int(np.ceil(s / pitch)))) for s in shape)
    ]
    y, x = np.meshgrid(*lines, indexing="ij")
    points: NDArray[np.float64] = np.stack([y, x], -1).reshape(-1, 2)
    return points


def deepest(
    points: NDArray[np.floating],
    region: Region,
    regions: Sequence[Region],
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """Which points lie deeper in a tile than in any other that shows them.

    Tiles overlap, and a point near the edge of one asks for what another shows whole.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        (y, x) in `region`.
    region, regions : Region
        The tile, and all of them.
    shape : (int, int)
        Of the frame, whose border is no edge.
    """
    placed = np.asarray(points, np.float64) + region.origin
    depths = np.stack([_depths(placed, one, shape) for one in regions])
    mine: NDArray[np.bool_] = depths.argmax(0) == list(regions).index(region)
    return mine


def _depths(
    points: NDArray[np.float64], region: Region, shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Pixels to the nearest edge of a region, negative for points outside of it."""
    low = np.where(np.array(region.origin) > 0, points - region.origin, np.inf)
    end = np.array(region.box[2:])
    high = np.where(end < shape, end - 1 - points, np.inf)
    depths: NDArray[np.float64] = np.minimum(low, high).min(1)
    return depths


def peak_points(
    likeness: NDArray[np.floating], least: float, scale: tuple[float, float]
) -> NDArray[np.float64]:
    """Where a map of likeness has its local maxima, as points in pixels.

    Parameters
    ----------
    likeness : ndarray, shape (h, w)
        How much every feature cell is like the examples.
    least : float
        Lower maxima do not count.
    scale : (float, float)
        Cells per pixel.

    Returns
    -------
    ndarray, shape (n, 2)
        (y, x) of the cells' centres.
    """
    from scipy.ndimage import maximum_filter

    top = (likeness == maximum_filter(likeness, 3)) & (likeness >= least)
    points: NDArray[np.float64] = (np.argwhere(top) + 0.5) / np.array(scale) - 0.5
    return points

"""How the picture moves from one frame to the next, and masks with it.

The motion is the dense optical flow of Le Besnerais and Champagnat (2005), iterative
Lucas-Kanade, as scikit-image has it. It carries a mask to where its pixels went, also
where a model would not recognise the object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import map_coordinates, zoom

from napari_sam_suite.engine.masks import tighten

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST = 768
"""Longer side, in pixels, at which the flow is computed; it is smooth anyway."""
_RADIUS = 7
"""Half the window in which all pixels are taken to move alike."""
_AROUND = 3
"""Pixels around an object that belong to its looks."""


class Motion:
    """Where every pixel of one frame was in an earlier one.

    Parameters
    ----------
    before, after : ndarray, shape (H, W), float32
        Two frames, 0 to 1.
    still : bool
        Take it that nothing moves.
    """

    def __init__(
        self,
        before: NDArray[np.float32],
        after: NDArray[np.float32],
        *,
        still: bool = False,
    ) -> None:
        self._before, self._after = before, after
        flow = np.zeros((2, *after.shape), np.float32)
        self._flow = flow if still else _flow(before, after)
        self._reach = np.ceil(np.abs(self._flow).reshape(2, -1).max(1)).astype(int) + 1

    def carry(
        self, crop: NDArray[np.bool_], origin: tuple[int, int]
    ) -> tuple[NDArray[np.bool_], tuple[int, int]]:
        """A mask at `origin` in the earlier frame, where its pixels are now."""
        window = self._window(crop.shape, origin, self._reach)
        rows, columns = self._came_from(window)
        places = np.stack([rows - origin[0], columns - origin[1]])
        # Nothing lies outside the crop, so the border must be seen as empty.
        moved = map_coordinates(np.pad(crop, 1).astype(np.float32), places + 1, order=1)
        return tighten(moved > 0.5, (window[0].start, window[1].start))

    def likeness(self, crop: NDArray[np.bool_], origin: tuple[int, int]) -> float:
        """How much the picture around a mask is the earlier one, moved: -1 to 1.

        The correlation of the intensities of the present frame with those that the
        motion predicts; 0 where one of them is flat.
        """
        window = self._window(crop.shape, origin, (_AROUND, _AROUND))
        now = self._after[window].ravel()
        rows, columns = self._came_from(window)
        then = map_coordinates(
            self._before, np.stack([rows, columns]), order=1, mode="nearest"
        ).ravel()
        spread = float(now.std()) * float(then.std())
        if not spread:
            return 0.0
        return float(((now - now.mean()) * (then - then.mean())).mean()) / spread

    def _window(
        self, size: tuple[int, ...], origin: tuple[int, int], around: object
    ) -> tuple[slice, slice]:
        """The mask's box with what lies around it, inside the frame."""
        more = np.asarray(around)
        low = np.maximum(np.array(origin) - more, 0)
        high = np.minimum(np.array(origin) + size + more, self._after.shape)
        return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))

    def _came_from(
        self, window: tuple[slice, slice]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows, columns = np.mgrid[window]
        down, right = self._flow[:, *window]
        return rows + down, columns + right


def grey(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The brightness of an RGB frame (H, W, 3), 0 to 1."""
    mean: NDArray[np.float32] = rgb.mean(-1, dtype=np.float32) / np.float32(255)
    return mean


def _flow(
    before: NDArray[np.float32], after: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(2, H, W): from a pixel of `after` to where it was in `before`."""
    from skimage.registration import optical_flow_ilk
    from skimage.transform import resize

    scale = min(1.0, _LARGEST / max(after.shape))
    if not np.ptp(before) or not np.ptp(after):
        return np.zeros((2, *after.shape), np.float32)
    if scale == 1.0:
        found = optical_flow_ilk(after, before, radius=_RADIUS)
        return np.asarray(found, np.float32)
    size = tuple(max(1, round(n * scale)) for n in after.shape)
    small = [resize(one, size, anti_aliasing=True) for one in (after, before)]
    found = np.asarray(optical_flow_ilk(*small, radius=_RADIUS), np.float32)
    factor = np.array(after.shape) / size
    large = [
        zoom(one, factor, order=1) * f for one, f in zip(found, factor, strict=True)
    ]
    return np.stack(large).astype(np.float32)

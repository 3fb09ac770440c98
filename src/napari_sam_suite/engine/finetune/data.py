"""What there is to learn from: frames with the masks of their objects."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_sam_suite.engine.composite import Composite, compose
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.fewshot.examples import draw_masks
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.masks import Masks

_FIRST = FrameIndex()
SMALLEST = 4
"""Pixels of the smallest object that teaches anything."""
_DRAWS, _QUARTILES = 50, (0.25, 0.5, 0.75)
"""Draws of frames for validation, and what of the objects' sizes is compared."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One frame and its objects.

    Attributes
    ----------
    name : str
        What messages call it.
    rgb : ndarray, shape (H, W, 3), uint8
        Exactly what the model is given when it segments this frame.
    masks : Masks
        Its objects, holes and all their parts included; they may overlap.
    frame : FrameIndex
        Which frame of its image.
    image : str
        The same for all frames of one movie or stack, which are alike; empty where the
        frame has none beside it.
    """

    name: str
    rgb: NDArray[np.uint8]
    masks: Masks
    frame: FrameIndex = _FIRST
    image: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]


def gather_samples(
    image: ImageSource, objects: Objects, composite: Composite | None = None
) -> list[Sample]:
    """Frames of an image that have objects, with these as masks.

    Parameters
    ----------
    image : ImageSource
        Where the objects were drawn.
    objects : Objects
        On any of its frames; those outside the image are left out.
    composite : Composite, optional
        How channels become RGB.

    Returns
    -------
    list of Sample
        In the order of the frames; without frames that have no object.
    """
    sizes = image.sizes
    frames = [
        frame
        for frame in objects.frames()
        if all(0 <= i < n for i, n in zip(frame, sizes[:3], strict=True))
    ]
    if not frames:
        return []
    # From all frames, as a run over them does: the model sees what it will see.
    fixed = (composite or Composite.default(image)).resolve(image)
    samples = []
    for frame in frames:
        drawn = draw_masks(objects.at(frame), (sizes.y, sizes.x))
        masks = drawn.select(np.flatnonzero(drawn.area >= SMALLEST))
        if len(masks):
            name = image.name
            if sizes.frame_count > 1:
                name = f"{name}, {frame.label(sizes)}"
            rgb = compose(image.frame(frame), fixed)
            # Positions are places of their own.
            place = f"{image.path or image.name} {frame.position}"
            samples.append(Sample(name, rgb, masks, frame, place))
    return samples


def tell_lost(count: int, where: str) -> str:
    """What to say of objects that `gather_samples` left out."""
    return (
        f"Objects of fewer than {SMALLEST} pixels, or outside of the image and its "
        f"frames, are left out: {count} in {where}."
    )


def split_mask(objects: Objects, shape: tuple[int, int]) -> Objects:
    """Take islands for objects where one number only says that there is something.

    Parameters
    ----------
    objects : Objects
        From label images; with several numbers they are returned as they are.
    shape : (int, int)
        Height and width of the image.
    """
    several = "label" in objects.features and objects.features["label"].nunique() > 1
    if several or not len(objects):
        return objects
    islands = [
        Objects.from_labels(
            ndimage.label(objects.to_labels(shape, frame) > 0, np.ones((3, 3)))[0],
            frame,
            source=objects.source,
        )
        for frame in objects.frames()
    ]
    return Objects.concat(islands)


def split_samples(
    samples: Sequence[Sample], share: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Draw frames for validation, of those that have objects.

    Frames of a movie or stack are alike, so what is learnt from one shows on the next.
    Of several movies whole ones are drawn; of a single one frames in a row.

    Of many draws the one whose objects are most of the size of all: what is learnt
    from small objects does not show on a frame of large ones, and little on a frame of
    few.

    Parameters
    ----------
    samples : sequence of Sample
        All frames.
    share : float
        Part that is held out, as near as whole movies allow: at least one frame where
        two have objects, and never all of these. 0 holds out none.
    seed : int
        Of the lot.

    Returns
    -------
    train, held_out : list of Sample
        Each in the order given. `held_out` is empty where one frame only has objects.

    Raises
    ------
    ParameterError
        If there is no frame with objects.
    """
    full = sum(len(sample.masks) > 0 for sample in samples)
    if not full:
        raise ParameterError(
            "There is no frame with objects to learn from.",
            "Draw or load the outlines of some objects first.",
        )
    count = min(max(1, round(share * len(samples))), full - 1) if share else 0
    if not count:
        return list(samples), []
    rng = np.random.default_rng(seed)
    filled = [i for i, sample in enumerate(samples) if len(sample.masks)]
    images: dict[object, list[int]] = {}
    for i in sorted(filled, key=lambda i: samples[i].frame):
        images.setdefault(samples[i].image or i, []).append(i)
    groups = sorted(images.values(), key=min)
    draws = [_draw(rng, groups, count) for _ in range(_DRAWS)]
    sizes = [np.log(sample.masks.area) / 2 for sample in samples]
    everything = np.quantile(np.concatenate(sizes), _QUARTILES)

    def unlike(draw: list[int]) -> float:
        drawn = np.concatenate([sizes[i] for i in draw])
        off = np.abs(np.quantile(drawn, _QUARTILES) - everything).mean()
        wrong = abs(len(draw) - count) / len(samples)
        return float(off + 0.5 / np.sqrt(len(drawn)) + wrong)

    usual = min(draws, key=unlike)
    held = set(usual)
    train = [s for i, s in enumerate(samples) if i not in held]
    return train, [s for i, s in enumerate(samples) if i in held]


def _draw(
    rng: np.random.Generator, images: Sequence[list[int]], count: int
) -> list[int]:
    """So many frames: of whole images, but for one that alone has several frames."""
    order = rng.permutation(len(images)).tolist()
    whole = sum(len(frames) > 1 for frames in images) > 1
    drawn: list[int] = []
    for place in order[:-1] if whole else order:
        frames, room = images[place], count - len(drawn)
        if len(frames) > room and not whole:
            start = int(rng.integers(len(frames) - room + 1))
            frames = frames[start : start + room]
        drawn += frames
        if len(drawn) >= count:
            break
    return drawn


def hash_samples(samples: Sequence[Sample]) -> str:
    """SHA-256 of all pixels and masks: which data a model has learnt from."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(repr(sample.rgb.shape).encode())
        digest.update(np.ascontiguousarray(sample.rgb).data)
        digest.update(sample.masks.boxes.tobytes())
        for bits in sample.masks.packed:
            digest.update(bits.tobytes())
    return digest.hexdigest()

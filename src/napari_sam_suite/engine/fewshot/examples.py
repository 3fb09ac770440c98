"""The shapes that a user tagged, and the image that they were drawn on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.features import UNASSIGNED
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.raster import count_pixels, pixel_window, rasterise

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from napari_sam_suite.engine.composite import Composite
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.objects import Objects


@dataclass(frozen=True, eq=False)
class Examples:
    """Checked examples: every one has a tag, a frame of the image and pixels there.

    Made by `choose_examples`, which raises before anything is loaded.

    Attributes
    ----------
    image : ImageSource
        Where they were drawn.
    objects : Objects
        Of the tags below only.
    tags : tuple of str
        What to find.
    negatives : tuple of str
        What is not meant.
    composite : Composite, optional
        How channels become RGB.
    skipped : int
        Shapes with one of the tags that cover no pixel of the image.
    areas : list of int
        Pixels of each example.
    """

    image: ImageSource
    objects: Objects
    tags: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    composite: Composite | None = None
    skipped: int = 0
    areas: list[int] = field(default_factory=list)

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know of them."""
        if not self.skipped:
            return ()
        one = self.skipped == 1
        what = "1 example covers" if one else f"{self.skipped} examples cover"
        was = "was" if one else "were"
        return (f"{what} no pixel of the image and {was} left out.",)

    def frames(self) -> list[FrameIndex]:
        """Frames that have examples, in order."""
        return self.objects.frames()

    def left_out(self, frames: Collection[FrameIndex]) -> tuple[str, ...]:
        """Says that they are not found again, for those on frames to be searched."""
        there = [self.objects.at(frame) for frame in self.frames() if frame in frames]
        count = sum(int(one.features["tag"].isin(self.tags).sum()) for one in there)
        if not count:
            return ()
        what = "The example is" if count == 1 else f"The {count} examples are"
        return (f"{what} not among the objects found.",)

    def masks(self, frame: FrameIndex) -> tuple[Masks, list[str]]:
        """Masks and tags of the examples of one frame."""
        here = self.objects.at(frame)
        shape = (self.image.sizes.y, self.image.sizes.x)
        return draw_masks(here, shape), here.features["tag"].tolist()


def choose_examples(
    image: ImageSource,
    objects: Objects,
    tags: Sequence[str],
    negatives: Sequence[str] = (),
    composite: Composite | None = None,
) -> Examples:
    """Take the objects that have one of the tags, and check that they can be used.

    Parameters
    ----------
    image : ImageSource
        The image that they were drawn on.
    objects : Objects
        Any; other tags are left out. Where none has a tag, as in a label image, all
        get the only one that is asked for.
    tags, negatives : sequence of str
        Tags to find, and tags of what is not meant.
    composite : Composite, optional
        How channels become RGB.

    Raises
    ------
    ParameterError
        If there is no tag, a tag that is to be found and not to be found, or one that
        no object has, or none that lies in the image.
    """
    wanted = tuple(dict.fromkeys(t.strip() for t in tags if t.strip()))
    others = tuple(dict.fromkeys(t.strip() for t in negatives if t.strip()))
    _check_tags(wanted, others, objects)
    tag = objects.features["tag"].str.strip()
    if (tag == UNASSIGNED).all() and len(wanted) == 1 and not others:
        tag[:] = wanted[0]
    for one in (*wanted, *others):
        if not (tag == one).any():
            raise ParameterError(
                f"There are no shapes with the tag {one!r}.", _name_tags(objects)
            )
    objects = objects.with_tags(tag.tolist())
    chosen = objects.select(tag.isin([*wanted, *others]).to_numpy())
    areas = [_pixels(chosen, row, image) for row in range(len(chosen))]
    used = chosen.select(np.array([a > 0 for a in areas], bool))
    for one in (*wanted, *others):
        if not (used.features["tag"] == one).any():
            raise _nothing_drawn(chosen, one, image)
    inside = [a for a in areas if a > 0]
    skipped = len(chosen) - len(used)
    return Examples(image, used, wanted, others, composite, skipped, inside)


def draw_masks(objects: Objects, shape: tuple[int, int]) -> Masks:
    """Masks of objects of one frame of `shape`, in their order."""
    builder = MaskBuilder(shape)
    for polygon in objects.polygons:
        window = pixel_window(polygon, shape)
        if window is None:
            builder.add(np.zeros((0, 0), bool), (0, 0))
            continue
        rows, columns = window
        origin = (rows.start, columns.start)
        size = (rows.stop - rows.start, columns.stop - columns.start)
        builder.add(rasterise(polygon, size, origin), origin)
    return builder.build()


def _check_tags(
    wanted: tuple[str, ...], others: tuple[str, ...], objects: Objects
) -> None:
    if not wanted:
        raise ParameterError(
            "No tag was chosen.",
            f"Give that of the examples with `tag`. {_name_tags(objects)}",
        )
    both = set(wanted) & set(others)
    if both:
        raise ParameterError(
            f"The tag {sorted(both)[0]!r} is to be found and not to be found.",
            "Choose one of the two.",
        )


def _name_tags(objects: Objects) -> str:
    known = sorted(set(objects.features["tag"]))
    if not known:
        return "There are no shapes at all: draw some and tag them."
    if known == [UNASSIGNED]:
        return "The shapes have no tags yet, so one of any name will do."
    return f"The tags there are: {', '.join(known[:10])}."


def _pixels(objects: Objects, row: int, image: ImageSource) -> int:
    """Pixels of an object inside its image; 0 on a frame that does not exist."""
    sizes = image.sizes
    frame = FrameIndex(
        *(int(objects.features[axis].iloc[row]) for axis in FrameIndex._fields)
    )
    if any(not 0 <= frame[k] < getattr(sizes, a) for k, a in enumerate(frame._fields)):
        return 0
    return count_pixels(objects.polygons[row], (sizes.y, sizes.x))


def _nothing_drawn(objects: Objects, tag: str, image: ImageSource) -> ParameterError:
    here = objects.select((objects.features["tag"] == tag).to_numpy())
    if all(polygon.area == 0 for polygon in here.polygons):
        return ParameterError(
            f"All shapes with the tag {tag!r} are empty.",
            "Draw them around some pixels of the object.",
        )
    sizes = image.sizes
    return ParameterError(
        f"No shape with the tag {tag!r} covers a pixel of {image.name!r}, which has "
        f"{sizes.y} x {sizes.x} pixels and {sizes.frame_count} frames.",
        "Check that the shapes belong to this image.",
    )

"""Frames in, objects out: one capability over all frames of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from uuid import NAMESPACE_URL, uuid5

from napari_sam_suite.engine.composite import Composite, compose
from napari_sam_suite.engine.errors import (
    Cancelled,
    ImageError,
    OutOfMemory,
    UnreadFrames,
)
from napari_sam_suite.engine.finder import Found
from napari_sam_suite.engine.frames import FrameIndex, resolve_frames
from napari_sam_suite.engine.losses import Losses
from napari_sam_suite.engine.masks import Masks
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.provenance import mark_searched

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor, Future

    import numpy as np
    from numpy.typing import NDArray

    from napari_sam_suite.engine.filters import Candidates
    from napari_sam_suite.engine.finder import Finder, Report
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.models.protocol import SamModel


class FrameResult:
    """The objects of one finished frame, empty frames included.

    Attributes
    ----------
    candidates : Candidates or Masks, optional
        What the finder kept for filtering again.
    """

    def __init__(
        self,
        frame: FrameIndex,
        objects: Objects,
        losses: Losses,
        candidates: Candidates | Masks | None = None,
    ) -> None:
        self.frame = frame
        self.objects = objects
        self.losses = losses
        self.candidates = candidates


class Listener(Protocol):
    """What a run tells and asks while it works; `jobs.Job` is one."""

    def stopping(self) -> bool:
        """Whether to stop."""

    def report(self, done: int, total: int, text: str = "") -> None:
        """Say how far the run is."""

    def give(self, part: object) -> None:
        """Hand out a part of the result, such as the `FrameResult` of a frame."""

    def notice(self, text: str) -> None:
        """Tell the user something."""


def run_frames(
    model: SamModel,
    image: ImageSource,
    finder: Finder,
    *,
    frames: str | FrameIndex | Sequence[FrameIndex] = "all",
    composite: Composite | None = None,
    run: str = "",
    job: Listener,
    pool: Executor,
) -> Objects:
    """Let a finder look at frames one after the other.

    While one frame is on the device, `pool` makes polygons of the one before. Intensity
    limits are found once for all frames, so that a time-lapse does not flicker. A
    frame of one colour among others has no objects, and the job is told. A frame that
    cannot be read does not stop the others, unless they follow from it; it is told in
    the end. `run` is written into every row of the features.

    Returns
    -------
    Objects
        Of all frames, in their order.

    Raises
    ------
    ImageError
        If the only frame is of one colour, or has no finite pixel; or if a frame cannot
        be read that others follow from.
    UnreadFrames
        When all others are done, with what was found there.
    Cancelled
        If the job was stopped; frames finished by then were handed to `job`.
    """
    chosen = resolve_frames(image.sizes, frames)
    fixed = (composite or Composite.default(image)).resolve(image, chosen)
    source = describe(image, model, finder, fixed)
    results: list[FrameResult] = []
    blank: list[FrameIndex] = []
    unread: list[FrameIndex] = []
    why: ImageError | None = None
    pending: Future[FrameResult] | None = None
    for text in image.notices:
        job.notice(text)

    def collect(future: Future[FrameResult] | None) -> None:
        if future is not None:
            results.append(future.result())
            job.give(results[-1])

    def trace(found: Found, frame: FrameIndex) -> FrameResult:
        return outline(
            found, frame, finder, model=model.spec.id, run=run, source=source
        )

    try:
        for number, frame in enumerate(chosen):

            def report(done: int, total: int, text: str, number: int = number) -> None:
                job.report(number * total + done, len(chosen) * total, text)

            try:
                rgb = see_frame(image, frame, fixed, alone=len(chosen) == 1)
            except ImageError as error:
                if len(chosen) == 1 or getattr(finder, "in_order", False):
                    raise
                if job.stopping():
                    raise Cancelled from None
                unread.append(frame)
                # Its traceback would hold what the reader had in memory.
                why = why or _bare(error)
                report(1, 1, "Not read")
                collect(pending)
                pending = None
                continue
            if rgb is None:
                if job.stopping():
                    raise Cancelled
                blank.append(frame)
                found = Found(Masks.empty((image.sizes.y, image.sizes.x)))
                report(1, 1, "Nothing to see")
            else:
                found = find_objects(model, rgb, finder, frame, report, job)
            for text in found.notices:
                job.notice(text)
            last, pending = pending, pool.submit(trace, found, frame)
            collect(last)
    finally:
        collect(pending)
    if blank:
        job.notice(_tell_blank(blank, len(chosen), image))
    lost = sum((r.losses for r in results), start=Losses())
    if lost:
        job.notice(lost.summary())
    objects = Objects.concat([Objects.empty(source), *(r.objects for r in results)])
    if why is not None:
        raise _tell_unread(unread, why, len(chosen), image, objects)
    return objects


def outline(
    found: Found,
    frame: FrameIndex,
    finder: Finder,
    *,
    model: str,
    source: dict[str, object],
    run: str = "",
    naming: str = "",
) -> FrameResult:
    """Make polygons of what was found in one frame.

    Parameters
    ----------
    found : Found
        What the finder answered.
    frame : FrameIndex
        Where.
    finder : Finder
        Its parameters say how outlines are drawn.
    model, run : str
        Written into every row of the features.
    source : dict
        Where objects come from, as `describe` says it.
    naming : str
        Ids follow from this text and the frame, so that the same run gives the same
        ids again, unless the finder gave some; random ones without it.
    """
    columns = dict(found.columns)
    if naming and "id" not in columns:
        stem = f"{naming}/{'/'.join(map(str, frame))}"
        columns["id"] = [
            str(uuid5(NAMESPACE_URL, f"{stem}/{row}"))
            for row in range(len(found.masks))
        ]
    objects, losses = Objects.from_masks(
        found.masks,
        frame,
        model=model,
        run=run,
        smoothing=finder.params.smoothing,
        padding=finder.params.padding,
        parts=finder.params.parts,
        exclusive=getattr(finder.params, "overlap", "allow") == "exclusive",
        columns=columns,
        source=mark_searched(source, [frame]),
    )
    return FrameResult(frame, objects, losses, found.candidates)


def find_objects(
    model: SamModel,
    rgb: NDArray[np.uint8],
    finder: Finder,
    frame: FrameIndex,
    report: Report,
    job: Listener,
) -> Found:
    """What is in one frame; a device whose memory is full is left for the CPU."""
    try:
        return finder(model, rgb, frame, report=report, stop=job.stopping)
    except OutOfMemory:
        if model.device.type == "cpu":
            raise
    from napari_sam_suite.engine.asking import release_memory
    from napari_sam_suite.engine.models.device import choose_device

    full = model.device
    model.move(choose_device("cpu"))
    release_memory()
    job.notice(f"The memory of {full} is full; going on with the CPU, which is slower.")
    return finder(model, rgb, frame, report=report, stop=job.stopping)


def describe(
    image: ImageSource, model: SamModel, finder: Finder, composite: Composite
) -> dict[str, object]:
    """Where objects come from, as their files keep it."""
    colours = {"rgb": True} if image.rgb else {}
    return {
        "image": image.name,
        "path": str(image.path.absolute()) if image.path else "",
        "sizes": image.sizes._asdict(),
        **colours,
        "scale": list(image.scale),
        "units": image.units,
        "model": model.spec.id,
        "capability": finder.name,
        "params": finder.params.resolved(model.spec).model_dump(mode="json"),
        "composite": composite.model_dump(mode="json"),
    }


def see_frame(
    image: ImageSource, frame: FrameIndex, composite: Composite, *, alone: bool = False
) -> NDArray[np.uint8] | None:
    """RGB (H, W, 3) of a frame, or None if nothing can be seen in it.

    Raises
    ------
    ImageError
        If it cannot be read; or if nothing can be seen and it is `alone`.
    """
    planes = image.frame(frame)
    try:
        rgb = compose(planes, composite)
    except ImageError:
        if alone:
            raise
        return None
    if (rgb != rgb[0, 0]).any():
        return rgb
    if not alone:
        return None
    what = repr(image.name)
    if image.sizes.frame_count > 1:
        what = f"{frame.label(image.sizes).capitalize()} of {what}"
    raise ImageError(
        f"{what} is one colour everywhere, so there is nothing to find.",
        "Check the image, its limits and the choice of `channels`.",
    )


def _bare(error: ImageError) -> ImageError:
    return ImageError(*error.worded("`{}`".format))


def _tell_unread(
    unread: Sequence[FrameIndex],
    why: ImageError,
    count: int,
    image: ImageSource,
    objects: Objects,
) -> UnreadFrames:
    message, hint = why.worded("`{}`".format)
    if len(unread) > 1:
        named = _name_some(unread, image)
        message = f"{len(unread)} of {count} frames cannot be read ({named}). {message}"
    return UnreadFrames(message, hint, objects)


def _tell_blank(blank: Sequence[FrameIndex], count: int, image: ImageSource) -> str:
    return (
        f"Nothing can be seen in {len(blank)} of {count} frames, so they have no "
        f"objects ({_name_some(blank, image)})."
    )


def _name_some(frames: Sequence[FrameIndex], image: ImageSource) -> str:
    named = "; ".join(frame.label(image.sizes) for frame in frames[:3])
    return named + (f"; and {len(frames) - 3} more" if len(frames) > 3 else "")

"""Frames in, objects out: one capability over all frames of an image."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Protocol

from napari_sam_suite.engine.composite import Composite, compose
from napari_sam_suite.engine.frames import FrameIndex, resolve_frames
from napari_sam_suite.engine.losses import Losses
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.params import AutoParams


class FrameResult:
    """The objects of one finished frame, empty frames included."""

    def __init__(self, frame: FrameIndex, objects: Objects, losses: Losses) -> None:
        self.frame = frame
        self.objects = objects
        self.losses = losses


class Listener(Protocol):
    """What a run tells and asks while it works; `jobs.Job` is one."""

    def stopping(self) -> bool:
        """Whether to stop."""

    def report(self, done: int, total: int, text: str = "") -> None:
        """Say how far the run is."""

    def give(self, part: FrameResult) -> None:
        """Hand out a finished frame."""

    def notice(self, text: str) -> None:
        """Tell the user something."""


def segment_frames(
    model: SamModel,
    image: ImageSource,
    params: AutoParams,
    *,
    frames: str | FrameIndex | Sequence[FrameIndex] = "all",
    composite: Composite | None = None,
    job: Listener,
    pool: Executor,
) -> Objects:
    """Segment frames one after the other.

    While one frame is on the device, `pool` makes polygons of the one before. Intensity
    limits are found once for all frames, so that a time-lapse does not flicker.

    Returns
    -------
    Objects
        Of all frames, in their order.

    Raises
    ------
    Cancelled
        If the job was stopped; frames finished by then were handed to `job`.
    """
    from napari_sam_suite.engine.auto import automatic_masks

    chosen = resolve_frames(image.sizes, frames)
    fixed = (composite or Composite.default(image)).resolve(image, chosen)
    source = describe(image, model, params, fixed)
    results: list[FrameResult] = []
    pending: Future[FrameResult] | None = None

    def collect(future: Future[FrameResult] | None) -> None:
        if future is not None:
            results.append(future.result())
            job.give(results[-1])

    def outline(masks: Masks, frame: FrameIndex) -> FrameResult:
        objects, losses = Objects.from_masks(
            masks,
            frame,
            model=model.spec.id,
            smoothing=params.smoothing,
            padding=params.padding,
            parts=params.parts,
            source=source,
        )
        return FrameResult(frame, objects, losses)

    try:
        for number, frame in enumerate(chosen):
            rgb = compose(image.frame(frame), fixed)

            def report(done: int, total: int, text: str, number: int = number) -> None:
                job.report(number * total + done, len(chosen) * total, text)

            masks = automatic_masks(
                model, rgb, params, report=report, stop=job.stopping
            )
            last, pending = pending, pool.submit(outline, masks, frame)
            collect(last)
    finally:
        collect(pending)
    lost = sum((r.losses for r in results), start=Losses())
    if lost:
        job.notice(lost.summary())
    return Objects.concat([Objects.empty(source), *(r.objects for r in results)])


def describe(
    image: ImageSource, model: SamModel, params: AutoParams, composite: Composite
) -> dict[str, object]:
    """Where objects come from, as their files keep it."""
    return {
        "image": image.name,
        "sizes": image.sizes._asdict(),
        "scale": list(image.scale),
        "units": image.units,
        "model": model.spec.id,
        "params": params.resolved(model.spec).model_dump(mode="json"),
        "composite": composite.model_dump(mode="json"),
    }

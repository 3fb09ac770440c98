"""A training as a task: what it learns from, and what becomes of it in the viewer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Shapes
from napari.utils.colormaps import DirectLabelColormap

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.widgets.drawing import check_image
from napari_sam_suite.widgets.layers import SHOWN
from napari_sam_suite.widgets.runner import Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_sam_suite.engine.finetune.comparing import Comparison
    from napari_sam_suite.engine.finetune.outcome import Outcome
    from napari_sam_suite.engine.finetune.params import FinetuneParams
    from napari_sam_suite.engine.finetune.progress import Epoch
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.layers import Picture

_REJECTED = "rejected"
Tell = Callable[[str], object]
"""Takes a sentence for the user."""
_Plane = tuple[Any, tuple[int, ...], "FrameIndex"]
"""Labels, the place of a plane in them, and its frame."""


@dataclass(eq=False)
class Learning(Task):
    """A training as it was when the button was pressed.

    Attributes
    ----------
    spec : ModelSpec
        The model it begins with.
    picture : Picture
        Whose frames are learnt from.
    objects : callable
        Gives what is drawn on them, and tells how it was understood; called on the
        engine's thread.
    params : FinetuneParams
    out : Path
        Where the new model goes.
    heard : callable
        Called with every epoch.
    done : callable
        Called with the outcome.
    kept : callable
        Called with `out` where a training that was stopped has left its best model.
    """

    spec: ModelSpec
    picture: Picture
    objects: Callable[[Tell], Objects]
    params: FinetuneParams
    out: Path
    heard: Callable[[Epoch], object]
    done: Callable[[Outcome], object]
    kept: Callable[[Path], object]
    _last: list[Epoch] = field(default_factory=list)
    _outcome: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._before = _written(self.out)

    def start(self, engine: Engine) -> Job[Any]:
        """Begin to gather frames and to learn."""
        from napari_sam_suite.engine.finetune.data import gather_samples, tell_lost
        from napari_sam_suite.engine.finetune.loop import finetune

        def work(model: SamModel, job: Job[Outcome]) -> Outcome:
            picture = self.picture
            drawn = self.objects(job.notice)
            samples = gather_samples(picture.image, drawn, picture.composite)
            lost = len(drawn) - sum(len(sample.masks) for sample in samples)
            if lost:
                job.notice(tell_lost(lost, picture.image.name))
            return finetune(model, samples, self.params, self.out, job)

        return engine.submit(work, f"fine-tune {self.spec.id}")

    def take(self, part: Any) -> None:
        """Draw an epoch."""
        self._last.append(part)
        self.heard(part)

    def settle(self, job: Job[Any]) -> None:
        """Show the new model, once it is there."""
        if not job.wait(0) or self._outcome:
            return
        if job.error is None:
            self._outcome.append(job.result())
            self.done(self._outcome[0])
        elif _written(self.out) not in (None, self._before):
            self.kept(self.out)

    def summary(self) -> str:
        """What has come of it."""
        if self._outcome:
            return self._outcome[0].summary().rstrip(".")
        best = [epoch for epoch in self._last if epoch.best]
        if best:
            return f"the best of {len(self._last) - 1} epochs in {self.out.name}"
        return "the model as it was"


def read_truth(
    layers: Sequence[Layer], picture: Picture, current: FrameIndex
) -> Callable[[Tell], Objects]:
    """Take what is drawn in layers now, to make objects of it later.

    Parameters
    ----------
    layers : sequence of Layer
        Shapes and Labels. Rejected shapes are left out.
    picture : Picture
        What they were drawn on.
    current : FrameIndex
        The frame of a Labels layer without axes of its own.

    Raises
    ------
    ParameterError
        If a layer is of another image, or a Labels layer has another size than it.
    """
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.shapes import to_objects

    drawn: list[Objects] = []
    planes: dict[str, list[_Plane]] = {}
    for layer in layers:
        check_image(layer, picture)
        if isinstance(layer, Shapes):
            found = to_objects(
                layer.data, layer.shape_type, layer.features, picture.placement
            )
            if "review" in found.features:
                kept = (found.features["review"] != _REJECTED).to_numpy()
                found = found.select(kept)
            drawn.append(found)
        elif isinstance(layer, Labels):
            planes[layer.name] = list(_planes(layer, picture, current))

    def make(tell: Tell) -> Objects:
        labels = [_outline(name, some, tell) for name, some in planes.items()]
        return Objects.concat([*drawn, *labels])

    return make


def _outline(name: str, planes: Sequence[_Plane], tell: Tell) -> Objects:
    """Objects of a Labels layer; painted with one number, its islands."""
    from napari_sam_suite.engine.finetune.data import split_mask
    from napari_sam_suite.engine.objects import Objects

    labels = Objects.concat(
        [
            Objects.from_labels(pixels, frame)
            for data, index, frame in planes
            if np.any(pixels := np.asarray(data[index]))
        ]
    )
    if not planes:
        return labels
    split = split_mask(labels, planes[0][0].shape[-2:])
    if len(split) > len(labels):
        tell(
            f"{name} is painted with one number, so each of its {len(split)} islands "
            "is an object."
        )
    return split


def _planes(layer: Labels, picture: Picture, current: FrameIndex) -> Iterator[_Plane]:
    """Planes of a Labels layer: copies where something is drawn, or where to read.

    What is not in memory is only read by those who make objects of it, since reading
    may take long and this is done while the window waits.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    sizes = picture.image.sizes
    if tuple(data.shape[-2:]) != (sizes.y, sizes.x):
        raise ParameterError(
            f"The layer {layer.name!r} has {data.shape[-2]} x {data.shape[-1]} pixels, "
            f"the image has {sizes.y} x {sizes.x}.",
            "Choose labels of this image.",
        )
    leading = data.shape[:-2]
    if leading and len(leading) != len(picture.placement.axes) - 2:
        raise ParameterError(
            f"The layer {layer.name!r} has {len(leading)} axes before y and x, its "
            f"image has {len(picture.placement.axes) - 2}.",
            "Choose labels with the axes of the image.",
        )
    for index in np.ndindex(*leading):
        frame = picture.placement.frame(index) if leading else current
        if not isinstance(data, np.ndarray):
            yield data, index, frame
        elif data[index].any():
            yield data[index].copy(), (), frame


def _written(path: Path) -> int | None:
    """When a file was written, in nanoseconds; None if there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


def show_comparison(
    viewer: ViewerModel,
    picture: Picture,
    comparison: Comparison,
    names: tuple[str, str],
) -> None:
    """Add the objects that both models find in a validation frame, as outlines.

    Parameters
    ----------
    viewer : ViewerModel
        Goes to the frame.
    picture : Picture
        Where the outlines are put.
    comparison : Comparison
        What was found.
    names : (str, str)
        Of the base model and of the new one.
    """
    from napari_sam_suite.engine.finetune.calibrate import to_labels

    frame = comparison.sample.frame
    found = (comparison.before, comparison.after)
    for masks, name, word, colour in zip(
        found, names, ("Before", "After"), ("#e69f00", "#56b4e9"), strict=True
    ):
        layer = Labels(
            to_labels(masks),
            name=f"{word}: {name}",
            colormap=DirectLabelColormap(
                color_dict={None: colour, 0: "transparent"},
            ),
            metadata={SHOWN: True},
            **picture.placement.flat(),
        )
        layer.contour = 2
        layer.editable = False
        viewer.add_layer(layer)
    place = picture.placement.at(frame)
    first = viewer.dims.ndim - len(place) - 2
    for axis, step in enumerate(place):
        viewer.dims.set_current_step(first + axis, step)

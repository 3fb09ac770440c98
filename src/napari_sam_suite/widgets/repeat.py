"""What a layer knows of a run, as the recipe that every other door repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.composite import Composite
from napari_sam_suite.engine.errors import EngineError, ParameterError
from napari_sam_suite.engine.frames import FrameIndex, format_selection

if TYPE_CHECKING:
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.recipe import Capability, Recipe, Source


def record_shapes(objects: Objects) -> list[dict[str, Any]]:
    """Objects as the record of a run keeps them: examples, or what is carried on."""
    from napari_sam_suite.engine.recorded import to_shapes

    return [shape.model_dump(mode="json") for shape in to_shapes(objects)]


def to_recipe(kept: dict[str, Any]) -> Recipe:
    """The recipe of a run.

    Parameters
    ----------
    kept : dict
        As `recipe.record` made it, and the tabs added to it.

    Returns
    -------
    Recipe
        Its source has the file of the image, if that holds what the layers show; else
        only the names of the layers, and `run` asks for images.

    Raises
    ------
    ParameterError
        If there was no run, or one of an older version.
    """
    from napari_sam_suite.engine.recipe import Frames, Model, Recipe

    if not kept:
        raise ParameterError("There is no run to save.", "Run something first.")
    frames = [FrameIndex(*frame) for frame in kept["frames"]]
    source = _source(kept["image"])
    return Recipe(
        source=source,
        composite=Composite.model_validate(kept["composite"]),
        frames=Frames(
            positions=format_selection(frame.position for frame in frames),
            z=format_selection(frame.z for frame in frames),
            time=format_selection(frame.time for frame in frames),
        ),
        model=Model(id=kept["model"], device=kept["device"]),
        capability=_capability(kept, source),
    )


def _capability(kept: dict[str, Any], source: Source) -> Capability:
    from napari_sam_suite.engine import recipe as parts

    params = kept["params"]
    match kept["capability"]:
        case "few-shot" if "prototypes" in kept:
            return parts.FewShot(params=params, prototypes=kept["prototypes"])
        case "few-shot":
            return parts.FewShot(
                params=params,
                tags=kept["tags"],
                negatives=kept["negatives"],
                examples=_shapes(kept),
                image=next(iter(source.images), None),
            )
        case "propagate":
            return parts.Propagate(params=params, objects=_shapes(kept))
        case "prompt":
            return parts.Prompted(
                params=params, prompts=[_said(one) for one in kept["prompts"]]
            )
        case _:
            return parts.Auto(params=params)


def _shapes(kept: dict[str, Any]) -> list[dict[str, Any]]:
    if "shapes" not in kept:
        raise ParameterError(
            "This run does not say which shapes it began with.",
            "It is of an older version: run it again.",
        )
    shapes: list[dict[str, Any]] = kept["shapes"]
    return shapes


def _said(prompt: dict[str, Any]) -> dict[str, Any]:
    """A prompt, and those before it, with frames counted from 1."""
    before = prompt.get("before")
    return {
        **prompt,
        "frame": [number + 1 for number in prompt["frame"]],
        "before": None if before is None else _said(before),
    }


def _source(image: dict[str, Any]) -> Source:
    """The file, opened as the layers show it, or else the names of the layers."""
    from napari_sam_suite.engine.image import open_image
    from napari_sam_suite.engine.recipe import Source

    layers = tuple(image["layers"])
    for axes in (None, image["axes"] + ("S" if image["rgb"] else "")):
        try:
            opened = open_image(image["path"], axes=axes) if image["path"] else None
        except EngineError:
            continue
        if (
            opened is not None
            and opened.sizes._asdict() == image["sizes"]
            and opened.rgb == image["rgb"]
        ):
            return Source(images=(image["path"],), axes=axes, layers=layers)
    return Source(layers=layers)

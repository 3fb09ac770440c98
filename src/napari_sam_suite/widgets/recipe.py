"""What a run did, so that it can be repeated: kept with the layer, said as Python."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.versions import package_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.params import PolygonParams
    from napari_sam_suite.widgets.layers import Picture


def record(
    picture: Picture,
    params: PolygonParams,
    frames: Sequence[FrameIndex],
    *,
    model: str,
    device: str,
    path: str = "",
    multiscale: bool = False,
) -> dict[str, Any]:
    """Everything that decides the result of a run, as JSON can hold it.

    Parameters
    ----------
    picture : Picture
        What it works on.
    params : PolygonParams
        As set, with what is left to the model still open.
    frames : sequence of FrameIndex
        0-based, in order.
    model, device : str
        Which model, and where it runs.
    path : str
        File of the image, where there is one.
    multiscale : bool
        Whether the layer is a pyramid, of which the finest level is used.
    """
    return {
        "capability": "auto",
        "model": model,
        "device": device,
        "image": {
            "name": picture.image.name,
            "layers": list(picture.names),
            "axes": picture.letters,
            "path": path,
            "rgb": picture.image.rgb,
            "multiscale": multiscale,
            "sizes": picture.image.sizes._asdict(),
            "scale": list(picture.image.scale),
            "units": picture.image.units,
        },
        "frames": [list(frame) for frame in frames],
        "params": params.model_dump(mode="json"),
        "composite": picture.composite.model_dump(mode="json"),
        "versions": {"python": platform.python_version()} | package_versions("napari"),
    }


def as_python(recipe: dict[str, Any]) -> str:
    """A script that does the same, for napari's console or on its own."""
    if recipe["capability"] == "prompt":
        return _prompts_as_python(recipe)
    if recipe["capability"] == "few-shot":
        return _few_shot_as_python(recipe)
    if recipe["capability"] == "propagate":
        return _propagation_as_python(recipe)
    opened, imports = _open(recipe["image"])
    changed = _changed(recipe["params"])
    if "points_per_side" in changed:
        changed["search"] = recipe["params"]["search"]
    params = ", ".join(f"{k}={v!r}" for k, v in changed.items())
    frames = [f"FrameIndex{tuple(frame)}" for frame in recipe["frames"]]
    return f"""\
{imports}from napari_sam_suite.engine import (
    AutoParams, Composite, Engine, FrameIndex, open_image
)

image = {opened}
composite = Composite.model_validate({recipe["composite"]!r})
frames = [{", ".join(frames)}]
with Engine(model={recipe["model"]!r}, device={recipe["device"]!r}) as engine:
    objects = engine.segment(
        image, AutoParams({params}), frames=frames, composite=composite
    )
objects.save("objects.geojson")
"""


def _prompts_as_python(recipe: dict[str, Any]) -> str:
    """The clicks of a person as a script."""
    opened, imports = _open(recipe["image"])
    prompts = ",\n    ".join(_prompt(prompt) for prompt in recipe["prompts"])
    changed = _changed(recipe["params"], "PromptParams").items()
    params = ", ".join(f"{k}={v!r}" for k, v in changed)
    return f"""\
{imports}from napari_sam_suite.engine import (
    Composite, Engine, FrameIndex, Prompt, PromptParams, open_image, start_prompts
)

image = {opened}
composite = Composite.model_validate({recipe["composite"]!r})
prompts = [
    {prompts},
]
with Engine(model={recipe["model"]!r}, device={recipe["device"]!r}) as engine:
    job = start_prompts(
        engine, image, prompts, PromptParams({params}), composite=composite
    )
    objects = job.result()
objects.save("objects.geojson")
"""


def _propagation_as_python(recipe: dict[str, Any]) -> str:
    """Propagation as a script; the objects are read from a file of the layer."""
    opened, imports = _open(recipe["image"])
    changed = _changed(recipe["params"], "PropagateParams").items()
    params = ", ".join(f"{k}={v!r}" for k, v in changed)
    return f"""\
{imports}from napari_sam_suite.engine import (
    Composite, Engine, Objects, PropagateParams, open_image, start_propagate
)

image = {opened}
composite = Composite.model_validate({recipe["composite"]!r})
shapes = Objects.load("shapes.geojson")  # the result layer, saved
given = shapes.select(shapes.features["id"].isin({recipe["objects"]!r}))
with Engine(model={recipe["model"]!r}, device={recipe["device"]!r}) as engine:
    job = start_propagate(
        engine, image, given, PropagateParams({params}), composite=composite
    )
    objects = job.result()
objects.save("objects.geojson")
"""


def _few_shot_as_python(recipe: dict[str, Any]) -> str:
    """Few-shot as a script; the examples are read from a file of the layer."""
    opened, imports = _open(recipe["image"])
    changed = _changed(recipe["params"], "FewShotParams").items()
    params = ", ".join(f"{k}={v!r}" for k, v in changed)
    frames = [f"FrameIndex{tuple(frame)}" for frame in recipe["frames"]]
    names, learnt, given = _examples(recipe)
    return f"""\
{imports}from napari_sam_suite.engine import (
    Composite, Engine, FewShot, FewShotParams, FrameIndex, {names},
    open_image,
)

image = {opened}
composite = Composite.model_validate({recipe["composite"]!r})
frames = [{", ".join(frames)}]
{learnt}
finder = FewShot(FewShotParams({params}), {given})
with Engine(model={recipe["model"]!r}, device={recipe["device"]!r}) as engine:
    job = engine.start(finder, image, frames=frames, composite=composite)
    objects = job.result()
objects.save("objects.geojson")
"""


def _examples(recipe: dict[str, Any]) -> tuple[str, str, str]:
    """What few-shot learnt from: names to import, lines, and arguments."""
    if "prototypes" in recipe:
        lines = f"prototypes = Prototypes.load({recipe['prototypes']!r})"
        return "Prototypes", lines, "prototypes=prototypes"
    lines = f"""\
shapes = Objects.load("examples.geojson")  # the tagged shapes, saved from their layer
examples = choose_examples(
    image, shapes, {recipe["tags"]!r}, {recipe["negatives"]!r}, composite
)"""
    return "Objects, choose_examples", lines, "examples, known=examples.objects"


def _prompt(said: dict[str, Any]) -> str:
    """One prompt as an expression, with what was said and no more."""
    parts = {
        name: tuple(map(tuple, said[name]))
        for name in ("inside", "outside")
        if said[name]
    }
    parts |= {"box": tuple(said["box"])} if said["box"] else {}
    parts |= {"tag": said["tag"]}
    parts |= {"level": said["level"]} if said.get("level") is not None else {}
    text = ", ".join(f"{name}={value!r}" for name, value in parts.items())
    if said.get("before"):
        text += f", before={_prompt(said['before'])}"
    return f"Prompt({text}, frame=FrameIndex{tuple(said['frame'])})"


def _open(image: dict[str, Any]) -> tuple[str, str]:
    """Expression that opens the image, and what it needs."""
    names, axes = image["layers"], image["axes"]
    if image["path"] and len(names) == 1 and len(axes) == 2:
        return f"open_image({image['path']!r})", ""
    level = "[0]" if image["multiscale"] else ""
    arrays = [f"viewer.layers[{name!r}].data{level}" for name in names]
    if len(arrays) == 1:
        axes += "S" if image["rgb"] else ""
        return f"open_image({arrays[0]}, axes={axes!r})", ""
    stacked = f"np.stack([{', '.join(arrays)}])"
    return f"open_image({stacked}, axes={'C' + axes!r})", "import numpy as np\n\n"


def _changed(params: dict[str, Any], model: str = "AutoParams") -> dict[str, Any]:
    from napari_sam_suite import engine

    usual = getattr(engine, model)().model_dump(mode="json")
    return {name: value for name, value in params.items() if value != usual[name]}

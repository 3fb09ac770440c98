"""What a run did, so that it can be repeated: kept with the layer, said as Python."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.frames import FrameIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam_suite.engine.params import AutoParams
    from napari_sam_suite.widgets.layers import Picture

_PACKAGES = ("napari-sam-suite", "napari", "torch", "sam2", "segment-anything", "numpy")


def record(
    picture: Picture,
    params: AutoParams,
    frames: Sequence[FrameIndex],
    *,
    model: str,
    device: str,
    path: str = "",
) -> dict[str, Any]:
    """Everything that decides the result of a run, as JSON can hold it.

    Parameters
    ----------
    picture : Picture
        What it works on.
    params : AutoParams
        As set, with what is left to the model still open.
    frames : sequence of FrameIndex
        0-based, in order.
    model, device : str
        Which model, and where it runs.
    path : str
        File of the image, where there is one.
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
            "sizes": picture.image.sizes._asdict(),
        },
        "frames": [list(frame) for frame in frames],
        "params": params.model_dump(mode="json"),
        "composite": picture.composite.model_dump(mode="json"),
        "versions": {"python": platform.python_version()} | _versions(),
    }


def as_python(recipe: dict[str, Any]) -> str:
    """A script that does the same, for napari's console or on its own."""
    image = recipe["image"]
    names = image["layers"]
    if image["path"] and len(names) == 1:
        opened = f"open_image({image['path']!r})"
    elif len(names) == 1:
        opened = f"open_image(viewer.layers[{names[0]!r}].data, axes={_axes(recipe)!r})"
    else:
        stacked = ", ".join(f"viewer.layers[{name!r}].data" for name in names)
        opened = f"open_image(np.stack([{stacked}]), axes={_axes(recipe)!r})"
    params = ", ".join(f"{k}={v!r}" for k, v in _changed(recipe["params"]).items())
    frames = [f"FrameIndex{tuple(frame)}" for frame in recipe["frames"]]
    imports = "import numpy as np\n\n" if "np.stack" in opened else ""
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


def _axes(recipe: dict[str, Any]) -> str:
    image = recipe["image"]
    if len(image["layers"]) > 1:
        return f"C{image['axes']}"
    return str(image["axes"]) + ("S" if _is_colour(recipe) else "")


def _is_colour(recipe: dict[str, Any]) -> bool:
    return bool(recipe["image"]["sizes"]["channel"] == 3 and "C" not in recipe["image"]["axes"])


def _changed(params: dict[str, Any]) -> dict[str, Any]:
    from napari_sam_suite.engine.params import AutoParams

    usual = AutoParams().model_dump(mode="json")
    return {name: value for name, value in params.items() if value != usual[name]}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

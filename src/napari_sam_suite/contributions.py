"""What napari calls by name: samples, readers, writers. Loaded only when used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_sam_suite.engine.objects import Objects

    Reader = Callable[[Any], list["LayerData"]]

LayerData = tuple[Any, dict[str, Any], str]
Paths = str | list[str]

_SIDE = 512
_STACK_SIDE = 256
_TIMES, _PLANES = 4, 5
_STEP = 3  # px that cells move from one time to the next


def sample_nuclei() -> list[LayerData]:
    """Bright nuclei, many of them touching."""
    return _sample("touching nuclei", "Nuclei", diameter=34, seed=3)


def sample_phase() -> list[LayerData]:
    """Cells with phase-contrast halos."""
    return _sample("phase", "Phase contrast", diameter=48, seed=1)


def sample_tissue() -> list[LayerData]:
    """Stained tissue in colour."""
    return _sample("stained", "Stained tissue", diameter=30, seed=2)


def sample_stack() -> list[LayerData]:
    """Nuclei and membranes through time and depth: five axes with the colours."""
    import numpy as np
    from scipy import ndimage

    from napari_sam_suite.engine.synthetic.scene import synthesize

    margin = _TIMES * _STEP
    wide = (_STACK_SIDE + margin, _STACK_SIDE + margin)
    layers: list[LayerData] = []
    for kind, name, colour in (
        ("nuclei", "Nuclei", "cyan"),
        ("membrane", "Membranes", "magenta"),
    ):
        scene = synthesize(kind, wide, 5, diameter=36, bits=16)
        side = _STACK_SIDE
        stack = np.empty((_TIMES, _PLANES, side, side), np.uint16)
        for time in range(_TIMES):
            here = time * _STEP
            moved = scene.image[here : here + side, margin - here :][:, :side]
            for plane in range(_PLANES):
                blur = 1.2 * abs(plane - _PLANES // 2)
                stack[time, plane] = ndimage.gaussian_filter(moved, blur)
        options = {
            "name": name,
            "colormap": colour,
            "blending": "additive",
            "scale": (1.0, 1.0, 0.5, 0.5),
            "units": ("s", "um", "um", "um"),
            "axis_labels": ("t", "z", "y", "x"),
        }
        layers.append((stack, options, "image"))
    return layers


def sample_ihc() -> list[LayerData]:
    """Colon tissue stained for a protein, as shipped with scikit-image."""
    from skimage.data import immunohistochemistry

    options = {"name": "Immunohistochemistry", "rgb": True}
    return [(immunohistochemistry(), options, "image")]


def read_geojson(path: Paths) -> Reader | None:
    """Offer to read GeoJSON files, ours, QuPath's or others'."""
    return _reader(path, "geojson", (".geojson",))


def read_json(path: Paths) -> Reader | None:
    """Offer to read JSON files that are COCO, NimbusImage's or GeoJSON."""
    from pathlib import Path

    from napari_sam_suite.engine.errors import ParameterError
    from napari_sam_suite.engine.formats.anyjson import FoundJson

    paths = [path] if isinstance(path, str) else path
    if not paths or not all(one.lower().endswith(".json") for one in paths):
        return None
    try:
        # Kept until they are read: large files are parsed once.
        found = [FoundJson(Path(one)) for one in paths]
    except ParameterError:
        return None
    if not all(one.format for one in found):
        return None
    return lambda _: [_to_layer(one.read(), one.path) for one in found]


def read_rois(path: Paths) -> Reader | None:
    """Offer to read ImageJ ROIs, single or in a zip file."""
    import zipfile

    paths = [path] if isinstance(path, str) else path
    for one in paths:
        if not one.lower().endswith(".zip"):
            continue
        if not zipfile.is_zipfile(one):
            return None
        try:
            with zipfile.ZipFile(one) as file:
                names = [name.lower() for name in file.namelist()]
        except (zipfile.BadZipFile, OSError):
            # Reading it says in one sentence what is wrong.
            continue
        if not any(name.endswith(".roi") for name in names):
            return None
    return _reader(path, "rois", (".zip", ".roi"))


def read_parquet(path: Paths) -> Reader | None:
    """Offer to read GeoParquet files."""
    return _reader(path, "parquet", (".parquet", ".geoparquet"))


def write_geojson(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save the polygons of a Shapes layer, with their features."""
    return _write(path, data, meta, "geojson")


def write_coco(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save the polygons of a Shapes layer as COCO JSON.

    A file called ``.nimbus.json`` becomes NimbusImage's: napari looks at the last
    ending only.
    """
    name = "nimbus" if path.lower().endswith(".nimbus.json") else "coco"
    return _write(path, data, meta, name)


def write_nimbus(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save the polygons of a Shapes layer as NimbusImage imports them."""
    return _write(path, data, meta, "nimbus")


def write_parquet(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save the polygons of a Shapes layer as GeoParquet."""
    return _write(path, data, meta, "parquet")


def write_rois(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save the polygons of a Shapes layer as ImageJ ROIs."""
    return _write(path, data, meta, "rois")


def _reader(path: Paths, name: str, suffixes: tuple[str, ...]) -> Reader | None:
    paths = [path] if isinstance(path, str) else path
    if not paths or not all(one.lower().endswith(suffixes) for one in paths):
        return None

    def read(_: Any) -> list[LayerData]:
        return [_read(one, name) for one in paths]

    return read


def _read(path: str, name: str) -> LayerData:
    from pathlib import Path

    from napari_sam_suite.engine.objects import Objects

    return _to_layer(Objects.load(path, name), Path(path))


def _to_layer(objects: Objects, path: Path) -> LayerData:
    from napari_sam_suite.widgets.placement import Placement
    from napari_sam_suite.widgets.shapes import layer_options, to_vertices

    table = objects.features
    letters = {"P": "position", "T": "time", "Z": "z"}
    axes = "".join(k for k, axis in letters.items() if table[axis].any()) + "YX"
    labels = [letters.get(axis, axis.lower()) for axis in axes]
    placement = Placement(axes, {"axis_labels": labels})
    about = {"runs": {}, "source": objects.source}
    options = layer_options(objects, placement, path.stem, about)
    return to_vertices(objects, placement), options, "shapes"


def _write(path: str, data: Any, meta: dict[str, Any], name: str) -> list[str]:
    """Save a layer."""
    from napari_sam_suite.widgets.saving import save_layer

    save_layer(path, data, meta, name)
    return [path]


def _sample(kind: str, name: str, *, diameter: float, seed: int) -> list[LayerData]:
    """An image layer, and its truth as a hidden labels layer."""
    from napari_sam_suite.engine.synthetic.scene import synthesize

    scene = synthesize(kind, (_SIDE, _SIDE), seed, diameter=diameter)
    return [
        (scene.image, {"name": name, "rgb": scene.image.ndim == 3}, "image"),
        (scene.labels, {"name": f"{name} (truth)", "visible": False}, "labels"),
    ]

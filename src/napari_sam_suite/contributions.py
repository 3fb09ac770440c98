"""What napari calls by name: sample data. Thin, and loaded only when used."""

from __future__ import annotations

from typing import Any

LayerData = tuple[Any, dict[str, Any], str]

_SIDE = 512


def sample_nuclei() -> list[LayerData]:
    """Bright nuclei, many of them touching."""
    return _sample("touching nuclei", "Nuclei", diameter=34, seed=3)


def sample_phase() -> list[LayerData]:
    """Cells with phase-contrast halos."""
    return _sample("phase", "Phase contrast", diameter=48, seed=1)


def sample_tissue() -> list[LayerData]:
    """Stained tissue in colour."""
    return _sample("stained", "Stained tissue", diameter=30, seed=2)


def _sample(kind: str, name: str, *, diameter: float, seed: int) -> list[LayerData]:
    """An image layer, and its truth as a hidden labels layer."""
    from napari_sam_suite.engine.synthetic import synthesize

    scene = synthesize(kind, (_SIDE, _SIDE), seed, diameter=diameter)
    return [
        (scene.image, {"name": name, "rgb": scene.image.ndim == 3}, "image"),
        (scene.labels, {"name": f"{name} (truth)", "visible": False}, "labels"),
    ]

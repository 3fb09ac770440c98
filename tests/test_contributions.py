from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sam_suite import contributions

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam_suite.contributions import LayerData


@pytest.mark.parametrize("sample", ["sample_nuclei", "sample_phase", "sample_tissue"])
def test_a_sample_is_an_image_with_its_hidden_truth(sample: str) -> None:
    layers: list[LayerData] = getattr(contributions, sample)()
    (image, image_options, image_type), (labels, label_options, label_type) = layers
    assert (image_type, label_type) == ("image", "labels")
    assert image.shape[:2] == labels.shape == (512, 512)
    assert image_options["rgb"] == (image.ndim == 3)
    assert not label_options["visible"]
    assert labels.max() > 20


def test_napari_opens_a_sample(request: pytest.FixtureRequest) -> None:
    components = pytest.importorskip("napari.components")
    manager = request.getfixturevalue("npe2pm")
    with manager.tmp_plugin(package="napari-sam-suite"):
        viewer = components.ViewerModel()
        layers = viewer.open_sample("napari-sam-suite", "nuclei")
    assert [layer.name for layer in layers] == ["Nuclei", "Nuclei (truth)"]
    assert np.asarray(viewer.layers[1].data).max() > 20


def test_the_stack_has_two_colours_and_named_axes() -> None:
    layers = contributions.sample_stack()
    assert [options["name"] for _, options, _ in layers] == ["Nuclei", "Membranes"]
    for data, options, kind in layers:
        assert kind == "image" and data.shape == (4, 5, 256, 256)
        assert options["axis_labels"] == ("t", "z", "y", "x")
        assert data.std() > 0


def test_a_real_image_comes_with_scikit_image() -> None:
    [(data, options, kind)] = contributions.sample_ihc()
    assert kind == "image" and options["rgb"] and data.shape == (512, 512, 3)


def test_napari_saves_and_opens_geojson(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    components = pytest.importorskip("napari.components")
    manager = request.getfixturevalue("npe2pm")
    square = np.array([[1, 2], [1, 9], [8, 9], [8, 2]])
    with manager.tmp_plugin(package="napari-sam-suite"):
        viewer = components.ViewerModel()
        layer = viewer.add_shapes([square], shape_type="polygon")
        path = str(tmp_path / "cells.geojson")
        assert layer.save(path, plugin="napari-sam-suite") == [path]
        [read] = viewer.open(path, plugin="napari-sam-suite")
    assert read.features["tag"].tolist() == ["unassigned"]
    assert {tuple(v) for v in read.data[0]} == {tuple(v) for v in square}


def test_the_preferences_decide_the_device_and_the_folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("napari")
    request.getfixturevalue("plugin_settings")
    manager = request.getfixturevalue("npe2pm")
    monkeypatch.delenv("NAPARI_SAM_SUITE_CHECKPOINTS", raising=False)
    from napari.settings import get_plugin_settings

    from napari_sam_suite.widgets.settings import preferences

    with manager.tmp_plugin(package="napari-sam-suite"):
        assert preferences().device == "auto"
        page = get_plugin_settings("napari-sam-suite").engine
        page.device = "cpu"
        page.checkpoint_dir = str(tmp_path)
        assert preferences() == ("cpu", tmp_path)
        with pytest.raises(ValueError, match="device"):
            page.device = "abacus"

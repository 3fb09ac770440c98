from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sam_suite import contributions

if TYPE_CHECKING:
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

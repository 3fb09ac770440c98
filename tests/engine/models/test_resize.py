from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from napari_sam_suite.engine.models.resize import resize


@pytest.mark.parametrize("size", [(512, 512), (40, 90), (7, 300), (33, 64), (1, 1)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_scaling_is_that_of_torch(
    size: tuple[int, int], channels: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).random((64, 97, *channels), np.float32)
    planes = torch.from_numpy(image.reshape(64, 97, -1)).permute(2, 0, 1)[None]
    theirs = interpolate(planes, size, mode="bilinear", antialias=True)
    ours = resize(image, size)
    assert ours.dtype == np.float32
    expected = theirs[0].permute(1, 2, 0).numpy().reshape(*size, *channels)
    assert np.abs(ours - expected).max() < 1e-5


def test_an_image_of_the_wanted_size_stays_as_it_is() -> None:
    image = np.random.default_rng(0).random((30, 20), np.float32)
    assert np.array_equal(resize(image, (30, 20)), image)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage
from skimage.segmentation import watershed

from napari_sam_suite.engine.errors import ImageError
from napari_sam_suite.engine.formats.instances import check_instances
from napari_sam_suite.engine.formats.labels import read_labels
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.synthetic.scene import synthesize

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def blurred(sigma: float, *, seed: int = 0, zeros: bool = False) -> NDArray[Any]:
    """Blobs of light as 8 bits, as smooth as one likes."""
    light = ndimage.gaussian_filter(
        np.random.default_rng(seed).random((256, 256)), sigma
    )
    light = (light - light.min()) / np.ptp(light)
    light = np.where(light < 0.4, 0, light) if zeros else light
    return np.round(light * 120).astype(np.uint8)


def tiling(count: int, *, shuffled: bool = True) -> NDArray[Any]:
    """Cells without any background between them."""
    rng = np.random.default_rng(count)
    seeds = np.zeros((160, 160), np.int64)
    places = rng.choice(seeds.size, count, replace=False)
    numbers = np.arange(1, count + 1)
    seeds.ravel()[np.sort(places)] = rng.permutation(numbers) if shuffled else numbers
    cells: NDArray[Any] = watershed(np.zeros(seeds.shape), seeds)
    return cells.astype(np.uint8)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("sigma", [4, 6, 9, 13])
def test_smooth_intensities_are_refused(sigma: float, *, zeros: bool) -> None:
    image = blurred(sigma, zeros=zeros)
    with pytest.raises(ImageError, match=r"a\.tif does not look like a label image"):
        check_instances(image, "a.tif")
    with pytest.raises(ImageError):
        check_instances(np.stack([image, image]), "a.tif")


def test_sharp_edges_on_a_smooth_ground_are_refused() -> None:
    scene = synthesize("nuclei", (160, 160), seed=1, diameter=18, bits=8)
    image = ndimage.median_filter(np.round(scene.image / 4).astype(np.uint8), 7)
    neighbours = np.concatenate([np.diff(image).ravel(), np.diff(image.T).ravel()])
    assert np.mean(neighbours == 0) > 2 / 3
    with pytest.raises(ImageError, match="look like a label image: half of its"):
        check_instances(image, "a.tif")


def filament(count: int) -> NDArray[np.uint8]:
    """Touching cells in a row, numbered one after the other."""
    return np.repeat(np.arange(1, count + 1), 6)[None].repeat(20, 0).astype(np.uint8)


@pytest.mark.parametrize(
    "labels",
    [
        tiling(255),
        tiling(255, shuffled=False),
        tiling(30),
        filament(100),
        np.where(np.indices((160, 160)).sum(0) % 40 < 30, tiling(200), 0),  # in bands
        np.kron(np.arange(6), np.ones((40, 20), np.uint8)).astype(np.uint8) * 40,
        synthesize("nuclei", (160, 160), seed=1, diameter=10).labels,
        (synthesize("nuclei", (160, 160), seed=1, diameter=10).labels > 0),
        np.zeros((64, 64), np.uint8),
        np.zeros((0, 64, 64), np.uint8),
        np.zeros((0, 64), np.uint8),
        blurred(6)[:9, :9],  # too few to tell
        np.indices((160, 160)).sum(0) // 3 % 5 + 1,  # kinds of tissue
    ],
    ids=range(13),
)
def test_labels_are_not(labels: NDArray[Any]) -> None:
    check_instances(labels, "a.tif")


def test_objects_are_not_made_of_intensities(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", blurred(6))
    with pytest.raises(ImageError, match=r"a\.tif does not look like a label"):
        Objects.load(tmp_path / "a.tif")
    assert read_labels(tmp_path / "a.tif").shape == (256, 256), "as they are"
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=blurred(6))
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    transforms = [{"type": "scale", "scale": [1, 1]}]
    datasets = [{"path": "0", "coordinateTransformations": transforms}]
    scales: dict[str, Any] = {"version": "0.4", "axes": axes, "datasets": datasets}
    group.attrs["multiscales"] = [scales]
    with pytest.raises(ImageError, match=r"a\.zarr does not look like a label"):
        Objects.load(tmp_path / "a.zarr")

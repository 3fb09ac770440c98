from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label

from napari_sam_suite.engine.cleaning import remove_small_regions
from napari_sam_suite.engine.masks import MaskBuilder


def cleaned(mask: np.ndarray, min_area: int) -> tuple[np.ndarray, bool]:
    builder = MaskBuilder(mask.shape)
    builder.add(mask, (0, 0), score=0.7)
    masks, unchanged = remove_small_regions(builder.build(), min_area)
    assert masks.scores[0] == np.float32(0.7)
    return masks.full(0), bool(unchanged[0])


def brute_force(mask: np.ndarray, min_area: int) -> np.ndarray:
    """Holes, then islands, on the full image as SAM does it; 8 neighbours."""
    out = mask.copy()
    holes = label(~out, connectivity=2)
    for i in range(1, holes.max() + 1):
        if (holes == i).sum() < min_area:
            out[holes == i] = True
    islands = label(out, connectivity=2)
    sizes = [(islands == i).sum() for i in range(1, islands.max() + 1)]
    if sizes and max(sizes) < min_area:
        return np.asarray(islands == 1 + int(np.argmax(sizes)))
    for i, size in enumerate(sizes, 1):
        if size < min_area:
            out[islands == i] = False
    return out


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("min_area", [1, 2, 5, 20, 200])
def test_cleaning_a_crop_is_cleaning_the_image(seed: int, min_area: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(4, 24, 2))
    mask = np.zeros(shape, bool)
    y0, x0 = rng.integers(0, 4, 2)
    y1, x1 = rng.integers(0, 4, 2)
    part = mask[y0 : shape[0] - y1, x0 : shape[1] - x1]
    part[:] = rng.random(part.shape) < rng.choice([0.3, 0.6, 0.9])
    out, unchanged = cleaned(mask, min_area)
    np.testing.assert_array_equal(out, brute_force(mask, min_area))
    assert unchanged == np.array_equal(out, mask)


def test_a_small_hole_is_filled_and_a_large_one_stays() -> None:
    mask = np.zeros((30, 30), bool)
    mask[5:25, 5:25] = True
    mask[8:10, 8:10] = False
    mask[12:20, 12:20] = False
    out, _ = cleaned(mask, 10)
    assert out[8:10, 8:10].all()
    assert not out[12:20, 12:20].any()


def test_a_hole_open_to_the_outside_is_no_hole() -> None:
    mask = np.zeros((30, 30), bool)
    mask[5:25, 5:25] = True
    mask[5:9, 10] = False
    out, unchanged = cleaned(mask, 10)
    assert unchanged
    assert not out[5:9, 10].any()


def test_a_notch_at_the_images_border_is_a_hole() -> None:
    mask = np.zeros((30, 30), bool)
    mask[0:20, 5:25] = True
    mask[0:3, 10] = False
    out, _ = cleaned(mask, 10)
    assert out[0:3, 10].all()


def test_a_strip_beside_the_mask_at_the_border_is_filled() -> None:
    mask = np.ones((30, 30), bool)
    mask[-2:] = False
    out, unchanged = cleaned(mask, 100)
    assert out.all()
    assert not unchanged


def test_small_islands_go() -> None:
    mask = np.zeros((30, 30), bool)
    mask[5:15, 5:15] = True
    mask[20:22, 20:22] = True
    out, unchanged = cleaned(mask, 10)
    assert not unchanged
    assert out.sum() == 100


def test_islands_that_meet_at_a_corner_are_one() -> None:
    mask = np.zeros((30, 30), bool)
    mask[5:8, 5:8] = mask[8:11, 8:11] = True
    assert cleaned(mask, 12)[1]


def test_of_small_islands_only_the_largest_stays() -> None:
    mask = np.zeros((40, 40), bool)
    mask[5:7, 5:7] = mask[20:23, 20:23] = True
    out, _ = cleaned(mask, 100)
    assert out.sum() == 9
    assert out[20:23, 20:23].all()


def test_an_empty_mask_stays_empty_and_in_its_place() -> None:
    builder = MaskBuilder((10, 10))
    builder.add(np.zeros((2, 2), bool), (0, 0))
    builder.add(np.ones((5, 5), bool), (0, 0))
    masks, unchanged = remove_small_regions(builder.build(), 5)
    assert masks.area.tolist() == [0, 25]
    assert unchanged.tolist() == [True, True]

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_suite.engine.masks import MaskBuilder, Masks, measure, tighten
from napari_sam_suite.engine.resample import Enlargement

SHAPE = (23, 37)


def random_masks(count: int, seed: int = 0) -> tuple[np.ndarray, Masks]:
    """Full-size arrays (N, H, W) and the same as `Masks`."""
    rng = np.random.default_rng(seed)
    full = np.zeros((count, *SHAPE), bool)
    builder = MaskBuilder(SHAPE)
    for i in range(count):
        y0, y1 = np.sort(rng.choice(SHAPE[0] + 1, 2, replace=False))
        x0, x1 = np.sort(rng.choice(SHAPE[1] + 1, 2, replace=False))
        full[i, y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < 0.4
        builder.add(full[i], (0, 0), score=i / 10, level=i % 4, point=(y0, x0))
    return full, builder.build()


def test_a_mask_comes_back_as_it_was_packed() -> None:
    full, masks = random_masks(40)
    assert len(masks) == 40
    for i in range(40):
        np.testing.assert_array_equal(masks.full(i), full[i])


def test_boxes_are_tight_and_half_open() -> None:
    full, masks = random_masks(40)
    for pixels, box, area in zip(full, masks.boxes, masks.area, strict=True):
        rows, columns = np.nonzero(pixels)
        expected = [0, 0, 0, 0]
        if len(rows):
            expected = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        np.testing.assert_array_equal(box, expected)
        assert area == pixels.sum()


@pytest.mark.parametrize(
    "where", [np.s_[:, :], np.s_[0, 0], np.s_[-1, -1], np.s_[:, 0], np.s_[-1, :]]
)
def test_masks_at_the_border_keep_every_pixel(where: tuple[object, ...]) -> None:
    full = np.zeros(SHAPE, bool)
    full[where] = True
    builder = MaskBuilder(SHAPE)
    builder.add(full, (0, 0))
    np.testing.assert_array_equal(builder.build().full(0), full)


def test_an_empty_mask_is_kept_as_an_empty_mask() -> None:
    builder = MaskBuilder(SHAPE)
    builder.add(np.zeros((5, 5), bool), (3, 3))
    masks = builder.build()
    assert masks.area.tolist() == [0]
    assert masks.boxes.tolist() == [[0, 0, 0, 0]]
    assert masks.crop(0)[0].shape == (0, 0)
    assert not masks.full(0).any()


def test_no_masks_have_columns_of_the_right_shape_and_type() -> None:
    masks = Masks.empty(SHAPE)
    assert len(masks) == 0
    _, filled = random_masks(3)
    for name in ("boxes", "area", "scores", "stability", "level", "points", "crops"):
        empty, some = getattr(masks, name), getattr(filled, name)
        assert empty.dtype == some.dtype
        assert empty.shape[1:] == some.shape[1:]


def test_a_selection_keeps_its_order_and_all_that_is_known() -> None:
    full, masks = random_masks(6)
    chosen = masks.select([4, 0, 4])
    assert chosen.scores.tolist() == pytest.approx([0.4, 0.0, 0.4])
    assert chosen.level.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(chosen.points, masks.points[[4, 0, 4]])
    for k, i in enumerate([4, 0, 4]):
        np.testing.assert_array_equal(chosen.full(k), full[i])
    assert len(masks.select([])) == 0


def test_collections_are_joined_in_order() -> None:
    one, first = random_masks(3, seed=1)
    two, second = random_masks(4, seed=2)
    joined = Masks.concat([first, Masks.empty(SHAPE), second])
    for i, pixels in enumerate([*one, *two]):
        np.testing.assert_array_equal(joined.full(i), pixels)
    assert joined.scores.tolist() == [*first.scores, *second.scores]


def test_masks_of_different_frames_are_not_joined() -> None:
    with pytest.raises(ValueError, match="different frames"):
        Masks.concat([Masks.empty((3, 4)), Masks.empty((4, 3))])


def test_the_intersection_counts_shared_pixels() -> None:
    full, masks = random_masks(25)
    others, more = random_masks(25, seed=9)
    for i in range(25):
        for j in range(25):
            assert masks.intersection(i, j) == (full[i] & full[j]).sum()
            assert masks.intersection(i, j, more) == (full[i] & others[j]).sum()


def test_ten_thousand_small_masks_take_little_memory() -> None:
    builder = MaskBuilder((2000, 2000))
    for i in range(10_000):
        builder.add(np.ones((20, 20), bool), (i % 1980, i % 1980))
    assert builder.build().nbytes == 10_000 * 50


def test_what_is_known_of_a_mask_goes_over_to_new_pixels() -> None:
    _, masks = random_masks(3)
    builder = MaskBuilder(SHAPE)
    builder.add_like(masks, 2, np.ones((2, 3), bool), (5, 6))
    new = builder.build()
    assert new.boxes.tolist() == [[5, 6, 7, 9]]
    assert new.scores[0] == masks.scores[2]
    assert new.level[0] == masks.level[2]
    np.testing.assert_array_equal(new.points[0], masks.points[2])
    np.testing.assert_array_equal(new.crops[0], masks.crops[2])


def test_tightening_moves_the_origin() -> None:
    crop = np.zeros((6, 7), bool)
    crop[2:4, 3] = True
    tight, origin = tighten(crop, (10, 20))
    assert tight.shape == (2, 1)
    assert origin == (12, 23)


# One pass over a mask


def brute_force(
    logits: np.ndarray, enlargement: Enlargement, threshold: float, offset: float
) -> tuple[np.ndarray, float]:
    values = enlargement.enlarge(logits)
    low = (values > threshold - offset).sum()
    high = (values > threshold + offset).sum()
    return values > threshold, high / low if low else np.nan


@pytest.mark.parametrize("threshold", [0.0, -1.5, 2.0])
@pytest.mark.parametrize("offset", [0.0, 0.7, 1.0, 3.0])
def test_a_window_tells_what_the_whole_image_would(
    threshold: float, offset: float
) -> None:
    rng = np.random.default_rng(0)
    enlargement = Enlargement.of(16, 64, (64, 40), (45, 31))
    for _ in range(20):
        logits = rng.normal(-3, 1, (16, 16)).astype(np.float32)
        y, x = rng.integers(0, 12, 2)
        logits[y : y + 4, x : x + 4] += rng.normal(5, 3, (4, 4)).astype(np.float32)
        mask, stability = brute_force(logits, enlargement, threshold, offset)
        found = measure(logits, enlargement, threshold=threshold, offset=offset)
        drawn = np.zeros_like(mask)
        h, w = found.crop.shape
        y0, x0 = found.origin
        drawn[y0 : y0 + h, x0 : x0 + w] = found.crop
        np.testing.assert_array_equal(drawn, mask)
        assert found.stability == pytest.approx(stability, nan_ok=True, rel=1e-6)


def test_nothing_above_the_lower_cut_off_has_no_stability() -> None:
    enlargement = Enlargement.of(16, 64, (64, 64), (20, 20))
    found = measure(np.full((16, 16), -9, np.float32), enlargement)
    assert found.crop.size == 0
    assert np.isnan(found.stability)

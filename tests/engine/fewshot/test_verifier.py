"""Masks seen from their own point of view, and told right from wrong by examples."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.fewshot_fakes import ColourSam
from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.fewshot.fast import Sizes, look
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.fewshot.patches import (
    COARSE_SIDE,
    SIDE,
    draw_patches,
    sample,
)
from napari_sam_suite.engine.fewshot.scorer import Scorer
from napari_sam_suite.engine.fewshot.verifier import (
    COARSE,
    COLUMNS,
    FINE,
    can_verify,
    load_verifier,
    look_at,
    verify,
)
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.protocol import Embedding
from napari_sam_suite.engine.synthetic.scene import synthesize
from napari_sam_suite.engine.tiles import Region

WHOLE = Region(0, 0, 256, 256, is_crop=False)
NAMED = slice(FINE + 1, FINE + 3)


def boxes(*sides: tuple[int, int, int, int], shape=(256, 256)) -> Masks:
    builder = MaskBuilder(shape)
    for y0, x0, y1, x1 in sides:
        builder.add(np.ones((y1 - y0, x1 - x0), bool), (y0, x0))
    return builder.build()


def embedded(size: float = 10.0) -> Embedding:
    """Of an image whose places all name (32, 32) and tell objects of a size."""
    y, x = np.mgrid[:64, :64].astype(np.float32)
    guide = np.zeros((1, 5, 64, 64), np.float32)
    guide[0, 2], guide[0, 3] = (32 - y) / 8, (32 - x) / 8
    guide[0, 4] = np.log(size / 8)
    rng = np.random.default_rng(0)
    fine = rng.normal(size=(1, FINE, 64, 64)).astype(np.float32)
    # Coarser features that tell their own row, at 16 and at 8 pixels a place.
    image, middle = (
        np.broadcast_to(((np.arange(n) + 0.5) * (256 / n))[:, None], (1, depth, n, n))
        for n, depth in ((16, 128), (32, 32))
    )
    levels = {"fine": fine, "guide": guide, "image": image, "middle": middle}
    return Embedding(
        {name: np.asarray(level, np.float32) for name, level in levels.items()},
        (256, 256),
        (256, 256),
    )


def grey(shape: tuple[int, int] = (256, 256)) -> np.ndarray:
    levels = np.random.default_rng(1).integers(0, 255, (*shape, 3))
    return levels.astype(np.uint8)


def pictures_of(*where) -> list[np.ndarray]:
    return [np.concatenate(part) for part in zip(*draw_patches(*where), strict=True)]


@cache
def scene() -> tuple[np.ndarray, np.ndarray, Embedding]:
    """RGB, labels and what the embedded model makes of touching nuclei."""
    drawn = synthesize("touching nuclei", (256, 256), 3, diameter=30)
    rgb = compose(open_image(drawn.image, axes="YX").frame(FrameIndex()))
    nano = load_model("sam2-nano", device="cpu", precision="float32")
    return rgb, drawn.labels.astype(int), nano.encode([rgb])[0]


def outlines(labels: np.ndarray, alter=None, least: int = 150) -> Masks:
    """Masks of all labelled objects of some size, altered."""
    builder = MaskBuilder(labels.shape)
    for number in np.unique(labels[labels > 0]):
        mask = labels == number
        if mask.sum() < least:
            continue
        builder.add(alter(mask) if alter else mask, (0, 0))
    return builder.build()


def upper_half(mask: np.ndarray) -> np.ndarray:
    half = mask.copy()
    rows = np.flatnonzero(mask.any(1))
    half[rows[len(rows) // 2] :] = False
    return half


def test_a_picture_shows_the_mask_in_its_middle_and_what_is_around() -> None:
    masks = boxes((100, 100, 140, 140), (20, 30, 120, 60))
    drawn, _ = pictures_of(embedded(), masks, grey(), WHOLE)
    assert drawn.shape == (2, FINE + 8, SIDE, SIDE)
    seen = drawn[:, -1]
    assert float(seen[0].mean()) == pytest.approx(1 / 1.6**2, rel=0.05)
    assert float(seen[1].mean()) == pytest.approx(0.3 / 1.6**2, rel=0.15)
    np.testing.assert_allclose(seen, seen[:, ::-1, ::-1], atol=0.05)
    assert seen[0, 12, 12] == seen[1, 12, 12] == 1
    assert seen[0, 0, 0] == seen[1, 12, 0] == 0


def test_coarser_features_are_those_around_the_mask() -> None:
    masks = boxes((100, 100, 140, 140), (90, 30, 110, 60))
    _, coarse = pictures_of(embedded(), masks, grey(), WHOLE)
    assert coarse.shape == (2, COARSE, COARSE_SIDE, COARSE_SIDE)
    # Six rows over 64 pixels around 120, and over 48 around 100, middle to middle.
    steps = (np.arange(6) + 0.5) / 6 - 0.5
    for seen, middle, reach in zip(coarse, (120, 100), (64, 48), strict=True):
        rows = np.broadcast_to((middle + steps * reach)[:, None], seen.shape)
        np.testing.assert_allclose(seen, rows, atol=0.01)


def test_ways_are_told_from_the_middle_of_the_mask_in_sizes_of_it() -> None:
    # 4 pixels a place: place (32, 32) has its middle at pixel 129.5
    masks = boxes((110, 110, 150, 150), (90, 110, 130, 150))
    ways = pictures_of(embedded(), masks, grey(), WHOLE)[0][:, NAMED]
    assert ways[0] == pytest.approx(np.zeros((2, SIDE, SIDE)), abs=0.02)
    assert ways[1, 0] == pytest.approx(np.full((SIDE, SIDE), 0.5), abs=0.02)


def test_sizes_are_told_over_that_of_the_mask() -> None:
    masks = boxes((110, 110, 150, 150), (110, 110, 130, 130))
    sizes = pictures_of(embedded(size=10), masks, grey(), WHOLE)[0][:, FINE + 3]
    assert float(sizes[0].mean()) == pytest.approx(0, abs=1e-4)
    assert float(sizes[1].mean()) == pytest.approx(np.log(2), abs=1e-4)


def test_brightness_and_contrast_of_the_image_do_not_show() -> None:
    masks, dark = boxes((100, 100, 140, 140)), grey() // 4
    colours = slice(FINE + 4, FINE + 7)
    one = pictures_of(embedded(), masks, dark, WHOLE)[0][:, colours]
    other = pictures_of(embedded(), masks, dark * 2 + 60, WHOLE)[0][:, colours]
    assert np.abs(one - other).mean() < 0.2 < np.abs(one).mean()


def test_a_mask_of_a_tile_is_seen_as_in_an_image_of_its_own() -> None:
    frame = grey((300, 400))
    tile = Region(20, 100, 276, 356)
    alone = pictures_of(
        embedded(),
        boxes((60, 70, 100, 120)),
        np.ascontiguousarray(frame[20:276, 100:356]),
        WHOLE,
    )
    placed = boxes((80, 170, 120, 220), shape=(300, 400))
    found = pictures_of(embedded(), placed, frame, tile)
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_model_without_a_guide_has_no_verifier() -> None:
    embedding = ColourSam().encode([grey((64, 64))])[0]
    assert not can_verify(embedding)
    masks = boxes((8, 8, 20, 20), shape=(64, 64))
    region = Region(0, 0, 64, 64, is_crop=False)
    assert look_at(embedding, masks, grey((64, 64)), region).shape == (1, 0)


def test_the_looks_at_a_mask_do_not_depend_on_the_others() -> None:
    rgb, labels, embedding = scene()
    masks = outlines(labels)
    together = look_at(embedding, masks, rgb, WHOLE)
    assert together.shape == (len(masks), COLUMNS)
    assert len(masks) > 5
    for i in range(3):
        alone = look_at(embedding, masks.select([i]), rgb, WHOLE)
        np.testing.assert_allclose(alone[0], together[i], atol=1e-4)
    assert look_at(embedding, masks.select([]), rgb, WHOLE).shape == (0, COLUMNS)


def separation(odds: np.ndarray, right: np.ndarray) -> float:
    """Chance that a right mask has more than a wrong one."""
    return float((odds[right][:, None] > odds[~right]).mean())


@pytest.mark.parametrize("seed", [5004, 5005, 5006])
def test_right_masks_are_told_better_than_by_the_models_ratings(seed: int) -> None:
    drawn = synthesize("anything", (200, 200), seed, diameter=24)
    axes = "YXC" if drawn.image.ndim == 3 else "YX"
    rgb = compose(open_image(drawn.image, axes=axes).frame(FrameIndex()))
    nano = load_model("sam2-nano", device="cpu", precision="float32")
    region, labels = Region(0, 0, 200, 200, is_crop=False), drawn.labels.astype(int)
    embedding = nano.encode([rgb])[0]
    few = outlines(labels, least=1).select(range(8))
    cells = np.zeros((2, len(embedding.maps()["image"])))
    anywhere = Scorer.fit(cells, cells[:0])
    seen = look(
        nano,
        rgb,
        region,
        embedding,
        Sizes.of(few),
        anywhere,
        FewShotParams(),
        lambda: False,
    )
    right = np.zeros(len(seen.masks), bool)
    for i in range(len(right)):
        mask = seen.masks.full(i)
        shared = np.bincount(labels[mask])
        shared[0] = 0
        best = labels == shared.argmax()
        right[i] = (mask & best).sum() > 0.5 * (mask | best).sum()
    assert 40 < right.sum() < len(right) - 40
    said = verify(seen.looks, look_at(embedding, few, rgb, region))
    assert separation(said, right) > separation(seen.odds, right) + 0.03


def test_what_is_right_depends_on_the_examples() -> None:
    rgb, labels, embedding = scene()
    wholes, halves = outlines(labels), outlines(labels, upper_half)
    whole = look_at(embedding, wholes.select([0, 1, 2, 3]), rgb, WHOLE)
    half = look_at(embedding, halves.select([0, 1, 2, 3]), rgb, WHOLE)
    rest = look_at(embedding, halves.select(range(4, len(halves))), rgb, WHOLE)
    assert (verify(rest, half) > verify(rest, whole)).mean() > 0.8


def test_one_example_is_enough() -> None:
    looks = np.random.default_rng(0).normal(size=(5, COLUMNS))
    assert np.isfinite(verify(looks, looks[:1])).all()
    assert verify(looks[:0], looks[:1]).shape == (0,)


def test_the_order_of_the_examples_does_not_matter() -> None:
    looks = np.random.default_rng(0).normal(size=(9, COLUMNS))
    one, other = verify(looks, looks[:4]), verify(looks, looks[3::-1])
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_network_answers_as_in_torch() -> None:
    weights = {k: torch.from_numpy(v) for k, v in load_verifier().weights.items()}
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(70, FINE + 8, SIDE, SIDE)).astype(np.float32)
    pictures[:, -1] = pictures[:, -1] > 0
    sides = (COARSE_SIDE, COARSE_SIDE)
    coarse = rng.normal(size=(70, COARSE, *sides)).astype(np.float32)

    def layer(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    x = torch.from_numpy(pictures)
    mask = F.avg_pool2d(x[:, -1:], 4)
    for k, stride in enumerate((1, 2, 2)):
        x = F.conv2d(x, *layer(f"layers.{k}"), stride=stride, padding=1)
        x = F.relu(F.group_norm(x, 4, *layer(f"norms.{k}")))
    kernel, bias = layer("blend")
    blended = F.conv2d(torch.from_numpy(coarse), kernel[..., None, None], bias)
    x = torch.cat([x, blended], 1)
    for k in (3, 4):
        y = F.conv2d(x, *layer(f"layers.{k}"), padding=1)
        x = x + F.relu(F.group_norm(y, 4, *layer(f"norms.{k}")))
    inside = (x * mask).sum((2, 3)) / (mask.sum((2, 3)) + 1e-3)
    summary = F.linear(torch.cat([x.mean((2, 3)), inside], 1), *layer("summary"))
    found = load_verifier().sum_up(pictures, coarse)
    np.testing.assert_allclose(found, summary.numpy(), atol=1e-4)

    signs = torch.from_numpy(rng.normal(size=(70, 6)).astype(np.float32))
    few = slice(0, 5)
    apart = (summary[:, None] - summary[None, few]).pow(2).sum(2)
    nearest = summary[few][apart.argmin(1)]
    off = summary - summary[few].mean(0)
    larger = signs[:, :1] - signs[few, 0].mean()
    unusual = (larger / (signs[few, 0].std() + 0.1)).abs().clip(max=4)
    views = [
        summary,
        summary[few].mean(0).expand_as(summary),
        off / (summary[few].std(0) + 0.1),
        off.abs(),
        (summary - nearest).abs(),
        signs[:, 1:],
        larger,
        unusual,
    ]
    hidden = F.relu(F.linear(torch.cat(views, 1), *layer("compare")))
    wanted = F.linear(hidden, *layer("decide"))[:, 0].numpy()
    looks = np.concatenate([found, signs.numpy()], 1)
    np.testing.assert_allclose(verify(looks, looks[few]), wanted, atol=1e-3)


def test_places_between_are_read_as_in_torch() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(3, 20, 30)).astype(np.float32)
    y, x = rng.uniform(-4, 24, (2, SIDE)), rng.uniform(-4, 34, (2, SIDE))
    down, across = (
        torch.from_numpy((at + 0.5) / side * 2 - 1).float()
        for at, side in ((y, 20), (x, 30))
    )
    grid = torch.stack(
        [
            across[:, None].expand(2, SIDE, SIDE),
            down[:, :, None].expand(2, SIDE, SIDE),
        ],
        -1,
    )
    every = torch.from_numpy(maps)[None].expand(2, -1, -1, -1)
    wanted = F.grid_sample(every, grid, align_corners=False, padding_mode="border")
    np.testing.assert_allclose(sample(maps, y, x), wanted.numpy(), atol=1e-4)

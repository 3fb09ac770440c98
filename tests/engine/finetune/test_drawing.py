"""Prompts are where people and grids put them."""

from __future__ import annotations

import numpy as np
import torch

from engine.finetune.tiny import masks_of, sample, square
from napari_sam_suite.engine.finetune.data import Sample
from napari_sam_suite.engine.finetune.drawing import (
    box_of,
    draw_boxes,
    draw_clicks,
    draw_corrections,
    draw_seed_points,
)
from napari_sam_suite.engine.finetune.views import Scene, View
from napari_sam_suite.engine.tiles import Region

SHAPE = (64, 64)
WHOLE = View(0, Region(0, 0, *SHAPE))


def scene_of(*masks: np.ndarray) -> Scene:
    blank = np.zeros((*SHAPE, 3), np.uint8)
    return Scene(WHOLE, Sample("scene", blank, masks_of(SHAPE, *masks)))


def pixels(asked_points: np.ndarray) -> np.ndarray:
    return np.clip(np.round(asked_points).astype(int), 0, 63)


def test_clicks_mean_the_object_below_them_and_the_background_otherwise() -> None:
    scene = Scene(WHOLE, sample())
    asked = draw_clicks(scene, 60, np.random.default_rng(0))
    background = 0
    for point, number in zip(asked.prompts.points[:, 0], asked.objects, strict=True):
        y, x = pixels(point)
        near = scene.owner[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        assert number in near
        background += number < 0
    assert 5 <= background <= 20
    assert set(asked.objects) == {-1, 0, 1, 2, 3}


def test_an_object_that_fills_the_frame_leaves_no_background_to_click_on() -> None:
    scene = scene_of(np.ones(SHAPE, bool))
    asked = draw_clicks(scene, 12, np.random.default_rng(0))
    assert set(asked.objects) == {0}
    seed = draw_seed_points(scene, 0, np.random.default_rng(0))
    assert seed.prompts.labels.tolist() == [[1] * 5 + [-1] * 5]


def test_without_objects_all_clicks_are_on_the_background() -> None:
    empty = Sample("empty", np.zeros((*SHAPE, 3), np.uint8), masks_of(SHAPE))
    asked = draw_clicks(Scene(WHOLE, empty), 8, np.random.default_rng(0))
    assert asked.objects == [-1] * 8


def test_boxes_are_near_the_objects_outlines() -> None:
    scene = scene_of(square(SHAPE, 10, 20, 30))
    asked = draw_boxes(scene, [0] * 50, np.random.default_rng(0))
    off = asked.prompts.boxes - [10, 20, 39, 49]
    assert np.median(abs(off)) < 1.5
    assert box_of(scene.mask(0)) == (10, 20, 39, 49)


def test_corrections_are_where_the_answer_was_wrong() -> None:
    scene = scene_of(square(SHAPE, 8, 8, 32))
    clicks = draw_clicks(scene, 6, np.random.default_rng(1)).select([0, 1])
    wrong = np.zeros((2, 16, 16), bool)
    wrong[0, 4, 4] = True  # inside, and the answer left it out
    wrong[1, 14, 14] = True  # outside, and the answer covers it
    again = draw_corrections(
        scene, clicks, torch.zeros(2, 1, 16, 16), wrong, np.random.default_rng(0)
    )
    assert again.prompts.points[:, 1].tolist() == [[17.5, 17.5], [57.5, 57.5]]
    assert again.prompts.labels.tolist() == [[1, 1], [1, 0]]


def test_points_of_the_seed_are_five_inside_and_five_outside() -> None:
    mask = square(SHAPE, 8, 8, 20)
    asked = draw_seed_points(scene_of(mask), 0, np.random.default_rng(0))
    inside = mask[tuple(pixels(asked.prompts.points[0]).T)]
    assert inside.tolist() == [True] * 5 + [False] * 5


def test_the_same_lot_gives_the_same_prompts() -> None:
    scene = Scene(WHOLE, sample())
    one, two = (draw_clicks(scene, 9, np.random.default_rng(4)) for _ in range(2))
    assert (one.prompts.points == two.prompts.points).all()
    assert one.objects == two.objects

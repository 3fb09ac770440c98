"""Masks that lean towards the object that a guide says was meant."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from engine.guides import PLACES, discs, perfect_guide
from napari_sam_suite.engine.guidance import RATING, Guidance, blend, unlike
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.protocol import Decoded, Embedding, Prompts
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.prompts.answers import answer
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.engine.prompts.prompt import Prompt
from napari_sam_suite.engine.synthetic.scene import synthesize

SIDE = 4 * PLACES
"""Pixels of an image whose guide has a place for every four."""
TOUCHING = discs((32, 22, 9), (32, 40, 9))


@pytest.fixture
def guidance() -> Guidance:
    embedding = Embedding(
        {"guide": perfect_guide(TOUCHING)[None]}, (SIDE, SIDE), (512, 512)
    )
    found = Guidance.of(embedding)
    assert found is not None
    return found


def undecided(count: int = 1, logit: float = 0.1) -> Decoded:
    """A decoder that takes everything for the object, but is not sure."""
    logits = np.full((count, PLACES, PLACES), logit, np.float32)
    order = np.arange(count)
    return Decoded(logits, np.full(count, 0.8, np.float32), order, np.ones(count, int))


def pixels(*places: tuple[float, float]) -> np.ndarray:
    return (np.array(places) + 0.5) * 4


def test_each_of_two_touching_objects_is_meant_by_the_point_in_it(guidance):
    prompts = Prompts.clicks(pixels((32, 20), (32, 42)))
    masks = guidance.lean(undecided(2), prompts).logits > 0
    assert (masks[0] == (TOUCHING == 1)).all()
    assert (masks[1] == (TOUCHING == 2)).all()


def test_two_points_inside_mean_both_and_a_point_outside_means_nothing(guidance):
    points = pixels((32, 20), (32, 42))[None]
    both = Prompts(points, np.array([[1, 1]]))
    assert ((guidance.lean(undecided(), both).logits[0] > 0) == (TOUCHING > 0)).all()
    one = Prompts(points, np.array([[1, 0]]))
    assert ((guidance.lean(undecided(), one).logits[0] > 0) == (TOUCHING == 1)).all()


def test_a_box_means_the_object_that_fills_it_and_nothing_outside(guidance):
    rows, columns = np.nonzero(TOUCHING == 2)
    low = np.array([rows.min(), columns.min()]) * 4
    high = np.array([rows.max(), columns.max()]) * 4 + 3
    box = np.concatenate([low, high])[None].astype(float)
    prompts = Prompts(np.zeros((1, 0, 2)), np.zeros((1, 0), int), box)
    assert (
        (guidance.lean(undecided(), prompts).logits[0] > 0) == (TOUCHING == 2)
    ).all()
    certain = guidance.lean(undecided(logit=10), prompts).logits[0] > 0
    where = np.argwhere(certain)
    assert where.min(0) == pytest.approx([rows.min(), columns.min()], abs=1)
    assert where.max(0) == pytest.approx([rows.max(), columns.max()], abs=1)


def test_a_mask_alone_means_the_object_that_it_is_of(guidance):
    rough = np.roll(TOUCHING == 2, 2, axis=0)
    nowhere = np.zeros((1, 0, 2)), np.zeros((1, 0), int)
    masks = np.where(rough, 7, -7).astype(np.float32)[None, None]
    found = guidance.lean(undecided(), Prompts(*nowhere, masks=masks)).logits[0] > 0
    assert (found == (TOUCHING == 2)).all()
    of_nothing = Prompts(*nowhere, masks=np.full_like(masks, -7))
    alone = Prompts(*nowhere)
    expected = guidance.lean(undecided(), alone).logits + 0
    anyhow = guidance.lean(undecided(), of_nothing).logits - expected
    assert np.abs(anyhow).max() <= 2.0, "only what is inside of anything"


def test_a_click_outside_takes_away_from_what_a_mask_alone_means(guidance):
    masks = np.where(TOUCHING == 2, 7, -7).astype(np.float32)[None, None]
    prompts = Prompts(pixels((32, 40))[None], np.array([[0]]), masks=masks)
    found = guidance.lean(undecided(logit=-0.5), prompts).logits[0]
    without = Prompts(np.zeros((1, 0, 2)), np.zeros((1, 0), int), masks=masks)
    before = guidance.lean(undecided(logit=-0.5), without).logits[0]
    assert before[32, 40] > 0 > found[32, 40]
    lower = before - found
    assert 0 < lower[32, 48] < 2 < lower[32, 40]
    assert lower[32, 48] == pytest.approx(lower[2, 2], abs=0.1)


def test_what_the_decoder_is_sure_of_stays(guidance):
    prompts = Prompts.clicks(pixels((32, 20)))
    decoded = undecided()
    decoded.logits[0, :, :20] = 30
    decoded.logits[0, :, 20:] = -30
    assert ((guidance.lean(decoded, prompts).logits > 0) == (decoded.logits > 0)).all()


def test_answers_keep_their_order_and_tokens(guidance):
    prompts = Prompts.clicks(pixels((32, 20), (32, 42)))
    decoded = undecided(4)
    decoded.prompt[:] = [0, 0, 1, 1]
    found = guidance.lean(decoded, prompts)
    masks = found.logits > 0
    assert (masks[[1, 3]] == masks[[0, 2]]).all()
    assert (masks[0] != masks[2]).any()
    assert found.iou[0] == found.iou[1]
    assert found.iou[2] == found.iou[3]
    assert (found.token == decoded.token).all()


def test_prompts_without_a_place_are_left_as_they_are(guidance):
    prompts = Prompts(np.zeros((1, 0, 2)), np.zeros((1, 0), int))
    assert (guidance.lean(undecided(), prompts).logits == undecided().logits).all()


def test_points_beyond_the_edge_mean_what_is_at_the_edge(guidance):
    prompts = Prompts.clicks(np.array([[-3.0, SIDE + 9.0]]))
    assert np.isfinite(guidance.lean(undecided(), prompts).logits).all()


def test_a_model_without_a_guide_has_no_guidance():
    features = {"image": np.zeros((1, 4, 8, 8), np.float32)}
    assert Guidance.of(Embedding(features, (64, 64), (64, 64))) is None


def test_the_whole_frame_is_not_an_object_that_fills_its_box(monkeypatch):
    model = load_model(find_model("sam2-nano"), device="cpu")
    rgb = np.repeat(synthesize("nuclei", (128, 128), 3).image[..., None], 3, 2)

    def never(*_: object) -> None:
        raise AssertionError("the guide was asked")

    monkeypatch.setattr(Guidance, "lean", never)
    (found,) = answer(model, rgb, [Prompt(whole=True)], PromptParams())
    assert len(found) == 1
    with pytest.raises(AssertionError, match="asked"):
        answer(model, rgb, [Prompt(inside=((64.0, 64.0),))], PromptParams())


def test_a_whole_object_is_rated_above_a_part_and_above_two(guidance):
    whole, half, two = TOUCHING == 1, TOUCHING == 1, TOUCHING > 0
    half = half & (np.indices(half.shape)[1] < 22)
    signs = guidance.signs(np.stack([whole, half, two]), np.full(3, 0.7, np.float32))
    assert signs[:, 0] == pytest.approx(np.log(0.7 / 0.3))
    assert signs[:, 1] == pytest.approx(1, abs=0.01)
    assert signs[0, 2:] == pytest.approx([0, 0], abs=0.01)
    assert signs[1, 2] > 0.1
    assert signs[1, 3] == pytest.approx(np.log(2), abs=0.1)
    assert signs[2, 2] > 0.2
    assert signs[2, 3] == pytest.approx(np.log(2), abs=0.01)
    rated = signs @ np.array(RATING[1:])
    assert rated[0] > rated[1:].max()


def test_an_empty_mask_is_rated_below_a_whole_object(guidance):
    masks = np.stack([TOUCHING == 1, np.zeros_like(TOUCHING, bool)])
    signs = guidance.signs(masks, np.full(2, 0.9, np.float32))
    assert np.isfinite(signs).all()
    whole, nothing = expit(RATING[0] + signs @ np.array(RATING[1:]))
    assert nothing < 0.5 < whole


def test_clicks_are_obeyed_where_there_are_several(guidance):
    other = pixels((32, 20), (32, 42))
    both = Prompts(other[None], np.array([[1, 0]]))
    decoded = undecided(logit=3)
    masks = guidance.lean(decoded, both).logits[0] > 0
    assert masks[32, 20] and not masks[32, 42]
    sure = np.where(TOUCHING == 1, -3, 3).astype(np.float32)[None]
    against = Decoded(sure, decoded.iou, decoded.prompt, decoded.token)
    masks = guidance.lean(against, both).logits[0] > 0
    assert masks[32, 20] and not masks[32, 42]


@pytest.mark.parametrize("logit", [0.0, 1.0])
def test_a_click_beside_the_outline_lowers_all_of_it(guidance, logit):
    clicks = pixels((32, 14), (32, 20))  # inside the left disc: the rim, the middle
    alone = Prompts.clicks(pixels((32, 20)))
    before = guidance.lean(undecided(logit=logit), alone).logits[0]
    corrected = Prompts(clicks[None], np.array([[0, 1]]))
    after = guidance.lean(undecided(logit=logit), corrected).logits[0]
    assert after[32, 20] > 0
    lower = before - after
    assert lower[32, 14] > 5
    assert lower[32, 29] == pytest.approx(lower[24, 22], abs=0.01)
    assert 0.2 < lower[32, 29] < 2


def test_a_blend_is_the_mean_of_answers_by_their_worth():
    logits = np.stack([np.full((2, 2), v, np.float32) for v in (4, -2, 1)])
    mixed, score = blend(logits, np.array([0.9, 0.6, 0.5], np.float32))
    assert mixed == pytest.approx(np.full((2, 2), (3.6 - 1.2 + 0.5) / 2))
    assert score == pytest.approx((0.81 + 0.36 + 0.25) / 2)
    nothing, score = blend(logits, np.zeros(3, np.float32))
    assert np.isfinite(nothing).all()
    assert score == 0


def test_masks_least_like_another_come_first():
    masks = np.zeros((4, 8, 8), bool)
    for k, width in enumerate((4, 5, 8, 0)):
        masks[k, :, :width] = True
    assert unlike(masks[0], masks[1:]).tolist() == [2, 1, 0]
    assert unlike(masks[3], masks[3:]).tolist() == [0]


def test_a_click_beside_a_box_is_obeyed(guidance):
    rows, columns = np.nonzero(TOUCHING == 2)
    box = (
        np.array([[rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]]) * 4.0
    )
    hole = Prompts(pixels((32, 40))[None], np.array([[0]]), box)
    masks = guidance.lean(undecided(), hole).logits[0] > 0
    assert not masks[32, 40]
    assert masks[26, 40]


@pytest.mark.parametrize("lift", [-3, 0, 2])
def test_a_mask_that_is_not_as_large_as_its_box_is_cut_at_another_level(lift):
    nothing = np.full((5, PLACES, PLACES), 0, np.float32)
    nothing[0] = -9
    embedding = Embedding({"guide": nothing[None]}, (SIDE, SIDE), (512, 512))
    guidance = Guidance.of(embedding)
    y, x = np.indices((PLACES, PLACES))
    decoded = undecided()
    decoded.logits[0] = 2 + 0.6 * (9 + lift - np.hypot(y - 32, x - 40))
    box = np.array([[23.0, 31.0, 41.0, 49.0]]) * 4 + [0, 0, 3, 3]
    prompts = Prompts(np.zeros((1, 0, 2)), np.zeros((1, 0), int), box)
    where = np.argwhere(guidance.lean(decoded, prompts).logits[0] > 0)
    assert where.min(0) == pytest.approx([23, 31], abs=0)
    assert where.max(0) == pytest.approx([41, 49], abs=0)


def test_what_the_guide_says_in_a_box_counts():
    """A crescent fills its box less than an ellipse would, and lies to one side."""
    y, x = np.indices((PLACES, PLACES))
    disc = np.hypot(y - 32, x - 32) <= 14
    crescent = disc & (np.hypot(y - 32, x - 40) > 13)
    embedding = Embedding(
        {"guide": perfect_guide(crescent.astype(int))[None]}, (SIDE, SIDE), (512, 512)
    )
    guidance = Guidance.of(embedding)
    rows, columns = np.nonzero(crescent)
    low = np.array([rows.min(), columns.min()], float)
    high = np.array([rows.max(), columns.max()], float)
    middle, size, area = guidance._told(low, high)
    true = np.array([rows.mean(), columns.mean()])
    box = (low + high) / 2
    assert np.hypot(*(middle - true)) == pytest.approx(np.hypot(*(box - true)) / 2, 0.3)
    filled = 0.88 * np.sqrt(np.prod(high - low + 1))
    assert np.sqrt(crescent.sum()) < size < filled
    assert area == pytest.approx(crescent.sum(), rel=0.05)


def test_a_box_outside_the_image_holds_nothing(guidance):
    for box in ([-60, -60, -40, -40], [400, 400, 440, 440], [0, 300, 90, 360]):
        prompts = Prompts(
            np.zeros((1, 0, 2)), np.zeros((1, 0), int), np.array([box], float)
        )
        found = guidance.lean(undecided(logit=6), prompts).logits[0]
        assert not (found > 0).any()

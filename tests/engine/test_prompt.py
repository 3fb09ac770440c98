from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from shapely import Polygon, box

from engine.fakes import FakeSam, scene
from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.embed import EmbeddingCache, Remembering
from napari_sam_suite.engine.errors import Cancelled, OutOfMemory, ParameterError
from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.jobs import Engine
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.protocol import (
    MULTIMASK,
    SINGLE,
    Decoded,
    Embedding,
    Prompts,
)
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.prompts.answers import Answer, answer
from napari_sam_suite.engine.prompts.finder import Prompted, start_prompts
from napari_sam_suite.engine.prompts.inputs import mask_logits
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.engine.prompts.prompt import (
    MaskPrompt,
    Prompt,
    check,
    from_boxes,
    from_objects,
    from_points,
    mask_of,
)
from napari_sam_suite.engine.prompts.views import Views
from napari_sam_suite.engine.samples import demo_image
from napari_sam_suite.engine.tiles import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SIZES = Sizes(y=64, x=64)
BOXES = ((8, 8, 24, 24), (8, 40, 24, 56), (40, 8, 56, 24), (40, 40, 56, 56))
SCENE = scene((64, 64), *BOXES)
MIDDLES = [(16, 16), (16, 48), (48, 16), (48, 48)]


class Recorder(FakeSam):
    """Writes down what it is asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[tuple[Prompts, tuple[int, ...]]] = []

    def decode(
        self,
        embedding: Embedding,
        prompts: Prompts,
        *,
        tokens: Sequence[int] = MULTIMASK,
        min_iou: float = 0.0,
    ) -> Decoded:
        self.asked.append((prompts, tuple(tokens)))
        return super().decode(embedding, prompts, tokens=tokens, min_iou=min_iou)


def ask(
    model: FakeSam,
    prompts: Sequence[Prompt],
    image: NDArray[np.uint8] = SCENE,
    **v: Any,
) -> Any:
    finder = Prompted(prompts, PromptParams(**v))
    return finder(
        model, image, FrameIndex(), report=lambda *_: None, stop=lambda: False
    )


# -- what is asked ---------------------------------------------------------------


def test_every_point_is_an_object_with_its_own_tag() -> None:
    model = Recorder()
    found = ask(model, from_points(MIDDLES, tags=["a", "b", "c", "d"]))
    assert found.masks.boxes.tolist() == [list(b) for b in BOXES]
    assert list(found.columns["tag"]) == ["a", "b", "c", "d"]
    assert list(found.columns["prompt"]) == [1, 2, 3, 4]


def test_points_together_are_one_object() -> None:
    model = Recorder()
    prompts = from_points([(16, 16), (20, 20), (48, 48)], [1, 1, 0], together=True)
    assert len(ask(model, prompts).masks) == 1
    (sent, tokens), *more = model.asked
    assert not more
    assert sent.points.tolist() == [[[16, 16], [20, 20], [48, 48]]]
    assert sent.labels.tolist() == [[1, 1, 0]]
    assert tokens == SINGLE


def test_a_single_click_is_ambiguous_and_the_best_of_three_is_taken() -> None:
    model = Recorder(scores=(0.99, 0.6, 0.9, 0.7))
    found = ask(model, from_points([(16, 16)]))
    assert model.asked[0][1] == MULTIMASK
    assert found.masks.level.tolist() == [2]


def test_a_box_is_sent_as_it_is_and_is_one_object() -> None:
    model = Recorder()
    found = ask(model, from_boxes([(8, 8, 23, 23)], tags="cell"))
    sent, tokens = model.asked[0]
    assert sent.boxes is not None
    assert sent.boxes.tolist() == [[8, 8, 23, 23]]
    assert tokens == SINGLE
    assert found.masks.boxes.tolist() == [[8, 8, 24, 24]]


def test_a_box_goes_with_its_points() -> None:
    model = Recorder()
    prompt = Prompt(box=(6, 6, 26, 26), inside=((12, 12),), outside=((48, 48),))
    ask(model, [prompt])
    sent, _ = model.asked[0]
    assert sent.boxes is not None
    assert sent.labels.tolist() == [[1, 0]]


def test_the_whole_frame_is_a_box_of_its_size_and_the_best_of_three() -> None:
    model = Recorder()
    ask(model, [Prompt(whole=True)])
    sent, tokens = model.asked[0]
    assert sent.boxes is not None
    assert sent.boxes.tolist() == [[0, 0, 63, 63]]
    assert tokens == MULTIMASK


def test_the_whole_frame_with_a_point_is_not_mixed_with_a_click() -> None:
    click = Prompt(inside=((16, 16),))
    found = ask(Recorder(), [Prompt(whole=True, inside=((12, 12),)), click])
    assert len(found.masks) == 2


def test_all_answers_are_ranked_by_their_score() -> None:
    found = ask(
        Recorder(scores=(0.99, 0.6, 0.9, 0.7)), from_points([(16, 16)]), answers="all"
    )
    assert list(found.columns["rank"]) == [1, 2, 3]
    assert found.masks.level.tolist() == [2, 3, 1]
    assert list(found.columns["prompt"]) == [1, 1, 1]


def test_a_clear_prompt_has_its_own_answer_first() -> None:
    found = ask(
        Recorder(scores=(0.5, 0.6, 0.9, 0.7)),
        from_boxes([(8, 8, 23, 23)]),
        answers="all",
    )
    assert found.masks.level.tolist() == [0, 2, 3]


def test_any_number_of_prompts_is_one_encoding_and_full_batches() -> None:
    model = Recorder(batch=16)
    boxes = np.repeat([(8, 8, 23, 23)], 1000, axis=0)
    assert len(ask(model, from_boxes(boxes)).masks) == 1000
    assert len(model.encoded) == 1
    assert model.decoded == [16] * 62 + [8]


def test_prompts_of_different_kinds_come_back_in_their_order() -> None:
    prompts = [
        *from_boxes([(40, 40, 55, 55)]),
        *from_points([(16, 16)]),
        *from_boxes([(8, 40, 23, 55)]),
        *from_points([(48, 16), (50, 18)], together=True),
    ]
    found = ask(Recorder(), prompts)
    assert found.masks.boxes.tolist() == [list(BOXES[i]) for i in (3, 0, 1, 2)]


def test_prompts_of_other_frames_are_passed_over() -> None:
    here = Prompt(inside=((16, 16),), frame=FrameIndex())
    there = Prompt(inside=((48, 48),), frame=FrameIndex(time=1))
    everywhere = Prompt(inside=((16, 48),))
    found = ask(Recorder(), [there, here, everywhere])
    assert found.masks.boxes.tolist() == [list(BOXES[0]), list(BOXES[1])]


# -- prompts that make no sense --------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (Prompt(inside=((70, 5),)), "outside the image, which has 64 rows"),
        (Prompt(inside=((float("nan"), 5),)), "not a number"),
        (Prompt(box=(70, 70, 90, 90)), "box is outside the image"),
        (Prompt(box=(10, 10, 10, 30)), "0 by 20 pixels"),
        (Prompt(box=(10, float("inf"), 20, 30)), "not a number"),
        (Prompt(outside=((5, 5),)), "only points outside"),
        (Prompt(), "it has nothing"),
        (Prompt(mask=MaskPrompt(np.zeros((4, 4), bool), (3, 3))), "no pixel"),
        (Prompt(mask=MaskPrompt(np.ones((4, 4), bool), (80, 3))), "no pixel"),
        (Prompt(inside=((5, 5),), frame=FrameIndex(time=3)), "no time 3"),
        (Prompt(whole=True, outside=((float("nan"), 9),)), "not a number"),
        (Prompt(inside=((5, 5),), before=Prompt()), "it has nothing"),
    ],
)
def test_a_bad_prompt_has_a_sentence_and_the_others_go_on(
    prompt: Prompt, words: str
) -> None:
    checked = check([Prompt(inside=((16, 16),)), prompt], SIZES)
    assert [p.number for p in checked.prompts] == [1]
    assert len(checked.notices) == 1
    assert checked.notices[0].startswith("Prompt 2 is left out: ")
    assert words in checked.notices[0]


def test_boxes_are_put_in_order_and_cut_at_the_border() -> None:
    (prompt,) = check(from_boxes([(30, 90, -10, 20)]), SIZES).prompts
    assert prompt.box == (0, 20, 30, 63)


def test_what_was_said_before_is_put_right_too() -> None:
    before = Prompt(box=(20, 20, 5, -80))
    (prompt,) = check([Prompt(inside=((12, 12),), before=before)], SIZES).prompts
    assert prompt.before is not None
    assert prompt.before.box == (5, 0, 20, 20)


def test_swapped_corners_are_put_in_order_and_told_once() -> None:
    right, wrong = (10, 10, 30, 30), (30, 10, 10, 30)
    given = from_boxes([right, wrong, wrong, (30, 30, 10, 10), right])
    checked = check(given, SIZES)
    assert {prompt.box for prompt in checked.prompts} == {right}
    assert checked.notices == [
        "Prompts 2-4: the corners of their boxes were put in order."
    ]
    found = ask(Recorder(), [Prompt(box=wrong)])
    assert found.notices == ("Prompt 1: the corners of its box were put in order.",)


@pytest.mark.parametrize(
    ("prompt", "hint"),
    [
        (Prompt(inside=((99, 99),)), "pixels counted from 0, y before x"),
        (Prompt(box=(99, 99, 120, 120)), "pixels counted from 0, y before x"),
        (Prompt(box=(9, 9, 9, 9)), "Draw it around the object"),
        (Prompt(mask=MaskPrompt(np.ones((4, 4), bool), (80, 3))), "of this size"),
        (Prompt(), "Give a point inside"),
    ],
)
def test_a_hint_fits_what_is_wrong(prompt: Prompt, hint: str) -> None:
    with pytest.raises(ParameterError) as caught:
        check([prompt], SIZES).insist()
    assert hint in caught.value.hint


def test_y_and_x_the_wrong_way_round_are_recognised() -> None:
    with pytest.raises(ParameterError, match="y and x the other way round"):
        check(from_points([(10, 40)]), Sizes(y=64, x=30)).insist()


def test_of_many_prompts_that_make_no_sense_the_first_is_said() -> None:
    with pytest.raises(ParameterError, match=r"None of the 3 prompts .* Prompt 1: "):
        check(from_points([(99, 9)] * 3), SIZES).insist()


def test_masks_are_cut_at_the_border() -> None:
    mask = MaskPrompt(np.ones((10, 10), bool), (-4, 60))
    (prompt,) = check([Prompt(mask=mask)], SIZES).prompts
    assert prompt.mask is not None
    assert prompt.mask.origin == (0, 60)
    assert prompt.mask.crop.shape == (6, 4)


def test_a_prompt_without_an_answer_is_told() -> None:
    nothing = FakeSam()
    nothing._at = lambda point, embedding: (0, 0)  # type: ignore[method-assign]
    image = scene((64, 64), (8, 8, 24, 24))
    image[0, 0] = (1, 2, 3)
    found = ask(nothing, from_points([(16, 16)]), image)
    assert len(found.masks) == 0
    assert found.notices == ("Prompt 1 found nothing.",)


def test_numbers_that_do_not_fit_are_refused_at_once() -> None:
    with pytest.raises(ParameterError, match="y0, x0, y1, x1"):
        from_boxes([(1, 2, 3)])
    with pytest.raises(ParameterError, match="2 labels do not fit 1 points"):
        from_points([(1, 2)], [1, 0])
    with pytest.raises(ParameterError, match="1 tags do not fit 2 boxes"):
        from_boxes([(1, 2, 3, 4), (1, 2, 3, 4)], tags=["a"])


def test_a_single_point_may_have_a_single_label() -> None:
    (prompt,) = from_points((3, 4), labels=1)
    assert prompt.inside == ((3, 4),)


def test_an_array_of_another_width_is_refused() -> None:
    with pytest.raises(ParameterError, match="4 x 3 is not rows of 2 numbers"):
        from_points(np.ones((4, 3)))  # as napari has them in a stack
    with pytest.raises(ParameterError, match=r"A point is .* of one frame"):
        from_points([1, 2, 3, 4])
    with pytest.raises(ParameterError, match="2 x 4 x 2 is not rows of 4 numbers"):
        from_boxes(np.ones((2, 4, 2)))  # as napari has rectangles
    with pytest.raises(ParameterError, match="8 x 2 is not rows of 4 numbers"):
        from_boxes(np.ones((8, 2)))
    assert from_points((1, 2))[0].inside == ((1, 2),)
    assert from_boxes((1, 2, 3, 4))[0].box == (1, 2, 3, 4)
    assert from_points([]) == from_points(np.zeros((0, 3))) == []


def test_no_prompts_is_no_objects() -> None:
    assert len(ask(Recorder(), []).masks) == 0


# -- existing objects drawn again ------------------------------------------------


def test_objects_are_drawn_again_from_their_boxes_with_tag_and_parent() -> None:
    objects = Objects([box(9, 9, 20, 20)]).with_tags("cell")
    found = ask(Recorder(), from_objects(objects))
    assert found.masks.boxes.tolist() == [[8, 8, 24, 24]]
    assert list(found.columns["tag"]) == ["cell"]
    assert list(found.columns["parent"]) == [objects.features["id"][0]]


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (np.s_[5:16, 20:31], (5, 20, 15, 30)),
        (np.s_[5:16, 30:31], (5, 29.5, 15, 30.5)),
        (np.s_[5:16, 0:1], (5, 0, 15, 0.5)),
        (np.s_[60:64, 20:31], (60, 20, 63, 30)),
    ],
)
def test_boxes_of_objects_are_of_their_pixels(
    window: tuple[slice, slice], expected: tuple[float, ...]
) -> None:
    labels = np.zeros((64, 64), int)
    labels[window] = 1
    (prompt,) = check(from_objects(Objects.from_labels(labels)), SIZES).prompts
    assert prompt.box == expected


def test_objects_are_drawn_again_from_their_masks() -> None:
    model = Recorder()
    objects = Objects([box(8, 8, 23, 23)])
    ask(model, from_objects(objects, "both"))
    sent, _ = model.asked[0]
    assert sent.masks is not None
    assert sent.masks.shape == (1, 1, 64, 64)
    told = sent.masks[0, 0] > 0
    assert np.array_equal(told, (SCENE[16, 16] == SCENE).all(-1))


def test_the_pixels_of_a_polygon_with_a_hole() -> None:
    ring = Polygon([(0, 0), (0, 9), (9, 9), (9, 0)], [[(3, 3), (3, 6), (6, 6), (6, 3)]])
    mask = mask_of(ring)
    assert mask.box == (0, 0, 9, 9)
    assert mask.crop.sum() == 96


def test_a_mask_prompt_has_its_share_of_every_low_pixel() -> None:
    embedding = Embedding({}, (64, 64), (256, 256))
    mask = MaskPrompt(np.ones((8, 8), bool), (8, 8))
    low = mask_logits(mask, Region(0, 0, 64, 64), embedding, 256)[0]
    inside = np.zeros((64, 64), bool)
    inside[8:16, 8:16] = True
    assert np.array_equal(low > 0, inside)
    assert np.allclose(np.abs(low), np.log(999), atol=1e-3)


def test_a_mask_prompt_leaves_the_padding_of_sam1_empty() -> None:
    embedding = Embedding({}, (32, 64), (128, 256))
    mask = MaskPrompt(np.ones((32, 64), bool), (0, 0))
    low = mask_logits(mask, Region(0, 0, 32, 64), embedding, 256)[0]
    assert (low[:32] > 0).all()
    assert (low[32:] < 0).all()


# -- where it is looked for ------------------------------------------------------


def test_a_small_box_is_looked_at_in_a_tile_and_a_large_one_in_the_image() -> None:
    model = FakeSam(input_size=64)
    image = scene((256, 256), (100, 100, 110, 110), (20, 20, 200, 90))
    ask(model, from_boxes([(100, 100, 109, 109)]), image, tile=64)
    assert model.encoded == [(64, 64)]
    ask(model, from_boxes([(20, 20, 199, 89)]), image, tile=64)
    assert model.encoded[1:] == [(256, 256)]


def test_a_click_goes_up_while_its_object_is_cut_off() -> None:
    model = FakeSam(input_size=64)
    image = scene((256, 256), (32, 32, 192, 64))
    found = ask(model, from_points([(100, 48)]), image, tile=64)
    assert model.encoded == [(64, 64), (128, 128), (256, 256)]
    assert found.masks.boxes.tolist() == [[32, 32, 192, 64]]


def test_an_object_at_the_border_of_the_image_is_not_cut_off() -> None:
    model = FakeSam(input_size=64)
    image = scene((256, 256), (0, 0, 20, 20))
    ask(model, from_points([(10, 10)]), image, tile=64)
    assert model.encoded == [(64, 64)]


def test_an_object_of_half_a_tile_is_whole_in_one_wherever_it_is() -> None:
    views = Views((1000, 700), (256, 512))
    for y, x in np.random.default_rng(0).uniform(64, 600, (200, 2)):
        view = views.at(0, (y, x, y, x))
        assert view.y0 <= y - 60
        assert view.y1 >= y + 60
        assert view.x0 <= x - 60
        assert view.x1 >= x + 60
        assert view.shape == (256, 256)


def test_many_boxes_are_looked_at_in_fewer_views() -> None:
    views = Views((1000, 700), (256, 512))
    corners = np.random.default_rng(0).uniform(-3, (960, 660), (300, 2))
    boxes = np.concatenate([corners, corners + np.array([40, 30])], 1)
    prompts = from_boxes(boxes.clip(0, (999, 699, 999, 699)))
    alone = {views.at(0, prompt.extent) for prompt in prompts}
    found = views.among(0, prompts)
    assert len(set(found)) <= len(alone) / 2
    for prompt, view in zip(prompts, found, strict=True):
        y0, x0, y1, x1 = prompt.extent or (0, 0, 0, 0)
        assert view.shape == (256, 256) and view.layer == 0
        assert view.y0 <= max(y0 - 8, 0) and view.x0 <= max(x0 - 8, 0)
        assert view.y1 > min(y1 + 8, 999) and view.x1 > min(x1 + 8, 699)
        assert view.y0 >= 0 and view.y1 <= 1000
        assert view.x0 >= 0 and view.x1 <= 700


def test_one_box_is_looked_at_where_a_click_would_be() -> None:
    views = Views((1000, 700), (256, 512))
    (prompt,) = from_boxes([(300, 300, 340, 330)])
    assert views.among(0, [prompt]) == [views.at(0, prompt.extent)]


def test_clicks_beside_many_boxes_stay_in_their_own_views() -> None:
    views = Views((1000, 700), (256, 512))
    corners = np.random.default_rng(1).uniform(0, (960, 660), (100, 2))
    boxes = from_boxes(np.concatenate([corners, corners + 30], 1))
    clicks = from_points([(500, 350), (20, 600)])
    found = views.among(0, [clicks[0], *boxes, clicks[1]])
    assert [found[0], found[-1]] == [views.at(0, click.extent) for click in clicks]


def test_boxes_as_wide_as_the_image_are_looked_at_in_all_of_it() -> None:
    views = Views((300, 200), (64, 128))
    prompts = from_boxes([(0, 0, 299, 199), (10, 10, 290, 190)])
    assert [view.box for view in views.among(2, prompts)] == [(0, 0, 300, 200)] * 2


def test_small_boxes_are_enlarged_for_a_model_that_is_used_to_it() -> None:
    model = FakeSam(input_size=512)
    model.spec = find_model("sam2-nano")  # tiles of 300 px
    views = Views.of((1000, 700), model)
    small, large = from_boxes([(300, 300, 320, 330), (300, 300, 360, 330)])
    (click,) = from_points([(310, 315)])
    assert views.at(views.rung(small), small.extent).shape == (150, 150)
    for prompt in (large, click, replace(small, mask=mask_of(box(300, 300, 320, 330)))):
        assert views.at(views.rung(prompt), prompt.extent).shape == (300, 300)
    assert {view.shape for view in views.finest()} == {(300, 300)}
    for wide, side in ((33, 150), (34, 300), (100, 300), (101, 600)):
        (one,) = from_boxes([(300, 300, 310, 300 + wide)])
        assert views.at(views.rung(one), one.extent).shape == (side, side)
    known = replace(one, mask=mask_of(box(300, 300, 310, 370)))
    assert views.at(views.rung(known), known.extent).shape == (600, 600)
    little = Views.of((256, 200), model)
    (small,) = from_boxes([(100, 100, 120, 130)])
    assert little.at(little.rung(small), small.extent).shape == (150, 150)
    assert little.at(little.rung(click), click.extent).shape == (256, 200)
    assert Views.of((1000, 700), model, 300).sides[0] == 300
    assert Views.of((1000, 700), model, "off").sides == ()


def used_to_tiles_of(side: int) -> Recorder:
    """A model like the embedded one, whose finest tiles are half of `side`."""
    model = Recorder(input_size=side)
    auto = replace(model.spec.auto, tile=1 - 1e-9)
    model.spec = replace(model.spec, auto=auto)
    return model


def test_a_click_on_something_small_is_looked_at_closer() -> None:
    model = used_to_tiles_of(128)
    image = scene((256, 256), (100, 100, 112, 112), (20, 180, 100, 220))
    found = ask(model, from_points([(105, 105)]), image)
    assert model.encoded == [(128, 128), (64, 64)]
    assert found.masks.boxes.tolist() == [[100, 100, 112, 112]]
    ask(model, from_points([(50, 200)]), image)
    assert model.encoded[2:] == [(128, 128)]
    ask(model, [Prompt(whole=True)], image)
    assert model.encoded[3:] == [(256, 256)]


def test_a_closer_view_holds_all_points_of_a_small_answer() -> None:
    model = used_to_tiles_of(128)
    image = scene((256, 256), (100, 100, 112, 112))
    far = [(105, 105), (60, 100)]
    ask(model, from_points(far, together=True), image, parts="all")
    assert model.encoded == [(128, 128)]
    near = [(105, 105), (103, 107)]
    ask(model, from_points(near, together=True), image, parts="all")
    assert model.encoded[1:] == [(128, 128), (64, 64)]
    for sent, _ in model.asked:
        assert (sent.points >= 0).all()


def test_a_correction_stays_close_unless_it_says_that_the_object_is_large() -> None:
    model, params = used_to_tiles_of(128), PromptParams()
    image = scene((256, 256), (100, 100, 112, 112))
    first = Prompt(inside=((105, 105),))
    (before,) = answer(model, image, [first], params, keep_logits=True)
    assert before[0].view.shape == (64, 64)
    for more, shape in (
        (Prompt(inside=((105, 105), (108, 108))), (64, 64)),
        (Prompt(inside=((105, 105),), outside=((115, 115),)), (64, 64)),
        (Prompt(inside=((105, 105), (180, 180))), (256, 256)),
        (Prompt(inside=((105, 105),), box=(90, 90, 130, 130)), (128, 128)),
    ):
        (after,) = answer(model, image, [more], params, earlier={0: before[0]})
        assert after[0].view.shape == shape
        sent, _ = model.asked[-1]
        assert (sent.masks is None) == (shape != (64, 64))


def test_prompts_near_each_other_share_their_view() -> None:
    model = FakeSam(input_size=64)
    image = scene((256, 256), (100, 100, 110, 110), (86, 86, 96, 96))
    boxes = [(100, 100, 109, 109), (86, 86, 95, 95)]
    ask(model, from_boxes(boxes), image, tile=64)
    assert len(model.encoded) == 1


def test_outside_points_beyond_the_view_are_not_sent() -> None:
    model = Recorder(input_size=64)
    image = scene((256, 256), (100, 100, 110, 110))
    prompt = Prompt(inside=((105, 105),), outside=((112, 105), (250, 250)))
    ask(model, [prompt], image, tile=64)
    assert model.asked[0][0].labels.tolist() == [[1, 0]]


def test_without_tiles_everything_is_looked_at_in_the_image() -> None:
    model = FakeSam(input_size=64)
    image = scene((256, 256), (100, 100, 110, 110))
    ask(model, from_points([(105, 105)]), image, tile="off")
    assert model.encoded == [(256, 256)]


# -- answers ---------------------------------------------------------------------


class TwoIslands(FakeSam):
    """Adds a large island on the upper right to every answer."""

    def decode(self, *args: Any, **options: Any) -> Decoded:
        decoded = super().decode(*args, **options)
        decoded.logits[:, 2:40, 40:60] = 8.0
        return decoded


LOWER_LEFT = scene((64, 64), (40, 8, 56, 24))


def masked(size: tuple[int, int], origin: tuple[int, int]) -> Prompt:
    """A mask prompt, with a point because the fake needs one."""
    return Prompt(inside=((48, 16),), mask=MaskPrompt(np.ones(size, bool), origin))


def test_of_several_islands_the_one_that_was_clicked_is_kept() -> None:
    clicked = ask(TwoIslands(), from_points([(48, 16)]), LOWER_LEFT)
    assert clicked.masks.boxes.tolist() == [[40, 8, 56, 24]]
    everything = ask(TwoIslands(), from_points([(48, 16)]), LOWER_LEFT, parts="all")
    assert everything.masks.boxes.tolist() == [[2, 8, 56, 60]]


@pytest.mark.parametrize(
    ("prompt", "meant"),
    [
        (Prompt(inside=((48, 16), (20, 50))), [2, 8, 56, 60]),
        (Prompt(box=(36, 4, 60, 30)), [40, 8, 56, 24]),
        (Prompt(box=(30, 0, 63, 45)), [2, 8, 56, 60]),
        (masked((12, 9), (42, 10)), [40, 8, 56, 24]),
        (masked((33, 45), (30, 0)), [2, 8, 56, 60]),
    ],
)
def test_islands_that_a_prompt_means_stay_together(
    prompt: Prompt, meant: list[int]
) -> None:
    found = ask(TwoIslands(), [prompt], LOWER_LEFT)
    assert found.masks.boxes.tolist() == [meant]


def test_an_answer_in_pieces_is_one_object_of_several_parts() -> None:
    found = ask(TwoIslands(), [Prompt(box=(30, 0, 63, 45))], LOWER_LEFT)
    objects, losses = Objects.from_masks(
        found.masks, FrameIndex(), parts=PromptParams().parts
    )
    assert len(objects.polygons[0].geoms) == 2
    assert not losses


def test_an_answer_is_corrected_from_where_it_was() -> None:
    model = Recorder()
    params = PromptParams()
    first = Prompt(inside=((16, 16),), number=1)
    (before,) = answer(model, SCENE, [first], params, keep_logits=True)
    more = Prompt(inside=((16, 16), (20, 20)), number=1)
    answer(model, SCENE, [more], params, earlier={0: before[0]})
    sent, _ = model.asked[1]
    assert sent.masks is not None
    assert before[0].logits is not None
    assert np.array_equal(sent.masks[0, 0], before[0].logits)


def corrected(more: Prompt) -> tuple[Prompts, Answer, Answer]:
    """What is sent with the correction of a click, and the answers to both."""
    model, params = Recorder(input_size=64), PromptParams(tile=64)
    image = scene((256, 256), (96, 96, 112, 112))
    first = Prompt(inside=((105, 105),))
    (before,) = answer(model, image, [first], params, keep_logits=True)
    (after,) = answer(model, image, [more], params, earlier={0: before[0]})
    return model.asked[-1][0], before[0], after[0]


@pytest.mark.parametrize("x", [129, 145])
def test_a_point_beyond_the_view_takes_a_correction_to_one_that_holds_all(
    x: int,
) -> None:
    sent, before, after = corrected(Prompt(inside=((105, 105), (105, x))))
    assert before.view.box == (64, 64, 128, 128)
    assert after.view.y0 <= 105 < after.view.y1
    assert after.view.x0 <= 105 < x < after.view.x1
    y0, x0 = after.view.origin
    assert sent.points.tolist() == [[[105 - y0, 105 - x0], [105 - y0, x - x0]]]
    assert sent.masks is None  # the logits are those of another view


def test_a_box_beyond_the_view_takes_a_correction_along() -> None:
    more = Prompt(box=(100, 118, 110, 130))
    sent, before, after = corrected(more)
    assert after.view != before.view
    assert sent.boxes is not None
    assert (sent.boxes >= 0).all() and (sent.boxes < after.view.shape[0]).all()


def test_an_outside_point_beyond_the_view_leaves_a_correction_where_it_was() -> None:
    sent, before, after = corrected(
        Prompt(inside=((105, 105),), outside=((105, 200), (105, 120)))
    )
    assert after.view == before.view
    assert sent.labels.tolist() == [[1, 0]]
    assert sent.masks is not None
    assert before.logits is not None
    assert np.array_equal(sent.masks[0, 0], before.logits)


def test_running_out_of_memory_halves_the_batch_and_changes_nothing() -> None:
    full = FakeSam(batch=16, memory=3)
    found = ask(full, from_points(MIDDLES))
    assert found.masks.boxes.tolist() == [list(b) for b in BOXES]
    assert full.decoded == [4, 2, 2]


def test_no_memory_for_a_single_prompt_is_an_error_with_a_hint() -> None:
    with pytest.raises(OutOfMemory, match="smaller model"):
        ask(FakeSam(memory=0), from_points(MIDDLES))


def test_a_wish_to_stop_is_followed_between_batches() -> None:
    model = FakeSam(batch=1)
    finder = Prompted(from_points(MIDDLES))
    with pytest.raises(Cancelled):
        finder(
            model,
            SCENE,
            FrameIndex(),
            report=lambda *_: None,
            stop=lambda: len(model.decoded) > 1,
        )
    assert len(model.decoded) == 2


# -- with the embedded model -----------------------------------------------------


@pytest.fixture(scope="module")
def nano() -> Remembering:
    return Remembering(load_model("sam2-nano", device="cpu"), EmbeddingCache())


@pytest.fixture(scope="module")
def cells() -> NDArray[np.uint8]:
    return compose(demo_image().frame(FrameIndex()))


def test_an_engine_answers_prompts_in_the_frames_that_they_name() -> None:
    image = open_image(np.stack([SCENE[..., 0]] * 3), axes="TYX")
    prompts = [
        Prompt(box=(8, 8, 23, 23), frame=FrameIndex(time=2), tag="cell"),
        Prompt(inside=((99, 99),), frame=FrameIndex(time=1)),
        Prompt(inside=((5, 5),), frame=FrameIndex(time=9)),
    ]
    with Engine("sam2-nano", device="cpu") as engine:
        job = start_prompts(engine, image, prompts)
        objects = job.result(120)
    assert [part.frame.time for part in job.parts] == [2]
    assert set(objects.features["tag"]) <= {"cell"}
    assert [n[:20] for n in job.notices[:2]] == [
        "Prompt 2 is left out",
        "Prompt 3 is left out",
    ]
    assert objects.source["capability"] == "prompt"


def test_prompts_of_several_makers_keep_apart() -> None:
    image = open_image(SCENE[..., 0])
    prompts = [
        *from_points([(999, 999), (12, 12)]),
        *from_boxes([(900, 900, 950, 950), (8, 8, 23, 23)]),
    ]
    with Engine("sam2-nano", device="cpu") as engine:
        job = start_prompts(engine, image, prompts)
        objects = job.result(120)
    assert objects.features["prompt"].tolist() == [2, 4]
    assert [n[:8] for n in job.notices[:2]] == ["Prompt 1", "Prompt 3"]


def test_prompts_of_which_none_makes_sense_are_an_error() -> None:
    image = open_image(SCENE[..., 0])
    with (
        Engine("sam2-nano", device="cpu") as engine,
        pytest.raises(ParameterError, match="outside the image"),
    ):
        start_prompts(engine, image, from_points([(99, 99)]))


def test_batches_give_the_masks_of_single_prompts(
    nano: Remembering, cells: NDArray[np.uint8]
) -> None:
    points = np.random.default_rng(1).uniform(20, min(cells.shape[:2]) - 20, (12, 2))
    prompts = from_points(points)
    together = answer(nano, cells, prompts, PromptParams())
    for prompt, many in zip(prompts, together, strict=True):
        (one,) = answer(nano, cells, [prompt], PromptParams())
        assert one[0].view == many[0].view
        assert one[0].score == pytest.approx(many[0].score, abs=1e-3)
        assert abs(int(one[0].crop.sum()) - int(many[0].crop.sum())) <= 2


def test_a_click_has_the_mean_of_all_answers_first(
    nano: Remembering, cells: NDArray[np.uint8]
) -> None:
    params = PromptParams(answers="all", tile="off", parts="all")
    for point in ((60.0, 70.0), (150.0, 90.0), (200.0, 200.0)):
        first = Prompt(inside=(point,))
        (given,) = answer(nano, cells, [first], params, keep_logits=True)
        every = []
        for level in range(4):
            at = replace(first, level=level)
            (found,) = answer(nano, cells, [at], params, keep_logits=True)
            assert len(found) == 3
            assert found[0].level == level
            every.append(found[0])
        assert given[0].level == 0
        assert len({one.level for one in given}) == len(given) == 3
        assert _iou(given[0], every[0]) == 1
        unlike = [_iou(given[0], other) for other in given[1:]]
        assert unlike == sorted(unlike)
        drawn = np.stack([one.logits for one in every if one.logits is not None])
        # between the answers that it is the mean of, where all three are of one mind
        alike = (drawn[1:] > 8).all(0)
        assert (drawn[0][alike] > 0).all()
        (best,) = answer(nano, cells, [first], params.with_(answers="best"))
        assert [one.level for one in best] == [0]


def _iou(one: Answer, other: Answer) -> float:
    masks = np.zeros((2, 2000, 2000), bool)
    for mask, said in zip(masks, (one, other), strict=True):
        (y, x), (h, w) = said.origin, said.crop.shape
        mask[y : y + h, x : x + w] = said.crop
    return float(masks.all(0).sum() / max(1, masks.any(0).sum()))


def test_a_finer_embedding_is_encoded_once_for_any_number_of_prompts(
    cells: NDArray[np.uint8],
) -> None:
    model = FakeSam()
    remembering = Remembering(model, EmbeddingCache())
    for point in ((30, 30), (40, 40), (50, 50)):
        answer(remembering, cells, from_points([point]), PromptParams(tile="off"))
    assert len(model.encoded) == 1

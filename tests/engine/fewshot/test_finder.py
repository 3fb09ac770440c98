"""Tag some shapes, find the same objects: both modes, on images of coloured dots."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.fewshot_fakes import BLUE, GREEN, RED, ColourSam, dots, tagged
from napari_sam_suite.engine.errors import Cancelled, OutOfMemory, ParameterError
from napari_sam_suite.engine.fewshot import finder as finder_module
from napari_sam_suite.engine.fewshot.examples import choose_examples, draw_masks
from napari_sam_suite.engine.fewshot.finder import FewShot
from napari_sam_suite.engine.fewshot.judgement import Judgement
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.objects import Objects

SHAPE = (64, 64)
TAGGED = [(8, 8, RED), (8, 40, RED), (40, 8, RED)]
ALSO_RED = [(24, 24, RED), (24, 56, RED), (56, 40, RED)]
ALSO_BLUE = [(8, 24, BLUE), (40, 40, BLUE), (56, 8, BLUE)]
IMAGE = dots(SHAPE, *TAGGED, *ALSO_RED, *ALSO_BLUE)
SECOND = dots(SHAPE, (16, 16, RED), (16, 48, BLUE), (48, 32, RED))
FIRST = FrameIndex()
BOTH = pytest.mark.parametrize("mode", ["fast", "exact"])


def quiet(*_: object) -> bool:
    return False


def few_shot(
    mode: str, *, tags=("red",), negatives=(), keep=False, **params
) -> FewShot:
    stack = open_image(np.stack([IMAGE, SECOND]), axes="TYXC")
    shapes = tagged(
        SHAPE, *[(y, x, "red") for y, x, _ in TAGGED], (8, 24, "blue"), (40, 40, "blue")
    )
    if mode == "exact":
        params |= {"points_per_side": 32, "min_area": 5}
        params.setdefault("threshold", 0.9)
    examples = choose_examples(stack, shapes, tags, negatives)
    return FewShot(
        FewShotParams(mode=mode, **params), examples, known=examples.objects, keep=keep
    )


def search(finder: FewShot, model: ColourSam, image=IMAGE, frame=FIRST):
    return finder(model, image, frame, report=quiet, stop=quiet)


def centres(found) -> set[tuple[int, int]]:
    boxes = found.masks.boxes
    return {tuple(c) for c in ((boxes[:, :2] + boxes[:, 2:] - 1) // 2).tolist()}


@BOTH
def test_objects_like_the_examples_are_found_and_others_not(mode: str) -> None:
    found = search(few_shot(mode), ColourSam())
    assert centres(found) == {(y, x) for y, x, _ in ALSO_RED}


def candidates(
    monkeypatch: pytest.MonkeyPatch,
    *boxes: tuple[int, int, int, int],
    tags: tuple[str, str] = ("red", "red"),
    similar: tuple[float, float] = (0.9, 0.8),
    ranks: tuple[float, float] = (2, 1),
) -> FewShot:
    """A search that has seen two boxes (y0, x0, y1, x1), judged as given."""
    finder = few_shot("fast", negatives=("blue",), keep=True)
    search(finder, ColourSam())
    builder = MaskBuilder(SHAPE)
    for y0, x0, y1, x1 in boxes:
        builder.add(np.ones((y1 - y0, x1 - x0), bool), (y0, x0))
    seen = finder.seen[FIRST].select(np.zeros(2, int))
    finder.seen[FIRST] = replace(seen, masks=builder.build())
    numbers = [np.array(some, float) for some in (similar, similar, ranks)]
    said = Judgement(list(tags), ["", ""], *numbers)
    monkeypatch.setattr(finder, "_judge", lambda *_: said)
    return finder


WHOLE, CORE = (46, 4, 62, 20), (50, 8, 58, 16)


@pytest.mark.parametrize(("ranks", "area"), [((2, 1), 256), ((1, 2), 64)])
def test_of_outlines_of_one_object_that_of_the_best_rank_is_kept(
    ranks: tuple[float, float], area: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for similar in ((0.9, 0.8), (0.8, 0.9)):
        finder = candidates(monkeypatch, WHOLE, CORE, similar=similar, ranks=ranks)
        assert finder.filter(FIRST).masks.area.tolist() == [area]


@pytest.mark.parametrize(("ranks", "count"), [((2, 1), 0), ((1, 2), 1)])
def test_what_is_not_meant_keeps_worse_outlines_of_its_place_from_being_found(
    ranks: tuple[float, float], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder = candidates(monkeypatch, WHOLE, CORE, tags=("blue", "red"), ranks=ranks)
    assert len(finder.filter(FIRST).masks) == count


LEFT, RIGHT = (46, 20, 56, 40), (46, 34, 56, 54)


def test_pixels_of_objects_that_were_accepted_stay_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finder = candidates(monkeypatch, LEFT, RIGHT)
    found = finder.filter(FIRST)
    assert found.masks.area.tolist() == [200, 140]
    better, worse = found.columns["id"]
    accepted = finder.filter(FIRST, None, {better}, {better})
    assert accepted.masks.area.tolist() == [140] and accepted.columns["id"] == [worse]
    rejected = finder.filter(FIRST, None, {better})
    assert rejected.masks.area.tolist() == [200]
    # what was accepted as it was cut takes no more than that
    assert finder.filter(FIRST, None, {worse}, {worse}).masks.area.tolist() == [200]


def test_pixels_of_what_was_rejected_before_are_free() -> None:
    beside, finder = tagged(SHAPE, (24, 29, "red")), few_shot("fast", keep=True)
    finder.known, finder.rejected = None, beside
    whole = search(finder, ColourSam()).masks
    finder.known, finder.rejected = beside, None
    cut = search(finder, ColourSam()).masks
    assert len(whole) == len(cut) and whole.area.sum() > cut.area.sum()
    finder.known, finder.rejected = None, tagged(SHAPE, (24, 24, "red"))
    assert (24, 24) not in centres(search(finder, ColourSam()))


def test_what_others_leave_is_not_below_the_smallest_area(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for least, count in ((140, 2), (141, 1)):
        finder = candidates(monkeypatch, LEFT, RIGHT)
        finder.params = finder.params.with_(min_area=least)
        assert len(finder.filter(FIRST).masks) == count


def test_finds_share_no_pixel_with_the_examples_at_any_threshold() -> None:
    finder, beside = few_shot("fast", keep=True), tagged(SHAPE, (24, 29, "red"))
    finder.known = beside
    found = search(finder, ColourSam())
    for masks in (found.masks, finder.filter(FIRST, 0.2).masks):
        assert (24, 23) in centres(replace(found, masks=masks))
        taken = draw_masks(beside.at(FIRST), SHAPE).full(0)
        assert not any((masks.full(i) & taken).any() for i in range(len(masks)))
    finder.params = finder.params.with_(overlap="allow")
    again = finder.filter(FIRST)
    assert sum(again.masks.area) > sum(found.masks.area)


@BOTH
def test_the_examples_themselves_are_not_found_again(mode: str) -> None:
    again = few_shot(mode)
    again.known = None
    assert centres(search(again, ColourSam())) == {
        (y, x) for y, x, _ in TAGGED + ALSO_RED
    }


def test_left_out_examples_are_told_though_the_device_is_full_in_that_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finder, look = few_shot("fast"), FewShot._look
    finder.examples = replace(finder.examples, skipped=2)

    def full(*_: object) -> None:
        monkeypatch.setattr(FewShot, "_look", look)
        raise OutOfMemory("full", "")

    monkeypatch.setattr(FewShot, "_look", full)
    with pytest.raises(OutOfMemory):
        search(finder, ColourSam())
    told = ("2 examples cover no pixel of the image and were left out.",)
    assert search(finder, ColourSam()).notices == told
    assert search(finder, ColourSam()).notices == ()


@BOTH
def test_every_object_is_found_once(mode: str) -> None:
    found = search(few_shot(mode), ColourSam())
    assert len(found.masks) == len(ALSO_RED)


@BOTH
def test_examples_of_one_frame_find_objects_on_another(mode: str) -> None:
    finder = few_shot(mode)
    found = search(finder, ColourSam(), SECOND, FrameIndex(time=1))
    assert centres(found) == {(16, 16), (48, 32)}


@BOTH
def test_every_tag_finds_its_own(mode: str) -> None:
    found = search(few_shot(mode, tags=("red", "blue")), ColourSam())
    tags = dict(
        zip(map(tuple, found.masks.boxes.tolist()), found.columns["tag"], strict=True)
    )
    assert sorted(tags.values()) == ["blue", "red", "red", "red"]
    assert set(found.columns["runner_up"]) == {"red", "blue"}


@BOTH
def test_what_is_not_meant_is_not_found(mode: str) -> None:
    found = search(few_shot(mode, negatives=("blue",), threshold=0.0), ColourSam())
    assert "blue" not in found.columns["tag"]
    assert {(56, 8)}.isdisjoint(centres(found))


@BOTH
def test_every_object_says_how_similar_it_is_and_how_clearly(mode: str) -> None:
    found = search(few_shot(mode, tags=("red", "blue")), ColourSam())
    similarity = np.array(found.columns["similarity"])
    margin = np.array(found.columns["margin"])
    assert len(similarity) == len(margin) == len(found.masks)
    assert (margin > 0).all()
    assert (margin <= similarity + 1).all()


def test_fast_mode_encodes_every_tile_once() -> None:
    model = ColourSam()
    finder = few_shot("fast")
    search(finder, model)
    assert len(model.encoded) == 1
    search(finder, model, SECOND, FrameIndex(time=1))
    assert len(model.encoded) == 2


@pytest.mark.parametrize("tile", [32, 40])
def test_fast_mode_encodes_a_tiled_frame_once_per_tile(tile: int) -> None:
    from napari_sam_suite.engine.tiles import tile_regions

    model = ColourSam()
    search(few_shot("fast", tile=tile), model)
    assert len(model.encoded) == len(tile_regions(SHAPE, tile, model.input_size))
    assert len(model.encoded) > 1


def test_exact_mode_encodes_the_frame_every_example_and_every_candidate() -> None:
    model = ColourSam()
    finder = few_shot("exact", keep=True)
    finder.known = None
    search(finder, model)
    assert len(model.encoded) == 3 + 1 + len(finder.seen[FIRST].masks)


def test_prototypes_learnt_before_need_no_examples() -> None:
    first = few_shot("fast")
    search(first, ColourSam())
    later = FewShot(first.params, prototypes=first.prototypes)
    model = ColourSam()
    found = search(later, model, SECOND)
    assert centres(found) == {(16, 16), (48, 32)}
    assert len(model.encoded) == 1


def test_another_threshold_filters_without_the_model() -> None:
    finder = few_shot("fast", keep=True)
    model = ColourSam()
    search(finder, model)
    calls = len(model.encoded), len(model.decoded)
    assert centres(finder.filter(FIRST)) == {(y, x) for y, x, _ in ALSO_RED}
    assert len(finder.filter(FIRST, 100.0).masks) == 0
    assert len(finder.filter(FIRST, -100.0).masks) >= len(ALSO_RED)
    assert (len(model.encoded), len(model.decoded)) == calls


def test_where_somebody_has_decided_nothing_is_chosen() -> None:
    finder = few_shot("fast", keep=True)
    found = search(finder, ColourSam())
    decided = found.masks.select([0])
    again = finder.filter(FIRST, 0.0, {found.columns["id"][0]})
    assert len(finder.filter(FIRST, 0.0).masks) > len(again.masks) >= 2
    assert all(
        again.masks.intersection(i, 0, decided) <= decided.area[0] / 2
        for i in range(len(again.masks))
    )


def test_an_object_has_the_same_id_for_as_long_as_it_has_its_pixels_and_its_tag() -> (
    None
):
    finder = few_shot("fast", keep=True)
    first = search(finder, ColourSam()).columns["id"]
    assert finder.filter(FIRST).columns["id"] == first
    finder.prototypes = replace(
        finder.prototypes,
        tags=("crimson",),
        labels=("crimson",) * len(finder.prototypes.labels),
    )
    assert set(finder.filter(FIRST).columns["id"]).isdisjoint(first)


def test_a_frame_that_was_not_kept_cannot_be_filtered() -> None:
    finder = few_shot("fast")
    search(finder, ColourSam())
    with pytest.raises(ParameterError, match="not searched"):
        finder.filter(FIRST)


def test_a_run_too_large_to_be_filtered_keeps_nothing_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = few_shot("fast", keep=True)
    search(one, ColourSam())
    monkeypatch.setattr(
        finder_module, "_MOST", one.seen[FIRST].nbytes + one.seen[FIRST].nbytes // 4
    )
    finder = few_shot("fast", keep=True)
    frames = [FrameIndex(time=t) for t in range(3)]
    found = [search(finder, ColourSam(), frame=frame) for frame in frames]
    assert [list(f.notices) for f in found] == [[], [finder.too_much], []]
    assert "search fewer frames" in finder.too_much
    assert [len(f.masks) for f in found] == [3, 6, 6]
    assert not finder.seen
    assert not finder.ids
    with pytest.raises(ParameterError, match="too large to be filtered"):
        finder.filter(frames[0])


def test_a_frame_searched_twice_is_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = few_shot("fast", keep=True)
    search(one, ColourSam())
    known = draw_masks(one.known.at(FIRST), SHAPE)
    held = one.seen[FIRST].nbytes + known.nbytes
    monkeypatch.setattr(finder_module, "_MOST", held)
    search(one, ColourSam())
    assert len(one.filter(FIRST).masks) == len(ALSO_RED)


def test_a_rejected_object_changes_what_is_found() -> None:
    finder = few_shot("fast", tags=("red", "blue"), keep=True)
    found = search(finder, ColourSam())
    seen = finder.seen[FIRST]
    of_blue = [
        i
        for i, t in enumerate(finder.prototypes.judge(seen.vectors).tags)
        if t == "blue"
    ]
    before = finder.prototypes.judge(seen.vectors).similarity[of_blue].mean()
    finder.prototypes = finder.prototypes.reject(seen.vectors[of_blue])
    after = finder.prototypes.judge(seen.vectors).similarity[of_blue].mean()
    assert len(found.masks) == 4
    assert after < before


@BOTH
def test_areas_of_the_user_win(mode: str) -> None:
    found = search(few_shot(mode, max_area=10), ColourSam())
    assert len(found.masks) == 0


def test_fast_mode_takes_its_sizes_from_the_examples() -> None:
    image = dots(SHAPE, *TAGGED, (24, 24, RED))
    y, x = np.mgrid[:64, :64]
    image[(y - 48) ** 2 + (x - 44) ** 2 <= 14**2] = RED
    assert centres(search(few_shot("fast"), ColourSam(), image)) == {(24, 24)}


def test_exact_mode_takes_a_smallest_area_above_all_examples() -> None:
    params = FewShotParams(mode="exact", points_per_side=16, min_area=2000)
    finder = FewShot(params, few_shot("exact").examples)
    assert len(search(finder, ColourSam()).masks) == 0


def test_exact_mode_never_hides_objects_of_the_examples_size() -> None:
    stack = open_image(
        dots((256, 256), (60, 60, RED), (60, 180, RED), radius=24)[None], axes="TYXC"
    )
    examples = choose_examples(
        stack, tagged((256, 256), (60, 60, "red"), radius=24), ["red"]
    )
    params = FewShotParams(mode="exact", points_per_side=16)
    found = search(
        FewShot(params, examples, known=examples.objects),
        ColourSam(input_size=1024),
        dots((256, 256), (60, 60, RED), (60, 180, RED), radius=24),
    )
    assert centres(found) == {(60, 180)}
    assert found.masks.area[0] > 1000


def test_a_wish_to_stop_is_heard() -> None:
    with pytest.raises(Cancelled):
        few_shot("fast")(ColourSam(), IMAGE, FIRST, report=quiet, stop=lambda: True)


def test_neither_examples_nor_prototypes_is_told() -> None:
    with pytest.raises(ParameterError, match="neither examples nor prototypes"):
        FewShot(FewShotParams())


def test_prototypes_of_another_model_or_mode_are_told() -> None:
    first = few_shot("fast")
    search(first, ColourSam())
    later = FewShot(first.params, prototypes=first.prototypes)
    with pytest.raises(ParameterError, match="made with the model fake, not sam2-nano"):
        later.check(find_model("sam2-nano"))
    other = FewShot(FewShotParams(mode="exact"), prototypes=first.prototypes)
    with pytest.raises(ParameterError, match="made in fast mode, not in exact mode"):
        other.check(ColourSam.spec)


def test_progress_never_runs_backwards() -> None:
    told = []
    few_shot("fast", tile=32)(
        ColourSam(), IMAGE, FIRST, report=lambda *news: told.append(news), stop=quiet
    )
    shares = [done / total for done, total, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_an_image_without_anything_alike_has_no_objects() -> None:
    finder = few_shot("fast")
    search(finder, ColourSam())
    green = dots(SHAPE, (20, 20, GREEN))
    assert len(search(finder, ColourSam(), green, FrameIndex(time=1)).masks) <= 1


def test_the_engine_writes_tag_and_similarity_into_the_features() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from napari_sam_suite.engine.jobs import Job
    from napari_sam_suite.engine.run import run_frames

    finder = few_shot("fast")
    job: Job[Objects] = Job(lambda *_: Objects.empty(), "test")
    with ThreadPoolExecutor(1) as pool:
        objects = run_frames(
            ColourSam(), finder.examples.image, finder, job=job, pool=pool
        )
    assert set(objects.features["tag"]) == {"red"}
    assert {"similarity", "margin", "runner_up"} <= set(objects.features.columns)
    assert objects.source["capability"] == "few-shot"
    assert sorted(set(objects.features["time"])) == [0, 1]

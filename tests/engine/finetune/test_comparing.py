"""When a tuned model counts as better."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.finetune.tiny import Heard, masks_of, sample, tiny_model
from napari_sam_suite.engine.finetune import calibrate, comparing
from napari_sam_suite.engine.finetune.calibrate import find_thresholds, margin
from napari_sam_suite.engine.finetune.comparing import Comparison, compare, suit
from napari_sam_suite.engine.finetune.trainee import Trainee
from napari_sam_suite.engine.metrics import Scores
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.params import AutoParams

if TYPE_CHECKING:
    from typing import Literal

    from torch import Tensor

    from napari_sam_suite.engine.finetune.data import Sample
    from napari_sam_suite.engine.models.protocol import SamModel

NONE = masks_of((8, 8))


def judged_by(
    trainee: Trainee,
    start: dict[str, Tensor],
    held: list[Sample],
    learnt: list[Sample],
    tile: int | Literal["off"],
) -> Comparison:
    """What `compare` says, with nobody listening."""
    told = {"report": Heard().report, "stop": bool}
    return compare(trainee, start, held, learnt, tile, (0.5, 0.5), **told)


@pytest.mark.parametrize(
    ("base", "tuned", "better"),
    [
        (Scores(), Scores(), False),
        (Scores(2, 2, 0), Scores(2, 1, 0), False),
        (Scores(2, 1, 1), Scores(2, 1, 1), False),
        (Scores(2, 1, 1), Scores(2, 2, 2), True),
        (Scores(2, 0, 0), Scores(2, 2, 1), True),
    ],
)
def test_a_model_is_better_if_it_finds_more(
    base: Scores, tuned: Scores, *, better: bool
) -> None:
    found = Comparison(sample(), NONE, NONE, base, tuned, {})
    assert found.better is better


@pytest.mark.parametrize(
    ("held", "learnt", "better"),
    [
        (0.5, (0.2, 0.4), True),  # as good, and it learnt something
        (0.5, (0.4, 0.4), False),
        (0.5, (0.4, 0.43), False),  # too little to believe
        (0.5, (0.4, 0.44), True),
        (0.45, (0.2, 0.4), True),  # half of 0.2 is clearly more than 0.05
        (0.45, (0.3, 0.4), False),  # half of 0.1 is not
        (0.4, (0.0, 1.0), False),  # clearly worse on what it did not learn from
    ],
)
def test_frames_that_were_learnt_from_count_half(
    held: float, learnt: tuple[float, float], *, better: bool
) -> None:
    base, tuned, before, after = (
        Scores(100, 100, round(100 * f1)) for f1 in (0.5, held, *learnt)
    )
    found = Comparison(sample(), NONE, NONE, base, tuned, {}, learnt=(before, after))
    assert found.gain == pytest.approx(held - 0.5 + (learnt[1] - learnt[0]) / 2)
    assert found.better is better


def test_tiles_that_help_a_little_on_many_objects_are_believed() -> None:
    scores = Scores(1000, 1000, 500), Scores(1000, 1000, 518)
    assert Comparison(sample(), NONE, NONE, *scores, {}, share=0.0).better
    assert not Comparison(sample(), NONE, NONE, *scores, {}, share=0.5).better


def test_frames_that_were_learnt_from_are_segmented_as_those_that_choose_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("napari_sam_suite.engine.finetune.calibrate._POINTS", 3)
    chosen = OWN | {"pred_iou_thresh": 0.31}
    seen = []

    def scores(frames: object, params: AutoParams) -> Scores:
        seen.append(params.pred_iou_thresh)
        return Scores(10, 10, len(seen))

    monkeypatch.setattr(
        "napari_sam_suite.engine.finetune.comparing.find_thresholds",
        lambda *_: (chosen, Scores(10, 10, 5)),
    )
    monkeypatch.setattr(
        "napari_sam_suite.engine.finetune.comparing.auto_scores", scores
    )
    trainee = Trainee(tiny_model())
    found = judged_by(
        trainee, trainee.weights(), [sample(0)], [sample(1), sample(2)], 64
    )
    assert seen == [0.31] * 3  # the base, halfway, and as taught
    assert found.learnt == (Scores(10, 10, 1), Scores(10, 10, 3))
    assert found.better
    assert found.share == 1.0


def test_frames_held_out_say_which_weights_are_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that learnt the other frames by heart are not."""
    monkeypatch.setattr("napari_sam_suite.engine.finetune.calibrate._POINTS", 3)
    held = iter([0.75, 0.8, 0.72])  # base, halfway, as taught
    learnt = iter([0.75, 0.8, 0.98])

    def scores(f1: float) -> Scores:
        return Scores(100, 100, round(100 * f1))

    monkeypatch.setattr(
        comparing, "find_thresholds", lambda *_: (dict(OWN), scores(next(held)))
    )
    monkeypatch.setattr(comparing, "auto_scores", lambda *_: scores(next(learnt)))
    trainee = Trainee(tiny_model())
    found = judged_by(trainee, trainee.weights(), [sample(0)], [sample(1)], "off")
    assert found.share == 0.5
    assert found.tuned.f1 == 0.8


def test_the_base_may_use_a_grid_where_the_tuned_model_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainee = Trainee(load_model("sam2-nano", device="cpu"))
    f1 = {"base": {"guided": 0.62, "grid": 0.9}, "now": {"guided": 0.55, "grid": 0.88}}

    def judged(
        _: object, model: SamModel, search: str, *__: object
    ) -> comparing._Judged:
        reached = f1["base" if model is trainee.base else "now"][search]
        scores = Scores(100, 100, round(100 * reached))
        suits = {**OWN, "search": search}
        return comparing._Judged(NONE, scores, suits, AutoParams(**OWN))

    monkeypatch.setattr(comparing._Judge, "_found", judged)
    found = judged_by(trainee, trainee.weights(), [sample()], [], "off")
    assert found.base.f1 == 0.9
    assert not found.better


@pytest.mark.parametrize(
    ("f1", "searches"), [(0.7, ["guided"]), (0.3, ["guided", "grid"])]
)
def test_no_grid_is_tried_where_the_guide_knows_the_objects(
    monkeypatch: pytest.MonkeyPatch, f1: float, searches: list[str]
) -> None:
    monkeypatch.setattr("napari_sam_suite.engine.finetune.calibrate._POINTS", 3)
    tried = []

    def judged(
        _: object, params: AutoParams, __: float
    ) -> tuple[dict[str, float], Scores]:
        tried.append(params.search)
        return dict(OWN), Scores(10, 10, round(10 * f1))

    monkeypatch.setattr(
        "napari_sam_suite.engine.finetune.comparing.find_thresholds", judged
    )
    trainee = Trainee(load_model("sam2-nano", device="cpu"))
    found = judged_by(trainee, trainee.weights(), [sample()], [], "off")
    assert tried == searches * 3
    assert found.suits["search"] == "guided"


def test_an_untaught_model_is_no_better_than_itself_however_thresholds_are_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("napari_sam_suite.engine.finetune.calibrate._POINTS", 3)
    trainee = Trainee(tiny_model())
    found = judged_by(trainee, trainee.weights(), [sample()], [], 64)
    assert found.base == found.tuned
    assert not found.better
    assert found.share == 0.5  # of equals the one nearer to the base


OWN = {
    "pred_iou_thresh": 0.5,
    "stability_score_thresh": 0.5,
    "box_nms_thresh": 0.3,
}


@pytest.mark.parametrize(
    ("objects", "gained", "best"),
    [
        (100, 0.04, OWN),  # no more than chance may give
        (100, 0.06, OWN | {"stability_score_thresh": 0.75}),
        (10_000, 0.02, OWN | {"stability_score_thresh": 0.75}),
    ],
)
def test_thresholds_stay_unless_others_are_clearly_better(
    monkeypatch: pytest.MonkeyPatch, objects: int, gained: float, best: dict[str, float]
) -> None:
    def scores(_: object, params: AutoParams) -> Scores:
        steady = 0.6 <= float(params.stability_score_thresh or 0) <= 0.85
        found = round(objects * (0.7 + gained * steady))
        return Scores(objects, objects, found)

    monkeypatch.setattr(calibrate, "auto_scores", scores)
    found, reached = find_thresholds([], AutoParams(**OWN), 0.45)
    assert found == best  # in the middle of what is alike
    assert reached.matched == round(objects * (0.7 + gained * (best != OWN)))


def test_the_margin_is_the_standard_error_of_a_share() -> None:
    assert margin(Scores(100, 5, 5)) == pytest.approx(0.05)
    assert margin(Scores()) == 0.5


def test_the_better_of_taught_and_halfway_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("napari_sam_suite.engine.finetune.calibrate._POINTS", 3)
    trainee = Trainee(tiny_model())
    start = trainee.weights()
    taught = {name: value + 1 for name, value in start.items()}
    name = next(iter(start))
    wanted = taught

    def judged(*_: object) -> tuple[dict[str, float], Scores]:
        right = trainee.weights()[name].allclose(wanted[name])
        return OWN, Scores(10, 10, 9 if right else 3)

    monkeypatch.setattr(
        "napari_sam_suite.engine.finetune.comparing.find_thresholds", judged
    )
    for share in (1.0, 0.5):
        wanted = {n: start[n] * (1 - share) + taught[n] * share for n in start}
        trainee.load(taught)
        found = judged_by(trainee, start, [sample()], [], 64)
        assert found.share == share
        assert trainee.weights()[name].equal(wanted[name])


@pytest.mark.parametrize("own", [True, False])
def test_the_better_tiles_are_taken_the_models_own_or_those_that_suit(
    monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    monkeypatch.setattr("napari_sam_suite.engine.finetune.calibrate._POINTS", 3)
    trainee = Trainee(tiny_model())
    start = trainee.weights()
    trainee.load({name: value + 1 for name, value in start.items()})
    tile = trainee.spec.auto.tile
    small = round(tile * trainee.input_size / 2)

    def judged(
        _: object, params: AutoParams, __: float
    ) -> tuple[dict[str, float], Scores]:
        right = (params.tile == "auto") == own
        return dict(OWN), Scores(10, 10, 9 if right else 3)

    monkeypatch.setattr(
        "napari_sam_suite.engine.finetune.comparing.find_thresholds", judged
    )
    found = judged_by(trainee, start, [sample()], [], small)
    assert found.suits.get("tile") == (tile if own else None)


def suited(monkeypatch: pytest.MonkeyPatch, tile: int, found: int) -> Comparison | None:
    """What `suit` says where the base finds 5 of 20 objects, and `found` with tiles."""

    def scores(_: object, params: AutoParams) -> Scores:
        assert params.search == "auto"  # as whoever uses the model will search
        return Scores(20, 20, found if params.tile == tile else 5)

    monkeypatch.setattr("napari_sam_suite.engine.finetune.calibrate._POINTS", 3)
    monkeypatch.setattr(
        "napari_sam_suite.engine.finetune.comparing.auto_scores", scores
    )
    return suit(tiny_model(), [sample()], tile, report=Heard().report, stop=bool)


def test_tiles_alone_may_make_a_model_better(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = tiny_model().spec.auto.tile * tiny_model().input_size
    comparison = suited(monkeypatch, round(usual / 2), 15)
    assert comparison is not None
    assert comparison.better
    assert comparison.share == 0
    assert comparison.suits["pred_iou_thresh"] == tiny_model().spec.auto.pred_iou_thresh


@pytest.mark.parametrize(("part", "found"), [(0.5, 7), (0.9, 15)])
def test_tiles_stay_where_others_hardly_help_or_differ(
    monkeypatch: pytest.MonkeyPatch, part: float, found: int
) -> None:
    usual = tiny_model().spec.auto.tile * tiny_model().input_size
    assert suited(monkeypatch, round(usual * part), found) is None

"""Views side by side teach what they teach one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from engine.finetune.tiny import Heard, sample, tiny_model, tiny_sam1
from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.engine.filters import refilter
from napari_sam_suite.engine.finetune import calibrate, together
from napari_sam_suite.engine.finetune.lessons import Lessons
from napari_sam_suite.engine.finetune.loop import finetune
from napari_sam_suite.engine.finetune.optimiser import _TABLES
from napari_sam_suite.engine.finetune.params import FinetuneParams
from napari_sam_suite.engine.finetune.together import Teachers
from napari_sam_suite.engine.finetune.trainee import Trainee
from napari_sam_suite.engine.finetune.views import inference_views

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES = [sample(k) for k in range(3)]
PARAMS = FinetuneParams(
    epochs=2, views=6, prompts=4, variants=0, batch_size=3, calibrate=False
)
KINDS = pytest.mark.parametrize("train", ["decoder", "neck", "encoder"])


def lanes(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(together, "count_lanes", lambda *_, **__: count)


def teachers(trainee: Trainee, folder: Path) -> Teachers:
    views = inference_views(SAMPLES, trainee.spec, "off")
    report = Heard().report
    lessons = Lessons(trainee, SAMPLES, views, folder, report=report, stop=bool)
    return Teachers(trainee, PARAMS, lessons)


@KINDS
@pytest.mark.parametrize("make", [tiny_model, tiny_sam1])
def test_gradients_do_not_depend_on_the_lanes(
    make: Any, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for count in (1, 2, 3):
        lanes(monkeypatch, count)
        trainee = Trainee(make(), train=train)
        teacher = teachers(trainee, tmp_path)
        with teacher.ready():
            losses = [teacher.teach([0, 1, 2], [5, k]) for k in range(2)]
        gradients = {n: p.grad for n, p in trainee.parameters.items()}
        found.append((losses, gradients))
    (losses, gradients), *others = found
    assert any(g is not None and g.any() for g in gradients.values())
    for more, same in others:
        assert more == pytest.approx(losses, rel=1e-5)
        for name, gradient in gradients.items():
            if gradient is None:
                assert same[name] is None
            else:
                torch.testing.assert_close(same[name], gradient, rtol=1e-3, atol=1e-6)


@KINDS
def test_a_twin_knows_what_the_other_has_learnt(train: Any) -> None:
    trainee = Trainee(tiny_model(), train=train)
    twin = trainee.twin()
    assert twin.parameters.keys() == trainee.parameters.keys()
    other = {name: value + 1 for name, value in trainee.weights().items()}
    trainee.load(other)
    for name, parameter in twin.parameters.items():
        assert torch.equal(parameter, other[name])
        assert parameter is not trainee.parameters[name]


def test_two_runs_with_lanes_are_alike_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    lanes(monkeypatch, 3)
    results = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.safetensors"
        finetune(tiny_model(), SAMPLES, PARAMS.with_(train="encoder"), path, Heard())
        results.append(load_file(path))
    assert all(torch.equal(results[0][n], results[1][n]) for n in results[0])
    base = tiny_model().network.state_dict()
    assert any(not torch.equal(results[0][n], base[n]) for n in base)


def test_what_fails_in_a_lane_is_told_when_all_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes(monkeypatch, 2)
    trainee = Trainee(tiny_model())
    teacher = teachers(trainee, tmp_path)
    done = []
    answer = Trainee.answer

    def fails(self: Trainee, *given: Any) -> Any:
        if self is not trainee:
            raise ValueError("a lane broke")
        found = answer(self, *given)
        done.append(len(given[1]))
        return found

    monkeypatch.setattr(Trainee, "answer", fails)
    with teacher.ready(), pytest.raises(ValueError, match="a lane broke"):
        teacher.teach([0, 1, 2], [5])
    assert len(done) >= 2, "the other lane has taught its two views"


def test_judging_frames_side_by_side_finds_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for count in (1, 3):
        monkeypatch.setattr(calibrate, "count_lanes", lambda *_, n=count: n)
        found.append(drawn())
    one, other = found
    assert len(one) == len(other) == len(SAMPLES)
    for (first, truth), (second, same) in zip(one, other, strict=True):
        assert np.array_equal(truth, same)
        masks, again = (refilter(c, c.params) for c in (first, second))
        assert np.array_equal(masks.boxes, again.boxes)
        assert np.array_equal(masks.area, again.area)


def test_judging_frames_side_by_side_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibrate, "count_lanes", lambda *_: 2)
    with pytest.raises(Cancelled):
        drawn(lambda: True)


def drawn(stop: Any = lambda: False) -> calibrate.Frames:
    params = calibrate.auto_params("off", search="grid").with_(points_per_side=4)
    params = calibrate.lowest_thresholds(params.resolved(tiny_model().spec))
    return calibrate.draw_candidates(
        tiny_model(), SAMPLES, params, report=lambda *_: None, stop=stop
    )


def test_tables_of_positions_are_no_matrices_for_muon() -> None:
    names = [n for n, p in tiny_sam1().network.named_parameters() if p.ndim == 2]
    tables = [n for n in names if any(word in n for word in _TABLES)]
    assert [n for n in names if "rel_pos" in n or "embed" in n or "token" in n]
    assert all(n in tables for n in names if "rel_pos" in n)

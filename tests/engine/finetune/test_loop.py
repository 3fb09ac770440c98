"""Training: nothing is lost, nothing gets worse, and the encoder stays as it was."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from engine.finetune.tiny import Heard, masks_of, sample, square, tiny_model
from napari_sam_suite.engine.errors import Cancelled, OutputError, ParameterError
from napari_sam_suite.engine.finetune import epochs, loop, together
from napari_sam_suite.engine.finetune.data import Sample
from napari_sam_suite.engine.finetune.files import (
    read_state,
    run_folder,
    write_state,
)
from napari_sam_suite.engine.finetune.loop import finetune
from napari_sam_suite.engine.finetune.params import FinetuneParams
from napari_sam_suite.engine.finetune.progress import Progress
from napari_sam_suite.engine.finetune.scoring import Exam, Score
from napari_sam_suite.engine.finetune.teaching import Teacher
from napari_sam_suite.engine.finetune.trainee import Trainee
from napari_sam_suite.engine.metrics import Scores

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES = [sample(k) for k in range(3)]
QUICK = FinetuneParams(
    epochs=3, views=4, prompts=4, variants=1, calibrate=False, save_interval=2
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let validation give the scores of a script, the base model's first."""

    def write(*values: float) -> None:
        left = list(values)

        def score(self: Exam, trainee: Any, stop: Any) -> Score:
            value = left.pop(0)
            return Score(value, value, value)

        monkeypatch.setattr(Exam, "score", score)

    return write


def weights(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(path))


def test_only_the_decoder_and_the_prompt_encoder_learn(out: Path, script: Any) -> None:
    script(0.1, 0.2, 0.3, 0.4)
    model = tiny_model()
    before = {n: t.clone() for n, t in model.network.state_dict().items()}
    outcome = finetune(model, SAMPLES, QUICK, out, Heard())
    after = weights(out)
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert outcome.better
    assert changed
    assert all(
        n.startswith(("sam_mask_decoder", "sam_prompt_encoder")) for n in changed
    )
    assert not any("conv_s0" in n or "conv_s1" in n for n in changed)
    # The single answer, which boxes use, as well as the three of a click.
    mlps = {n.split(".")[2] for n in changed if "hypernetworks" in n}
    assert mlps == {"0", "1", "2", "3"}
    now = model.network.state_dict()
    assert all(torch.equal(before[n], now[n]) for n in before), "the base is its own"


def test_the_neck_learns_too_where_that_is_asked_for(out: Path, script: Any) -> None:
    script(0.1, 0.2, 0.3, 0.4)
    model, params = tiny_model(), QUICK.with_(train="neck")
    before = {n: t.clone() for n, t in model.network.state_dict().items()}
    looked = []
    look = model.look
    model.look = lambda images: looked.extend(images) or look(images)
    outcome = finetune(model, SAMPLES, params, out, Heard())
    after = weights(out)
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    encoder = {n for n in changed if n.startswith("image_encoder")}
    assert {".".join(n.split(".")[:4]) for n in encoder} == {
        f"image_encoder.neck.convs.{k}" for k in range(4)
    }
    assert {
        "sam_mask_decoder.conv_s0.weight",
        "sam_mask_decoder.conv_s1.bias",
    } < changed
    assert len(looked) == 2 * 2 + 1, "the trunk sees every view once"
    assert outcome.card["settings"]["train"] == "neck"
    now = model.network.state_dict()
    assert all(torch.equal(before[n], now[n]) for n in before), "the base is its own"


def test_all_of_the_encoder_learns_where_that_is_asked_for(
    out: Path, script: Any
) -> None:
    script(0.1, 0.2, 0.3, 0.4)
    model, params = tiny_model(), QUICK.with_(train="encoder")
    before = {n: t.clone() for n, t in model.network.state_dict().items()}
    finetune(model, SAMPLES, params, out, Heard())
    after = weights(out)
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    layers = {n for n, _ in model.network.image_encoder.named_parameters()}
    assert {f"image_encoder.{n}" for n in layers} <= changed
    assert not (out.parent / "a.training" / "embeddings").exists()
    now = model.network.state_dict()
    assert all(torch.equal(before[n], now[n]) for n in before), "the base is its own"


@pytest.mark.parametrize("train", ["neck", "encoder"])
def test_what_is_learnt_by_the_encoder_is_what_the_written_model_sees(
    out: Path, script: Any, train: Any
) -> None:
    script(0.1, 0.2, 0.3, 0.4)
    finetune(tiny_model(), SAMPLES, QUICK.with_(train=train), out, Heard())
    written = tiny_model()
    written.network.load_state_dict(weights(out))
    trainee = Trainee(tiny_model(), train=train)
    best = weights(out)
    trainee.load({name: best[name] for name in trainee.parameters})
    rgb = SAMPLES[0].rgb
    first = written.encode([rgb])[0].features
    with torch.no_grad():
        second = trainee.embed(trainee.look(rgb)).features
    base = tiny_model().encode([rgb])[0].features
    for name, value in first.items():
        assert torch.equal(value, second[name])
        assert not torch.equal(value, base[name])


def test_each_view_is_encoded_once_however_many_epochs_there_are(
    out: Path, script: Any
) -> None:
    script(0.1, 0.2, 0.3, 0.4)
    model = tiny_model()
    finetune(model, SAMPLES, QUICK, out, Heard())
    # Two frames as they are and once varied, and one for validation.
    assert len(model.seen) == 2 * 2 + 1


def test_training_stops_when_patience_ends_and_keeps_the_best(
    out: Path, script: Any
) -> None:
    script(0.1, 0.3, 0.4, 0.35, 0.36, 0.9)
    heard = Heard()
    params = QUICK.with_(epochs=50, patience=2, save_interval=1)
    outcome = finetune(tiny_model(), SAMPLES, params, out, heard)
    assert (outcome.epochs, outcome.best_epoch) == (4, 2)
    assert "2 epochs" in outcome.ended
    assert [e.best for e in heard.epochs] == [False, True, True, False, False]
    kept = {p.name for p in run_folder(out).glob("epoch_*.safetensors")}
    assert kept == {f"epoch_000{k}.safetensors" for k in (1, 2, 3, 4)}
    best, last = weights(out), weights(run_folder(out) / "epoch_0004.safetensors")
    second = weights(run_folder(out) / "epoch_0002.safetensors")
    assert all(torch.equal(best[n], second[n]) for n in best)
    assert not all(torch.equal(best[n], last[n]) for n in best)
    state = read_state(run_folder(out) / "last.safetensors")
    assert state is not None and state[1]["done"]
    assert all(
        torch.equal(t, last[n.removeprefix("now/")])
        for n, t in state[0].items()
        if n.startswith("now/")
    )


def test_a_model_that_does_not_become_better_is_the_one_it_began_with(
    out: Path, script: Any
) -> None:
    script(0.5, 0.4, 0.5, 0.3)
    model, heard = tiny_model(), Heard()
    outcome = finetune(model, SAMPLES, QUICK, out, heard)
    base, written = model.network.state_dict(), weights(out)
    assert not outcome.better
    assert not outcome.card["better_than_base"]
    assert "did not become better" in outcome.summary()
    assert not heard.notices, "it is said once"
    assert all(torch.equal(base[n], written[n]) for n in base)
    auto = model.spec.auto
    assert outcome.card["recommended"]["pred_iou_thresh"] == auto.pred_iou_thresh


@pytest.mark.parametrize(
    ("train", "lanes"), [("decoder", 1), ("neck", 1), ("decoder", 2), ("encoder", 2)]
)
def test_a_killed_training_goes_on_to_the_same_result(
    out: Path, tmp_path: Path, train: str, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "count_lanes", lambda *_, **__: lanes)
    whole = tmp_path / "whole.safetensors"
    params = QUICK.with_(batch_size=2, train=train)
    unbroken = Heard()
    finetune(tiny_model(), SAMPLES, params, whole, unbroken)

    class Killed(Exception):
        pass

    def kill(heard: Heard) -> bool:
        # In the middle of the second epoch, without a chance to tidy up.
        if len(heard.epochs) == 2 and heard.texts[-1] == "Epoch 2 of 3":
            raise Killed
        return False

    with pytest.raises(Killed):
        finetune(tiny_model(), SAMPLES, params, out, Heard(kill))
    assert not out.exists()
    heard = Heard()
    finetune(tiny_model(), SAMPLES, params, out, heard)
    assert "Going on after epoch 1" in heard.notices[0]
    assert "Epoch 1 of 3" not in heard.texts
    told = [[(e.number, e.score, e.best) for e in h.epochs] for h in (unbroken, heard)]
    assert told[0] == told[1], "the plot is whole"
    one, two = weights(whole), weights(out)
    assert all(torch.equal(one[n], two[n]) for n in one)
    last = [read_state(run_folder(p) / "last.safetensors") for p in (whole, out)]
    assert last[0] is not None and last[1] is not None
    assert all(torch.equal(last[0][0][n], last[1][0][n]) for n in last[0][0])
    assert last[0][1]["history"] == last[1][1]["history"]


@pytest.mark.parametrize("old", [False, True])
def test_another_training_does_not_go_on_where_this_one_was(
    out: Path, script: Any, old: bool
) -> None:
    script(0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.4)
    first = Heard(lambda heard: len(heard.epochs) == 3)
    with pytest.raises(Cancelled):
        finetune(tiny_model(), SAMPLES, QUICK, out, first)
    out.unlink()  # a training that is killed leaves none
    state = run_folder(out) / "last.safetensors"
    if old:
        tensors, told = read_state(state) or ({}, {})
        told = {k: v for k, v in told.items() if k not in ("settings", "data", "base")}
        write_state(state, tensors, told)
    before = state.read_bytes()
    other = QUICK.with_(seed=5, epochs=4)
    what = "other data or settings" if old else "epochs 3 instead of 4"
    with pytest.raises(OutputError, match=f"unfinished training with {what}") as caught:
        finetune(tiny_model(), SAMPLES, other, out, Heard())
    assert old or "seed 0 instead of 5, at epoch 2." in str(caught.value)
    with pytest.raises(OutputError, match="other data"):
        finetune(tiny_model(), SAMPLES[:2], QUICK, out, Heard())
    assert state.read_bytes() == before
    heard = Heard()
    other = QUICK.with_(seed=5)
    finetune(tiny_model(), SAMPLES, other, out, heard, overwrite=True)
    assert [e.number for e in heard.epochs] == [0, 1, 2, 3]


def test_a_training_that_had_brought_nothing_makes_room_for_another(
    out: Path, script: Any
) -> None:
    script(0.5, 0.2, 0.3, 0.1, 0.2)
    stopped = Heard(lambda heard: len(heard.epochs) == 3)
    with pytest.raises(Cancelled):
        finetune(tiny_model(), SAMPLES, QUICK, out, stopped)
    assert (run_folder(out) / "last.safetensors").exists()
    other = QUICK.with_(learning_rate=1e-5, epochs=1)
    assert finetune(tiny_model(), SAMPLES, other, out, Heard()).better


def test_a_finished_training_is_told_of_again_and_not_begun_anew(
    out: Path, script: Any
) -> None:
    script(*(0.1, 0.2, 0.9, 0.3) * 2)
    first = finetune(tiny_model(), SAMPLES, QUICK, out, Heard())
    folder = run_folder(out)
    files = [out, out.with_suffix(".json"), folder / "last.safetensors"]
    before = [path.read_bytes() for path in files]
    model = tiny_model()
    heard = Heard(lambda heard: len(heard.epochs) == 2)
    again = finetune(model, SAMPLES, QUICK, out, heard)
    assert [path.read_bytes() for path in files] == before
    assert not model.__dict__.get("seen")
    (notice,) = heard.notices
    assert "finished already" in notice and f"Delete {out}" in notice
    assert [e.number for e in heard.epochs] == [0, 1, 2, 3], "the plot is whole"
    assert again.better
    assert (again.epochs, again.best_epoch, again.ended) == (3, 2, first.ended)
    assert again.summary() == first.summary() == "Better: score 0.10 before, 0.90 now."
    assert again.card["run"] == first.card["run"]
    out.unlink()
    heard = Heard()
    finetune(tiny_model(), SAMPLES, QUICK, out, heard)
    assert [e.number for e in heard.epochs] == [0, 1, 2, 3]
    assert not heard.notices


def test_what_automatic_masks_gained_is_told_again_too(
    out: Path, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(0.1, 0.4)
    scores = [Scores(truth=4, predicted=4, matched=n) for n in (0, 1, 2, 3)]
    gain = SimpleNamespace(
        better=True, base=scores[0], tuned=scores[3], share=1.0, suits={}, learnt=None
    )
    gain.learnt = scores[1], scores[2]
    monkeypatch.setattr(loop, "compare", lambda *_, **__: gain)
    params = QUICK.with_(calibrate=True, epochs=1)
    first, again = (
        finetune(tiny_model(), SAMPLES, params, out, Heard()) for _ in range(2)
    )
    assert again.comparison is None
    assert again.summary() == first.summary()
    assert "frames 0.00 before, 0.75 now; on frames it learnt from 0.25 and 0.50" in (
        first.summary()
    )


@pytest.mark.parametrize("second", [0.2, 0.9])
def test_a_stopped_training_replaces_no_better_model_of_its_own(
    out: Path, script: Any, second: float
) -> None:
    script(0.1, 0.2, 0.9, 0.3, 0.1, second)
    finetune(tiny_model(), SAMPLES, QUICK, out, Heard())
    (run_folder(out) / "last.safetensors").unlink()
    files = [out, out.with_suffix(".json")]
    before = [path.read_bytes() for path in files]
    heard = Heard(lambda heard: len(heard.epochs) == 2)
    with pytest.raises(Cancelled):
        finetune(tiny_model(), SAMPLES, QUICK, out, heard)
    assert [path.read_bytes() for path in files] == before
    assert heard.notices == [f"The best model so far is {out}."]


def test_a_cancelled_training_leaves_the_best_so_far(out: Path, script: Any) -> None:
    script(0.1, 0.4, 0.3)
    heard = Heard(lambda heard: len(heard.epochs) == 3)
    with pytest.raises(Cancelled):
        finetune(tiny_model(), SAMPLES, QUICK, out, heard)
    state = read_state(run_folder(out) / "last.safetensors")
    assert state is not None and state[1]["best_epoch"] == 1
    written = weights(out)
    best = {n.removeprefix("best/"): t for n, t in state[0].items() if "best/" in n}
    assert all(torch.equal(t, written[n]) for n, t in best.items())


def test_a_cancelled_look_for_tiles_does_not_make_a_worse_model_the_better_one(
    out: Path, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(0.1, 0.4, 0.3, 0.2)
    worse = SimpleNamespace(better=False, base=Scores(), tuned=Scores(), share=1.0)
    monkeypatch.setattr(loop, "compare", lambda *_, **__: worse)
    monkeypatch.setattr(loop, "suit", Mock(side_effect=Cancelled))
    model = tiny_model()
    params = QUICK.with_(calibrate=True)
    outcome = finetune(model, SAMPLES, params, out, Heard())
    base, written = model.network.state_dict(), weights(out)
    assert not outcome.better
    assert outcome.best_epoch == 1
    assert all(torch.equal(base[n], written[n]) for n in base)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_steps_without_a_finite_loss_change_nothing_and_end_the_training(
    out: Path, script: Any, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    script(0.5, 0.6, 0.7, 0.8)
    monkeypatch.setattr(epochs, "_UNSTABLE", 2)
    monkeypatch.setattr(Teacher, "teach", lambda *_: wrong)
    model, heard = tiny_model(), Heard()
    params = QUICK.with_(batch_size=1)
    outcome = finetune(model, SAMPLES, params, out, heard)
    assert outcome.epochs == 1
    assert "unstable" in " ".join(heard.notices)
    base, written = model.network.state_dict(), weights(out)
    assert all(torch.equal(base[n], written[n]) for n in base)


def test_an_epoch_without_any_finite_loss_ends_the_training(
    out: Path, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(0.5, 0.6, 0.7, 0.8)
    monkeypatch.setattr(Teacher, "teach", lambda *_: math.nan)
    heard = Heard()
    outcome = finetune(tiny_model(), SAMPLES, QUICK, out, heard)
    assert outcome.epochs == 1, "fewer steps than are waited for within an epoch"
    assert "unstable" in " ".join(heard.notices)


def test_gradients_that_are_no_numbers_are_not_taken(
    out: Path, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(0.1, 0.2)
    teach = Teacher.teach

    def spoilt(self: Any, *args: Any) -> float:
        loss = teach(self, *args)
        if not spoilt.__dict__.get("done"):
            next(iter(self.trainee.parameters.values())).grad.fill_(math.nan)
            spoilt.__dict__["done"] = True
        return loss

    monkeypatch.setattr(Teacher, "teach", spoilt)
    params = QUICK.with_(epochs=1, batch_size=2)
    outcome = finetune(tiny_model(), SAMPLES, params, out, Heard())
    assert outcome.better, "the other steps count"
    assert all(t.isfinite().all() for t in weights(out).values())


def test_when_memory_runs_out_fewer_prompts_are_asked_at_once(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    answer = Trainee.answer

    def tight(self: Any, embedding: Any, prompts: Any) -> Any:
        if torch.is_grad_enabled():
            asked.append(len(prompts))
            if len(prompts) > 2:
                raise torch.OutOfMemoryError("the device is full")
        return answer(self, embedding, prompts)

    monkeypatch.setattr(Trainee, "answer", tight)
    finetune(tiny_model(), SAMPLES, QUICK.with_(epochs=1), out, Heard())
    assert asked[0] == 4
    assert max(asked[1:]) == 2


@pytest.mark.parametrize("train", ["decoder", "neck", "encoder"])
def test_gradients_do_not_depend_on_how_many_prompts_are_asked_at_once(
    tmp_path: Path, train: Any
) -> None:
    from napari_sam_suite.engine.finetune.lessons import Lessons
    from napari_sam_suite.engine.finetune.views import inference_views

    trainee, heard = Trainee(tiny_model(), train=train), Heard()
    views = inference_views(SAMPLES[:1], trainee.spec, "auto")
    lesson = Lessons(
        trainee, SAMPLES[:1], views, tmp_path, report=heard.report, stop=bool
    )[0]
    found = []
    for most in (100, 3):
        for parameter in trainee.parameters.values():
            parameter.grad = None
        teacher = Teacher(trainee, QUICK.with_(prompts=8), most)
        loss = teacher.teach(lesson, np.random.default_rng(3), 1.0)
        gradients = {
            name: parameter.grad.clone()
            for name, parameter in trainee.parameters.items()
            if parameter.grad is not None
        }
        found.append((loss, gradients))
    (one, first), (two, second) = found
    assert one == pytest.approx(two, rel=1e-5)
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        torch.testing.assert_close(second[name], gradient, rtol=1e-3, atol=1e-6)


def test_a_full_disk_stops_no_training_but_is_told(
    out: Path, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(0.1, 0.2, 0.3, 0.4)

    def full(*_: object) -> None:
        raise OutputError("There is no room left.")

    monkeypatch.setattr(loop, "write_state", full)
    heard = Heard()
    outcome = finetune(tiny_model(), SAMPLES, QUICK, out, heard)
    assert outcome.better
    assert "No checkpoint of epoch 1: There is no room left." in heard.notices
    assert out.is_file()


def test_a_disk_that_is_full_in_the_end_costs_no_epoch(
    out: Path, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(0.1, 0.2, 0.3, 0.4)

    def full(*_: object) -> None:
        raise OutputError("There is no room left.")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_model", full)
        with pytest.raises(OutputError, match="no room"):
            finetune(tiny_model(), SAMPLES, QUICK, out, Heard())
    assert not out.exists()
    heard = Heard()
    outcome = finetune(tiny_model(), SAMPLES, QUICK, out, heard)
    assert not any("Epoch" in text for text in heard.texts), "nothing is learnt again"
    assert outcome.better and outcome.best_epoch == 3
    assert out.is_file()


@pytest.mark.parametrize("loss", ["instances", "seed"])
def test_the_loss_falls(out: Path, loss: str) -> None:
    heard = Heard()
    params = FinetuneParams(
        loss=loss,
        learning_rate=3e-3,
        epochs=8,
        views=8,
        batch_size=1,
        prompts=4,
        variants=0,
        validation=0,
        calibrate=False,
    )
    finetune(tiny_model(), SAMPLES[:1], params, out, heard)
    losses = [e.loss for e in heard.epochs[1:]]
    assert losses[-1] < 0.85 * losses[0]


def test_it_trains_in_bfloat16(out: Path) -> None:
    heard = Heard()
    model = tiny_model(torch.bfloat16)
    finetune(model, SAMPLES, QUICK.with_(epochs=1), out, heard)
    assert math.isfinite(heard.epochs[-1].loss)
    assert all(t.dtype == torch.float32 for t in weights(out).values())


ODD = (40, 70)
GREY = np.random.default_rng(0).integers(0, 255, (*ODD, 3)).astype(np.uint8)
WHOLE = Sample("whole", GREY, masks_of(ODD, np.ones(ODD, bool)))
ONE = Sample("one", GREY, masks_of(ODD, square(ODD, 3, 5, 4)))
EMPTY = Sample("empty", GREY, masks_of(ODD))


@pytest.mark.parametrize("loss", ["instances", "seed"])
@pytest.mark.parametrize(
    "odd",
    [[WHOLE, ONE, EMPTY, SAMPLES[0]], [ONE, EMPTY], [ONE], [WHOLE]],
    ids=["mixed", "one and none", "one object", "whole frame"],
)
def test_odd_frames_are_learnt_from_without_a_complaint(
    out: Path, odd: list[Sample], loss: str
) -> None:
    heard = Heard()
    params = QUICK.with_(epochs=1, views=2, loss=loss)
    outcome = finetune(tiny_model(), odd, params, out, heard)
    assert math.isfinite(heard.epochs[-1].loss)
    assert math.isfinite(outcome.best.value)


def test_one_frame_alone_is_told_to_be_judged_by_itself(out: Path, script: Any) -> None:
    script(0.1, 0.2)
    heard = Heard()
    finetune(tiny_model(), SAMPLES[:1], QUICK.with_(epochs=1), out, heard)
    assert "nothing to validate on" in " ".join(heard.notices)


def test_what_cannot_be_trained_is_said_before_anything_is_loaded(
    tmp_path: Path,
) -> None:
    for none in ([], [EMPTY, EMPTY]):
        with pytest.raises(ParameterError, match="no frame with objects"):
            finetune(tiny_model(), none, QUICK, tmp_path / "a.safetensors", Heard())
    with pytest.raises(OutputError, match="safetensors"):
        finetune(tiny_model(), SAMPLES, QUICK, tmp_path / "a.pt", Heard())


def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_encoded(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    model = tiny_model()
    with pytest.raises(OutputError, match="in the way"):
        finetune(model, SAMPLES, QUICK, tmp_path / "file" / "a.safetensors", Heard())
    assert not model.__dict__.get("seen")


def test_a_model_of_other_data_is_only_overwritten_where_that_is_wanted(
    out: Path, script: Any
) -> None:
    script(0.1, 0.4, 0.1, 0.4)
    once = QUICK.with_(epochs=1)
    finetune(tiny_model(), SAMPLES, once, out, Heard())
    good, model = weights(out), tiny_model()
    with pytest.raises(OutputError, match="other data or settings"):
        finetune(model, SAMPLES[:2], once, out, Heard())
    assert not model.__dict__.get("seen")
    assert all(torch.equal(t, weights(out)[n]) for n, t in good.items())
    finetune(tiny_model(), SAMPLES, once, out, Heard())  # of the same run
    finetune(tiny_model(), SAMPLES[:2], once, out, Heard(), overwrite=True)
    assert not all(torch.equal(t, weights(out)[n]) for n, t in good.items())


def test_neither_the_base_model_nor_a_foreign_file_is_overwritten(out: Path) -> None:
    model = tiny_model()
    model.spec = replace(model.spec, file=out)
    with pytest.raises(OutputError, match="the one it begins with"):
        finetune(model, SAMPLES, QUICK, out, Heard())
    notes = out.with_suffix(".json")
    notes.write_text('{"my": "notes"}')
    with pytest.raises(OutputError, match=r"overwrite .*model\.json"):
        finetune(tiny_model(), SAMPLES, QUICK, out, Heard())
    assert notes.read_text() == '{"my": "notes"}'


def test_the_first_of_equal_scores_is_the_best() -> None:
    progress = Progress()
    values = [0.2, 0.5, 0.5, 0.4]
    best = [progress.add(1.0, Score(v, v, v)) for v in values]
    assert best == [False, True, False, False]
    assert Progress.of(progress.as_dict()).best_epoch == 1

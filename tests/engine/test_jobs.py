from __future__ import annotations

import subprocess
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engine.fakes import FakeSam, scene
from napari_sam_suite.engine.auto import Automatic
from napari_sam_suite.engine.errors import (
    Cancelled,
    EngineError,
    ModelError,
    OutOfMemory,
)
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import ImageSource, open_image
from napari_sam_suite.engine.jobs import Engine, Job, JobState, Progress
from napari_sam_suite.engine.models import load
from napari_sam_suite.engine.params import AutoParams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.run import FrameResult

FEW = AutoParams(points_per_side=4)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeSam:
    fake = FakeSam()
    monkeypatch.setattr(load, "load_model", lambda spec, **options: fake)
    return fake


@pytest.fixture
def engine(model: FakeSam) -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


def stack(count: int) -> ImageSource:
    frames = [scene((32, 32), (4, 4, 20, 10 + i)) for i in range(count)]
    return open_image(np.array(frames), axes="TYXS", name="stack")


class Gate:
    """A task that says when it runs, and runs until it is let go or stopped."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()

    def __call__(self, model: SamModel, job: Job[str]) -> str:
        self.entered.set()
        while not self.leave.wait(0.005):
            if job.stopping():
                raise Cancelled
        return "done"


def test_a_job_gives_its_tasks_value(engine: Engine, model: FakeSam) -> None:
    job = engine.submit(lambda got, job: (got.spec, 42), "answer")
    assert job.result(10) == (model.spec, 42)
    assert job.state is JobState.DONE


def test_jobs_run_one_after_the_other_in_the_order_they_came(engine: Engine) -> None:
    ran: list[int] = []
    running = threading.Semaphore(1)

    def task(number: int) -> Any:
        def run(model: SamModel, job: Job[int]) -> int:
            assert running.acquire(blocking=False)
            time.sleep(0.001)
            ran.append(number)
            running.release()
            return number

        return run

    jobs = [engine.submit(task(i), f"job {i}") for i in range(50)]
    assert [job.result(10) for job in jobs] == ran == list(range(50))


def test_every_job_runs_on_the_one_thread_of_the_engine(engine: Engine) -> None:
    names = {
        engine.submit(lambda m, j: threading.current_thread().name, "x").result(10)
        for _ in range(5)
    }
    assert names == {"sam-engine"}


def test_the_model_is_loaded_once_and_only_when_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[str] = []

    def load_fake(spec: Any, **options: Any) -> FakeSam:
        loaded.append(threading.current_thread().name)
        return FakeSam()

    monkeypatch.setattr(load, "load_model", load_fake)
    with Engine() as engine:
        assert loaded == []
        for _ in range(3):
            engine.segment(stack(1), FEW)
    assert loaded == ["sam-engine"]


def test_progress_never_falls_and_ends_at_the_total_once(engine: Engine) -> None:
    seen: list[Progress] = []
    job = engine.start_segment(stack(3), FEW)
    job.progressed.connect(seen.append)
    job.result(20)
    shares = [p.done / p.total for p in seen]
    assert shares == sorted(shares)
    assert shares[0] >= 0 and shares[-1] == 1
    assert shares.count(1) == 1
    assert all(p.text for p in seen)
    assert job.progress == seen[-1]


def test_every_finished_frame_is_handed_out_in_order(engine: Engine) -> None:
    found: list[FrameResult] = []
    job = engine.start_segment(stack(4), FEW)
    job.found.connect(found.append)
    objects = job.result(20)
    assert [part.frame.time for part in job.parts] == [0, 1, 2, 3]
    assert sum(len(part.objects) for part in job.parts) == len(objects) == 4
    assert found == job.parts[-len(found) :]


# Stopping


def test_a_cancel_takes_effect_within_one_batch_and_keeps_finished_frames(
    engine: Engine, model: FakeSam
) -> None:
    model.delay, model.batch = 0.02, 4
    job = engine.start_segment(stack(50), FEW)
    while len(job.parts) < 2:
        assert not job.wait(0.005)
    before = len(model.decoded)
    job.cancel()
    with pytest.raises(Cancelled):
        job.result(10)
    assert job.state is JobState.CANCELLED
    assert len(model.decoded) - before <= 2
    assert 2 <= len(job.parts) < 50
    assert all(len(part.objects) == 1 for part in job.parts)


def test_a_cancelled_job_that_waited_never_runs(engine: Engine) -> None:
    gate, ran = Gate(), []
    first = engine.submit(gate, "first")
    second = engine.submit(lambda m, j: ran.append(1), "second")
    second.cancel()
    gate.leave.set()
    assert first.result(10) == "done"
    with pytest.raises(Cancelled):
        second.result(10)
    assert not ran


def test_a_job_that_waits_ends_as_soon_as_it_is_cancelled(engine: Engine) -> None:
    gate, ends = Gate(), []
    first = engine.submit(gate, "first")
    assert gate.entered.wait(10)
    second = engine.submit(lambda m, j: 1, "second")
    second.finished.connect(lambda: ends.append(second.state))
    second.cancel()
    assert ends == [JobState.CANCELLED]
    with pytest.raises(Cancelled):
        second.result(0)
    assert first.state is JobState.RUNNING
    gate.leave.set()
    assert first.result(10) == "done"
    assert engine.submit(lambda m, j: 1, "next").result(10) == 1
    assert len(ends) == 1


def test_any_capability_can_be_started(engine: Engine) -> None:
    finder = Automatic(FEW)
    second = FrameIndex(time=1)
    job = engine.start(finder, stack(3), frames=second, run="second")
    objects = job.result(20)
    assert objects.features["time"].tolist() == [1]
    assert objects.features["run"].tolist() == ["second"]


def test_an_engine_names_the_device_it_was_given_and_then_the_one_it_uses(
    engine: Engine,
) -> None:
    assert engine.device == "auto"
    engine.segment(stack(1), FEW)
    assert engine.device == "cpu"


def test_a_cancel_after_the_end_changes_nothing(engine: Engine) -> None:
    job = engine.submit(lambda m, j: 1, "quick")
    job.result(10)
    job.cancel()
    assert (job.result(), job.state) == (1, JobState.DONE)


def test_waiting_too_short_is_a_timeout_and_the_job_goes_on(engine: Engine) -> None:
    gate = Gate()
    job = engine.submit(gate, "slow")
    with pytest.raises(TimeoutError, match="slow"):
        job.result(0.01)
    gate.leave.set()
    assert job.result(10) == "done"


def test_ctrl_c_stops_the_job_before_it_goes_on(
    engine: Engine, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.delay = 0.01
    jobs: list[Job[Any]] = []
    start = engine.start_segment

    def interrupted(timeout: float | None = None) -> Any:
        while not jobs[0].parts:
            time.sleep(0.005)
        raise KeyboardInterrupt

    def start_and_press(*args: Any, **kwargs: Any) -> Job[Any]:
        jobs.append(start(*args, **kwargs))
        monkeypatch.setattr(jobs[0], "result", interrupted)
        return jobs[0]

    monkeypatch.setattr(engine, "start_segment", start_and_press)
    with pytest.raises(KeyboardInterrupt):
        engine.segment(stack(100), FEW)
    assert jobs[0].state is JobState.CANCELLED
    assert 1 <= len(jobs[0].parts) < 100


# What goes wrong


def test_an_error_reaches_the_one_who_waits_and_the_next_job_runs(
    engine: Engine, model: FakeSam
) -> None:
    model.failure = EngineError("The fake broke.", "Mend it.")
    job = engine.start_segment(stack(2), FEW)
    with pytest.raises(EngineError, match=r"The fake broke\. Mend it\."):
        job.result(10)
    assert job.state is JobState.FAILED
    model.failure = None
    assert len(engine.segment(stack(2), FEW)) == 2


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_a_task_raises_ends_the_engine(
    engine: Engine, kind: type[BaseException]
) -> None:
    def broken(model: SamModel, job: Job[None]) -> None:
        raise kind("oops")

    job = engine.submit(broken, "broken")
    assert job.wait(10)
    assert job.state is JobState.FAILED
    with pytest.raises(kind, match="oops"):
        job.result()
    assert engine.submit(lambda m, j: 1, "next").result(10) == 1


def test_an_image_that_memory_does_not_hold_is_one_sentence(engine: Engine) -> None:
    def greedy(model: SamModel, job: Job[Any]) -> Any:
        return np.empty((2**30, 2**30), np.uint8)

    with pytest.raises(OutOfMemory, match="too little memory for this image"):
        engine.submit(greedy, "greedy").result(10)


def test_frames_before_a_failure_are_kept(engine: Engine, model: FakeSam) -> None:
    job = engine.start_segment(stack(20), FEW)
    job.found.connect(lambda part: setattr(model, "failure", RuntimeError("broke")))
    with pytest.raises(RuntimeError, match="broke"):
        job.result(20)
    assert 1 <= len(job.parts) < 20


@pytest.mark.parametrize("signal", ["progressed", "found", "finished"])
def test_a_listeners_mistake_harms_neither_the_job_nor_the_next(
    engine: Engine, signal: str
) -> None:
    gate = Gate()
    engine.submit(gate, "first")
    job = engine.start_segment(stack(2), FEW)

    def broken(*news: object) -> None:
        raise ValueError("a listener's mistake")

    getattr(job, signal).connect(broken)
    gate.leave.set()
    assert len(job.result(20)) == 2
    assert engine.submit(lambda m, j: 1, "next").result(10) == 1


def test_a_model_that_cannot_be_loaded_fails_the_job_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [ModelError("Not yet.", "Try again."), FakeSam()]

    def load_fake(spec: Any, **options: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(load, "load_model", load_fake)
    with Engine() as engine:
        with pytest.raises(ModelError, match="Not yet"):
            engine.segment(stack(1), FEW)
        assert len(engine.segment(stack(1), FEW)) == 1


def test_an_unknown_model_is_refused_at_once() -> None:
    with pytest.raises(ModelError, match="sam3"):
        Engine("sam3")


def test_notices_are_kept_for_those_who_come_late(engine: Engine) -> None:
    job = engine.submit(lambda m, j: j.notice("Mind the gap."), "x")
    job.result(10)
    assert job.notices == ["Mind the gap."]


def test_the_end_is_told_once_however_it_comes(engine: Engine) -> None:
    gate, ends = Gate(), []
    jobs = [engine.submit(gate, "ends"), engine.submit(gate, "stopped")]
    for job in jobs:
        job.finished.connect(lambda job=job: ends.append(job.state))
    gate.leave.set()
    jobs[0].result(10)
    jobs[1].cancel()
    jobs[1].wait(10)
    engine.close()
    assert len(ends) == 2


# Closing


def test_closing_stops_what_runs_and_drops_what_waits(model: FakeSam) -> None:
    engine, gate = Engine(), Gate()
    jobs = [engine.submit(gate, f"job {i}") for i in range(5)]
    assert gate.entered.wait(10)
    engine.close()
    for job in jobs:
        with pytest.raises(Cancelled):
            job.result(1)
    assert not engine._thread.is_alive()


def test_closing_before_a_job_began_never_leaves_it_waiting(model: FakeSam) -> None:
    for _ in range(50):
        engine, gate = Engine(), Gate()
        job = engine.submit(gate, "job")
        engine.close(timeout=5)
        assert job.wait(1)
        assert job.state is JobState.CANCELLED


def test_a_closed_engine_takes_no_jobs(engine: Engine) -> None:
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.submit(lambda m, j: 1, "late")
    engine.close()


def test_a_job_submitted_while_closing_runs_or_is_refused(model: FakeSam) -> None:
    for _ in range(30):
        engine = Engine()
        jobs: list[Job[int]] = []

        def submit(engine: Engine = engine, jobs: list[Job[int]] = jobs) -> None:
            try:
                while True:
                    jobs.append(engine.submit(lambda m, j: 1, "job"))
            except EngineError:
                pass

        thread = threading.Thread(target=submit)
        thread.start()
        engine.close()
        thread.join(10)
        assert all(job.wait(2) for job in jobs)


def test_whoever_hears_of_an_end_may_submit_more(engine: Engine) -> None:
    gate = Gate()
    running = engine.submit(gate, "running")
    spare = engine.submit(lambda m, j: 1, "spare", background=True)
    more: list[Job[int]] = []
    spare.finished.connect(lambda: more.append(engine.submit(lambda m, j: 2, "more")))
    thread = threading.Thread(
        target=engine.submit, args=(lambda m, j: 3, "wanted"), daemon=True
    )
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    gate.leave.set()
    assert running.wait(10)
    assert [job.result(10) for job in more] == [2]


def test_whoever_hears_of_an_end_may_find_the_engine_closed(model: FakeSam) -> None:
    engine, gate = Engine(), Gate()
    engine.submit(gate, "running")
    assert gate.entered.wait(10)
    waiting = engine.submit(lambda m, j: 1, "waiting")
    refused: list[str] = []

    def ask_for_more() -> None:
        try:
            engine.submit(lambda m, j: 2, "more")
        except EngineError as error:
            refused.append(error.message)

    waiting.finished.connect(ask_for_more)
    engine.close(timeout=10)
    assert not engine._thread.is_alive()
    assert refused == ["This engine is closed."]


def test_an_idle_engine_does_not_hold_on_to_what_it_found(engine: Engine) -> None:
    job = engine.submit(lambda m, j: 1, "job")
    assert job.result(10) == 1
    gone = weakref.ref(job)
    del job
    end = time.monotonic() + 10
    while gone() is not None and time.monotonic() < end:
        time.sleep(0.01)
    assert gone() is None


def test_a_listener_may_close_the_engine(model: FakeSam) -> None:
    engine, gate = Engine(), Gate()
    job = engine.submit(gate, "last")
    job.finished.connect(engine.close)
    gate.leave.set()
    assert job.result(10) == "done"
    engine._thread.join(10)
    assert not engine._thread.is_alive()


def test_an_engine_at_work_when_python_ends_is_waited_for() -> None:
    code = """
import time
from napari_sam_suite.engine.jobs import Engine
def task(model, job):
    while not job.stopping():
        time.sleep(0.01)
    time.sleep(0.3)
    print("ended", flush=True)
engine = Engine("sam2-nano", random_weights=True)
job = engine.submit(task, "work")
while job.state != "running":
    time.sleep(0.01)
engine.close(timeout=0)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300
    )
    assert (answer.returncode, answer.stdout) == (0, "ended\n"), answer.stderr

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from typing import Any

import pytest
from qtpy.QtCore import QThread

from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.engine.jobs import Job
from napari_sam_suite.widgets.attention import Attention, no_collection
from napari_sam_suite.widgets.bridge import Background, Bridge

GONE = """
import sys, threading
from qtpy.QtWidgets import QApplication, QWidget
from qtpy import sip
from napari_sam_suite.engine.job import Job
from napari_sam_suite.widgets.bridge import Bridge

application = QApplication([])
sys.setswitchinterval(1e-5)
for _ in range(300):
    stop, window = threading.Event(), QWidget()

    def talk(_, job):
        while not stop.is_set():
            job.report(1, 2, "")

    job = Job(talk, "")
    Bridge(window).follow(job)
    thread = threading.Thread(target=job._run, args=(lambda: None,))
    thread.start()
    application.processEvents()
    sip.delete(window)
    stop.set()
    thread.join()
print("well")
"""


def make_job(task: Any) -> tuple[Job[Any], threading.Thread]:
    job: Job[Any] = Job(lambda _, job: task(job), "test")
    return job, threading.Thread(target=job._run, args=(lambda: None,))


def listen(bridge: Bridge) -> list[Any]:
    heard: list[Any] = []
    for name in ("progressed", "found", "noticed", "finished"):
        getattr(bridge, name).connect(
            lambda what, name=name: heard.append((name, what, QThread.currentThread()))
        )
    return heard


def test_events_arrive_on_the_main_thread_in_order(qtbot: Any) -> None:
    bridge = Bridge()
    heard = listen(bridge)

    def task(job: Job[Any]) -> None:
        job.report(1, 2, "half")
        job.give("part")
        job.notice("something")

    job, thread = make_job(task)
    bridge.follow(job)
    thread.start()
    qtbot.waitUntil(lambda: "finished" in [name for name, *_ in heard])
    assert [name for name, *_ in heard] == [
        "progressed",
        "found",
        "noticed",
        "finished",
    ]
    assert {where for *_, where in heard} == {bridge.thread()}
    thread.join()


def test_what_a_job_did_before_is_heard_once(qtbot: Any) -> None:
    job, thread = make_job(lambda job: job.give("part"))
    thread.start()
    thread.join()
    bridge = Bridge()
    heard = listen(bridge)
    bridge.follow(job)
    qtbot.waitUntil(lambda: len(heard) == 2)
    qtbot.wait(50)
    assert [name for name, *_ in heard] == ["found", "finished"]


def test_a_job_that_is_no_longer_followed_is_not_heard(qtbot: Any) -> None:
    go = threading.Event()
    bridge = Bridge()
    heard = listen(bridge)

    def task(job: Job[Any]) -> None:
        job.give("on its way")
        go.wait(5)
        job.give("late")

    first, one = make_job(task)
    second, other = make_job(lambda job: job.give("new"))
    bridge.follow(first)
    one.start()
    while not first.parts:
        pass
    bridge.follow(second)
    go.set()
    other.start()
    one.join()
    other.join()
    qtbot.waitUntil(lambda: len(heard) == 2)
    qtbot.wait(50)
    assert [(name, what) for name, what, _ in heard] == [
        ("found", "new"),
        ("finished", second),
    ]


def test_the_main_thread_comes_first_until_a_job_ends(qtbot: Any) -> None:
    usual, frozen = sys.getswitchinterval(), gc.get_freeze_count()
    go = threading.Event()
    job, thread = make_job(lambda _: go.wait(5))
    bridge = Bridge()
    bridge.follow(job)
    thread.start()
    during = sys.getswitchinterval(), gc.get_freeze_count()
    bridge.drop()
    assert (sys.getswitchinterval(), gc.get_freeze_count()) == during
    go.set()
    thread.join()
    assert during[0] < usual and during[1] > frozen
    assert (sys.getswitchinterval(), gc.get_freeze_count()) == (usual, frozen)


def test_a_job_that_has_ended_changes_nothing(qtbot: Any) -> None:
    usual = sys.getswitchinterval()
    job, thread = make_job(lambda _: None)
    thread.start()
    thread.join()
    Bridge().follow(job)
    assert sys.getswitchinterval() == usual and gc.get_freeze_count() == 0


def test_attention_ends_with_the_last_that_holds_it() -> None:
    usual = sys.getswitchinterval()
    first, second = Attention(), Attention()
    first.release()
    first.release()
    assert sys.getswitchinterval() < usual
    second.release()
    assert sys.getswitchinterval() == usual and gc.get_freeze_count() == 0


def test_garbage_made_meanwhile_is_collected() -> None:
    class Thing:
        pass

    with Attention():
        thing = Thing()
        thing.itself = thing  # type: ignore[attr-defined]
        gone = weakref.ref(thing)
        del thing
        gc.collect()
        assert gone() is None


def test_no_collection_ends_as_it_began() -> None:
    with no_collection():
        with no_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.parametrize("fails", [False, True])
def test_background_work_ends_on_the_main_thread(qtbot: Any, fails: bool) -> None:
    def work(report: Any, stop: Any) -> str:
        report(1, 2, "half")
        if fails:
            raise RuntimeError("no")
        return threading.current_thread().name

    background = Background(work)
    ends: list[Any] = []
    steps: list[Any] = []
    background.progressed.connect(steps.append)
    background.done.connect(ends.append)
    background.failed.connect(ends.append)
    background.start()
    qtbot.waitUntil(lambda: len(ends) == 1)
    assert steps == [(1, 2, "half")]
    assert isinstance(ends[0], RuntimeError) == fails
    assert ends[0] != threading.current_thread().name


def test_cancelled_work_gives_nothing(qtbot: Any) -> None:
    background = Background(lambda report, stop: threading.Event().wait(0.1))
    ends: list[Any] = []
    background.done.connect(ends.append)
    background.failed.connect(ends.append)
    background.start()
    background.cancel()
    qtbot.waitUntil(lambda: len(ends) == 1)
    assert isinstance(ends[0], Cancelled)


def test_a_window_that_closes_while_threads_speak_ends_no_process() -> None:
    code = [sys.executable, "-W", "ignore", "-c", GONE]
    answer = subprocess.run(
        code, capture_output=True, text=True, timeout=300, check=False
    )
    assert (answer.returncode, answer.stdout) == (0, "well\n"), answer.stderr[-2000:]

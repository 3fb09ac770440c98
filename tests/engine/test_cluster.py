from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from engine.batch.experiments import AUTO, contents, recipe_of, write_stack
from napari_sam_suite.engine.batch.run import run_recipe
from napari_sam_suite.engine.cluster import (
    open_cluster,
    pick_gpu,
    start_cluster_run,
)
from napari_sam_suite.engine.errors import EngineError, OutputError
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.recipe import Auto
from napari_sam_suite.engine.store.store import Store

distributed = pytest.importorskip("distributed")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.fakes import FakeSam

pytestmark = pytest.mark.filterwarnings("ignore")
"""Dask's own processes warn when they are killed."""


class Fake(distributed.WorkerPlugin):  # type: ignore[misc, name-defined]
    """Gives a worker the fake model, and counts how often it is loaded."""

    name = "fake"

    def __init__(self, counts: str) -> None:
        self.counts = counts

    def setup(self, worker: Any) -> None:
        from engine.fakes import FakeSam
        from napari_sam_suite.engine.models import load

        def loaded(spec: object, **options: object) -> FakeSam:

            with open(self.counts, "a") as file:
                file.write(f"{os.getpid()}\n")
            return FakeSam(delay=0.02)

        load.load_model = loaded  # type: ignore[assignment]


class Together(distributed.WorkerPlugin):  # type: ignore[misc, name-defined]
    """Gives a worker a model that `count` threads must ask at once."""

    name = "together"

    def __init__(self, count: int) -> None:
        self.count = count

    def setup(self, worker: Any) -> None:
        import threading

        from engine.fakes import FakeSam
        from napari_sam_suite.engine.models import load

        meeting, first = threading.Barrier(self.count), threading.local()

        class Meeting(FakeSam):
            def decode(self, *args: Any, **options: Any) -> Any:
                if not hasattr(first, "met"):
                    first.met = True
                    meeting.wait(timeout=60)
                return super().decode(*args, **options)

        load.load_model = lambda spec, **options: Meeting()  # type: ignore


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("counts") / "loaded"


@pytest.fixture(scope="module")
def client(counts: Path) -> Iterator[Any]:
    """Two workers on a scheduler of their own."""
    with open_cluster(workers=2, device="cpu") as client:
        client.register_plugin(Fake(str(counts)))
        yield client


def test_a_cluster_of_this_machine_prints_nothing() -> None:
    code = (
        "import logging; logging.basicConfig(level=logging.ERROR)\n"
        "from napari_sam_suite.engine.cluster import open_cluster\n"
        "with open_cluster(workers=1, device='cpu') as client:\n"
        "    print(client.submit(sum, [1, 2]).result())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_a_cluster_finds_what_one_machine_finds(
    tmp_path: Path, client: Any, counts: Path, model: FakeSam
) -> None:
    for name in "ab":
        write_stack(tmp_path / f"{name}.tif", 6)
    (tmp_path / "bad.tif").write_bytes(b"no image")
    recipe = recipe_of(tmp_path / "*.tif", store=tmp_path / "store")
    summary = start_cluster_run(client, recipe).result(timeout=300)
    assert (summary.done, summary.failed_images) == (12, 1)
    assert summary.failures[0]["image"] == "bad"
    loaded = counts.read_text().split()
    assert len(loaded) == len(set(loaded)) <= 2, "each worker loads the model once"
    again = start_cluster_run(client, recipe).result(timeout=300)
    assert (again.done, again.skipped) == (0, 12)
    alone = recipe.changed(outputs={"store": str(tmp_path / "alone")})
    assert run_recipe(alone).objects == summary.objects
    assert contents(tmp_path / "store") == contents(tmp_path / "alone")


def test_names_from_the_folder_of_the_client_are_known_to_workers_elsewhere(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stack(tmp_path / "a.tif", 2)
    monkeypatch.chdir(tmp_path)
    summary = start_cluster_run(client, recipe_of("a.tif", store="store")).result(300)
    assert (summary.done, summary.complete) == (2, True)
    assert Store.open("store").images == {"a": str(tmp_path / "a.tif")}


def test_a_worker_that_is_killed_costs_no_frame(
    tmp_path: Path, client: Any, model: FakeSam
) -> None:
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 40), store=tmp_path / "store")
    job = start_cluster_run(client, recipe)
    image = Store.open(tmp_path / "store").image("a")
    deadline = time.monotonic() + 300
    while len(image.done()) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victims = client.run(os.getpid)
    os.kill(next(iter(victims.values())), signal.SIGKILL)
    summary = job.result(timeout=300)
    assert (summary.done, summary.failed, summary.complete) == (40, 0, True)
    alone = recipe.changed(outputs={"store": str(tmp_path / "alone")})
    run_recipe(alone)
    assert contents(tmp_path / "store") == contents(tmp_path / "alone")


def test_a_run_on_a_cluster_can_be_cancelled_and_goes_on(
    tmp_path: Path, client: Any
) -> None:
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 60), store=tmp_path / "store")
    job = start_cluster_run(client, recipe)
    deadline = time.monotonic() + 300
    while job.progress.done < 300:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.cancel()
    summary = job.result(timeout=300)
    assert summary.stopped and 3 <= summary.done < 60
    rest = start_cluster_run(client, recipe).result(timeout=300)
    assert rest.complete and rest.done + rest.skipped == 60
    assert rest.skipped >= summary.done


def test_on_a_cluster_results_of_other_weights_are_refused(
    tmp_path: Path, client: Any, model: FakeSam
) -> None:
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 1), store=tmp_path / "store")
    model.identity = "others"
    run_recipe(recipe)
    with pytest.raises(OutputError, match="other weights"):
        start_cluster_run(client, recipe).result(timeout=300)


def test_a_worker_has_its_share_of_the_cores_and_a_frame_on_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: FakeSam
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 9), store=tmp_path / "store")
    alone = recipe.changed(outputs={"store": str(tmp_path / "alone")})
    with open_cluster(workers=1, device="cpu") as client:
        [told] = client.run(lambda: dict(os.environ)).values()
        client.register_plugin(Together(3))
        assert start_cluster_run(client, recipe).result(timeout=300).done == 9
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        assert told[name] == "3"
    run_recipe(alone)
    assert contents(tmp_path / "store") == contents(tmp_path / "alone")


def test_a_worker_of_others_has_a_frame_in_each_of_its_threads(tmp_path: Path) -> None:
    """Dask tells torch of one core, whatever it has."""
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 9), store=tmp_path / "store")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=3, dashboard_address=None
        ) as cluster,
        open_cluster(cluster.scheduler_address) as client,
    ):
        client.register_plugin(Together(3))
        assert start_cluster_run(client, recipe).result(timeout=300).done == 9


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own setting")
def test_memory_that_is_given_back_is_there_for_the_next_frame() -> None:
    """Dask's own setting has the system make every page anew."""
    code = """if True:
        import resource, sys
        import numpy as np
        from napari_sam_suite.engine.lanes import keep_memory
        if sys.argv[1] == "kept":
            keep_memory()
        faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(2**20)
        before = faults()
        for _ in range(20):
            np.ones(2**20)
        print(faults() - before)
    """
    env = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    made = {}
    for what in ("kept", "given back"):
        command = [sys.executable, "-c", code, what]
        said = subprocess.check_output(command, env=env, text=True)
        made[what] = int(said)
    assert made["kept"] < made["given back"] / 10


@pytest.mark.parametrize(
    ("seen", "gpus", "wanted"),
    [(None, 2, "0 1 0"), ("", 2, "0 1 0"), ("3,5", 2, "3 5 3"), ("GPU-a", 1, "GPU-a")],
)
def test_workers_share_the_gpus_that_may_be_seen(
    monkeypatch: pytest.MonkeyPatch, seen: str | None, gpus: int, wanted: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    picked = [pick_gpu(number, gpus) for number in range(len(wanted.split()))]
    assert picked == wanted.split()


def test_what_makes_no_sense_is_told_before_workers_are_asked(
    tmp_path: Path, model: FakeSam
) -> None:
    path = write_stack(tmp_path / "a.tif", 1)
    run_recipe(recipe_of(path, store=tmp_path / "store"))
    other = Auto(params=AutoParams(points_per_side=3))
    assert other != AUTO
    recipe = recipe_of(path, store=tmp_path / "store", capability=other)
    with pytest.raises(OutputError, match="another recipe"):
        start_cluster_run(None, recipe)


def test_that_a_scheduler_has_no_workers_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 1), store=tmp_path / "store")
    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        job = start_cluster_run(client, recipe)
        deadline = time.monotonic() + 100
        while "no worker" not in job.progress.text:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        job.cancel()
        assert job.result(timeout=100).stopped
    assert caplog.text.count("no worker is connected") == 1


def test_a_scheduler_that_does_not_answer_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("napari_sam_suite.engine.cluster._PATIENCE", "1s")
    with (
        pytest.raises(EngineError, match=r"tcp://127\.0\.0\.1:9"),
        open_cluster("tcp://127.0.0.1:9"),
    ):
        pass

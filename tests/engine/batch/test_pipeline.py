"""Frames side by side: the same results, and the same promises as one by one."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch

from engine.batch.experiments import contents, recipe_of, write_stack
from engine.fakes import FakeSam
from napari_sam_suite.engine.batch import pipeline
from napari_sam_suite.engine.batch import run as batch_run
from napari_sam_suite.engine.batch.bench import Heard
from napari_sam_suite.engine.batch.pipeline import Told
from napari_sam_suite.engine.batch.run import open_engine, run_recipe, start_run
from napari_sam_suite.engine.errors import ModelError
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.models import load
from napari_sam_suite.engine.store.images import ImageStore
from napari_sam_suite.engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_sam_suite.engine.models.protocol import Decoded
    from napari_sam_suite.engine.recipe import Recipe


@pytest.fixture(autouse=True)
def three_cores() -> Iterator[None]:
    """Torch's threads, whatever this machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Watched(FakeSam):
    """Counts in which threads it is asked, and does `before` each time."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.before = before
        self.threads: Counter[str] = Counter()

    def decode(self, *args: Any, **options: Any) -> Decoded:
        self.threads[threading.current_thread().name] += 1
        self.before()
        return super().decode(*args, **options)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    model = Watched()
    monkeypatch.setattr(load, "load_model", lambda spec, **options: model)
    return model


def experiment(folder: Path, frames: int = 9) -> Recipe:
    return recipe_of(write_stack(folder / "a.tif", frames), store=folder / "store")


def test_as_many_frames_as_cores_are_on_the_cpu_at_once(
    tmp_path: Path, watched: Watched
) -> None:
    together = threading.Barrier(3)
    first = threading.local()

    def meet() -> None:
        if not hasattr(first, "met"):
            first.met = True
            together.wait(timeout=60)

    watched.before = meet
    assert run_recipe(experiment(tmp_path)).done == 9
    assert len(watched.threads) == 3, "and no more than these"


def test_side_by_side_finds_what_one_after_the_other_finds(
    tmp_path: Path, model: FakeSam
) -> None:
    recipe = experiment(tmp_path)
    side_by_side = run_recipe(recipe)
    torch.set_num_threads(1)
    alone = run_recipe(recipe.changed(outputs={"store": str(tmp_path / "alone")}))
    assert contents(tmp_path / "store") == contents(tmp_path / "alone")
    assert side_by_side.objects == alone.objects > 9


def test_a_frame_that_is_the_only_one_has_all_cores(
    tmp_path: Path, watched: Watched
) -> None:
    run_recipe(experiment(tmp_path, frames=1))
    assert set(watched.threads) == {"sam-engine"}


def test_the_last_frame_of_a_run_is_done_like_the_others(
    tmp_path: Path, watched: Watched
) -> None:
    """Over several cores it would be rounded otherwise than in an unbroken run."""
    recipe = experiment(tmp_path)
    run_recipe(recipe)
    objects = tmp_path / "store" / "images" / "a" / "objects"
    (objects / "p1_t4_z1.parquet").unlink()
    watched.threads.clear()
    assert run_recipe(recipe).done == 1
    assert "sam-engine" not in watched.threads


def test_pictures_of_one_frame_each_go_side_by_side(
    tmp_path: Path, watched: Watched
) -> None:
    for name in "abc":
        write_stack(tmp_path / f"{name}.tif", 1)
    assert run_recipe(recipe_of(tmp_path / "*.tif", store=tmp_path / "s")).done == 3
    assert "sam-engine" not in watched.threads


def test_large_pictures_between_small_ones_are_alone(
    tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam_suite.engine import lanes

    for name in "abc":
        write_stack(tmp_path / f"{name}.tif", 2)
    whole = recipe_of(tmp_path / "*.tif", store=tmp_path / "store")
    count, asked = lanes.count_lanes, []

    def counted(model: Any, frames: int, shape: tuple[int, int], cores: int) -> int:
        asked.append(len(asked))
        large = asked[-1] in (2, 3)
        return 1 if large else count(model, frames, shape, cores)

    monkeypatch.setattr("napari_sam_suite.engine.batch.pipeline.count_lanes", counted)
    assert run_recipe(whole).done == 6
    assert "sam-engine" in watched.threads and len(watched.threads) > 1


@pytest.mark.parametrize("threads", [1, 3])
def test_quick_frames_are_read_found_and_written_by_one_thread(
    tmp_path: Path,
    model: FakeSam,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
) -> None:
    torch.set_num_threads(threads)
    whole = experiment(tmp_path, frames=30)
    slow = whole.changed(outputs={"store": str(tmp_path / "slow")})
    run_recipe(slow)
    monkeypatch.setattr("napari_sam_suite.engine.batch.pace._QUICK", 60.0)
    here = threading.current_thread
    seen: list[tuple[str, str]] = []
    see, write = pipeline.see_frame, ImageStore.write

    def seeing(*args: Any) -> Any:
        seen.append(("read", here().name))
        return see(*args)

    def writing(*args: Any, **notes: Any) -> None:
        seen.append(("written", here().name))
        write(*args, **notes)

    monkeypatch.setattr(pipeline, "see_frame", seeing)
    monkeypatch.setattr(ImageStore, "write", writing)
    assert run_recipe(whole).done == 30
    [thread] = {thread for _, thread in seen[-30:]}
    assert thread.startswith("sam-lane" if threads > 1 else "sam-engine")
    assert [what for what, _ in seen[-4:]] == ["read", "written"] * 2
    assert contents(tmp_path / "store") == contents(tmp_path / "slow")


def test_only_so_many_frames_are_in_memory(
    tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.gate = threading.Event()
    looks: list[object] = []
    read = batch_run.read_frames

    def counted(work: object) -> object:
        for look in read(work):  # type: ignore[arg-type]
            looks.append(look)
            yield look

    monkeypatch.setattr(batch_run, "read_frames", counted)
    recipe = experiment(tmp_path, frames=20)
    with open_engine(recipe) as engine:
        job = start_run(engine, recipe)
        while len(looks) < 6:
            assert not job.wait(0.01)
        assert not job.wait(0.1)
        assert len(looks) == 6, "three in their lanes, two read, one in the reader"
        model.gate.set()
        assert job.result().done == 20


def test_a_frame_that_fails_does_not_stop_those_beside_it(
    tmp_path: Path, watched: Watched
) -> None:
    lock, turns = threading.Lock(), []

    def fail_once() -> None:
        with lock:
            turns.append(0)
            if len(turns) == 2:
                raise RuntimeError("a kernel broke")

    watched.before = fail_once
    recipe = experiment(tmp_path)
    summary = run_recipe(recipe)
    assert (summary.done, summary.failed) == (8, 1)
    assert run_recipe(recipe).done == 1
    assert not Store.open(tmp_path / "store").image("a").failures()


def test_what_nothing_can_be_done_about_ends_the_run_at_once(
    tmp_path: Path, watched: Watched
) -> None:
    def fail() -> None:
        raise ModelError("The weights are damaged.")

    watched.before = fail
    with pytest.raises(ModelError, match="damaged"):
        run_recipe(experiment(tmp_path, frames=30))
    assert sum(watched.threads.values()) <= 6


def test_a_run_that_is_cancelled_goes_on_where_it_was(
    tmp_path: Path, watched: Watched
) -> None:
    recipe = experiment(tmp_path, frames=30)
    with open_engine(recipe) as engine:
        job = start_run(engine, recipe)
        job.progressed.connect(lambda p: job.cancel() if p.done >= 300 else None)
        summary = job.result()
    assert summary.stopped and summary.done < 30
    assert len(Store.open(tmp_path / "store").image("a").done()) == summary.done
    assert run_recipe(recipe).done == 30 - summary.done


def test_progress_never_goes_back(tmp_path: Path, model: FakeSam) -> None:
    recipe, seen = experiment(tmp_path), []
    with open_engine(recipe) as engine:
        job = start_run(engine, recipe)
        job.progressed.connect(lambda progress: seen.append(progress))
        job.result()
    known = [p.done for p in seen if p.total == 900]
    assert known == sorted(known) and known[-1] == 900
    assert any(done % 100 for done in known), "parts of frames are counted"


def test_what_a_worker_of_a_cluster_is_told_comes_with_its_next_frame() -> None:
    heard = Heard()
    heard.notice("The memory of cuda is full.")
    for time in (0, 1):
        heard.tell(Told("a", FrameIndex(time=time), "", notices=("Lost.",)))
    notices = [told.notices for told in heard.all]
    assert notices == [("The memory of cuda is full.", "Lost."), ("Lost.",)]

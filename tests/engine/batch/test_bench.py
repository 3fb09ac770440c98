from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.batch.experiments import recipe_of, write_stack
from napari_sam_suite.engine.batch import bench
from napari_sam_suite.engine.batch.bench import Bench, open_there, search_there
from napari_sam_suite.engine.batch.run import run_recipe
from napari_sam_suite.engine.cluster import start_cluster_run
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.store.store import Store

pytest.importorskip("distributed")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from engine.fakes import FakeSam
    from napari_sam_suite.engine.recipe import Recipe


class Task:
    """What has become of a task, as Dask tells it."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]):
        self.error: Exception | None = None
        try:
            self.answer = function(*arguments)
        except Exception as error:  # noqa: BLE001 - Dask tells all of them
            self.error = error
        self.status = "error" if self.error else "finished"

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.answer

    def exception(self) -> Exception | None:
        return self.error

    def add_done_callback(self, call: Callable[[Any], object]) -> None:
        call(self)

    def release(self) -> None:
        pass

    def cancel(self) -> None:
        pass


class Workers:
    """A client of two workers in this process: one opens images, one searches them.

    What was opened is lost once it is.
    """

    status = "running"

    def __init__(self, recipe: Recipe, lost: Path) -> None:
        self.opening, self.searching = Bench(recipe), Bench(recipe)
        self.lost = lost
        self.asked = self.searching

    def submit(self, function: Any, run: str, *what: Any, **options: Any) -> Task:
        self.asked = self.opening if function is open_there else self.searching
        task = Task(function, (run, *what))
        if function is open_there and what == (self.lost.stem,):
            self.lost.rename(self.lost.with_suffix(".away"))
        return task

    def nthreads(self) -> dict[str, int]:
        return {"opening": 1, "searching": 1}

    def register_plugin(self, plugin: object, name: str) -> None:
        pass

    def unregister_worker_plugin(self, name: str) -> None:
        pass


@pytest.fixture
def workers(
    tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workers]:
    images = [write_stack(tmp_path / f"{name}.tif", 1) for name in "ab"]
    recipe = recipe_of(*images, store=tmp_path / "store")
    found = Workers(recipe, images[1])
    monkeypatch.setattr(bench, "_bench", lambda _: found.asked)
    yield found
    found.opening.close()
    found.searching.close()


def test_an_image_that_one_worker_cannot_open_does_not_stop_the_others(
    tmp_path: Path, workers: Workers
) -> None:
    recipe = workers.searching.recipe
    summary = start_cluster_run(workers, recipe).result()
    assert (summary.done, summary.failed) == (1, 1)
    [failure] = summary.failures
    assert failure["image"] == "b" and "b.tif" in failure["message"]
    image = Store.open(tmp_path / "store").image("b")
    assert list(image.failures()) == [FrameIndex()]
    (tmp_path / "b.away").rename(tmp_path / "b.tif")
    assert run_recipe(recipe).complete
    assert not image.failures()


def test_frames_that_follow_from_each_other_fail_as_an_image(
    tmp_path: Path, workers: Workers
) -> None:
    start_cluster_run(workers, workers.searching.recipe).result()
    answer = search_there("run", "b", None)
    assert "b.tif" in answer["failure"]["message"]
    assert None in Store.open(tmp_path / "store").image("b").failures()

from __future__ import annotations

import errno
import io
import json
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
import zarr

from engine.batch.experiments import (
    AUTO,
    contents,
    recipe_of,
    start_slowly,
    write_stack,
)
from engine.formats.test_zarr_inside import write_image
from napari_sam_suite.engine.batch import run as batch_run
from napari_sam_suite.engine.batch.run import (
    all_done,
    open_engine,
    run_recipe,
    start_run,
)
from napari_sam_suite.engine.errors import ImageError, ModelError, OutputError
from napari_sam_suite.engine.formats import atomic
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.jobs import Engine
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.recipe import Auto, Frames
from napari_sam_suite.engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.fakes import FakeSam


def test_a_recipe_finds_what_segment_finds(tmp_path: Path, model: FakeSam) -> None:
    path = write_stack(tmp_path / "a.tif", 4)
    summary = run_recipe(recipe_of(path, store=tmp_path / "store"))
    with Engine() as engine:
        alone = engine.segment(open_image(path), AUTO.params)
    image = Store.open(tmp_path / "store").image("a")
    assert (summary.done, summary.objects) == (4, len(alone)) and summary.complete
    for frame in alone.frames():
        stored, _ = image.read(frame)
        there = alone.at(frame)
        assert [p.wkb for p in stored.polygons] == [p.wkb for p in there.polygons]
        mine = stored.features.drop(columns="id")
        assert mine.equals(there.features.drop(columns="id"))


def test_finished_frames_are_not_done_again(tmp_path: Path, model: FakeSam) -> None:
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 4), store=tmp_path / "store")
    run_recipe(recipe)
    seen = len(model.encoded)
    again = run_recipe(recipe)
    assert (again.done, again.skipped) == (0, 4) and len(model.encoded) == seen


def test_with_nothing_to_do_no_model_is_loaded(
    tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_stack(tmp_path / "a.tif", 2)
    recipe = recipe_of(path, store=tmp_path / "store")
    assert all_done(recipe) is None
    run_recipe(recipe)
    monkeypatch.setattr(batch_run, "open_engine", lambda _: pytest.fail("a model"))
    summary = run_recipe(recipe)
    assert (summary.images, summary.skipped, summary.complete) == (1, 2, True)


def test_what_may_have_to_be_done_is_looked_into(
    tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_stack(tmp_path / "a.tif", 2)
    place = tmp_path / "store"
    recipe = recipe_of(path, store=place)
    run_recipe(recipe)
    assert all_done(recipe) is not None
    write_stack(tmp_path / "b.tif", 2)
    more = recipe_of(path, tmp_path / "b.tif", store=place)
    assert all_done(more) is None
    with monkeypatch.context() as patch:
        patch.setattr(batch_run, "_stamp", lambda _: "weights of another day")
        assert all_done(recipe) is None
    other = Auto(params=AutoParams(points_per_side=4))
    assert all_done(recipe_of(path, store=place, capability=other)) is None
    (place / "images" / "a" / "objects" / "p1_t2_z1.parquet").unlink()
    assert all_done(recipe) is None


def test_what_is_missing_is_done_and_is_the_same(
    tmp_path: Path, model: FakeSam
) -> None:
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 5), store=tmp_path / "store")
    run_recipe(recipe)
    whole = contents(tmp_path / "store")
    objects = tmp_path / "store" / "images" / "a" / "objects"
    (objects / "p1_t2_z1.parquet").unlink()
    (objects / "p1_t5_z1.parquet").unlink()
    again = run_recipe(recipe)
    assert (again.done, again.skipped) == (2, 3)
    assert contents(tmp_path / "store") == whole


def test_a_bad_file_does_not_stop_the_rest(tmp_path: Path, model: FakeSam) -> None:
    write_stack(tmp_path / "a.tif", 2)
    (tmp_path / "b.tif").write_bytes(b"no image")
    write_stack(tmp_path / "c.tif", 2)
    recipe = recipe_of(tmp_path / "*.tif", store=tmp_path / "store")
    summary = run_recipe(recipe)
    assert (summary.done, summary.failed_images) == (4, 1) and not summary.complete
    assert summary.failures[0]["image"] == "b"
    assert (
        "b.tif" in Store.open(tmp_path / "store").image("b").failures()[None]["message"]
    )
    write_stack(tmp_path / "b.tif", 3)
    again = run_recipe(recipe)
    assert (again.done, again.skipped, again.complete) == (3, 4, True)
    assert not Store.open(tmp_path / "store").image("b").failures()


def test_an_image_that_comes_back_has_not_failed(
    tmp_path: Path, model: FakeSam
) -> None:
    path = write_stack(tmp_path / "a.tif", 2)
    recipe = recipe_of(path, store=tmp_path / "store")
    run_recipe(recipe)
    image = Store.open(tmp_path / "store").image("a")
    (tmp_path / "store/images/a/objects/p1_t2_z1.parquet").unlink()
    path.rename(tmp_path / "away.tif")
    assert run_recipe(recipe).failed_images == 1
    assert None in image.failures()
    (tmp_path / "away.tif").rename(path)
    assert run_recipe(recipe).complete
    assert not image.failures()


def test_results_of_an_older_image_are_not_those_of_its_successor(
    tmp_path: Path, model: FakeSam
) -> None:
    path = write_stack(tmp_path / "a.tif", 3)
    recipe = recipe_of(path, store=tmp_path / "store")
    run_recipe(recipe)
    before = path.read_bytes()
    write_stack(path, 3, first=5)
    assert len(path.read_bytes()) == len(before)
    summary = run_recipe(recipe)
    assert (summary.done, summary.failed_images) == (0, 1)
    assert "its content differs" in summary.failures[0]["message"]
    (tmp_path / "store/images/a/objects/p1_t2_z1.parquet").unlink()
    assert run_recipe(recipe).failed_images == 1
    path.write_bytes(before)  # at another time
    assert run_recipe(recipe).done == 1 and run_recipe(recipe).complete


def test_an_ome_zarr_in_the_place_of_another_is_not_that_one(
    tmp_path: Path, model: FakeSam
) -> None:
    path = write_image(tmp_path / "a.ome.zarr")
    pixels = zarr.open_group(path, mode="r+")["0"]
    pixels[..., 4:20, 6:30] = 200
    recipe = recipe_of(path, store=tmp_path / "store")
    done = run_recipe(recipe).done
    pixels[..., 4:20, 6:30] = 100
    summary = run_recipe(recipe)
    assert (summary.done, summary.failed_images) == (0, 1)
    assert "its content differs" in summary.failures[0]["message"]
    pixels[..., 4:20, 6:30] = 200
    assert run_recipe(recipe).skipped == done


def test_a_record_without_content_is_of_any_file(
    tmp_path: Path, model: FakeSam
) -> None:
    path = write_stack(tmp_path / "a.tif", 2)
    recipe = recipe_of(path, store=tmp_path / "store")
    run_recipe(recipe)
    record = tmp_path / "store/images/a/image.json"
    known = json.loads(record.read_text())
    assert known.pop("content")
    record.write_text(json.dumps(known))
    write_stack(path, 2, first=5)
    assert run_recipe(recipe).skipped == 2


def test_a_frame_that_fails_is_recorded_and_tried_again(
    tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 3), store=tmp_path / "store")
    bad = FrameIndex(0, 1, 0)
    image = type(open_image(tmp_path / "a.tif"))
    read = image.frame

    def damaged(self: object, index: FrameIndex) -> object:
        if index == bad:
            raise ImageError("This plane is damaged.", "Copy it again.")
        return read(self, index)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(image, "frame", damaged)
        summary = run_recipe(recipe)
    assert (summary.done, summary.failed) == (2, 1)
    assert summary.failures[0]["frame"] == "time 2 of 3"
    failures = Store.open(tmp_path / "store").image("a").failures()
    assert failures == {
        bad: {"message": "This plane is damaged.", "hint": "Copy it again."}
    }
    assert run_recipe(recipe).done == 1
    assert not Store.open(tmp_path / "store").image("a").failures()


def test_an_unexpected_failure_of_the_model_is_the_frames_own(
    tmp_path: Path, model: FakeSam
) -> None:
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 2), store=tmp_path / "store")
    model.failure = RuntimeError("a kernel broke")
    summary = run_recipe(recipe)
    assert (summary.done, summary.failed) == (0, 2)
    assert "a kernel broke" in summary.failures[0]["message"]


def test_a_model_that_cannot_be_used_ends_the_run(
    tmp_path: Path, model: FakeSam
) -> None:
    model.failure = ModelError("The weights are damaged.")
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 2), store=tmp_path / "store")
    with pytest.raises(ModelError, match="damaged"):
        run_recipe(recipe)


def test_frames_are_chosen_as_a_person_writes_them(
    tmp_path: Path, model: FakeSam
) -> None:
    path = write_stack(tmp_path / "a.tif", 6)
    run_recipe(recipe_of(path, store=tmp_path / "store", frames=Frames(time="2-3, 6")))
    done = Store.open(tmp_path / "store").image("a").done()
    assert sorted(frame.time for frame in done) == [1, 2, 5]


def test_a_frame_in_which_nothing_can_be_seen_is_finished(
    tmp_path: Path, model: FakeSam
) -> None:
    path = tmp_path / "a.tif"
    pixels = np.full((2, 64, 64), 7, np.uint16)
    pixels[0, 10:20, 10:40] = 1000
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "TYX"})
    summary = run_recipe(recipe_of(path, store=tmp_path / "store"))
    assert summary.done == 2 and summary.complete
    objects, notes = Store.open(tmp_path / "store").image("a").read(FrameIndex(0, 1, 0))
    assert not len(objects) and "Nothing can be seen" in notes["notices"][0]


def test_another_recipe_is_refused_in_the_same_store(
    tmp_path: Path, model: FakeSam
) -> None:
    path = write_stack(tmp_path / "a.tif", 1)
    run_recipe(recipe_of(path, store=tmp_path / "store"))
    other = recipe_of(
        path,
        store=tmp_path / "store",
        capability=Auto(params=AutoParams(points_per_side=9)),
    )
    with pytest.raises(OutputError, match=r"capability\.params\.points_per_side"):
        run_recipe(other)


def test_names_of_files_hold_wherever_a_run_goes_on(
    tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stack(tmp_path / "a.tif", 1)
    monkeypatch.chdir(tmp_path)
    assert run_recipe(recipe_of("a.tif", store="store")).done == 1
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Store.open("../store").images == {"a": str(tmp_path / "a.tif")}
    absolute = recipe_of(tmp_path / "a.tif", store=tmp_path / "store")
    assert run_recipe(absolute).skipped == 1


def test_a_folder_of_other_files_is_no_store(tmp_path: Path, model: FakeSam) -> None:
    path = write_stack(tmp_path / "a.tif", 1)
    with pytest.raises(OutputError, match="other files"):
        run_recipe(recipe_of(path, store=tmp_path))


def test_of_two_runs_into_one_store_the_second_is_refused(
    tmp_path: Path, model: FakeSam
) -> None:
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 1), store=tmp_path / "store")
    store = Store.create(recipe)
    with store.alone(), pytest.raises(OutputError, match="Another run"):
        run_recipe(recipe)
    assert run_recipe(recipe).complete


def test_a_run_that_is_cancelled_keeps_what_is_finished(
    tmp_path: Path, model: FakeSam
) -> None:
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 30), store=tmp_path / "store")
    with open_engine(recipe) as engine:
        job = start_run(engine, recipe)
        job.progressed.connect(lambda p: job.cancel() if p.done >= 3 * 100 else None)
        summary = job.result()
    assert summary.stopped and 1 <= summary.done < 30
    assert len(Store.open(tmp_path / "store").image("a").done()) == summary.done
    assert run_recipe(recipe).done == 30 - summary.done


def test_the_job_keeps_no_results(tmp_path: Path, model: FakeSam) -> None:
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 5), store=tmp_path / "store")
    with open_engine(recipe) as engine:
        job = start_run(engine, recipe)
        summary = job.result()
    assert job.parts == [summary]


def test_a_full_disk_ends_the_run_and_leaves_nothing_half_written(
    tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 6), store=tmp_path / "store")

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    def open_on_full_disk(path: Any, mode: str) -> Any:
        return (Full if "p1_t4" in str(path) else open)(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "open", open_on_full_disk, raising=False)
        with pytest.raises(OutputError, match="no room left"):
            run_recipe(recipe)
    assert not list((tmp_path / "store").rglob("*.part"))
    image = Store.open(tmp_path / "store").image("a")
    assert FrameIndex(0, 3, 0) not in image.done() and len(image.done()) >= 3
    for frame in image.done():
        image.read(frame)
    run_recipe(recipe)
    assert len(image.done()) == 6


def test_killed_at_any_moment_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    for name in "ab":
        write_stack(tmp_path / f"{name}.tif", 12)
    recipe = recipe_of(tmp_path / "*.tif", store=tmp_path / "store")
    moments, written = random.Random(5), {}
    for _ in range(5):
        process = start_slowly(recipe, 0.01)
        time.sleep(moments.uniform(0.05, 0.5))
        process.kill()
        process.join()
        for file in (tmp_path / "store").rglob("*.parquet"):
            at = file.stat().st_mtime_ns
            assert written.setdefault(file, at) == at, "a frame was done twice"
    last = start_slowly(recipe, 0)
    last.join()
    assert last.exitcode == 0
    for file, at in written.items():
        assert file.stat().st_mtime_ns == at, "a frame was done twice"
    whole = recipe.changed(outputs={"store": str(tmp_path / "whole")})
    unbroken = start_slowly(whole, 0)
    unbroken.join()
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "store")) == 24


@pytest.fixture
def one_core() -> Iterator[None]:
    """One frame at a time, as on a GPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_next_frames_are_read_while_the_device_works(
    tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch, one_core: None
) -> None:
    """A pipeline that reads only on demand would read one frame before the model."""
    model.gate = threading.Event()
    recipe = recipe_of(write_stack(tmp_path / "a.tif", 8), store=tmp_path / "store")
    looks: list[object] = []
    read = batch_run.read_frames

    def counted(work: object) -> object:
        for look in read(work):  # type: ignore[arg-type]
            looks.append(look)
            yield look

    monkeypatch.setattr(batch_run, "read_frames", counted)
    with open_engine(recipe) as engine:
        job = start_run(engine, recipe)
        deadline = time.monotonic() + 20
        while not (model.waiting and len(looks) >= 3):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.1)
        assert 3 <= len(looks) <= 5, "neither on demand nor without a bound"
        model.gate.set()
        assert job.result().done == 8

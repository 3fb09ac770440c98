"""Propagation that was broken off goes on where it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from engine.batch.experiments import contents, recipe_of
from napari_sam_suite.engine.batch import pipeline
from napari_sam_suite.engine.batch.run import run_recipe
from napari_sam_suite.engine.errors import ImageError
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.propagation.frames import ByFrames
from napari_sam_suite.engine.propagation.params import PropagateParams
from napari_sam_suite.engine.recipe import Propagate, Recipe
from napari_sam_suite.engine.recorded import to_shapes
from napari_sam_suite.engine.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from engine.fakes import FakeSam

FRAMES = 8
HIDDEN = 4
"""The frame in which one of the two squares is not to be seen."""


def pixels() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Two squares that move; one of them is hidden once."""
    movie = np.zeros((FRAMES, 64, 64), np.uint8)
    for t in range(FRAMES):
        movie[t, 8:20, 5 + 2 * t : 17 + 2 * t] = 200
        if t != HIDDEN:
            movie[t, 40:52, 40 - 2 * t : 52 - 2 * t] = 150
    return movie


def recipe(folder: Path, begin: int, **values: Any) -> Recipe:
    movie = pixels()
    path = folder / "a.tif"
    tifffile.imwrite(path, movie, photometric="minisblack", metadata={"axes": "TYX"})
    labels = (movie[begin] // 50).astype(np.int32)
    given = Objects.from_labels(labels).with_features(time=begin)
    params = PropagateParams(**values)
    capability = Propagate(params=params, objects=to_shapes(given))
    return recipe_of(path, store=folder / "store", capability=capability)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Time points, counted from 0, in which objects were looked for."""
    places: list[int] = []
    look = ByFrames.look

    def spy(self: ByFrames, model: Any, rgb: Any, place: int, *a: Any, **k: Any) -> Any:
        places.append(place)
        return look(self, model, rgb, place, *a, **k)

    monkeypatch.setattr(ByFrames, "look", spy)
    return places


def lose(folder: Path, *times: int) -> None:
    for time in times:
        (folder / f"store/images/a/objects/p1_t{time + 1}_z1.parquet").unlink()


@pytest.mark.parametrize(
    ("begin", "direction", "lost", "again"),
    [
        (0, "forward", (3, 4, 5, 6, 7), [3, 4, 5, 6, 7]),
        (0, "forward", (5, 6, 7), [5, 6, 7]),  # after the gap
        (0, "forward", (3,), [3]),
        (3, "both", (1, 0), [1, 0]),
        (3, "both", (2, 1, 0), [2, 1, 0]),
        (3, "both", (7, 2, 1, 0), [7, 2, 1, 0]),
        (0, "forward", (0, 1, 2, 3, 4, 5, 6, 7), [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_a_run_goes_on_from_the_last_finished_frame(
    tmp_path: Path,
    model: FakeSam,
    looked: list[int],
    begin: int,
    direction: str,
    lost: tuple[int, ...],
    again: list[int],
) -> None:
    asked = recipe(tmp_path, begin, direction=direction)
    run_recipe(asked)
    before = contents(tmp_path / "store")
    looked.clear()
    lose(tmp_path, *lost)
    summary = run_recipe(asked)
    assert looked == again
    assert (summary.done, summary.skipped) == (len(lost), FRAMES - len(lost))
    assert contents(tmp_path / "store") == before
    image = Store.open(tmp_path / "store").image("a")
    after, _ = image.read(FrameIndex(time=HIDDEN + 1))
    assert sorted(after.features["gap"]) == [0, 1]


def test_where_nothing_was_left_the_whole_way_is_gone_again(
    tmp_path: Path, model: FakeSam, looked: list[int]
) -> None:
    asked = recipe(tmp_path, 0)
    run_recipe(asked)
    before = contents(tmp_path / "store")
    states = sorted((tmp_path / "store/images/a/states").iterdir())
    assert len(states) == FRAMES
    states[4].write_bytes(b"damaged")
    looked.clear()
    lose(tmp_path, 5)
    run_recipe(asked)
    assert looked == [4, 5]
    for path in states:
        path.unlink()
    looked.clear()
    lose(tmp_path, 5)
    summary = run_recipe(asked)
    assert looked == [1, 2, 3, 4, 5]
    assert next(iter(summary.notices)) == (
        "5 finished frames are looked at again, because the next ones follow from "
        "there."
    )
    assert contents(tmp_path / "store") == before


def test_a_frame_is_not_made_up_where_the_one_before_cannot_be_read(
    tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(tmp_path, 0)
    run_recipe(asked)
    lose(tmp_path, 3)
    see = pipeline.see_frame

    def broken(image: Any, frame: Any, *rest: Any) -> Any:
        if frame.time == 2:
            raise ImageError("the disk is bad")
        return see(image, frame, *rest)

    monkeypatch.setattr(pipeline, "see_frame", broken)
    summary = run_recipe(asked)
    assert summary.failed == 1
    assert "follows from time 3" in summary.failures[0]["message"]

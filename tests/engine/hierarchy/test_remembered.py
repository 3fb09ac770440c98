from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from engine.fakes import FAKE, FakeSam
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.hierarchy.remembered import RememberedAutomatic
from napari_sam_suite.engine.params import AutoParams

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam_suite.engine.masks import Masks

PARAMS = AutoParams(points_per_side=8, overlap="allow")


def picture(colour: int = 200) -> np.ndarray:
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[5:20, 5:30], rgb[30:60, 30:60] = 100, colour
    return rgb


def find(finder: RememberedAutomatic, model: FakeSam, rgb: np.ndarray) -> Masks:
    report = lambda done, total, text: None  # noqa: E731
    return finder(model, rgb, FrameIndex(), report=report, stop=lambda: False).masks


def test_what_is_known_is_the_same_and_asks_no_model(tmp_path: Path) -> None:
    model = FakeSam()
    first = find(RememberedAutomatic(PARAMS, tmp_path), model, picture())
    asked = len(model.encoded)
    again = RememberedAutomatic(PARAMS, tmp_path)
    second = find(again, model, picture())
    assert (len(model.encoded), again.searched) == (asked, 0)
    assert len(first) == len(second) > 0 and first.shape == second.shape
    for name in ("boxes", "area", "scores", "stability", "level", "points", "crops"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for row in range(len(first)):
        np.testing.assert_array_equal(first.full(row), second.full(row))


def test_another_model_setting_or_image_is_searched_anew(tmp_path: Path) -> None:
    finder, model = RememberedAutomatic(PARAMS, tmp_path), FakeSam()
    other = FakeSam()
    other.identity = "other weights"
    stricter = RememberedAutomatic(PARAMS.with_(pred_iou_thresh=0.5), tmp_path)
    keys = [
        finder.key(model, picture()),
        finder.key(other, picture()),
        finder.key(model, picture(201)),
        finder.key(model, picture()[:, :60]),
        stricter.key(model, picture()),
    ]
    assert len(set(keys)) == len(keys)
    smoother = RememberedAutomatic(PARAMS.with_(smoothing=2), tmp_path)
    assert smoother.key(model, picture()) == keys[0]


def test_what_auto_means_to_the_model_is_a_setting_too(tmp_path: Path) -> None:
    finder, keys = RememberedAutomatic(PARAMS, tmp_path), set()
    for changes in ({}, {"tile": 0.5}, {"search": "grid"}):
        model = FakeSam()
        model.spec = replace(FAKE, auto=replace(FAKE.auto, **changes))
        keys.add(finder.key(model, picture()))
    assert len(keys) == 3


def test_masks_of_another_version_are_searched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder, model = RememberedAutomatic(PARAMS, tmp_path), FakeSam()
    before = finder.key(model, picture())
    place = "napari_sam_suite.engine.hierarchy.remembered.__version__"
    monkeypatch.setattr(place, "0.0.0")
    assert finder.key(model, picture()) != before


def test_nothing_found_is_remembered_too(tmp_path: Path) -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    finder = RememberedAutomatic(PARAMS, tmp_path)
    assert (
        len(find(finder, FakeSam(), black)) == len(find(finder, FakeSam(), black)) == 0
    )
    assert finder.searched == 1


@pytest.mark.parametrize("keep", [0, 40, 300])
def test_a_damaged_file_is_a_missing_one(tmp_path: Path, keep: int) -> None:
    finder, model = RememberedAutomatic(PARAMS, tmp_path), FakeSam()
    before = find(finder, model, picture())
    [path] = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:keep])
    after = find(finder, model, picture())
    assert finder.searched == 2 and len(after) == len(before)


def test_the_oldest_go_when_the_quota_is_full(tmp_path: Path) -> None:
    finder = RememberedAutomatic(PARAMS, tmp_path, quota=1)
    find(finder, FakeSam(), picture())
    assert list(tmp_path.glob("*")) == []


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finder = RememberedAutomatic(PARAMS, tmp_path / "file" / "in")
    assert len(find(finder, FakeSam(), picture())) > 0

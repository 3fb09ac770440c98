from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from napari_sam_suite.engine.doctor import Check, check_weights, diagnose
from napari_sam_suite.engine.models.registry import MODELS

if TYPE_CHECKING:
    from pathlib import Path


def found(name: str, folder: Path) -> Check:
    return next(check for check in diagnose(folder) if check.name == name)


def test_every_check_has_a_finding_and_a_remedy_only_when_something_is_wrong(
    tmp_path: Path,
) -> None:
    checks = diagnose(tmp_path)
    assert len({check.name for check in checks}) == len(checks) > 10
    for check in checks:
        assert check.detail
        assert (check.status == "ok") == (check.todo == ""), check


def test_nothing_fails_where_the_tests_run(tmp_path: Path) -> None:
    assert [check for check in diagnose(tmp_path) if check.status == "fail"] == []


def test_python_and_torch_are_named_with_their_versions(tmp_path: Path) -> None:
    import torch

    assert f"torch {torch.__version__}" in found("torch", tmp_path).detail
    version = ".".join(map(str, sys.version_info[:3]))
    assert found("Python", tmp_path).detail.startswith(version)


def test_installed_checkpoints_are_named(tmp_path: Path) -> None:
    with (tmp_path / "sam2.1_hiera_tiny.pt").open("wb") as file:
        file.truncate(int(MODELS["sam2.1_hiera_tiny"].size_mb * 1e6))
    check = found("Checkpoints", tmp_path)
    assert check.status == "ok"
    assert check.detail == f"{tmp_path}: sam2.1_hiera_tiny"


def test_a_damaged_checkpoint_is_a_warning_with_the_command_that_heals_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "sam_vit_b_01ec64.pth").write_bytes(b"<html>")
    check = found("Checkpoints", tmp_path)
    assert check.status == "warn"
    assert check.todo.endswith("models download sam_vit_b_01ec64")


def test_a_folder_that_is_not_there_yet_is_no_problem(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    assert found("Checkpoints", folder).status == "ok"
    assert found("Disk", folder).status in ("ok", "warn")
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="displays are named on Linux")
def test_qt_without_a_display_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert found("Qt", tmp_path).status == "warn"


def test_whole_weights_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": np.ones((1000, 500), np.float16)}, path)
    check = check_weights(path)
    assert check.status == "ok"
    assert "0.5 M weights, 1.0 MB" in check.detail


@pytest.mark.parametrize(
    ("content", "finding"), [(None, "is missing"), (b"<html>", "is damaged")]
)
def test_missing_or_damaged_weights_fail(
    tmp_path: Path, content: bytes | None, finding: str
) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    check = check_weights(path)
    assert check.status == "fail"
    assert finding in check.detail


def test_weights_that_are_no_numbers_fail(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": np.array([1.0, np.nan], np.float32)}, path)
    assert check_weights(path).status == "fail"

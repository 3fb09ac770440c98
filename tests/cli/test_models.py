from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner, Result

from napari_sam_suite.cli.models import doctor_command, models_app
from napari_sam_suite.engine.models.registry import MODELS

if TYPE_CHECKING:
    from pathlib import Path

app = typer.Typer()
app.add_typer(models_app, name="models")
app.command("doctor")(doctor_command)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: str | Path) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


@pytest.mark.parametrize(
    "command", ["models", "list", "download", "verify", "info", "doctor"]
)
def test_every_command_explains_itself(command: str) -> None:
    words = [command] if command in ("models", "doctor") else ["models", command]
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_list_shows_every_model_and_the_folder(tmp_path: Path) -> None:
    result = run("models", "list", "--checkpoints", tmp_path)
    assert result.exit_code == 0
    assert all(name in result.stdout for name in MODELS)
    listed = answer("models", "list", "--checkpoints", tmp_path)
    assert listed["folder"] == str(tmp_path)
    assert [row["id"] for row in listed["models"]] == list(MODELS)


def test_info_tells_where_a_model_comes_from_and_how_it_is_used(
    tmp_path: Path,
) -> None:
    row = answer("models", "info", "sam_vit_b_01ec64", "--checkpoints", tmp_path)
    assert row["url"].endswith("/sam_vit_b_01ec64.pth")
    assert row["auto"]["pred_iou_thresh"] == 0.88
    assert row["state"] == "missing"
    text = run("models", "info", "sam_vit_b_01ec64", "--checkpoints", tmp_path).stdout
    assert row["sha256"] in text


def test_an_unknown_model_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    result = run("models", "info", "sam2.1_hiera_tinny")
    assert result.exit_code == 1
    assert "There is no model 'sam2.1_hiera_tinny'." in result.stderr
    assert "Traceback" not in result.output
    told = answer("models", "info", "sam2.1_hiera_tinny")
    assert "Did you mean 'sam2.1_hiera_tiny'?" in told["error"]["hint"]


def test_verify_fails_on_a_file_that_is_not_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "sam2_hiera_tiny.pt").write_bytes(b"something else")
    arguments = ("models", "verify", "sam2_hiera_tiny", "--checkpoints", tmp_path)
    assert run(*arguments).exit_code == 1
    (row,) = answer(*arguments)
    assert not row["ok"]
    assert "not the published sam2_hiera_tiny" in row["error"]["message"]


def test_verify_without_names_reads_what_is_here(tmp_path: Path) -> None:
    (tmp_path / "sam2_hiera_tiny.pt").write_bytes(b"something else")
    rows = {
        row["id"]: row["ok"]
        for row in answer("models", "verify", "--checkpoints", tmp_path)
    }
    assert rows == {"sam2-nano": True, "sam2_hiera_tiny": False}


def test_download_names_every_unknown_model_before_it_starts(tmp_path: Path) -> None:
    result = run(
        "models", "download", "sam2_hiera_tiny", "nothing", "--checkpoints", tmp_path
    )
    assert result.exit_code == 1
    assert "There is no model 'nothing'." in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_download_into_a_folder_that_cannot_be_made_is_one_sentence(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    result = run(
        "models",
        "download",
        "sam2_hiera_tiny",
        "--checkpoints",
        tmp_path / "file" / "x",
    )
    assert result.exit_code == 1
    assert "cannot be written to" in result.stderr


def test_doctor_prints_a_table_and_json_and_succeeds_here(tmp_path: Path) -> None:
    result = run("doctor", "--checkpoints", tmp_path)
    assert result.exit_code == 0
    assert "Embedded model" in result.stdout
    told = answer("doctor", "--checkpoints", tmp_path)
    assert told["ok"]
    assert {check["name"] for check in told["checks"]} >= {"torch", "Disk", "Memory"}


def test_square_brackets_reach_the_reader(tmp_path: Path) -> None:
    told = run("models", "info", tmp_path / "[all]" / "x.pt")
    assert "[all]" in told.stderr


def test_tables_are_not_cut_in_a_pipe(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20)
    text = run("models", "info", "sam_vit_b_01ec64", "--checkpoints", folder).stdout
    assert str(folder / "sam_vit_b_01ec64.pth") in text
    assert "1024 px" in text and "375 MB" in text and "1.9 GB" in text

"""``finetune``: two folders in, a model out that every command takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import save_file

from commands import answer, explains, names, run
from engine.finetune.tiny import sample
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path

QUICK = (
    *("--epochs", "1", "--views", "1", "--prompts", "2", "--variants", "0"),
    "--no-calibrate",
)


@pytest.fixture
def fields(tmp_path: Path) -> tuple[Path, Path]:
    """Three images with labels, one image and one label image without a partner."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for k in range(3):
        one = sample(k)
        truth = np.zeros(one.shape, np.uint16)
        for number in range(len(one.masks)):
            truth[one.masks.full(number)] = number + 1
        tifffile.imwrite(images / f"img_{k}.tif", one.rgb, photometric="rgb")
        tifffile.imwrite(labels / f"lab_{k}.tif", truth)
    tifffile.imwrite(images / "img_spare.tif", np.zeros((8, 8), np.uint8))
    tifffile.imwrite(labels / "lab_lost.tif", np.ones((8, 8), np.uint8))
    return images, labels


def finetune(fields: tuple[Path, Path], out: Path, *more: object) -> list[object]:
    return [
        "finetune",
        "--images",
        fields[0],
        "--labels",
        fields[1],
        "--out",
        out,
        *more,
    ]


def test_the_new_model_is_a_file_that_every_command_takes(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "models" / "cells.safetensors"
    told = answer(run(*finetune(fields, out, *QUICK, "--json")))
    assert told["model"] == str(out)
    assert told["epochs"] == 1
    assert "img_spare" in " ".join(told["notices"])
    assert "lab_lost" in " ".join(told["notices"])
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["base"] == "sam2-nano"
    assert card["data"]["training_frames"] == 2
    assert card["settings"]["prompts"] == 2
    assert len(card["history"]) == 2

    spec = find_model(str(out))
    assert (spec.id, spec.config, spec.input_size) == ("cells", "nano", 512)
    assert spec.auto.pred_iou_thresh == card["recommended"]["pred_iou_thresh"]
    image, results = fields[0] / "img_0.tif", tmp_path / "results"
    few = ("--points-per-side", "2")
    done = run("segment", image, "--model", out, "--out", results, *few)
    assert done.exit_code == 0, done.output
    assert "img_0.tif" in names(results)

    examples = Objects.from_labels(tifffile.imread(fields[1] / "lab_0.tif"))
    few_shot = tmp_path / "few-shot"
    drawn = tmp_path / "examples.geojson"
    examples.with_features(tag="square").save(drawn)
    learnt = ("--examples", drawn, "--tag", "square", "--out", few_shot)
    done = run("few-shot", image, "--model", out, *learnt, "--points-per-side", "16")
    assert done.exit_code == 0, done.output
    assert "img_0.tif" in names(few_shot)


def test_without_a_bar_every_epoch_is_a_line(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    done = run(*finetune(fields, tmp_path / "cells.safetensors", *QUICK))
    assert done.exit_code == 0, done.output
    epochs = [line for line in done.stderr.splitlines() if ", IoU " in line]
    assert [line.split(",")[0] for line in epochs] == ["Base", "Epoch 1 of 1"]


def test_a_model_in_the_checkpoint_folder_is_listed_and_known_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_SAM_SUITE_CHECKPOINTS", str(tmp_path))
    (tmp_path / "tuned").mkdir()
    out = tmp_path / "tuned" / "cells.safetensors"
    header = {"family": "sam2", "config": "nano", "input_size": "512"}
    save_file({"a": torch.ones(1)}, out, header)
    (tmp_path / "tuned" / "broken.safetensors").write_text("no")
    same = tmp_path / "tuned" / "same.safetensors"
    save_file({"a": torch.ones(1)}, same, header)
    same.with_suffix(".json").write_text('{"better_than_base": false}')
    assert find_model("cells").file == out
    monkeypatch.setenv("NAPARI_SAM_SUITE_CHECKPOINTS", str(tmp_path / "elsewhere"))
    told = answer(run("models", "info", "cells", "--checkpoints", tmp_path, "--json"))
    assert told["path"] == str(out)
    monkeypatch.setenv("NAPARI_SAM_SUITE_CHECKPOINTS", str(tmp_path))
    listed = answer(run("models", "list", "--json"))["models"]
    assert listed[-1]["id"] == "cells"
    assert not {"broken", "same"} & {row["id"] for row in listed}
    assert find_model("same").file == same, "but it can be named"


def test_what_is_written_is_what_was_trained_and_other_files_of_it_are_read_too(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "cells.safetensors"
    run(*finetune(fields, out, *QUICK))
    tuned, base = load_model(str(out)), load_model("sam2-nano")
    for name, value in base.network.state_dict().items():
        if name.startswith("image_encoder"):
            assert torch.equal(value, tuned.network.state_dict()[name])
    for name, content in (
        ("best_sam2_model.torch", tuned.network.state_dict()),
        ("wrapped.pt", {"model": tuned.network.state_dict()}),
    ):
        torch.save(content, tmp_path / name)
        about = (tmp_path / name).with_suffix(".json")
        about.write_text('{"family": "sam2", "config": "nano"}')
        again = load_model(str(tmp_path / name))
        assert again.identity == tuned.identity


def test_bad_input_is_explained_before_a_model_is_loaded(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "m.safetensors"
    explains(run(*finetune(fields, tmp_path / "m.pt")), "m.safetensors")
    explains(run(*finetune((tmp_path / "no", fields[1]), out)), "--images")
    explains(run(*finetune(fields, out, "--epochs", "0")), "--epochs")
    explains(run(*finetune(fields, out, "--model", "sam9")), "sam9")
    one = ("--channels", "1", "--channel", "1:#ff0000")
    explains(run(*finetune(fields, out, *one)), "--channel")
    header = {"family": "sam2", "config": "nano", "input_size": "512"}
    save_file({"a": torch.ones(1)}, out, header)
    explains(run(*finetune(fields, out, "--model", out)), "begins with")
    out.unlink()
    empty = tmp_path / "empty"
    empty.mkdir()
    explains(run(*finetune((fields[0], empty), out)), "labels")
    assert not out.exists()


def test_what_has_no_partner_is_said_before_the_training(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam_suite.engine.errors import ModelError
    from napari_sam_suite.engine.finetune import loop

    def broken(*_: object, **__: object) -> None:
        raise ModelError("The model is broken.")

    monkeypatch.setattr(loop, "finetune", broken)
    said = run(*finetune(fields, tmp_path / "m.safetensors", *QUICK)).output
    assert max(said.index("img_spare"), said.index("lab_lost")) < said.index("broken")


def test_what_went_wrong_before_a_failure_is_said_too(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam_suite.engine.errors import OutputError
    from napari_sam_suite.engine.finetune import loop

    def full(*_: object) -> None:
        raise OutputError("There is no room left.")

    for name in ("write_state", "write_model"):
        monkeypatch.setattr(loop, name, full)
    done = run(*finetune(fields, tmp_path / "m.safetensors", *QUICK))
    assert done.exit_code == 1
    assert "No checkpoint of epoch 1: There is no room left." in done.output
    assert "Error: There is no room left." in done.output


def test_labels_of_another_size_are_refused(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    tifffile.imwrite(fields[1] / "lab_1.tif", np.eye(32, dtype=np.uint8) * 3)
    result = run(*finetune(fields, tmp_path / "m.safetensors"))
    explains(result, "32 x 32", "64 x 64")

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from napari_sam_suite.engine.errors import ModelError
from napari_sam_suite.engine.models.nano.config import read_card
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL, MODELS, find_model


def test_the_embedded_model_is_the_default_and_comes_first() -> None:
    assert next(iter(MODELS)) == DEFAULT_MODEL
    assert [spec.id for spec in MODELS.values() if spec.embedded] == [DEFAULT_MODEL]


def test_every_public_model_has_an_address_a_hash_and_a_size() -> None:
    public = [spec for spec in MODELS.values() if not spec.embedded]
    assert len(public) == 11
    assert len({spec.sha256 for spec in public}) == 11
    for spec in public:
        assert spec.url.startswith("https://")
        assert spec.filename.startswith(spec.id)
        assert len(bytes.fromhex(spec.sha256)) == 32
        assert spec.size_mb > 100


def test_every_sam2_config_exists_in_the_sam2_package() -> None:
    from importlib.resources import files

    root = files("sam2")
    for spec in MODELS.values():
        if spec.family == "sam2" and not spec.embedded:
            assert root.joinpath(spec.config).is_file(), spec.config


def test_every_sam1_config_exists_in_segment_anything() -> None:
    from segment_anything import sam_model_registry

    configs = {spec.config for spec in MODELS.values() if spec.family == "sam1"}
    assert configs == set(sam_model_registry) - {"default"}


def test_each_family_keeps_its_own_predicted_iou_threshold() -> None:
    assert MODELS["sam_vit_b_01ec64"].auto.pred_iou_thresh == 0.88
    assert MODELS["sam2.1_hiera_tiny"].auto.pred_iou_thresh == 0.8


def test_a_card_recommends_settings_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    card = {
        "family": "sam1",
        "config": "vit_b",
        "recommended": {"box_nms_thresh": 0.5, "points_per_side": 64},
    }
    path.with_suffix(".json").write_text(json.dumps(card))
    auto = find_model(path).auto
    assert (auto.box_nms_thresh, auto.pred_iou_thresh) == (0.5, 0.88)


def test_a_file_of_a_known_architecture_has_the_settings_of_its_like(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(b"weights")
    path.with_suffix(".json").write_text('{"family": "sam2", "config": "nano"}')
    assert find_model(path).auto == MODELS["sam2-nano"].auto


def test_the_embedded_model_follows_its_card() -> None:
    recommended = read_card()["recommended"]
    auto = MODELS["sam2-nano"].auto
    assert auto.pred_iou_thresh == recommended["pred_iou_thresh"]
    assert auto.box_nms_thresh == recommended["box_nms_thresh"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("sam2.1_hiera_tiny", "sam2.1_hiera_tiny"),
        (" SAM2-Nano ", "sam2-nano"),
        ("sam2.1_hiera_small.pt", "sam2.1_hiera_small"),
        ("sam_vit_h_4b8939.pth", "sam_vit_h_4b8939"),
    ],
)
def test_a_model_is_found_by_id_or_by_the_name_of_its_file(
    name: str, found: str
) -> None:
    assert find_model(name).id == found


@pytest.mark.parametrize("name", [None, "", "   "])
def test_no_name_asks_for_one_and_lists_them(name: object) -> None:
    with pytest.raises(ModelError, match=r"No model is chosen.*sam2-nano"):
        find_model(name)


@pytest.mark.parametrize("name", [["sam2-nano"], {"id": "sam2-nano"}, 3])
def test_something_that_is_no_text_is_named_and_refused(name: object) -> None:
    with pytest.raises(ModelError, match=type(name).__name__) as caught:
        find_model(name)
    assert "sam2-nano" in caught.value.hint


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sam2.1_hiera_tinny", "sam2.1_hiera_tiny"),
        ("vit_h", "sam_vit_h_4b8939"),
        ("nano", "sam2-nano"),
    ],
)
def test_an_unknown_name_suggests_the_closest_and_lists_all(
    typed: str, meant: str
) -> None:
    with pytest.raises(ModelError) as caught:
        find_model(typed)
    assert f"Did you mean '{meant}'?" in caught.value.hint
    assert all(name in caught.value.hint for name in MODELS)


def test_a_name_like_nothing_suggests_nothing() -> None:
    with pytest.raises(ModelError) as caught:
        find_model("cellpose")
    assert "Did you mean" not in caught.value.hint


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match=r"no weights file .*mine\.safetensors"):
        find_model("models/mine.safetensors")


@pytest.mark.parametrize(
    ("filename", "model"),
    [
        ("my_sam2.1_hiera_small_best.pt", "sam2.1_hiera_small"),
        ("SAM2_hiera_base_plus.torch", "sam2_hiera_base_plus"),
        ("sam_vit_l-finetuned.pth", "sam_vit_l_0b3195"),
        ("sam2-nano-yeast.pt", "sam2-nano"),
        ("vit_b.pt", "sam_vit_b_01ec64"),
        ("vit_b_lm.pt", "sam_vit_b_01ec64"),
        ("vit_l_em_organelles.pt", "sam_vit_l_0b3195"),
        ("best-ViT-H.pth", "sam_vit_h_4b8939"),
        ("vit_b_lm", "sam_vit_b_01ec64"),
    ],
)
def test_a_local_file_takes_its_architecture_from_its_name(
    tmp_path: Path, filename: str, model: str
) -> None:
    path = tmp_path / filename
    path.write_bytes(bytes(2_000_000))
    spec, same = find_model(str(path)), MODELS[model]
    assert (spec.family, spec.config) == (same.family, same.config)
    assert spec.input_size == same.input_size
    assert (spec.file, spec.size_mb) == (path, 2.0)
    assert not spec.embedded


def test_a_local_file_is_preferred_to_the_public_one_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sam2.1_hiera_small.pt").write_bytes(b"mine")
    assert find_model("sam2.1_hiera_small.pt").file == tmp_path / (
        "sam2.1_hiera_small.pt"
    )


def test_the_card_beside_a_file_tells_its_architecture(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    card = {"family": "sam2", "config": "nano", "title": "Yeast", "id": "yeast"}
    path.with_suffix(".json").write_text(json.dumps(card))
    spec = find_model(path)
    assert (spec.family, spec.config, spec.input_size) == ("sam2", "nano", 512)
    assert (spec.id, spec.title) == ("yeast", "Yeast")


def test_a_safetensors_file_tells_its_architecture_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    header = {"family": "sam1", "config": "vit_b", "input_size": "1024"}
    save_file({"a": np.zeros(2, np.float32)}, path, metadata=header)
    spec = find_model(path)
    assert (spec.family, spec.config, spec.input_size) == ("sam1", "vit_b", 1024)
    assert spec.auto.pred_iou_thresh == 0.88


def test_what_the_caller_says_about_a_file_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "sam_vit_b_01ec64.pth"
    path.write_bytes(b"weights")
    assert find_model(path, config="vit_l").config == "vit_l"


def test_a_file_without_any_sign_says_how_to_name_its_architecture(
    tmp_path: Path,
) -> None:
    path = tmp_path / "best_model.pt"
    path.write_bytes(b"weights")
    with pytest.raises(ModelError) as caught:
        find_model(path)
    assert "best_model.json" in caught.value.hint
    assert "best_model.json" in caught.value.hint


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best_model.pt"
    path.write_bytes(b"weights")
    with pytest.raises(ModelError, match="cannot be told"):
        find_model(path, family="sam9", config="x")


@pytest.mark.parametrize("card", ["{broken", "[1, 2]"])
def test_a_card_that_is_no_json_object_is_named(tmp_path: Path, card: str) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    path.with_suffix(".json").write_text(card)
    with pytest.raises(ModelError, match=r"best\.json"):
        find_model(path)


@pytest.mark.parametrize("size", [0, -5, "large"])
def test_a_card_with_a_senseless_input_size_is_refused(
    tmp_path: Path, size: object
) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    card = {"family": "sam1", "config": "vit_b", "input_size": size}
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="input_size"):
        find_model(path)


def test_a_damaged_safetensors_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"<html>")
    with pytest.raises(ModelError, match=r"mine\.safetensors is not a readable"):
        find_model(path)


def test_mobile_sam_is_said_not_to_be_supported(tmp_path: Path) -> None:
    (tmp_path / "vit_t_lm.pt").write_bytes(b"weights")
    with pytest.raises(ModelError, match=r"vit_t_lm\.pt .*not supported") as caught:
        find_model(tmp_path / "vit_t_lm.pt")
    assert "vit_b" in caught.value.hint


@pytest.mark.parametrize("name", ["gravit_b.pt", "vit_base.pt", "evit_h2.pt"])
def test_parts_of_words_are_no_architecture(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(ModelError, match="cannot be told"):
        find_model(tmp_path / name)

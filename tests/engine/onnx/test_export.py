"""The exported files: names, types and axes, what they say, and that they are right."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from engine.onnx.conftest import TISSUE
from napari_sam_suite.engine.errors import Cancelled, ModelError, OutputError
from napari_sam_suite.engine.finetune.files import write_model as save_tuned
from napari_sam_suite.engine.finetune.trainee import Trainee
from napari_sam_suite.engine.models.checkpoints import checkpoint_path
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.onnxfile import read_card
from napari_sam_suite.engine.models.ports import decoder_ports, encoder_ports
from napari_sam_suite.engine.models.registry import ModelSpec, find_model
from napari_sam_suite.engine.models.sam1 import Sam1Model
from napari_sam_suite.engine.models.transfer import hash_file
from napari_sam_suite.engine.onnx import export, files
from napari_sam_suite.engine.onnx.export import Exported, export_onnx, write_model
from napari_sam_suite.engine.onnx.folder import check_free, keep
from napari_sam_suite.engine.onnx.params import ExportParams
from napari_sam_suite.engine.onnx.parity import TOLERANCES, Parity, Row, Tolerance

if TYPE_CHECKING:
    from pathlib import Path

B, P = "num_labels", "num_points"


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def ports(values: Any) -> dict[str, tuple[str, list[int | str]]]:
    return {value.name: (value.type, value.shape) for value in values}


def floats(**shapes: list[int | str]) -> dict[str, tuple[str, list[int | str]]]:
    return {name: ("tensor(float)", shape) for name, shape in shapes.items()}


# -- the contract ----------------------------------------------------------------


def test_the_encoder_has_the_documented_names_types_and_shapes(
    exported: Exported,
) -> None:
    encoder = session(exported.folder / "encoder.onnx")
    assert ports(encoder.get_inputs()) == floats(image=[1, 3, 512, 512])
    assert ports(encoder.get_outputs()) == floats(
        high_res_feats_0=[1, 16, 128, 128],
        high_res_feats_1=[1, 32, 64, 64],
        image_embed=[1, 128, 32, 32],
        guide=[1, 5, 128, 128],
    )


@pytest.mark.parametrize(("name", "count"), [("decoder", 3), ("decoder_single", 1)])
def test_the_decoder_has_the_documented_names_types_and_axes(
    exported: Exported, name: str, count: int
) -> None:
    decoder = session(exported.folder / f"{name}.onnx")
    assert ports(decoder.get_inputs()) == floats(
        image_embed=[1, 128, 32, 32],
        high_res_feats_0=[1, 16, 128, 128],
        high_res_feats_1=[1, 32, 64, 64],
        point_coords=[B, P, 2],
        point_labels=[B, P],
        mask_input=[B, 1, 128, 128],
        has_mask_input=[B],
    )
    assert ports(decoder.get_outputs()) == floats(
        masks=[B, count, 128, 128], iou_predictions=[B, count]
    )


def test_sam2_and_sam1_at_their_own_size_are_as_documented() -> None:
    encoder = encoder_ports("sam2", 1024, 256)
    assert encoder.inputs == {"image": (1, 3, 1024, 1024)}
    assert encoder.outputs == {
        "high_res_feats_0": (1, 32, 256, 256),
        "high_res_feats_1": (1, 64, 128, 128),
        "image_embed": (1, 256, 64, 64),
    }
    assert decoder_ports("sam2", 1024, 256, "three").outputs == {
        "masks": (B, 3, 256, 256),
        "iou_predictions": (B, 3),
    }
    assert encoder_ports("sam1", 1024, 256) == (
        {"input_image": (1, 3, 1024, 1024)},
        {"image_embeddings": (1, 256, 64, 64)},
    )
    assert decoder_ports("sam1", 1024, 256, "all").outputs == {
        "masks": (B, 4, "height", "width"),
        "iou_predictions": (B, 4),
        "low_res_masks": (B, 4, 256, 256),
    }


def test_the_files_are_valid_and_of_the_wanted_opset(exported: Exported) -> None:
    for path in exported.folder.glob("*.onnx"):
        model = onnx.load(path)
        onnx.checker.check_model(model)
        assert {entry.domain: entry.version for entry in model.opset_import}[""] == 18


def test_every_file_says_how_it_is_to_be_used(exported: Exported) -> None:
    cards = [read_card(path) for path in exported.folder.glob("*.onnx")]
    card = cards[0]
    assert cards == [card] * 3
    assert card["input_size"] == 512
    assert card["mean"] == [0.485, 0.456, 0.406]
    assert card["std"] == [0.229, 0.224, 0.225]
    assert (card["resize"], card["padding"]) == ("stretch", "none")
    assert (card["licence"], card["precision"]) == ("BSD-3-Clause", "float32")
    weights = checkpoint_path(find_model("sam2-nano"))
    assert card["checkpoint_sha256"] == hash_file(weights)
    told = session(exported.folder / "encoder.onnx").get_modelmeta()
    assert json.loads(told.custom_metadata_map["sam_suite"]) == card


# -- the numbers -----------------------------------------------------------------


def test_the_export_says_what_the_model_says(exported: Exported) -> None:
    told = json.loads((exported.folder / "parity.json").read_text())
    assert max(told["embedding"].values()) < 1e-4
    assert told["logits"] < 1e-3
    assert told["mask_iou"] >= 0.999
    kinds = {row["prompt"] for row in told["rows"]}
    assert kinds == {
        "point", "points", "box", "point + box", "mask", "point + mask", "none",
    }  # fmt: skip
    table = (exported.folder / "parity.md").read_text()
    assert all(f"| {kind} |" in table for kind in kinds)


def decoder_feed(exported: Exported, points: Any, labels: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 3, 512, 512)).astype(np.float32)
    encoder = session(exported.folder / "encoder.onnx")
    names = ["image_embed", "high_res_feats_0", "high_res_feats_1"]
    features = dict(zip(names, encoder.run(names, {"image": image}), strict=True))
    return features | {
        "point_coords": np.asarray(points, np.float32),
        "point_labels": np.asarray(labels, np.float32),
        "mask_input": np.zeros((1, 1, 128, 128), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }


def test_many_prompts_at_once_are_as_one_by_one(exported: Exported) -> None:
    points = np.random.default_rng(1).uniform(0, 512, (5, 2, 2))
    feed = decoder_feed(exported, points, np.ones((5, 2)))
    decoder = session(exported.folder / "decoder.onnx")
    masks, iou = decoder.run(["masks", "iou_predictions"], feed)
    assert masks.shape == (5, 3, 128, 128)
    assert np.abs(masks).max() <= 32
    for i in range(5):
        one = feed | {
            "point_coords": feed["point_coords"][i : i + 1],
            "point_labels": feed["point_labels"][i : i + 1],
        }
        alone, score = decoder.run(["masks", "iou_predictions"], one)
        assert np.abs(alone[0] - masks[i]).max() < 1e-4
        assert np.abs(score[0] - iou[i]).max() < 1e-5


def test_the_prompts_of_nimbusimage_are_answered(exported: Exported) -> None:
    # a click and a point that is none, no batch of masks
    feed = decoder_feed(exported, [[[200, 220], [0, 0]]], [[1, -1]])
    decoder = session(exported.folder / "decoder.onnx")
    masks, iou = decoder.run(None, feed)
    assert masks.shape == (1, 3, 128, 128)
    assert np.isfinite(masks).all() and iou.shape == (1, 3)


def test_files_for_browsers_give_the_same(exported: Exported) -> None:
    path = exported.folder / "encoder.ort"
    assert path.read_bytes()[4:8] == b"ORTM"
    image = np.random.default_rng(0).random((1, 3, 512, 512), np.float32)
    one = session(path).run(None, {"image": image})
    other = session(path.with_suffix(".onnx")).run(None, {"image": image})
    assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) < 1e-4
    listed = json.loads((exported.folder / "model.json").read_text())["files"]
    assert listed["encoder"] == "encoder.ort"


# -- options ---------------------------------------------------------------------


def test_a_smaller_encoder_stays_close(smaller: Exported, exported: Exported) -> None:
    precision = read_card(smaller.folder / "encoder.onnx")["precision"]
    least, size = {"float16": (0.99, 0.55), "int8": (0.97, 0.45)}[precision]
    assert smaller.parity.overlap >= least
    assert max(smaller.parity.embedding.values()) > 0
    whole, part = (stored(done, "encoder.onnx") for done in (exported, smaller))
    assert part < size * whole
    decoders = [stored(done, "decoder.onnx") for done in (exported, smaller)]
    assert decoders[0] == pytest.approx(decoders[1], rel=0.02)
    assert load_model(str(smaller.folder)).card["precision"] == precision  # type: ignore[attr-defined]


def stored(done: Exported, name: str) -> int:
    """Bytes of a file with those beside it."""
    return done.files[name] + done.files.get(f"{name}.data", 0)


def test_a_fine_tuned_model_is_exported_with_its_own_weights(tmp_path: Path) -> None:
    trainee = Trainee(load_model("sam2-nano", device="cpu"))
    with torch.no_grad():
        for value in trainee.parameters.values():
            value.mul_(1.01)
    path = tmp_path / "mine.safetensors"
    save_tuned(path, trainee, {"prompt": "all"})
    params = ExportParams(page=False, simplify=False, single_mask=True)
    images = {"tissue": TISSUE[:96, :96].copy()}
    done = export_onnx(path, tmp_path / "out", params, images=images)
    assert done.parity.overlap >= 0.999 and done.parity.logits < 1e-3
    card = read_card(tmp_path / "out" / "decoder.onnx")
    assert (card["model"], card["title"]) == ("mine", "mine")
    assert card["checkpoint_sha256"] == hash_file(path)


def test_a_single_mask_is_the_one_that_sam_would_choose(tmp_path: Path) -> None:
    params = ExportParams(page=False, single_mask=True, external_data="always")
    done = export_onnx("sam2-nano", tmp_path, params, images={"tissue": TISSUE})
    assert set(done.files) == {
        "decoder.onnx", "decoder.onnx.data", "encoder.onnx", "encoder.onnx.data",
    }  # fmt: skip
    assert done.files["encoder.onnx"] < 1e6 < done.files["encoder.onnx.data"]
    modes = {(tmp_path / name).stat().st_mode for name in done.files}
    assert len(modes) == 1, "whoever may read the model may read its weights"
    decoder = session(tmp_path / "decoder.onnx")
    assert ports(decoder.get_outputs())["masks"][1] == [B, 1, 128, 128]
    assert done.parity.logits < 1e-3
    with pytest.raises(ModelError, match="exported with single_mask"):
        load_model(str(tmp_path))


# -- SAM 1 -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_sam1() -> Sam1Model:
    """SAM 1's own decoder with a vision transformer of one layer."""
    from segment_anything.build_sam import _build_sam

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _build_sam(
            encoder_embed_dim=32,
            encoder_depth=1,
            encoder_num_heads=2,
            encoder_global_attn_indexes=[],
        )
    spec = ModelSpec(id="small", family="sam1", config="small", title="Small SAM 1")
    return Sam1Model(network, spec, torch.device("cpu"), torch.float32)


def test_sam1_is_exported_with_its_own_names(
    tmp_path: Path, small_sam1: Sam1Model
) -> None:
    params = ExportParams(page=False)
    done = write_model(small_sam1, tmp_path, params, images={"tissue": TISSUE})
    assert set(done.files) == {"decoder.onnx", "encoder.onnx"}
    assert read_card(tmp_path / "encoder.onnx")["resize"] == "longest side"
    encoder = session(tmp_path / "encoder.onnx")
    assert ports(encoder.get_inputs()) == floats(input_image=[1, 3, 1024, 1024])
    assert ports(encoder.get_outputs()) == floats(image_embeddings=[1, 256, 64, 64])
    decoder = session(tmp_path / "decoder.onnx")
    assert ports(decoder.get_inputs())["orig_im_size"] == ("tensor(float)", [2])
    assert list(ports(decoder.get_outputs())) == [
        "masks", "iou_predictions", "low_res_masks",
    ]  # fmt: skip
    feed = {
        "image_embeddings": np.zeros((1, 256, 64, 64), np.float32),
        "point_coords": np.array([[[500, 300], [0, 0]]], np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
        "orig_im_size": np.array([300, 400], np.float32),
    }
    masks, iou, low = decoder.run(None, feed)
    assert (masks.shape, iou.shape) == ((1, 4, 300, 400), (1, 4))
    full = small_sam1.network.postprocess_masks(
        torch.from_numpy(low), (768, 1024), (300, 400)
    )
    assert np.abs(full.numpy() - masks).max() < 1e-4


def test_weights_beyond_one_file_lie_beside_it(
    tmp_path: Path, small_sam1: Sam1Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST", 2**20)
    params = ExportParams(page=False)
    done = write_model(small_sam1, tmp_path, params, images={"tissue": TISSUE})
    assert done.files["encoder.onnx"] < 2**20 < done.files["encoder.onnx.data"]
    assert done.parity.logits < 1e-3
    monkeypatch.setattr(export, "LARGEST", 2**10)
    with pytest.raises(ModelError, match="over 2 GB"):
        write_model(small_sam1, tmp_path, params.with_(ort=True))


# -- what goes wrong -------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "refused"),
    [((1e-5, 1e-4, 0.9991), ""), ((2e-4, 1e-4, 1.0), "embeddings differ by 2.0e-04"),
     ((1e-5, 0.1, 1.0), "logits differ by 1.0e-01"),
     ((1e-5, 1e-4, 0.96), "mean IoU is 0.9600, at least 0.97 is needed")],
)  # fmt: skip
def test_what_is_too_far_from_the_model_is_refused_with_the_numbers(
    found: tuple[float, float, float], refused: str
) -> None:
    embedding, logits, overlap = found
    row = Row("tissue", "point", 3, logits, 0.0, overlap, overlap)
    parity = Parity(Tolerance(1e-4, 1e-3, 0.97), {"image_embed": embedding}, [row])
    if not refused:
        parity.require("mine")
        return
    with pytest.raises(ModelError, match=refused):
        parity.require("mine")


def test_an_export_outside_of_the_tolerance_is_not_kept(
    tmp_path: Path, small_sam1: Sam1Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCES, "float32", Tolerance(0.0, 0.0, 1.0))
    with pytest.raises(ModelError, match="embeddings differ by"):
        write_model(
            small_sam1,
            tmp_path,
            ExportParams(simplify=False),
            images={"tissue": TISSUE[:64, :64]},
        )
    assert not list(tmp_path.iterdir())


def test_a_folder_may_have_an_export_but_no_files_of_others(
    tmp_path: Path, exported: Exported
) -> None:
    params = ExportParams(page=False)
    check_free(tmp_path, ExportParams())
    (tmp_path / "index.html").write_text("mine")
    check_free(tmp_path, params)
    for name in ("decoder_single.ort", "encoder.onnx", "model.json"):
        other = tmp_path / f"with {name}"
        other.mkdir()
        (other / name).write_text("null")
        with pytest.raises(OutputError, match=f"would replace: {name}"):
            check_free(other, params)
    with pytest.raises(OutputError, match=r"would replace: index\.html"):
        check_free(tmp_path, ExportParams())
    # an export, though its encoder is cut off
    shutil.copy(exported.folder / "model.json", tmp_path)
    (tmp_path / "encoder.onnx").write_text("")
    check_free(tmp_path, ExportParams())
    check_free(exported.folder, ExportParams())


def test_other_models_beside_an_export_stay(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "encoder.onnx").write_text("new")
    for name in ("encoder.onnx", "decoder_single.onnx", "encoder.mine.onnx"):
        (tmp_path / name).write_text("old")
    assert keep(tmp_path / "new", tmp_path) == {"encoder.onnx": 3}
    found = sorted(path.name for path in tmp_path.glob("*.onnx"))
    assert found == ["encoder.mine.onnx", "encoder.onnx"]


def test_an_empty_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "decoder.onnx"
    path.write_bytes(b"")
    with pytest.raises(ModelError, match=r"decoder\.onnx is damaged"):
        read_card(path)


def test_an_export_that_is_stopped_leaves_nothing(
    tmp_path: Path, small_sam1: Sam1Model
) -> None:
    with pytest.raises(Cancelled):
        write_model(small_sam1, tmp_path, ExportParams(), stop=lambda: True)
    assert not list(tmp_path.iterdir())


def test_what_is_exported_cannot_be_exported_again(
    tmp_path: Path, exported: Exported
) -> None:
    with pytest.raises(ModelError, match="exported already"):
        export_onnx(str(exported.folder), tmp_path, ExportParams())

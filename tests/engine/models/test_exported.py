"""What an exported folder is taken for, and what is said of one that is not whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from napari_sam_suite.engine.errors import ModelError
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.onnxfile import read_card
from napari_sam_suite.engine.models.ports import decoder_ports, encoder_ports
from napari_sam_suite.engine.models.protocol import Embedding, Prompts
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.models.sessions import _threads

if TYPE_CHECKING:
    from pathlib import Path

CARD = {
    "format": 1,
    "model": "mine",
    "title": "Mine",
    "family": "sam2",
    "config": "nano",
    "input_size": 64,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "masks": "three",
    "guide": False,
    "precision": "float32",
    "licence": "MIT",
    "auto": {"pred_iou_thresh": 0.5, "not known yet": 1},
}


def write(
    path: Path,
    card: object = None,
    *,
    side: int = 64,
    extra: str = "",
    weight: float = 1.0,
) -> Path:
    """A file with the inputs and outputs of its kind, which gives constants."""
    ports = encoder_ports("sam2", side, 8)
    if path.stem != "encoder":
        masks = "single" if path.stem == "decoder_single" else "three"
        ports = decoder_ports("sam2", side, 8, masks)
    inputs = dict(ports.inputs) | ({extra: (1,)} if extra else {})
    named = [
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
            for n, s in port.items()
        ]
        for port in (inputs, ports.outputs)
    ]
    nodes, weights = [], []
    for name, shape in ports.outputs.items():
        value = np.full([n if isinstance(n, int) else 2 for n in shape], weight)
        weights.append(numpy_helper.from_array(value.astype("f4"), f"w_{name}"))
        nodes.append(helper.make_node("Identity", [f"w_{name}"], [name]))
    graph = helper.make_graph(nodes, "g", *named, weights)
    model = helper.make_model(graph, ir_version=9)
    model.opset_import[0].version = 18
    if card is not None:
        entry = model.metadata_props.add()
        entry.key = "sam_suite"
        entry.value = card if isinstance(card, str) else json.dumps(card)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def whole(folder: Path, card: object = CARD) -> Path:
    for name in ("encoder", "decoder", "decoder_single"):
        write(folder / f"{name}.onnx", card)
    return folder


def click(model: Any) -> None:
    """Ask for all masks of a click, of which each half draws some."""
    (embedding,) = model.encode([np.zeros((9, 9, 3), np.uint8)])
    assert isinstance(embedding, Embedding)
    model.decode(embedding, Prompts.clicks(np.ones((2, 2))), tokens=(0, 1, 2, 3))


def test_a_folder_is_a_model_by_what_its_files_say(tmp_path: Path) -> None:
    for name in (str(whole(tmp_path / "e")), str(tmp_path / "e" / "decoder.onnx")):
        spec = find_model(name)
        assert (spec.id, spec.runtime, spec.family) == ("mine-onnx", "onnx", "sam2")
        assert (spec.input_size, spec.licence) == (64, "MIT")
        assert spec.auto.pred_iou_thresh == 0.5
        assert spec.guided and not spec.has_memory


def test_metadata_are_found_behind_gigabytes_of_weights(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", CARD)
    # one more field that is stepped over: number 7, 3 GB, mostly a hole in the file
    length, tag = 3 * 2**30, bytes([7 << 3 | 2])
    size = bytearray()
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    size.append(length)
    content = path.read_bytes()
    with path.open("wb") as file:
        file.write(tag + bytes(size))
        file.seek(3 * 2**30, 1)
        file.write(content)
    assert read_card(path) == CARD


def test_a_file_from_elsewhere_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "encoder.onnx")
    with pytest.raises(ModelError, match="not a model that export-onnx wrote"):
        find_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html>none", b"\x0a\xff\xff\x03abc"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "encoder.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"damaged|not a model"):
        find_model(tmp_path)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "encoder.onnx", CARD)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ModelError, match="is damaged"):
        find_model(tmp_path)


def test_a_folder_without_an_encoder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no encoder\.onnx"):
        find_model(tmp_path)


def test_a_missing_half_is_named(tmp_path: Path) -> None:
    (whole(tmp_path) / "decoder.onnx").unlink()
    with pytest.raises(ModelError, match=r"no decoder\.onnx"):
        load_model(str(tmp_path))


def test_halves_of_two_exports_are_refused(tmp_path: Path) -> None:
    write(whole(tmp_path) / "decoder.onnx", CARD | {"model": "another"})
    with pytest.raises(ModelError, match="not of one export"):
        load_model(str(tmp_path))


def test_a_file_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    whole(tmp_path)
    (tmp_path / "decoder.onnx").replace(tmp_path / "encoder.onnx")
    write(tmp_path / "decoder.onnx", CARD)
    with pytest.raises(ModelError, match="is not the encoder of this model: it takes"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("part", ["encoder", "decoder", "decoder_single"])
def test_a_file_of_another_size_is_refused(tmp_path: Path, part: str) -> None:
    write(whole(tmp_path) / f"{part}.onnx", CARD, side=128)
    with pytest.raises(ModelError, match=r"is not the (en|de)coder.* in it, not 1"):
        click(load_model(str(tmp_path)))


def test_a_file_that_takes_more_is_refused(tmp_path: Path) -> None:
    write(whole(tmp_path) / "decoder.onnx", CARD, extra="more")
    with pytest.raises(ModelError, match=r"is not the decoder.*it takes.*more"):
        click(load_model(str(tmp_path)))


def test_a_file_with_no_network_in_it_is_refused(tmp_path: Path) -> None:
    path = write(whole(tmp_path) / "encoder.onnx", CARD)
    model = onnx.load(path)
    model.graph.node[0].op_type = "Nonsense"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"encoder\.onnx is damaged"):
        load_model(str(tmp_path))


def test_weights_that_were_left_behind_are_named(tmp_path: Path) -> None:
    path = whole(tmp_path) / "encoder.onnx"
    options = {"location": "encoder.onnx.data", "size_threshold": 0}
    onnx.save(onnx.load(path), path, save_as_external_data=True, **options)
    assert load_model(str(tmp_path)).encode([np.zeros((9, 9, 3), np.uint8)])
    data = tmp_path / "encoder.onnx.data"
    data.write_bytes(data.read_bytes()[:8])
    with pytest.raises(ModelError, match=r"encoder\.onnx(\.data)? is damaged"):
        load_model(str(tmp_path))
    data.unlink()
    with pytest.raises(ModelError, match=r"no encoder\.onnx\.data"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_models_that_differ_in_a_weight_alone_share_nothing(
    tmp_path: Path, part: str
) -> None:
    for name in ("a", "b", "c"):
        whole(tmp_path / name)
    other = write(tmp_path / "c" / f"{part}.onnx", CARD, weight=2.0)
    assert other.stat().st_size == (tmp_path / "a" / other.name).stat().st_size
    one, twin, changed = (load_model(str(tmp_path / name)).identity for name in "abc")
    assert one == twin != changed
    assert one.endswith("-onnx-float32")


@pytest.mark.parametrize(
    "change", [{"format": 99}, {"model": None}, {"family": "sam9"}]
)
def test_another_version_of_the_card_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    card = {key: v for key, v in (CARD | change).items() if v is not None}
    write(tmp_path / "encoder.onnx", card)
    with pytest.raises(ModelError, match="another version"):
        find_model(tmp_path)


@pytest.mark.parametrize("card", ["", "{", "[1]", "null"])
def test_a_card_that_is_none_is_refused(tmp_path: Path, card: str) -> None:
    write(tmp_path / "encoder.onnx", card)
    with pytest.raises(ModelError, match="damaged"):
        find_model(tmp_path)


def test_another_precision_or_device_is_refused(tmp_path: Path) -> None:
    whole(tmp_path)
    with pytest.raises(ModelError, match="exported in float32"):
        load_model(str(tmp_path), precision="float16")
    with pytest.raises(ModelError, match="cannot compute on mps"):
        load_model(str(tmp_path), device="mps")


@pytest.mark.parametrize(
    ("said", "threads"), [("1,1", 1), (" 3 , 2", 3), ("2", 2), ("", 0), ("all", 0)]
)
def test_threads_are_those_of_the_outermost_level(
    monkeypatch: pytest.MonkeyPatch, said: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert _threads() == threads
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert _threads() == 0

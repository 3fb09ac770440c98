"""The command export-onnx."""

from __future__ import annotations

import json
import re
import signal
import socket
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from commands import answer, explains, names, run, start

if TYPE_CHECKING:
    from pathlib import Path

# whoever runs the tests may ignore Ctrl-C
INTERRUPTIBLE = "import signal; signal.signal(2, signal.default_int_handler)"


def test_what_is_wrong_is_told_before_any_work(tmp_path: Path, out: Path) -> None:
    explains(run("export-onnx", "--model", "sam9", "--out", out), "no model 'sam9'")
    wrong = ("--precision", "int3")
    explains(run("export-onnx", "--out", out, *wrong), "--precision cannot be 'int3'")
    explains(run("export-onnx", "--out", out, "--opset", "3"), "--opset")
    missing = tmp_path / "none.safetensors"
    explains(run("export-onnx", "--model", missing, "--out", out), "no weights file")
    assert not out.exists()


def test_errors_are_json_for_machines(out: Path) -> None:
    result = run("export-onnx", "--model", "sam9", "--out", out, "--json")
    assert result.exit_code == 1
    assert "sam9" in answer(result)["error"]["message"]


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    explains(run("export-onnx", "--out", tmp_path / "file"), str(tmp_path / "file"))


def test_a_port_that_cannot_be_used_is_told_before_any_work(out: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (99999, taken.getsockname()[1]):
            options = ("--out", out, "--serve", "--port", port)
            result = run("export-onnx", *options)
            explains(result, f"port {port} cannot be used", "another --port")
            found = answer(run("export-onnx", *options, "--json"))
            assert str(port) in found["error"]["message"]
    assert not out.exists()


def test_a_runtime_that_is_named_must_be_there(tmp_path: Path, out: Path) -> None:
    options = ("--out", out, "--runtime", tmp_path / "nope")
    explains(run("export-onnx", *options), "no onnxruntime-web in", "nope")
    assert "nope" in answer(run("export-onnx", *options, "--json"))["error"]["message"]
    assert not out.exists()


def test_files_of_somebody_else_are_not_replaced(out: Path) -> None:
    out.mkdir()
    (out / "index.html").write_text("mine")
    (out / "model.json").write_text("{}")
    result = run("export-onnx", "--out", out)
    explains(result, "would replace: model.json and 1 more", "with --out")
    assert names(out) == ["index.html", "model.json"]
    assert (out / "index.html").read_text() == "mine"


@pytest.mark.slow
def test_the_embedded_model_is_exported_and_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # neither onnxruntime-web nor npm: the model is written all the same
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    out = tmp_path / "out"
    options = ("--out", out, "--json", "--serve")
    process = start("export-onnx", *options, code=INTERRUPTIBLE)
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    found = next(filter(None, (re.search(r"http://\S+", line) for line in lines)))
    with urlopen(f"{found[0]}model.json") as reply:
        card = json.load(reply)
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    report = json.loads(told)
    assert report["parity"]["mask_iou"] >= 0.999
    assert report["parity"]["logits"] < 1e-3
    assert set(report["files"]) <= set(names(out))
    assert {"index.html", "parity.json", "parity.md", "model.json"} < set(names(out))
    assert card["files"]["encoder"] == "encoder.onnx"
    assert any("npm is not installed" in notice for notice in report["notices"])

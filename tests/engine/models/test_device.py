from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_sam_suite.engine.errors import ModelError
from napari_sam_suite.engine.models.device import (
    choose_device,
    choose_precision,
    inference,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# Autocast for a GPU that is not there says so.
pytestmark = pytest.mark.filterwarnings("ignore:CUDA is not available")

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.fixture
def matmul() -> Iterator[Any]:
    """The process's switch for TF32, put back after the test."""
    switch: Any = torch.backends.cuda.matmul
    before = switch.fp32_precision if hasattr(switch, "fp32_precision") else None
    yield switch
    if before is not None:
        switch.fp32_precision = before


def pretend(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False):  # type: ignore[no-untyped-def]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(0, False, "cpu"), (0, True, "mps"), (1, False, "cuda"), (1, True, "cuda")],
)
def test_auto_is_the_fastest_device_there_is(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, expected: str
) -> None:
    pretend(monkeypatch, cuda=cuda, mps=mps)
    assert choose_device("auto").type == expected


def test_a_device_is_taken_by_its_name_and_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, cuda=2)
    assert choose_device("cpu") == CPU
    assert choose_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pretend(monkeypatch)
    with pytest.raises(ModelError, match=f"no usable {name} device"):
        choose_device(name)


def test_a_gpu_beyond_those_there_are_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, cuda=1)
    with pytest.raises(ModelError, match="cuda:1"):
        choose_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "meta"])
def test_a_name_that_is_no_device_is_answered_with_the_devices(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        choose_device(name)
    assert "cpu" in caught.value.hint


@pytest.mark.parametrize(
    ("family", "device", "bf16", "expected"),
    [
        ("sam2", CUDA, True, torch.bfloat16),
        ("sam2", CUDA, False, torch.float32),
        ("sam1", CUDA, True, torch.float32),
        ("sam2", CPU, True, torch.float32),
    ],
)
def test_precision_suits_model_and_hardware(
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    device: torch.device,
    bf16: bool,
    expected: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert choose_precision("auto", device, family) == expected


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_precision_is_taken_by_its_name(name: Any) -> None:
    assert choose_precision(name, CPU, "sam1") == getattr(torch, name)


@pytest.mark.parametrize("name", ["int8", "", "half"])
def test_another_precision_is_answered_with_those_there_are(name: Any) -> None:
    with pytest.raises(ModelError, match="precision") as caught:
        choose_precision(name, CPU, "sam2")
    assert "bfloat16" in caught.value.hint


# Leaving no trace


def test_autocast_and_inference_mode_end_with_the_block() -> None:
    with inference(CPU, torch.bfloat16):
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == torch.bfloat16
    assert not torch.is_inference_mode_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert torch.ones(2, 2, requires_grad=True).sum().requires_grad


def test_in_float32_nothing_is_cast() -> None:
    with inference(CPU, torch.float32):
        assert torch.is_inference_mode_enabled()
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_an_error_leaves_no_trace_either(matmul: Any) -> None:
    before = torch.get_float32_matmul_precision()
    with (
        pytest.raises(ValueError, match="broke"),
        inference(CUDA, torch.bfloat16),
    ):
        raise ValueError("broke")
    assert not torch.is_autocast_enabled("cuda")
    assert not torch.is_inference_mode_enabled()
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("host", [None, "ieee", "tf32"])
def test_tf32_is_on_for_cuda_only_and_put_back(matmul: Any, host: str | None) -> None:
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has only the old switch")
    if host is not None:
        matmul.fp32_precision = host
    before = matmul.fp32_precision
    with inference(CPU, torch.bfloat16):
        assert matmul.fp32_precision == before
    with inference(CUDA, torch.float32):
        assert matmul.fp32_precision == before
    with inference(CUDA, torch.bfloat16):
        assert matmul.fp32_precision == "tf32"
    assert matmul.fp32_precision == before


def test_who_uses_the_old_switch_can_go_on_using_it(matmul: Any) -> None:
    for wanted in (True, False):
        matmul.allow_tf32 = wanted
        with inference(CUDA, torch.bfloat16):
            pass
        assert matmul.allow_tf32 is wanted

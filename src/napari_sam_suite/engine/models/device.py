"""Where a model runs, in which precision, without touching anybody else's torch."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from napari_sam_suite.engine.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sam_suite.engine.models.protocol import Precision


def choose_device(name: str = "auto") -> torch.device:
    """Turn ``"auto"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"cpu"`` into a device.

    Raises
    ------
    ModelError
        If the device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        mps = torch.backends.mps.is_available()
        return torch.device("mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(
            f"There is no device called {name!r}.", "Use auto, cuda, mps or cpu."
        ) from error
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available()
        and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise ModelError(
            f"This machine has no usable {name} device.",
            "Set `device` to auto or cpu, or run napari-sam-suite doctor to see why.",
        )
    return device


def choose_precision(
    precision: Precision, device: torch.device, family: str
) -> torch.dtype:
    """The number format of a model's matrix products.

    ``"auto"`` is bfloat16 for SAM 2 on CUDA hardware that has it and float32
    everywhere else: SAM 1 was not trained to tolerate less.

    Raises
    ------
    ModelError
        If the precision has another name.
    """
    formats = {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
    if precision not in ("auto", *formats):
        raise ModelError(
            f"There is no precision called {precision!r}.",
            f"Use auto, {', '.join(formats)}.",
        )
    if precision != "auto":
        return formats[precision]
    if family == "sam2" and device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


@contextmanager
def inference(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Run a model without gradients and in `dtype`, and leave no trace.

    Inference mode and autocast belong to the thread that enters them. The TF32 switch
    is the process's, so it is put back, and used only where float32 was not asked for.
    """
    with torch.inference_mode():
        if dtype == torch.float32:
            yield
            return
        with _tf32(device), torch.autocast(device.type, dtype=dtype):
            yield


@contextmanager
def _tf32(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    switch: Any = torch.backends.cuda.matmul
    # Since torch 2.9 the old switch raises where somebody used the new one.
    new = hasattr(switch, "fp32_precision")
    name, on = ("fp32_precision", "tf32") if new else ("allow_tf32", True)
    before = getattr(switch, name)
    setattr(switch, name, on)
    try:
        yield
    finally:
        setattr(switch, name, before)

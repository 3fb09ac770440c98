"""From a model's name to a network with its weights."""

from __future__ import annotations

import logging
import pickle
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import ModelError
from napari_sam_suite.engine.models.checkpoints import require_checkpoint
from napari_sam_suite.engine.models.preload import load_triton
from napari_sam_suite.engine.models.registry import ModelSpec, find_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

    from napari_sam_suite.engine.models.protocol import Precision, SamModel

logger = logging.getLogger(__name__)

_NESTED = ("model", "model_state", "model_state_dict", "state_dict")
"""Where others keep the weights: Meta, micro-sam, trainers."""
_PREFIXES = ("module.", "sam.")
"""Before every name of a weight, where a trainer held the model."""


def load_model(
    model: str | ModelSpec,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    folder: Path | str | None = None,
    random_weights: bool = False,
) -> SamModel:
    """Load a model by name or file.

    Parameters
    ----------
    model : str or ModelSpec
        An id such as ``"sam2-nano"``, the path of a checkpoint, or a folder that
        ``export-onnx`` wrote, which runs without torch.
    device : str
        ``"auto"``, ``"cuda"``, ``"mps"`` or ``"cpu"``.
    precision : str
        Number format of matrix products; ``"auto"`` is bfloat16 for SAM 2 on CUDA
        and float32 elsewhere.
    folder : Path, optional
        Where checkpoints are kept, if not in the usual folder.
    random_weights : bool
        The real architecture with seeded random weights: for tests and timing.

    Raises
    ------
    CheckpointMissing
        If its weights are not on this machine; the hint says how to get them.
    ModelError
        If the model is unknown, damaged or of another architecture, or there is no
        such device or precision.
    """
    spec = model if isinstance(model, ModelSpec) else find_model(model, folder=folder)
    if spec.runtime == "onnx":
        from napari_sam_suite.engine.models.exported import ExportedModel

        exported = ExportedModel(spec, device=device, precision=precision)
        exported.require_masks()
        return exported
    # The networks import torchvision, and that Triton: it must be loaded by then.
    load_triton()
    import torch

    from napari_sam_suite.engine.models.device import choose_device, choose_precision

    where = choose_device(device)
    dtype = choose_precision(precision, where, spec.family)
    path = None if random_weights else require_checkpoint(spec, folder)
    weights = None if path is None else read_weights(path, published=not spec.file)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the GPUs as well.
        torch.default_generator.manual_seed(0)
        network = _build(spec)
    if path is not None and weights is not None:
        _fill(network, weights, path)
    if spec.family == "sam1":
        from napari_sam_suite.engine.models.sam1 import Sam1Model as Adapter
    else:
        from napari_sam_suite.engine.models.sam2 import (  # type: ignore[assignment]
            Sam2Model as Adapter,
        )
    return Adapter(network, spec, where, dtype)


def read_weights(path: Path, *, published: bool = False) -> dict[str, torch.Tensor]:
    """Read a checkpoint without ever executing what is in it.

    Understands safetensors, Meta's ``{"model": ...}``, micro-sam's ``{"model_state":
    ...}`` and a bare ``state_dict``.

    Parameters
    ----------
    path : Path
        Of the file.
    published : bool
        Whether it can be had again, because it is a file of the registry.

    Raises
    ------
    ModelError
        If the file is damaged or holds anything but weights.
    """
    load_triton()
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(
            f"There is no checkpoint at {path}.", "Check the path."
        ) from error
    except Exception as error:
        # The readers raise a dozen unrelated types for a damaged file.
        raise _unreadable(path, error, published=published) from error
    weights: Any = found if isinstance(found, dict) else {}
    weights = next((weights[name] for name in _NESTED if name in weights), weights)
    values = weights.values() if isinstance(weights, dict) else ()
    if not values or not all(isinstance(v, torch.Tensor) for v in values):
        raise ModelError(
            f"The checkpoint {path.name} holds no model weights.",
            "Use a file written by SAM, SAM 2 or this package.",
        )
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): v for name, v in weights.items()}
    return dict(weights)


def _unreadable(path: Path, error: Exception, *, published: bool) -> ModelError:
    """What to do about a file; what a user trained is never to be deleted."""
    save = "save its model's state_dict as .safetensors, and give that file."
    hint = f"Copy it again; if it holds more than weights, {save}"
    if published:
        hint = "Delete it and download it again, or choose another model."
    elif isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
        return ModelError(
            f"{path.name} holds more than weights, and is not read because it could "
            "run programs.",
            f"S{save[1:]}",
        )
    return ModelError(
        f"The checkpoint {path.name} is damaged or is not a weights file.", hint
    )


def _build(spec: ModelSpec) -> Any:
    """The architecture with fresh weights, on the CPU."""
    if spec.config == "nano":
        from napari_sam_suite.engine.models.nano.config import build_nano

        with _needs("SAM 2", "sam2"):
            return build_nano(pretrained=False)
    if spec.family == "sam1":
        with _needs("SAM", "segment-anything"):
            from segment_anything import sam_model_registry
        return sam_model_registry[spec.config]()
    with _needs("SAM 2", "sam2"):
        from hydra import initialize_config_module
        from hydra.core.global_hydra import GlobalHydra
        from sam2.build_sam import build_sam2

    if not GlobalHydra.instance().is_initialized():
        # Another package in this process cleared what `import sam2` set up.
        initialize_config_module("sam2", version_base="1.2")
    return build_sam2(spec.config, device="cpu", apply_postprocessing=False)


@contextmanager
def _needs(name: str, package: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ModelError(
            f"{name} is not installed.", f"Install it with: pip install {package}"
        ) from error


def _fill(network: Any, weights: dict[str, torch.Tensor], path: Path) -> None:
    if any(name.startswith("guide.") for name in weights):
        from napari_sam_suite.engine.models.nano.config import add_guide

        add_guide(network)
    try:
        wrong = network.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in weights.items()},
            strict=False,
        )
    except RuntimeError as error:
        raise _mismatch(path) from error
    if wrong.missing_keys or wrong.unexpected_keys:
        logger.info("missing %s, unexpected %s", *wrong)
        raise _mismatch(path)


def _mismatch(path: Path) -> ModelError:
    return ModelError(
        f"The checkpoint {path.name} was made for another architecture.",
        "Choose the model that it belongs to.",
    )

"""What training leaves on the disk: the model with its card, and where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_sam_suite import __version__
from napari_sam_suite.engine.errors import OutputError
from napari_sam_suite.engine.formats.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from napari_sam_suite.engine.finetune.trainee import Trainee
    from napari_sam_suite.engine.models.registry import ModelSpec

SUFFIX = ".safetensors"


def check_target(out: Path | str) -> Path:
    """Return where the model shall be.

    Raises
    ------
    OutputError
        If the name has another ending, or the folder cannot be made.
    """
    path = Path(out).expanduser().absolute()
    if path.suffix != SUFFIX:
        raise OutputError(
            f"A fine-tuned model is a {SUFFIX} file, not {path.name!r}.",
            f"Call it {path.stem}{SUFFIX}.",
        )
    if path.is_dir():
        raise OutputError(f"{path} is a folder.", "Choose another name.")
    return path


def run_folder(out: Path) -> Path:
    """Where checkpoints of a training lie."""
    return out.with_name(f"{out.stem}.training")


def describe_architecture(spec: ModelSpec) -> dict[str, str]:
    """What a reader must know to build the network: the file's header says it."""
    return {
        "format": "napari-sam-suite model",
        "family": spec.family,
        "config": spec.config,
        "input_size": str(spec.input_size),
    }


def write_model(path: Path, trainee: Trainee, card: Mapping[str, Any]) -> None:
    """Write all weights, and the card beside them.

    The card comes last: a model without one can be used, a card without its model
    would speak of another.

    Raises
    ------
    OutputError
        If the files cannot be written; an older model is left as it was.
    """
    from safetensors.torch import save

    state = {
        name: value.detach().cpu().contiguous()
        for name, value in trainee.adapter.network.state_dict().items()
    }
    content = save(state, describe_architecture(trainee.spec))
    with replacing(path) as part:
        part.write_bytes(content)
    told = {**describe_architecture(trainee.spec), **card}
    told["title"], told["input_size"] = path.stem, trainee.spec.input_size
    with replacing(path.with_suffix(".json")) as part:
        part.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"napari-sam-suite": __version__, "torch": torch.__version__}
    for package in ("sam2", "segment-anything"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_state(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> None:
    """Write where training stands: tensors, and everything else as JSON in the header.

    Raises
    ------
    OutputError
        If it cannot be written; an older state is left as it was.
    """
    from safetensors.torch import save

    plain = {n: t.detach().cpu().contiguous() for n, t in tensors.items()}
    content = save(plain, {"state": json.dumps(told)})
    with replacing(path) as part:
        part.write_bytes(content)


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `write_state` wrote; None where there is no file or it is damaged."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            told: dict[str, Any] = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception:  # noqa: BLE001 - the reader raises many types for a damaged file
        return None
    return tensors, told

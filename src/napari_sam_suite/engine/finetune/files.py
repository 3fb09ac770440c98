"""What training leaves on the disk: the model with its card, and where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import OutputError
from napari_sam_suite.engine.formats.atomic import replacing
from napari_sam_suite.engine.outputs import check_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from napari_sam_suite.engine.finetune.trainee import Trainee
    from napari_sam_suite.engine.models.registry import ModelSpec

SUFFIX = ".safetensors"
_FORMAT = "napari-sam-suite model"


def check_target(out: Path | str, base: ModelSpec) -> Path:
    """Return where the model shall be; found out before any work is done.

    Parameters
    ----------
    out : Path
        ``NAME.safetensors``.
    base : ModelSpec
        The model that training begins with.

    Raises
    ------
    OutputError
        If the name has another ending, the folder cannot be written to, the base model
        would be overwritten, or the card some other JSON file.
    """
    path = Path(out).expanduser().absolute()
    if path.suffix != SUFFIX:
        raise OutputError(
            f"A fine-tuned model is a {SUFFIX} file, not {path.name!r}.",
            f"Call it {path.stem}{SUFFIX}.",
        )
    if path.is_dir():
        raise OutputError(f"{path} is a folder.", "Choose another name.")
    if base.file is not None and base.file.resolve() == path.resolve():
        raise OutputError(
            "The new model would overwrite the one it begins with.",
            "Give it another name.",
        )
    card = path.with_suffix(".json")
    if card.exists() and _read_card(card).get("format") != _FORMAT:
        raise OutputError(
            f"The card of the new model would overwrite {card}.",
            "Give the model another name.",
        )
    check_folder(path.parent)
    return path


def check_own(path: Path, run: str) -> None:
    """Refuse to overwrite a model that another run made.

    Parameters
    ----------
    path : Path
        From `check_target`.
    run : str
        Tells the run: its data, settings and base model.

    Raises
    ------
    OutputError
        If there is a model whose card does not name this run.
    """
    if path.exists() and not own_card(path, run):
        raise OutputError(
            f"{path.name} is a model that was made from other data or settings.",
            "Choose another name, or delete that model first.",
        )


def own_card(path: Path, run: str) -> dict[str, Any]:
    """The card of a model that this run made; empty where there is no such model."""
    card = _read_card(path.with_suffix(".json")) if path.exists() else {}
    return card if card.get("run") == run else {}


def check_unfinished(path: Path, run: str, about: Mapping[str, Any]) -> None:
    """Refuse to overwrite the state of another run that was interrupted.

    One that has nothing better than its base model may go: nothing is lost.

    Parameters
    ----------
    path : Path
        Where `write_state` puts it.
    run : str
        Tells the run.
    about : mapping
        What the run is told by: ``data``, ``base`` and ``settings``; a state has them
        too, so that it can be said what differs.

    Raises
    ------
    OutputError
        If there is such a state.
    """
    told = _read_told(path)
    if told.get("key", run) == run or told.get("done") or not told.get("best_epoch"):
        return
    raise OutputError(
        f"{path.parent.name} has an unfinished training with {_differing(told, about)}"
        f", at epoch {told.get('epoch')}.",
        "Give the same again to go on with it, choose another name, or delete that "
        "folder first.",
    )


def _differing(told: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """What one training has and the other has not."""
    if not about.keys() <= told.keys():
        return "other data or settings"
    here, there = about["settings"], told["settings"]
    texts = [] if told["data"] == about["data"] else ["other data"]
    texts += [] if told["base"] == about["base"] else ["another base model"]
    texts += [
        f"`{name}` {there.get(name)} instead of {here.get(name)}"
        for name in {**here, **there}
        if there.get(name) != here.get(name)
    ]
    return ", ".join(texts) or "other settings"


def _read_card(path: Path) -> dict[str, Any]:
    """A model's card; empty where it is missing or none."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def run_folder(out: Path) -> Path:
    """Where checkpoints of a training lie."""
    return out.with_name(f"{out.stem}.training")


def describe_architecture(spec: ModelSpec) -> dict[str, str]:
    """What a reader must know to build the network: the file's header says it."""
    return {
        "format": _FORMAT,
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


def _read_told(path: Path) -> dict[str, Any]:
    """What a state tells besides its tensors; empty where it is missing or damaged."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            told: dict[str, Any] = json.loads(file.metadata()["state"])
    except Exception:  # noqa: BLE001 - the reader raises many types for a damaged file
        return {}
    return told


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `write_state` wrote; None where there is no file or it is damaged."""
    from safetensors import safe_open

    told = _read_told(path)
    if not told:
        return None
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, told  # noqa: SIM118

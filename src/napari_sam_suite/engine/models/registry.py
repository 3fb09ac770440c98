"""Which models there are: the one table, and how a name becomes a row of it."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from napari_sam_suite.engine.errors import ModelError
from napari_sam_suite.engine.models.nano.config import CARD
from napari_sam_suite.engine.models.onnxfile import ENCODER, read_card

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Family = Literal["sam1", "sam2"]
Runtime = Literal["torch", "onnx"]
Search = Literal["guided", "grid"]

DEFAULT_MODEL = "sam2-nano"
"""The model that travels inside the package."""

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".torch")
"""File names that are taken for weights."""

_VIT = re.compile(r"(?<![a-z0-9])vit[-_]([bhlt])(?![a-z0-9])")
"""What micro-sam and others call the architectures of SAM 1, as a word of a name."""

_SERVER = "https://dl.fbaipublicfiles.com"


@dataclass(frozen=True, kw_only=True)
class AutoDefaults:
    """Automatic-mask settings that suit a model unless the user says otherwise.

    Attributes
    ----------
    pred_iou_thresh, stability_score_thresh, box_nms_thresh : float
        Thresholds in 0..1.
    stability_score_offset : float
        Distance of the two cut-offs from the mask threshold, in logits.
    tile : float
        Side of the tiles of large images, as a multiple of the model's input side:
        below 1, tiles are enlarged.
    search : {"guided", "grid"}
        Whether the model's guide is asked, where it has one, or a grid of points.
    """

    pred_iou_thresh: float
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    tile: float = 1.25
    search: Search = "guided"


_AUTO = {
    "sam1": AutoDefaults(pred_iou_thresh=0.88),
    "sam2": AutoDefaults(pred_iou_thresh=0.8),
}


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model: what it is, where its weights come from and how to use it.

    Attributes
    ----------
    id : str
        The name a person types.
    family : {"sam1", "sam2"}
        Which adapter runs it.
    config : str
        SAM 1: key of ``segment_anything.sam_model_registry``. SAM 2: a config of the
        ``sam2`` package, or ``"nano"`` for the embedded architecture.
    input_size : int
        Side of the model's square input, in pixels.
    url, sha256 : str
        Where the public checkpoint is and what it must hash to; empty for the
        embedded model and for local files.
    size_mb : float
        Size of the weights in 10^6 bytes.
    licence : str
        SPDX identifier of the weights' licence; empty when unknown.
    memory : float
        Measured on a CPU in float32, in 10^9 bytes: the weights, one encoded image
        and 64 prompts, beyond what the libraries take (about 1).
    auto : AutoDefaults
        Recommended automatic-mask settings.
    embedded : bool
        Whether the weights are part of this package.
    file : pathlib.Path or None
        Weights outside the registry's checkpoint folder; of an exported model the
        encoder.
    runtime : {"torch", "onnx"}
        What computes it.
    """

    id: str
    family: Family
    config: str
    title: str
    input_size: int = 1024
    url: str = ""
    sha256: str = ""
    size_mb: float = 0.0
    licence: str = ""
    memory: float = 0.0
    auto: AutoDefaults = _AUTO["sam2"]
    embedded: bool = False
    file: Path | None = None
    runtime: Runtime = "torch"

    @property
    def name(self) -> str:
        """What `find_model` finds it by: the id, or the path of its file."""
        return str(self.file) if self.file else self.id

    @property
    def filename(self) -> str:
        """Name of the weights file in a checkpoint folder."""
        return self.file.name if self.file else self.url.rsplit("/", 1)[-1]

    @property
    def guided(self) -> bool:
        """Whether its automatic masks ask where its guide says, unless told otherwise.

        The embedded model, what is tuned from it, and their exports have a guide.
        """
        return self.config == "nano" and self.auto.search == "guided"

    @property
    def has_memory(self) -> bool:
        """Whether it knows objects again from frame to frame: SAM 2's video memory.

        SAM 1 has none, and the embedded model was made without.
        """
        return self.runtime == "torch" and self.config.startswith("configs/sam2")


def _sam2(
    version: str,
    released: str,
    size: str,
    config: str,
    sha256: str,
    mb: int,
    memory: float,
) -> ModelSpec:
    name = f"sam{version}_hiera_{size}"
    return ModelSpec(
        id=name,
        family="sam2",
        config=f"configs/sam{version}/sam{version}_hiera_{config}.yaml",
        title=f"SAM {version} {size.replace('_', ' ')}",
        url=f"{_SERVER}/segment_anything_2/{released}/{name}.pt",
        sha256=sha256,
        size_mb=mb,
        licence="Apache-2.0",
        memory=memory,
    )


def _sam1(name: str, config: str, sha256: str, mb: int, memory: float) -> ModelSpec:
    return ModelSpec(
        id=name,
        family="sam1",
        config=config,
        title=f"SAM 1 ViT-{config[-1].upper()}",
        url=f"{_SERVER}/segment_anything/{name}.pth",
        sha256=sha256,
        size_mb=mb,
        licence="Apache-2.0",
        memory=memory,
        auto=_AUTO["sam1"],
    )


def _read_card(card: Path) -> dict[str, Any]:
    """What the model card beside the weights says; nothing where there is none."""
    if not card.is_file():
        return {}
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The model card {card} is not readable JSON.",
            "Correct it or remove it.",
        ) from error
    if not isinstance(content, dict):
        raise ModelError(
            f"The model card {card} is not a JSON object.",
            'It should look like {"family": "sam1", "config": "vit_b"}.',
        )
    return content


def _auto(settings: AutoDefaults, card: Mapping[str, Any]) -> AutoDefaults:
    """The settings, and what the model's card recommends instead."""
    recommended = card.get("recommended")
    if not isinstance(recommended, dict):
        return settings
    known = {field.name for field in fields(AutoDefaults)} & recommended.keys()
    return replace(settings, **{name: recommended[name] for name in known})


# fmt: off
_TABLE = (
    ModelSpec(
        id=DEFAULT_MODEL, family="sam2", config="nano", title="SAM 2 nano (embedded)",
        input_size=512, licence="BSD-3-Clause", memory=0.3, embedded=True,
        auto=_auto(_AUTO["sam2"], _read_card(CARD)),
    ),
    _sam2("2.1", "092824", "tiny", "t",
          "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69", 156, 2.0),
    _sam2("2.1", "092824", "small", "s",
          "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38", 184, 2.0),
    _sam2("2.1", "092824", "base_plus", "b+",
          "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5", 324, 2.1),
    _sam2("2.1", "092824", "large", "l",
          "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318", 898, 2.6),
    _sam2("2", "072824", "tiny", "t",
          "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125", 156, 2.0),
    _sam2("2", "072824", "small", "s",
          "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3", 184, 2.0),
    _sam2("2", "072824", "base_plus", "b+",
          "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071", 324, 2.1),
    _sam2("2", "072824", "large", "l",
          "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b", 898, 2.6),
    _sam1("sam_vit_b_01ec64", "vit_b",
          "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", 375, 1.9),
    _sam1("sam_vit_l_0b3195", "vit_l",
          "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
          1250, 2.8),
    _sam1("sam_vit_h_4b8939", "vit_h",
          "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
          2565, 4.2),
)
# fmt: on

MODELS: Mapping[str, ModelSpec] = MappingProxyType({spec.id: spec for spec in _TABLE})
"""Every model by its id, the embedded one first."""


def find_model(
    name: object,
    *,
    family: str | None = None,
    config: str | None = None,
    models: Mapping[str, ModelSpec] = MODELS,
    folder: str | Path | None = None,
) -> ModelSpec:
    """Return the model that `name` means.

    Parameters
    ----------
    name : str or path
        An id of the registry (any case), the file name of its public checkpoint, a
        weights file on this machine, the name of a fine-tuned model in the checkpoint
        folder, or a folder that ``export-onnx`` wrote.
    family, config : str, optional
        What a weights file holds, where neither the file, the card beside it nor
        its name tells.
    models : mapping
        The registry to look in.
    folder : path, optional
        Where checkpoints are kept, if not in the usual folder.

    Raises
    ------
    ModelError
        If `name` is empty, no text, unknown, or a file whose architecture cannot
        be told.
    """
    if isinstance(name, Path):
        return _local_model(name, family, config, models.values())
    if name is None or (isinstance(name, str) and not name.strip()):
        raise ModelError("No model is chosen.", _choices(models))
    if not isinstance(name, str):
        raise ModelError(
            f"A model is named by text, not by {type(name).__name__} {name!r}.",
            _choices(models),
        )
    text = name.strip()
    for spec in models.values():
        named_by_file = text == spec.filename and not Path(text).is_file()
        if text.casefold() == spec.id.casefold() or named_by_file:
            return spec
    path = Path(text)
    known = path.suffix.lower() in (*WEIGHT_SUFFIXES, ".onnx") or path.is_dir()
    if known or path.parent != Path():
        return _local_model(Path(text), family, config, models.values())
    from napari_sam_suite.engine.models.checkpoints import tuned_folder

    tuned = tuned_folder(folder) / f"{text}.safetensors"
    if tuned.is_file():
        return _local_model(tuned, family, config, models.values())
    raise ModelError(f"There is no model '{text}'.", _suggest(text, models))


def _local_model(
    path: Path, family: str | None, config: str | None, models: Iterable[ModelSpec]
) -> ModelSpec:
    path = path.expanduser()
    if path.is_dir() or path.suffix.lower() == ".onnx":
        return _exported_model(path if path.is_dir() else path.parent)
    if not path.is_file():
        raise ModelError(
            f"There is no weights file {path}.",
            "Check the path, or name a model of 'napari-sam-suite models list'.",
        )
    card = {**_read_header(path), **_read_card(path.with_suffix(".json"))}
    card |= {k: v for k, v in (("family", family), ("config", config)) if v}
    base = _resembling(card, path.name, models)
    family = card.get("family", base.family if base else None)
    config = card.get("config", base.config if base else None)
    if family not in get_args(Family) or not config:
        raise ModelError(
            f"It cannot be told which architecture {path.name} holds.",
            f'Say it in {path.stem}.json beside it, such as {{"family": "sam1", '
            '"config": "vit_b"}.',
        )
    family = cast("Family", family)
    same = base is not None and base.config == config
    size = base.input_size if base and same else 1024
    return ModelSpec(
        id=str(card.get("id") or path.stem),
        family=family,
        config=config,
        title=str(card.get("title") or path.name),
        input_size=_whole_number(card.get("input_size"), size, path),
        size_mb=path.stat().st_size / 1e6,
        licence=str(card.get("licence") or ""),
        memory=base.memory if base and same else 0.0,
        auto=_auto(base.auto if base and same else _AUTO[family], card),
        file=path.absolute(),
    )


def _exported_model(folder: Path) -> ModelSpec:
    """The model in a folder that ``export-onnx`` wrote."""
    file = folder / f"{ENCODER}.onnx"
    card = read_card(file)
    return ModelSpec(
        id=f"{card['model']}-onnx",
        family=card["family"],
        config=card["config"],
        title=f"{card['title']} (ONNX)",
        input_size=card["input_size"],
        size_mb=sum(f.stat().st_size for f in folder.glob("*.onnx*")) / 1e6,
        licence=card["licence"],
        auto=_auto(_AUTO[card["family"]], {"recommended": card["auto"]}),
        file=file.absolute(),
        runtime="onnx",
    )


def _resembling(
    card: Mapping[str, Any], filename: str, models: Iterable[ModelSpec]
) -> ModelSpec | None:
    """The registered model of the same architecture, by config, then by name."""
    rows = list(models)
    if "config" in card:
        return next((spec for spec in rows if spec.config == card["config"]), None)
    text = filename.casefold()
    for spec in sorted(rows, key=lambda spec: len(spec.id), reverse=True):
        if re.sub(r"[-_]?[0-9a-f]{6}$", "", spec.id) in text:
            return spec
    word = _VIT.search(text)
    if word and word[1] == "t":
        raise ModelError(
            f"{filename} is of MobileSAM (vit_t), which is not supported.",
            "Use the vit_b, vit_l or vit_h model of the same kind.",
        )
    config = f"vit_{word[1]}" if word else ""
    return next((spec for spec in rows if spec.config == config), None)


def _read_header(path: Path) -> dict[str, Any]:
    """The text that a safetensors file carries about itself."""
    if path.suffix.lower() != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as weights:
            return dict(weights.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path.name} is not a readable safetensors file.",
            "It may be damaged or cut off: copy or train it again.",
        ) from error


def _whole_number(value: object, default: int, path: Path) -> int:
    if value is None:
        return default
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if number <= 0:
        raise ModelError(
            f"The card of {path.name} has input_size {value!r}.",
            "It is the side of the model's square input in pixels, such as 1024.",
        )
    return number


def _choices(models: Iterable[str]) -> str:
    return f"Choose one of {', '.join(models)}, or give a weights file."


def _suggest(text: str, models: Mapping[str, ModelSpec]) -> str:
    folded = {name.casefold(): name for name in models}
    close = difflib.get_close_matches(text.casefold(), folded, n=1, cutoff=0.5)
    close = close or [name for name in folded if text.casefold() in name][:1]
    first = f"Did you mean '{folded[close[0]]}'? " if close else ""
    return first + _choices(models)

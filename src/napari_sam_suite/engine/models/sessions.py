"""The files of an exported model on onnxruntime, opened when they are first run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import MissingExtra, ModelError
from napari_sam_suite.engine.models.onnxfile import ENCODER, damaged, read_card
from napari_sam_suite.engine.models.ports import (
    decoder_ports,
    decoders,
    encoder_ports,
    part_names,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_sam_suite.engine.models.ports import Ports, Shape
    from napari_sam_suite.engine.models.protocol import Device

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class Place:
    """Where onnxruntime computes; `type` is ``"cpu"`` or ``"cuda"``."""

    type: str

    def __str__(self) -> str:
        return self.type


class Sessions:
    """Encoder and decoders of one export.

    Parameters
    ----------
    folder : Path
        Where they are.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    ending : str
        Of the files that are run: ``"onnx"`` or ``"ort"``.

    Attributes
    ----------
    card : dict
        What the files say of themselves, all of them the same.
    width : int
        Channels of an embedding.

    Raises
    ------
    MissingExtra
        If onnxruntime is not installed.
    ModelError
        If a file is missing, damaged, or belongs to another export, or there is no
        such device.
    """

    def __init__(self, folder: Path, *, device: str, ending: str) -> None:
        if find_spec("onnxruntime") is None:
            raise MissingExtra(
                "Exported models need the package onnxruntime, which is not installed.",
                'Install it: pip install "napari-sam-suite[onnx]"',
            )
        self._folder, self._ending = folder, ending
        self.card = _common_card(folder)
        self.place = _choose_place(device)
        self._opened: dict[str, Any] = {}
        self._family: str = self.card["family"]
        self._masks = decoders(self._family, single_mask=self.card["masks"] == "best")
        self.width = 0
        self._session(ENCODER)

    def move(self, device: Device) -> None:
        """Go to another device; files are opened there when they are run."""
        self.place = Place(device.type)
        self._opened.clear()

    def run(self, part: str, outputs: list[str], feed: dict[str, Any]) -> list[Any]:
        """The outputs of one file for its inputs, arrays by name.

        Raises
        ------
        ModelError
            If the file is damaged, or is not this part of this model.
        MemoryError
            If the device has too little memory.
        """
        import onnxruntime

        options = onnxruntime.RunOptions()
        # SAM 1's decoder can also enlarge its masks, which is not asked for
        options.only_execute_path_to_fetches = True
        session = self._session(part)
        try:
            found: list[Any] = session.run(outputs, feed, options)
        except Exception as error:
            # onnxruntime's errors have no type of their own for this
            if "allocate memory" in str(error):
                raise MemoryError(str(error)) from error
            raise
        return found

    def encode(self, pixels: Any) -> dict[str, Any]:
        """Feature maps of the encoder by name, of an image (1, 3, S, S)."""
        ports = self._ports(ENCODER)
        (name,), outputs = ports.inputs, list(ports.outputs)
        return dict(
            zip(outputs, self.run(ENCODER, outputs, {name: pixels}), strict=True)
        )

    def _session(self, part: str) -> Any:
        if part not in self._opened:
            file = self._folder / f"{part}.{self._ending}"
            session = _open(file, self.place.type)
            if part == ENCODER:
                self.width = _width(session)
            _check_ports(file, session, self._ports(part))
            self._opened[part] = session
        return self._opened[part]

    def _ports(self, part: str) -> Ports:
        side: int = self.card["input_size"]
        if part == ENCODER:
            guide: bool = self.card["guide"]
            return encoder_ports(self._family, side, self.width, guide=guide)
        return decoder_ports(self._family, side, self.width, self._masks[part])


def _open(path: Path, device: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = _threads()
    try:
        return onnxruntime.InferenceSession(
            path, options, providers=[_PROVIDERS[device]]
        )
    except Exception as error:
        # One of onnxruntime's many types, by what is wrong with the file.
        data = path.with_name(f"{path.name}.data")
        if data.name in str(error) and not data.exists():
            raise ModelError(
                f"There is no {data.name} in {path.parent}.",
                f"The weights of {path.name} are in it: copy it too, or export again.",
            ) from error
        raise damaged(path) from error


def _threads() -> int:
    """As torch reads it: of a list, one number per level, the first; 0 for all."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def _width(session: Any) -> int:
    """Channels of an encoder's embedding; 0 if it gives none."""
    for port in session.get_outputs():
        if port.name.startswith("image_embed") and len(port.shape) == 4:
            return int(port.shape[1])
    return 0


def _check_ports(path: Path, session: Any, ports: Ports) -> None:
    """Refuse a file that is not what its name says, before it is fed."""
    for verb, given, expected in (
        ("takes", session.get_inputs(), ports.inputs),
        ("gives", session.get_outputs(), ports.outputs),
    ):
        found: dict[str, Shape] = {port.name: tuple(port.shape) for port in given}
        wrong = [f"it {verb} {_names(found)}, not {_names(expected)}"]
        if found.keys() == expected.keys():
            wrong = [
                f"{name} is {_text(found[name])} in it, not {_text(shape)}"
                for name, shape in expected.items()
                if not _agree(found[name], shape)
            ]
        if wrong:
            raise ModelError(
                f"{path} is not the {path.stem.partition('_')[0]} of this model: "
                f"{wrong[0]}.",
                "It may be of another model: export it again, into an empty folder.",
            )


def _agree(found: Shape, expected: Shape) -> bool:
    """Whether lengths are the same where they are fixed."""
    return len(found) == len(expected) and all(
        isinstance(wanted, str) or length == wanted
        for length, wanted in zip(found, expected, strict=True)
    )


def _names(ports: Mapping[str, Shape]) -> str:
    return ", ".join(sorted(ports)) or "nothing"


def _text(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _common_card(folder: Path) -> dict[str, Any]:
    """The card of a folder whose files belong together."""
    card = read_card(folder / f"{ENCODER}.onnx")
    for name in part_names(card["family"], card["masks"])[1:]:
        if read_card(folder / f"{name}.onnx") != card:
            raise ModelError(
                f"{ENCODER}.onnx and {name}.onnx in {folder} are not of one export.",
                "Export the model again, into an empty folder.",
            )
    return card


def _choose_place(name: str) -> Place:
    import onnxruntime

    here = onnxruntime.get_available_providers()
    if name == "auto":
        name = "cuda" if _PROVIDERS["cuda"] in here else "cpu"
    kind = name.partition(":")[0]
    if _PROVIDERS.get(kind) not in here:
        raise ModelError(
            f"onnxruntime cannot compute on {name} here.",
            "Set `device` to cpu, or install onnxruntime-gpu.",
        )
    return Place(kind)

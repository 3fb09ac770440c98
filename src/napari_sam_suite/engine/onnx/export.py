"""A model to ONNX files that are compared with it before anybody gets them."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import Cancelled, MissingExtra, ModelError
from napari_sam_suite.engine.formats.atomic import explain
from napari_sam_suite.engine.models.onnxfile import ENCODER, part_names
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.onnx.contract import (
    decoder_ports,
    decoders,
    encoder_ports,
    make_card,
)
from napari_sam_suite.engine.onnx.parity import TOLERANCES, Parity, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.models.adapter import Adapter
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.onnx.contract import Ports
    from napari_sam_suite.engine.onnx.params import ExportParams

    Images = Mapping[str, NDArray[np.uint8]]

logger = logging.getLogger(__name__)

CARD, PARITY, TABLE = "model.json", "parity.json", "parity.md"
"""What the files say of themselves, for a browser; the comparison; a table of it."""

_OURS = part_names("sam2")
_NEEDED = ("onnx", "onnxruntime", "onnxslim", "onnxconverter_common")


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes
    ----------
    folder : Path
        Where it is; `find_model` knows it as a model.
    files : dict of str to int
        Names and sizes in bytes.
    parity : Parity
        How close it is to the model.
    notices : list of str
        Sentences for the user.
    """

    folder: Path
    files: dict[str, int]
    parity: Parity
    notices: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line for a person."""
        sizes = ", ".join(f"{n} {s / 1e6:.1f} MB" for n, s in self.files.items())
        return f"masks' mean IoU {self.parity.overlap:.4f}; {sizes}"


def export_onnx(
    model: str | Path | ModelSpec,
    out: Path | str,
    params: ExportParams,
    *,
    folder: Path | str | None = None,
    random_weights: bool = False,
    images: Images | None = None,
    runtime: Path | str | None = None,
    report: Report | None = None,
    stop: Stop | None = None,
) -> Exported:
    """Export a model, compare it with the original, and only then keep it.

    Parameters
    ----------
    model : str, path or ModelSpec
        An id, or a weights file, such as one of a fine-tuned model.
    out : path
        Folder for the files; made if it is missing, and files of an earlier export in
        it are replaced once the new ones are whole.
    params : ExportParams
        What is written.
    folder : path, optional
        Where checkpoints are kept.
    random_weights : bool
        The architecture with random weights, for tests.
    images : mapping of str to ndarray, shape (H, W, 3), uint8, optional
        Compared on these; on two of scikit-image's by default.
    runtime : path, optional
        Folder with onnxruntime-web for the demo page, if not fetched with npm.
    report, stop : callable, optional
        Progress in steps, and the wish to stop, looked at between them.

    Raises
    ------
    MissingExtra
        If packages are missing; the hint says how to get them.
    ModelError
        If the model is unknown, its weights are missing, or the files do not give what
        it gives.
    OutputError
        If `out` cannot be written to.
    Cancelled
        If `stop` said so; nothing was written then.
    """
    spec = find_model(model, folder=folder) if isinstance(model, str | Path) else model
    _check(spec)
    if report is not None:
        report(0, 0, "Loading the model")
    return write_model(
        _load(spec, folder, random_weights),
        out,
        params,
        sha256="" if random_weights else _checkpoint_hash(spec, folder),
        images=images,
        runtime=runtime,
        report=report,
        stop=stop,
    )


def write_model(
    model: Adapter,
    out: Path | str,
    params: ExportParams,
    *,
    sha256: str = "",
    images: Images | None = None,
    runtime: Path | str | None = None,
    report: Report | None = None,
    stop: Stop | None = None,
) -> Exported:
    """Export a model that is loaded, on the CPU and in float32; see `export_onnx`.

    `sha256` is that of its checkpoint.
    """
    out = Path(out)
    card = make_card(model.spec, params, sha256)
    shown = images or sample_images()
    parts = decoders(model.spec.family, single_mask=params.single_mask)
    steps = _Steps(3 + len(parts), report, stop)
    with _scratch(out) as scratch:
        _write_parts(model, scratch, params, card, steps)
        steps.next("Comparing with the model")
        parity = _prove(model, scratch, params, shown)
        steps.next("Writing the files")
        _write_texts(scratch, card, parity, params)
        notices = _write_page(scratch, runtime) if params.page else []
        return Exported(out, _keep(scratch, out), parity, notices)


def sample_images() -> dict[str, NDArray[np.uint8]]:
    """Two real images that come with scikit-image: tissue in colour, a grey cell."""
    import numpy as np
    from skimage.data import cell, immunohistochemistry

    grey = np.asarray(cell(), np.uint8)
    return {
        "immunohistochemistry": np.asarray(immunohistochemistry(), np.uint8),
        "cell": np.stack([grey] * 3, -1),
    }


class _Steps:
    """Progress, counted in steps of a few seconds."""

    def __init__(self, total: int, report: Report | None, stop: Stop | None) -> None:
        self._done, self._total = 0, total
        self._report, self._stop = report, stop

    def next(self, text: str) -> None:
        if self._stop is not None and self._stop():
            raise Cancelled("Stopped; nothing was written.")
        if self._report is not None:
            self._report(self._done, self._total, text)
        self._done += 1


def _check(spec: ModelSpec) -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"Export needs the package {missing[0]}, which is not installed.",
            'Install it: pip install "napari-sam-suite[onnx]"',
        )
    if spec.runtime != "torch":
        raise ModelError(
            f"{spec.title} is exported already.",
            "Export the model that it was made from.",
        )


def _load(spec: ModelSpec, folder: Path | str | None, random_weights: bool) -> Adapter:
    from napari_sam_suite.engine.models.load import load_model

    model: Any = load_model(
        spec,
        device="cpu",
        precision="float32",
        folder=folder,
        random_weights=random_weights,
    )
    return model  # type: ignore[no-any-return]


def _checkpoint_hash(spec: ModelSpec, folder: Path | str | None) -> str:
    from napari_sam_suite.engine.models.checkpoints import checkpoint_path
    from napari_sam_suite.engine.models.transfer import hash_file

    return hash_file(checkpoint_path(spec, folder))


def _write_parts(
    model: Adapter,
    scratch: Path,
    params: ExportParams,
    card: dict[str, Any],
    steps: _Steps,
) -> None:
    """Trace encoder and decoders, and finish each of them."""
    import torch

    from napari_sam_suite.engine.onnx import networks
    from napari_sam_suite.engine.onnx.files import finish

    family, side = model.spec.family, model.input_size
    width = int(model._prompt_encoder.embed_dim)
    kind = networks.Sam1Decoder if family == "sam1" else networks.Sam2Decoder
    ports = encoder_ports(family, side, width)
    parts: list[tuple[str, Callable[[], Any], Ports]] = [
        (ENCODER, partial(networks.Encoder, model), ports)
    ]
    for name, masks in decoders(family, single_mask=params.single_mask).items():
        ports = decoder_ports(family, side, width, masks)
        parts.append((name, partial(kind, model, masks), ports))
    traces = scratch / "traces"
    for name, make, ports in parts:
        steps.next(f"Exporting the {name.replace('_', ' ')}")
        traces.mkdir()
        traced = traces / f"{name}.onnx"
        with torch.no_grad(), networks.fixed_positions(model):
            _trace(make().eval(), ports, traced, params.opset)
        finish(traced, scratch / f"{name}.onnx", ports, params, card)
        shutil.rmtree(traces)


def _trace(network: Any, ports: Ports, path: Path, opset: int) -> None:
    """Write a network as it computes an example; two prompts with three points."""
    import torch

    lengths = {"num_labels": 2, "num_points": 3}
    example = [
        torch.zeros([lengths[n] if isinstance(n, str) else n for n in shape])
        for shape in ports.inputs.values()
    ]
    if "orig_im_size" in ports.inputs:
        example[-1] = torch.tensor([300.0, 400.0])
    axes = {
        name: {i: n for i, n in enumerate(shape) if isinstance(n, str)}
        for name, shape in {**ports.inputs, **ports.outputs}.items()
    }
    with warnings.catch_warnings():
        # of the tracer: shapes that are fixed on purpose, and that it is the older way
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(example),
            str(path),
            input_names=list(ports.inputs),
            output_names=list(ports.outputs),
            dynamic_axes={name: named for name, named in axes.items() if named},
            opset_version=opset,
            dynamo=False,
        )


def _prove(
    model: Adapter, scratch: Path, params: ExportParams, images: Images
) -> Parity:
    """Compare all files with the model, those for browsers on one image."""
    from napari_sam_suite.engine.models.exported import ExportedModel

    tolerance = TOLERANCES[params.precision]
    spec = find_model(scratch)
    one = {"single_mask": params.single_mask}
    found = ExportedModel(spec, device="cpu")
    parity = compare(model, found, images, tolerance, **one)
    parity.require(model.spec.id)
    if params.ort:
        from napari_sam_suite.engine.onnx.files import write_ort

        for file in sorted(scratch.glob("*.onnx")):
            write_ort(file, file.with_suffix(".ort"))
        first = dict(list(images.items())[:1])
        found = ExportedModel(spec, device="cpu", ending="ort")
        again = compare(model, found, first, tolerance, **one)
        again.require(f"{model.spec.id} as .ort")
    return parity


def _write_texts(
    scratch: Path, card: dict[str, Any], parity: Parity, params: ExportParams
) -> None:
    ending = "ort" if params.ort else "onnx"
    files = {file.stem: file.name for file in sorted(scratch.glob(f"*.{ending}"))}
    data = sorted(file.name for file in scratch.glob(f"*.{ending}.data"))
    text = json.dumps(card | {"files": files, "data": data}, indent=2) + "\n"
    (scratch / CARD).write_text(text, encoding="utf-8")
    (scratch / PARITY).write_text(parity.as_json(), encoding="utf-8")
    (scratch / TABLE).write_text(parity.as_table(), encoding="utf-8")


def _write_page(scratch: Path, runtime: Path | str | None) -> list[str]:
    """Write the page; a sentence if what it runs on cannot be had."""
    from napari_sam_suite.engine.onnx.page import write_page

    try:
        write_page(scratch, runtime)
    except MissingExtra as error:
        # the model itself is whole
        return [str(error)]
    return []


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder inside `out` that is gone afterwards."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as name:
            yield Path(name)
    except OSError as error:
        raise explain(error, out) from error


def _keep(scratch: Path, out: Path) -> dict[str, int]:
    """Move the files to where they were asked for; those of before go."""
    for old in (*out.glob("*.onnx"), *out.glob("*.onnx.data"), *out.glob("*.ort")):
        if not (scratch / old.name).exists() and old.name.split(".")[0] in _OURS:
            old.unlink()
    sizes = {}
    for file in sorted(scratch.rglob("*")):
        place = out / file.relative_to(scratch)
        if file.is_dir():
            place.mkdir(exist_ok=True)
            continue
        os.replace(file, place)
        if file.suffix in (".onnx", ".data", ".ort"):
            sizes[file.name] = place.stat().st_size
    return sizes

"""A model to ONNX files that are compared with it before anybody gets them."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import Cancelled, MissingExtra, ModelError
from napari_sam_suite.engine.models.ports import decoders
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.onnx.card import make_card
from napari_sam_suite.engine.onnx.files import LARGEST, write_ort
from napari_sam_suite.engine.onnx.folder import (
    add_page,
    check_free,
    keep,
    scratch_in,
    write_texts,
)
from napari_sam_suite.engine.onnx.parity import TOLERANCES, Parity, compare

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.models.adapter import Adapter
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.onnx.params import ExportParams

    Images = Mapping[str, NDArray[np.uint8]]

_NEEDED = ("onnx", "onnxruntime", "onnxslim", "onnxconverter_common")
_BYTES = {"float32": 4, "float16": 2, "int8": 1}


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
        Sentences for the user, settings in them as in an `EngineError`.
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
        If `out` cannot be written to, or has other files under the names of these.
    Cancelled
        If `stop` said so; nothing was written then.
    """
    spec = find_model(model, folder=folder) if isinstance(model, str | Path) else model
    _check(spec)
    check_free(Path(out), params)
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
    check_free(out, params)
    large = _is_large(model, params)
    if params.ort and large:
        raise ModelError(
            f"{model.spec.id} is over 2 GB, which files of the ORT format cannot be.",
            "Leave out `ort`, or set `precision` to float16 or int8.",
        )
    guide = hasattr(model.network, "guide")
    card = make_card(model.spec, params, sha256, guide=guide)
    shown = images or sample_images()
    parts = decoders(model.spec.family, single_mask=params.single_mask)
    steps = _Steps(3 + len(parts), report, stop)
    with scratch_in(out) as scratch:
        from napari_sam_suite.engine.onnx.trace import write_parts

        write_parts(model, scratch, params, card, steps.next)
        steps.next("Comparing with the model")
        parity = _prove(model, scratch, params, shown)
        steps.next("Writing the files")
        write_texts(scratch, card, parity, params)
        notices = add_page(scratch, runtime) if params.page else []
        if params.page and large:
            notices.append(
                "Browsers cannot load the model, which is over 2 GB: for the page set "
                "`precision` to float16 or int8."
            )
        return Exported(out, keep(scratch, out), parity, notices)


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


def _is_large(model: Adapter, params: ExportParams) -> bool:
    """Whether the encoder's weights are more than one file can hold."""
    weights = model.network.image_encoder.parameters()
    count: int = sum(value.numel() for value in weights)
    return count * _BYTES[params.precision] > LARGEST


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
        for file in sorted(scratch.glob("*.onnx")):
            write_ort(file, file.with_suffix(".ort"))
        first = dict(list(images.items())[:1])
        found = ExportedModel(spec, device="cpu", ending="ort")
        again = compare(model, found, first, tolerance, **one)
        again.require(f"{model.spec.id} as .ort")
    return parity

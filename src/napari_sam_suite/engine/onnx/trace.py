"""A model on torch to ONNX files: each part is traced and finished."""

from __future__ import annotations

import shutil
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from napari_sam_suite.engine.models.onnxfile import ENCODER
from napari_sam_suite.engine.models.ports import (
    decoder_ports,
    decoders,
    encoder_ports,
)
from napari_sam_suite.engine.onnx import networks
from napari_sam_suite.engine.onnx.files import finish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_sam_suite.engine.models.adapter import Adapter
    from napari_sam_suite.engine.models.ports import Ports
    from napari_sam_suite.engine.onnx.params import ExportParams


def write_parts(
    model: Adapter,
    folder: Path,
    params: ExportParams,
    card: dict[str, Any],
    begin: Callable[[str], object],
) -> None:
    """Trace encoder and decoders into a folder, and finish each of them.

    `begin` is told what is being done, before each.
    """
    family, side = model.spec.family, model.input_size
    width = int(model._prompt_encoder.embed_dim)
    kind = networks.Sam1Decoder if family == "sam1" else networks.Sam2Decoder
    ports = encoder_ports(family, side, width, guide=card["guide"])
    parts: list[tuple[str, Callable[[], Any], Ports]] = [
        (ENCODER, partial(networks.Encoder, model), ports)
    ]
    for name, masks in decoders(family, single_mask=params.single_mask).items():
        ports = decoder_ports(family, side, width, masks)
        parts.append((name, partial(kind, model, masks), ports))
    traces = folder / "traces"
    for name, make, ports in parts:
        begin(f"Exporting the {name.replace('_', ' ')}")
        traces.mkdir()
        traced = traces / f"{name}.onnx"
        with torch.no_grad(), networks.fixed_positions(model):
            _trace(make().eval(), ports, traced, params.opset)
        finish(traced, folder / f"{name}.onnx", ports, params, card)
        shutil.rmtree(traces)


def _trace(network: Any, ports: Ports, path: Path, opset: int) -> None:
    """Write a network as it computes an example; two prompts with three points."""
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

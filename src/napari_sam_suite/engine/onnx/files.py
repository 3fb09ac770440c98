"""ONNX files: smaller, in other numbers, in another format, with what they say."""

from __future__ import annotations

import json
import shutil
import warnings
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.models.onnxfile import ENCODER, KEY

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam_suite.engine.models.ports import Ports
    from napari_sam_suite.engine.onnx.params import ExportParams

LARGEST = 2**31 - 2**20
"""Bytes that fit into one file of this format, with room for what is not weights."""
_HEAVY = 2**20
"""Bytes from which a tensor is a weight, and not a number of the arithmetic."""
_QUANTISED = ("MatMul", "Gemm")
"""Convolutions stay as they are: in integers they are slower and less exact."""


def finish(
    traced: Path, path: Path, ports: Ports, params: ExportParams, card: dict[str, Any]
) -> None:
    """Make what was traced into the file that was asked for.

    Parameters
    ----------
    traced : Path
        An ONNX file, with or without external data beside it.
    path : Path
        Where the result shall be.
    ports : Ports
        Written into it: axes that the tracer could not name.
    params : ExportParams
        What it shall be.
    card : dict
        What it says of itself.
    """
    import onnx

    model = onnx.load(traced)
    if params.simplify:
        model = _simplified(model)
    # A decoder is small, and what is lost in it is lost in the outline.
    precision = params.precision if path.stem == ENCODER else "float32"
    if precision == "float16":
        model = _halved(model)
    elif precision == "int8":
        model = _quantised(model, path.with_suffix(".int8"))
    _name_axes(model.graph.input, ports.inputs)
    _name_axes(model.graph.output, ports.outputs)
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(card)
    save(model, path, external=params.external_data == "always")


def save(model: Any, path: Path, *, external: bool = False) -> None:
    """Write a model; too many weights, or all if asked to, go into ``<name>.data``."""
    import onnx

    beside = path.with_name(f"{path.name}.data")
    onnx.save_model(
        model,
        path,
        save_as_external_data=external or _weight(model) > LARGEST,
        all_tensors_to_one_file=True,
        location=beside.name,
        size_threshold=1024,
    )
    if beside.exists():  # onnx lets only the owner read it
        shutil.copymode(path, beside)


def _weight(model: Any) -> int:
    """Bytes of a model's weights; a whole model over 2 GB cannot be measured."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def write_ort(path: Path, target: Path) -> None:
    """Write a model in onnxruntime's own format, for browsers.

    Only basic optimisations: further ones suit the processor of this machine.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    )
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _simplified(model: Any) -> Any:
    """The same without operations that do nothing.

    onnxslim cannot hold more than one file can: the weights of a larger model are
    inputs meanwhile.
    """
    import onnxslim
    from onnx.helper import make_tensor_value_info

    if _weight(model) <= LARGEST:
        return onnxslim.slim(model)
    graph = model.graph
    heavy = {t.name: t for t in graph.initializer if len(t.raw_data) > _HEAVY}
    light = [tensor for tensor in graph.initializer if tensor.name not in heavy]
    del graph.initializer[:]
    graph.initializer.extend(light)
    for name, tensor in heavy.items():
        value = make_tensor_value_info(name, tensor.data_type, tensor.dims)
        graph.input.append(value)
    model = onnxslim.slim(model)
    graph = model.graph
    for value in [value for value in graph.input if value.name in heavy]:
        graph.input.remove(value)
        graph.initializer.append(heavy[value.name])
    return model


def _halved(model: Any) -> Any:
    """Weights and arithmetic in 16 bits, inputs and outputs as before."""
    import onnx
    from onnxconverter_common import float16

    casts = {node.name for node in model.graph.node if node.op_type == "Cast"}
    large = _weight(model) > LARGEST
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers too small for 16 bits
        half = float16.convert_float_to_float16(
            model, keep_io_types=True, disable_shape_infer=large
        )
    # the converter leaves these behind, between numbers that have 16 bits now
    for node in half.graph.node:
        if node.name in casts:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                    attribute.i = onnx.TensorProto.FLOAT16
    return half


def _quantised(model: Any, scratch: Path) -> Any:
    """Weights of matrix products in 8 bits; what they meet is quantised as it comes.

    Without a sign, as what they meet: with one the masks' mean IoU was lower.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # its advice, to simplify the model first, was taken, and is not for the user
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    quantize_dynamic(
        model,
        scratch,
        op_types_to_quantize=list(_QUANTISED),
        weight_type=QuantType.QUInt8,
        per_channel=True,
    )
    quantised = onnx.load(scratch)
    scratch.unlink()
    return quantised


def _name_axes(values: Any, shapes: Any) -> None:
    for value in values:
        axes = value.type.tensor_type.shape.dim
        for axis, length in zip(axes, shapes[value.name], strict=True):
            if isinstance(length, str):
                axis.dim_param = length
            else:
                axis.dim_value = length

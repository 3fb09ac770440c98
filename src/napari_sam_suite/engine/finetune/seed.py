"""The configuration of Dataloop's SAM 2 adapter, as it is: a training like its own."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.finetune.params import FinetuneParams
from napari_sam_suite.engine.models.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODEL, _NAME = "model_cfg", "save_model_name"
_NUMBERS = (
    "num_epochs",
    "learning_rate",
    "weight_decay",
    "batch_size",
    "save_interval",
    "patience",
)


class SeedConfig(NamedTuple):
    """What the adapter's configuration means here.

    Attributes
    ----------
    model : str
        Id of the model to begin with.
    params : FinetuneParams
        With its loss and its numbers.
    out : Path
        Name of the new model's file; ours are safetensors.
    """

    model: str
    params: FinetuneParams
    out: Path


def read_config(config: Mapping[str, Any]) -> SeedConfig:
    """Take over a configuration; what it does not name has the adapter's defaults.

    Parameters
    ----------
    config : mapping
        With ``model_cfg`` (such as ``"sam2_hiera_s.yaml"``), ``save_model_name``,
        ``num_epochs``, ``learning_rate``, ``weight_decay``, ``batch_size``,
        ``save_interval``, ``patience``, or some of these.

    Raises
    ------
    ParameterError
        If a key or the model is not known, or a number makes no sense.
    """
    known = {_MODEL, _NAME, *_NUMBERS}
    unknown = sorted(set(config) - known)
    if unknown:
        raise ParameterError(
            f"Not known in a configuration: {', '.join(map(repr, unknown))}.",
            f"Known are: {', '.join(sorted(known))}.",
        )
    wanted = PurePosixPath(str(config.get(_MODEL, "sam2_hiera_s.yaml"))).name
    configs = {PurePosixPath(spec.config).name: spec.id for spec in MODELS.values()}
    if wanted not in configs:
        raise ParameterError(
            f"There is no model with the configuration {wanted!r}.",
            f"Known are: {', '.join(n for n in configs if n.endswith('.yaml'))}.",
        )
    numbers = {name: config[name] for name in _NUMBERS if name in config}
    out = Path(str(config.get(_NAME, "best_sam2_model.torch")))
    params = FinetuneParams(loss="seed", **numbers)
    return SeedConfig(configs[wanted], params, out.with_suffix(".safetensors"))

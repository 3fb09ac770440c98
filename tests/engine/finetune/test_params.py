"""Settings, and those of Dataloop's adapter by its own names."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.finetune.params import FinetuneParams
from napari_sam_suite.engine.finetune.seed import read_config

SEED = {
    "learning_rate": 1e-5,
    "weight_decay": 4e-5,
    "batch_size": 4,
    "save_interval": 10,
    "patience": 10,
}


def test_with_the_seeds_loss_all_defaults_are_the_seeds() -> None:
    params = FinetuneParams(loss="seed").resolved()
    assert params.epochs == 100
    assert {name: getattr(params, name) for name in SEED} == SEED


def test_what_is_left_open_suits_the_loss_and_what_is_said_stays() -> None:
    ours = FinetuneParams().resolved()
    assert (ours.epochs, ours.learning_rate) == (30, 4e-4)
    said = FinetuneParams(loss="seed", epochs=7, learning_rate=0.1).resolved()
    assert (said.epochs, said.learning_rate) == (7, 0.1)


def test_a_configuration_of_the_seed_is_taken_over() -> None:
    model, params, out = read_config(
        {
            "model_cfg": "sam2_hiera_l.yaml",
            "save_model_name": "cells.torch",
            "num_epochs": 12,
            **SEED,
        }
    )
    assert model == "sam2_hiera_large"
    assert (params.loss, params.epochs, params.patience) == ("seed", 12, 10)
    assert out == Path("cells.safetensors")


def test_an_empty_configuration_is_the_seeds_own() -> None:
    model, params, out = read_config({})
    assert model == "sam2_hiera_small"
    assert params.resolved() == FinetuneParams(loss="seed", num_epochs=100).resolved()
    assert out == Path("best_sam2_model.safetensors")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"epoch": 3}, "Not known .*'epoch'"),
        ({"model_cfg": "sam3.yaml"}, "sam3.yaml"),
        ({"num_epochs": 0}, "epochs"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(
    config: dict[str, object], words: str
) -> None:
    with pytest.raises(ParameterError, match=words):
        read_config(config)

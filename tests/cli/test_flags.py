from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from napari_sam_suite.cli.flags import with_params
from napari_sam_suite.engine.params import AutoParams, Params

KINDS = {
    "smoothing": float,
    "padding": float,
    "parts": str,
    "search": str,
    "points_per_side": int,
    "points_per_batch": int,
    "pred_iou_thresh": float,
    "stability_score_thresh": float,
    "stability_score_offset": float,
    "mask_threshold": float,
    "box_nms_thresh": float,
    "crop_n_layers": int,
    "crop_nms_thresh": float,
    "crop_overlap_ratio": float,
    "crop_n_points_downscale_factor": int,
    "min_mask_region_area": int,
    "multimask": bool,
    "refine": bool,
    "tile": str,
    "overlap": str,
    "min_area": int,
    "max_area": int,
}


class Some(Params):
    number: int = Field(3, ge=1, le=9, description="A number.")
    share: float | None = Field(None, description="A share.")
    kind: Literal["one", "two"] = "one"
    side: Annotated[int, Field(ge=32)] | Literal["auto"] = "auto"
    loud: bool = False


def run(*arguments: str) -> dict[str, Any]:
    """What the command is called with."""
    called: list[dict[str, Any]] = []
    app = typer.Typer()

    @app.command()
    @with_params(Some)
    def command(name: str, params: dict[str, Any], times: int = 1) -> None:
        called.append({"name": name, "times": times, **params})

    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return called[0]


def test_every_parameter_of_automatic_masks_has_a_flag_of_its_type() -> None:
    assert KINDS.keys() == AutoParams.model_fields.keys()

    @with_params(AutoParams)
    def command(params: dict[str, Any]) -> None: ...

    flags = inspect.signature(command).parameters
    assert flags.keys() == KINDS.keys()
    for name, kind in KINDS.items():
        annotation, option = flags[name].annotation.__args__[0], flags[name].annotation
        assert annotation == (kind | None), name
        [info] = option.__metadata__
        assert info.default == "--" + name.replace("_", "-") + (
            f"/--no-{name.replace('_', '-')}" if kind is bool else ""
        )


def test_what_is_not_said_is_not_given() -> None:
    assert run("x") == {"name": "x", "times": 1}


def test_what_is_said_is_given() -> None:
    said = run("x", "--number", "5", "--share", "0.25", "--kind", "two", "--times", "2")
    assert said == {"name": "x", "times": 2, "number": 5, "share": 0.25, "kind": "two"}


def test_a_switch_is_turned_on_and_off() -> None:
    assert run("x", "--loud")["loud"] is True
    assert run("x", "--no-loud")["loud"] is False


@pytest.mark.parametrize("side", ["auto", "64"])
def test_a_number_or_a_word_is_passed_on_as_said(side: str) -> None:
    said = run("x", "--side", side)["side"]
    assert Some(side=said).side == (side if side == "auto" else 64)


def test_the_help_tells_range_default_and_choice() -> None:
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    @with_params(Some)
    def command(params: dict[str, Any]) -> None: ...

    shown = " ".join(CliRunner().invoke(app, ["--help"]).output.split())
    assert "A number. (1 to 9; default: 3)" in shown
    assert "A share. (default: suits the model)" in shown
    assert "One of: one, two. (default: one)" in shown
    assert "One of: a number, auto. (default: auto)" in shown
    assert "(default: no)" in shown


def test_every_parameter_of_automatic_masks_is_in_one_group() -> None:
    grouped = [name for _, names in AutoParams.groups for name in names]
    assert sorted(grouped) == sorted(AutoParams.model_fields)

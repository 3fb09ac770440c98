from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from commands import explains, segment
from napari_sam_suite.cli.colours import Colours
from napari_sam_suite.engine import Channel, Composite, open_image
from napari_sam_suite.engine.errors import ParameterError

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = open_image(np.zeros((3, 8, 8), np.uint16), axes="CYX")


def test_a_channel_is_shown_as_its_text_says() -> None:
    said = ("3:#ff0000:0-4095:0.5", "1:lime:1%-99.5%", "2")
    composite = Colours(channel=said, blend="add").composite(IMAGE)
    assert composite.blend == "add"
    assert composite.channels == (
        Channel(index=2, color="#ff0000", limits=(0, 4095), mode="absolute", gamma=0.5),
        Channel(index=0, color="#00ff00", limits=(1, 99.5)),
        Channel(index=1),
    )


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [("-5--1", (-5, -1)), ("-0.5-.5", (-0.5, 0.5)), ("1e-3-2e3", (0.001, 2000))],
)
def test_limits_may_be_negative_or_small(
    limits: str, wanted: tuple[float, float]
) -> None:
    [channel] = Colours(channel=(f"1::{limits}",)).composite(IMAGE).channels
    assert channel.limits == wanted and channel.mode == "absolute"


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_composite_is_read_from_a_file_or_a_recipe(
    tmp_path: Path, wrapped: bool
) -> None:
    wanted = Composite(channels=(Channel(index=1, color="cyan"),), blend="screen")
    saved: Any = wanted.model_dump(mode="json")
    saved = {"recipe": 1, "composite": saved} if wrapped else saved
    path = tmp_path / "recipe.json"
    # Some editors begin a file with a byte order mark.
    path.write_text(json.dumps(saved), encoding="utf-8-sig")
    assert Colours(file=path).composite(IMAGE) == wanted


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"channel": ("red",)}, ["'red'", "1:#ff0000:0-4095"]),
        ({"channel": ("0",)}, ["counted from 1"]),
        ({"channel": ("1:nocolour",)}, ["CSS colour"]),
        ({"channel": ("1:red:9-1",)}, ["backwards"]),
        ({"channel": ("1:red:0%-9",)}, ["no limits", "1%-99%"]),
        ({"channel": ("1:red:0-9:-1",)}, ["gamma"]),
        ({"channel": ("1", "1:red")}, ["given twice"]),
        ({"channel": ("1",), "channels": "2"}, ["one of them"]),
        ({"blend": "multiply"}, ["lighten, add, screen"]),
    ],
)
def test_what_makes_no_sense_is_said_in_a_sentence(
    said: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ParameterError) as caught:
        Colours(**said).composite(IMAGE)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "text", [None, "{", "[1]", '{"channels": [{"index": -1}]}', '{"recipe": 1}']
)
def test_a_file_without_a_composite_is_refused(
    tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ParameterError, match=r"a\.json"):
        Colours(file=path).composite(IMAGE)


def test_a_channel_that_is_not_in_the_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cells.tif"
    pixels = np.zeros((2, 32, 32), np.uint8)
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "CYX"})
    result = segment(path, "--out", tmp_path / "out", "--channel", "5:red")
    explains(result, "Channel 5 is not in the image")

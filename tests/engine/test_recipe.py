from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from shapely import MultiPolygon, Polygon, box

from napari_sam_suite.engine.composite import Channel, Composite
from napari_sam_suite.engine.errors import OutputError, ParameterError
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.hierarchy.params import HierarchyParams
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.prompts.prompt import MaskPrompt, Prompt
from napari_sam_suite.engine.recipe import (
    Auto,
    FewShot,
    Frames,
    Model,
    Nested,
    Outputs,
    Prompted,
    Propagate,
    Recipe,
    Source,
    first_difference,
)
from napari_sam_suite.engine.recorded import Said, to_objects, to_shapes

if TYPE_CHECKING:
    from pathlib import Path

HOLE = Polygon(box(2, 3, 12.25, 13.1).exterior, [box(4, 5, 6, 7).exterior.coords])


def drawn() -> Objects:
    """A polygon with a hole, and one of two parts in another frame."""
    two = MultiPolygon([box(0, 0, 3, 3), HOLE.buffer(0.1)])
    table = pd.DataFrame({"tag": ["cell", "debris"], "time": [0, 2]})
    return Objects([HOLE, two], table)


def recipes() -> list[Recipe]:
    composite = Composite(channels=(Channel(index=1, color="lime", gamma=0.7),))
    shapes = to_shapes(drawn())
    crop = np.arange(12).reshape(3, 4) % 5 < 3
    prompts = (
        Said.of(Prompt(inside=((1.5, 2.0),), frame=FrameIndex(0, 3, 1))),
        Said.of(Prompt(box=(1, 2, 3, 4), mask=MaskPrompt(crop, (7, 9)), tag="x")),
    )
    kinds = (
        Auto(params=AutoParams(points_per_side=7, tile=512)),
        FewShot(params=FewShotParams(), tags=("cell",), examples=shapes),
        FewShot(prototypes="learnt.safetensors"),
        Prompted(prompts=prompts),
        Propagate(objects=shapes[:1]),
        Nested(params=HierarchyParams(by="tertile")),
    )
    return [
        Recipe(
            source=Source(images=("a.tif", "plate/*.tif"), axes="TYX"),
            composite=composite,
            frames=Frames(time="1-3, 5"),
            capability=kind,
            outputs=Outputs(store="run", folder="out", formats=("labels", "geojson")),
        )
        for kind in kinds
    ]


@pytest.mark.parametrize("recipe", recipes(), ids=lambda r: r.capability.name)
def test_a_recipe_comes_back_from_its_file(recipe: Recipe, tmp_path: Path) -> None:
    recipe.save(tmp_path / "run.json")
    assert Recipe.load(tmp_path / "run.json") == recipe.placed(tmp_path)
    assert Recipe.parse(recipe.text()) == recipe


def test_shapes_come_back_bit_for_bit() -> None:
    objects = drawn()
    back = to_objects(to_shapes(objects))
    assert [p.wkb for p in back.polygons] == [p.wkb for p in objects.polygons]
    pd.testing.assert_frame_equal(
        back.features[["id", "tag", "time", "z"]],
        objects.features[["id", "tag", "time", "z"]],
    )


def test_prompts_come_back_with_their_masks() -> None:
    crop = np.random.default_rng(0).random((9, 5)) > 0.5
    said = Said.of(Prompt(mask=MaskPrompt(crop, (3, -2)), frame=FrameIndex(1, 0, 4)))
    prompt = Said.model_validate_json(said.model_dump_json()).prompt(3)
    assert prompt.mask is not None and prompt.mask.origin == (3, -2)
    np.testing.assert_array_equal(prompt.mask.crop, crop)
    assert (prompt.frame, prompt.number) == (FrameIndex(1, 0, 4), 3)


def test_files_are_found_from_the_folder_of_the_recipe(tmp_path: Path) -> None:
    recipe = recipes()[0]
    recipe.save(tmp_path / "run.json")
    loaded = Recipe.load(tmp_path / "run.json")
    assert loaded.source.images[0] == str(tmp_path / "a.tif")
    assert loaded.outputs.store == str(tmp_path / "run")


def test_models_that_are_files_are_found_from_there_too(tmp_path: Path) -> None:
    for name in ("mine.safetensors", "mine/encoder.onnx"):
        recipe = Recipe(model=Model(id=name)).placed(tmp_path)
        assert recipe.model.id == str(tmp_path / name)
    assert Recipe().placed(tmp_path).model.id == Recipe().model.id


def test_addresses_are_left_as_they_are(tmp_path: Path) -> None:
    recipe = Recipe(outputs=Outputs(store="s3://bucket/run")).placed(tmp_path)
    assert recipe.outputs.store == "s3://bucket/run"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"sauce": {}}, "'sauce'"),
        ({"source": {"imagess": []}}, "'source.imagess'"),
        ({"frames": {"time": 3}}, "'frames.time'"),
        ({"frames": 3}, "'frames'"),
        ({"frames": {"z": "1, x"}}, "'frames.z': '1, x' is not a list of numbers"),
        ({"frames": {"time": "0-3"}}, "'frames.time': there is no 0"),
        ({"frames": {"time": "3-1"}}, "'frames.time': the range '3-1'"),
        ({"capability": {"name": "magic"}}, "'capability.name' cannot be 'magic'"),
        ({"capability": {"params": {}}}, "lacks 'capability.name'"),
        ({"capability": {"name": "auto", "params": {"points": 1}}}, "points"),
        (
            {"capability": {"name": "auto", "params": {"points_per_side": 0}}},
            "points_per_side cannot be 0",
        ),
        (
            {"capability": {"name": "hierarchy", "masks": {"overlap": "exclusive"}}},
            "overlap must be 'allow'",
        ),
        (
            {"capability": {"name": "hierarchy", "params": {"small_below": 2}}},
            "small_below cannot be 2",
        ),
        ({"capability": {"name": "hierarchy", "cache": "x"}}, "'capability.cache'"),
        ({"capability": {"name": "prompt"}}, "'capability.prompts'"),
        ({"capability": {"name": "few-shot"}}, "either examples or prototypes"),
        ({"capability": {"name": "propagate", "objects": []}}, "'capability.objects'"),
        (
            {"capability": {"name": "propagate", "objects": [{"polygon": [[[]]]}]}},
            "'capability.objects.0.polygon.0.0'",
        ),
        ({"composite": {"channels": [{"index": -1}]}}, "'composite.channels.0.index'"),
        ({"outputs": {"folder": "out", "formats": ["x"]}}, "'x'"),
        ({"outputs": {"formats": ["labels"]}}, "formats need a folder"),
        ({"model": {"precision": "half"}}, "'model.precision'"),
        ({"recipe": 2}, "version 2"),
        ({"recipe": "a"}, "'recipe'"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    body: dict[str, object], words: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        Recipe.parse(json.dumps({"recipe": 1} | body))
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({"source": {"images": "a.tif"}}, "It should be a list."),
        ({"source": ["a.tif"]}, "It should be an object in braces."),
        ({"capability": "auto"}, "It should be an object in braces."),
        (
            {"capability": {"name": "prompt", "prompts": []}},
            "It should have at least 1.",
        ),
        ({"capability": {"name": "magic"}}, "It should be one of 'auto', 'few-shot', "),
    ],
)
def test_what_should_be_there_instead_is_said_in_the_words_of_json(
    body: dict[str, object], hint: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        Recipe.parse(json.dumps({"recipe": 1} | body))
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"type": "FeatureCollection"}'])
def test_other_files_are_no_recipes(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ParameterError, match=r"x\.json"):
        Recipe.load(tmp_path / "x.json")


def test_a_recipe_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="cannot be read"):
        Recipe.load(tmp_path / "none.json")
    with pytest.raises(OutputError, match="is a folder"):
        Recipe().save(tmp_path)


def test_where_and_on_what_it_runs_is_not_what_it_finds() -> None:
    one = recipes()[0]
    same = one.changed(model={"device": "cuda"}, outputs={"store": "elsewhere"})
    assert one.digest == same.digest and not first_difference(one, same)
    other = one.changed(frames={"time": "1"})
    assert first_difference(one, other) == "frames.time" and one.digest != other.digest


def test_the_file_is_easy_to_read() -> None:
    text = recipes()[0].text()
    assert '"frames": {"positions": "all", "z": "all", "time": "1-3, 5"}' in text
    assert max(map(len, text.splitlines())) < 100

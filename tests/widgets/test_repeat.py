from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from shapely import box

from napari_sam_suite.engine.composite import Channel, Composite
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.engine.propagation.params import PropagateParams
from napari_sam_suite.engine.recipe import FewShot, Prompted, Propagate, Recipe
from napari_sam_suite.engine.recorded import to_objects
from napari_sam_suite.widgets.repeat import record_shapes, to_recipe


def kept(params: Any, **more: Any) -> dict[str, Any]:
    """What a layer keeps of a run on two frames of a layer without a file."""
    composite = Composite(channels=(Channel(index=0, limits=(3, 9), mode="absolute"),))
    image = {"name": "x", "layers": ["x"], "axes": "TYX", "path": "", "rgb": False}
    sizes = {"position": 1, "time": 5, "z": 1, "channel": 1, "y": 20, "x": 30}
    return {
        "model": "sam2-nano",
        "device": "cpu",
        "image": image | {"multiscale": False, "sizes": sizes},
        "frames": [[0, 1, 0], [0, 3, 0]],
        "params": params.model_dump(mode="json"),
        "composite": composite.model_dump(mode="json"),
        **more,
    }


def shapes() -> Objects:
    table = pd.DataFrame({"tag": ["cell", "dirt"], "time": [1, 1]})
    return Objects([box(2, 3, 9.5, 8), box(12, 3, 15, 8)], table)


def test_few_shot_keeps_its_examples() -> None:
    recipe = to_recipe(
        kept(
            FewShotParams(threshold=0.7),
            capability="few-shot",
            tags=["cell"],
            negatives=["dirt"],
            shapes=record_shapes(shapes()),
        )
    )
    found = recipe.capability
    assert isinstance(found, FewShot) and found.params.threshold == 0.7
    assert (found.tags, found.negatives) == (("cell",), ("dirt",))
    drawn = to_objects(found.examples)
    assert drawn.polygons == shapes().polygons and drawn.frames() == [FrameIndex(0, 1)]
    assert recipe.frames.time == "2, 4"
    assert Recipe.parse(recipe.text()) == recipe


def test_prototypes_are_kept_as_their_file() -> None:
    record = kept(FewShotParams(), capability="few-shot", prototypes="p.safetensors")
    found = to_recipe(record).capability
    assert isinstance(found, FewShot) and found.prototypes == "p.safetensors"


def test_prompts_keep_their_frames_counted_from_1() -> None:
    clicks = {"inside": [[3, 4]], "outside": [], "box": None, "tag": "a"}
    record = kept(
        PromptParams(), capability="prompt", prompts=[clicks | {"frame": [0, 3, 0]}]
    )
    found = to_recipe(record).capability
    assert isinstance(found, Prompted)
    [prompt] = [one.prompt(1) for one in found.prompts]
    assert prompt.frame == FrameIndex(0, 3, 0) and prompt.inside == ((3, 4),)


def test_propagation_keeps_what_it_began_with() -> None:
    begun = record_shapes(shapes().with_features(track=[4, 7]))
    record = kept(PropagateParams(), capability="propagate", shapes=begun)
    found = to_recipe(record).capability
    assert isinstance(found, Propagate)
    assert to_objects(found.objects).features["track"].tolist() == [4, 7]


def test_a_run_of_an_older_version_is_told() -> None:
    record = kept(FewShotParams(), capability="few-shot", tags=["a"], negatives=[])
    with pytest.raises(ParameterError, match="older version"):
        to_recipe(record)
    with pytest.raises(ParameterError, match="no run"):
        to_recipe({})

"""Which shapes are examples, and what is said when they cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from shapely import Polygon

from engine.fewshot_fakes import tagged
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.features import UNASSIGNED
from napari_sam_suite.engine.fewshot.examples import choose_examples
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.objects import Objects

IMAGE = open_image(np.zeros((2, 50, 60), np.uint8), axes="ZYX")


def shapes() -> Objects:
    return tagged((50, 60), (10, 10, "cell"), (30, 30, "cell"), (40, 50, "dirt"))


def test_only_shapes_with_the_tags_are_examples() -> None:
    examples = choose_examples(IMAGE, shapes(), ["cell"])
    assert len(examples.objects) == 2
    assert set(examples.objects.features["tag"]) == {"cell"}


def test_shapes_that_are_not_meant_are_examples_too() -> None:
    examples = choose_examples(IMAGE, shapes(), ["cell"], ["dirt"])
    assert examples.tags == ("cell",)
    assert examples.negatives == ("dirt",)
    assert len(examples.objects) == 3


def test_examples_come_with_the_masks_of_their_own_frame() -> None:
    upper = shapes().with_features(z=[0, 1, 0])
    examples = choose_examples(IMAGE, upper, ["cell"])
    assert examples.frames() == [FrameIndex(z=0), FrameIndex(z=1)]
    masks, tags = examples.masks(FrameIndex(z=1))
    assert tags == ["cell"]
    assert masks.full(0)[30, 30]
    assert masks.area[0] == examples.areas[1]


@pytest.mark.parametrize("tags", [[], [""], ["  "]])
def test_no_tag_is_told(tags: list[str]) -> None:
    with pytest.raises(ParameterError, match="No tag was chosen"):
        choose_examples(IMAGE, shapes(), tags)


def test_shapes_without_tags_get_the_one_that_is_asked_for() -> None:
    bare = shapes().with_tags([UNASSIGNED] * len(shapes()))
    examples = choose_examples(IMAGE, bare, ["cell"])
    assert examples.objects.features["tag"].tolist() == ["cell"] * len(bare)
    assert set(bare.features["tag"]) == {UNASSIGNED}
    with pytest.raises(ParameterError, match="No tag was chosen") as told:
        choose_examples(IMAGE, bare, [])
    assert "one of any name will do" in told.value.hint
    for two in ((["cell", "bud"], []), (["cell"], ["dirt"])):
        with pytest.raises(ParameterError, match="no shapes with the tag"):
            choose_examples(IMAGE, bare, *two)


def test_a_tag_without_shapes_is_told_with_the_tags_there_are() -> None:
    with pytest.raises(ParameterError, match="no shapes with the tag 'mouse'") as told:
        choose_examples(IMAGE, shapes(), ["mouse"])
    assert "cell, dirt" in told.value.hint


def test_a_negative_tag_without_shapes_is_told() -> None:
    with pytest.raises(ParameterError, match="no shapes with the tag 'mouse'"):
        choose_examples(IMAGE, shapes(), ["cell"], ["mouse"])


def test_a_negative_tag_whose_shapes_are_all_outside_is_told() -> None:
    away = tagged((500, 500), (400, 400, "dirt"))
    some = Objects.concat([tagged((50, 60), (10, 10, "cell")), away])
    with pytest.raises(ParameterError, match="'dirt' covers a pixel"):
        choose_examples(IMAGE, some, ["cell"], ["dirt"])


def test_blanks_around_a_tag_do_not_count() -> None:
    spaced = shapes().with_tags(["cell ", " cell", "dirt"])
    examples = choose_examples(IMAGE, spaced, ["cell "], ["dirt"])
    assert examples.tags == ("cell",)
    assert examples.objects.features["tag"].tolist() == ["cell", "cell", "dirt"]


def test_no_shapes_at_all_is_told() -> None:
    with pytest.raises(ParameterError) as told:
        choose_examples(IMAGE, Objects.empty(), ["cell"])
    assert "draw some" in told.value.hint


def test_a_tag_cannot_be_meant_and_not_meant() -> None:
    with pytest.raises(ParameterError, match="'cell' is to be found and not"):
        choose_examples(IMAGE, shapes(), ["cell"], ["cell"])


def test_shapes_outside_the_image_are_told() -> None:
    away = tagged((500, 500), (400, 400, "cell"))
    with pytest.raises(ParameterError, match=r"covers a pixel of .*50 x 60 pixels"):
        choose_examples(IMAGE, away, ["cell"])


def test_shapes_on_a_frame_that_is_not_there_are_told() -> None:
    with pytest.raises(ParameterError, match="2 frames"):
        choose_examples(IMAGE, shapes().with_features(z=7), ["cell"])


def test_shapes_without_area_are_told() -> None:
    flat = Objects([Polygon([(5.5, 5), (5.5, 9), (5.5, 5)])]).with_tags("cell")
    with pytest.raises(ParameterError, match="'cell' are empty"):
        choose_examples(IMAGE, flat, ["cell"])


def test_shapes_between_the_pixels_are_told() -> None:
    small = Objects([Polygon([(5.2, 5.2), (5.2, 5.4), (5.4, 5.2)])]).with_tags("cell")
    with pytest.raises(ParameterError, match="covers a pixel"):
        choose_examples(IMAGE, small, ["cell"])


def test_a_shape_outside_is_left_out_and_counted() -> None:
    some = Objects.concat([shapes(), tagged((500, 500), (400, 400, "cell"))])
    examples = choose_examples(IMAGE, some, ["cell"])
    assert len(examples.objects) == 2
    assert examples.skipped == 1
    told = "1 example covers no pixel of the image and was left out."
    assert examples.notices == (told,)

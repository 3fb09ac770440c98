from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely

from engine.hierarchy.cases import nested
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.hierarchy.levels import rank_objects
from napari_sam_suite.engine.hierarchy.params import HierarchyParams
from napari_sam_suite.engine.hierarchy.statistics import describe_levels
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path


def of_areas(*areas: int, sizes: dict[str, int] | None = None) -> Objects:
    objects = Objects([shapely.box(0, 0, 1, 1)] * len(areas), source={"sizes": sizes})
    return objects.with_features(area=list(areas))


def test_tertiles_are_thirds_and_their_limits_belong_below() -> None:
    by = HierarchyParams(by="tertile")
    assert (
        rank_objects(of_areas(*range(1, 10)), by).tolist()
        == [0] * 3 + [1] * 3 + [2] * 3
    )
    assert rank_objects(of_areas(7), by).tolist() == [0]
    assert rank_objects(of_areas(5, 5, 5), by).tolist() == [0, 0, 0]


def test_tertiles_are_those_of_each_frame() -> None:
    objects = of_areas(1, 2, 3, 100, 200, 300).with_features(time=[0, 0, 0, 1, 1, 1])
    ranks = rank_objects(objects, HierarchyParams(by="tertile"))
    assert ranks.tolist() == [0, 1, 2, 0, 1, 2]


def test_fractions_are_of_the_image_and_their_limits_are_parts() -> None:
    sizes = {"y": 100, "x": 100}
    objects = of_areas(100, 199, 200, 1000, 1500, 1501, 2000, sizes=sizes)
    ranks = rank_objects(objects, HierarchyParams())
    assert ranks.tolist() == [0, 0, 1, 1, 1, 2, 2]
    other = HierarchyParams(small_below=0.15, whole_above=0.15)
    assert rank_objects(objects, other).tolist() == [0, 0, 0, 0, 1, 2, 2]


def test_fractions_are_of_the_image_of_each_object(tmp_path: Path) -> None:
    images = [
        {"id": n, "file_name": f"{n}.png", "height": side, "width": side}
        for n, side in enumerate((100, 1000))
    ]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1,
         "segmentation": [[0, 0, side, 0, side, side, 0, side]]}
        for n, side in enumerate((60, 600))
    ]  # fmt: skip
    path = tmp_path / "a.coco.json"
    categories = [{"id": 1, "name": "cell"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations,
                                "categories": categories}))  # fmt: skip
    objects = Objects.load(path)
    objects = objects.with_features(area=[3600, 360_000])
    ranks = rank_objects(objects, HierarchyParams())
    assert ranks.tolist() == [2, 2]
    covered = describe_levels(objects, ranks).loc["whole"]
    assert covered["coverage_union"] == covered["coverage_sum"] == pytest.approx(36)


def test_outputs_of_the_model_are_levels_as_they_are() -> None:
    ranks = rank_objects(nested(), HierarchyParams(by="token"))
    np.testing.assert_array_equal(ranks, nested().features["level"] - 1)


def test_what_does_not_suit_the_objects_is_told() -> None:
    with pytest.raises(ParameterError, match="size of the image is not known"):
        rank_objects(of_areas(1, 2), HierarchyParams())
    drawn = nested().with_features(level=[0, -1, 2, 1, 1, 1, 2, 1])
    with pytest.raises(ParameterError, match="2 of 8 objects do not say"):
        rank_objects(drawn, HierarchyParams(by="token"))


@pytest.mark.parametrize(
    "values",
    [{"small_below": 0.2}, {"part_percentile": 10}, {"containment": 0}, {"by": "size"}],
)
def test_settings_that_make_no_sense_are_refused(values) -> None:
    with pytest.raises(ParameterError, match=next(iter(values))):
        HierarchyParams(**values)

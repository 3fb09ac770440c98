from __future__ import annotations

import copy
import math
import pickle
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import shapely

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.features import COLUMNS
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.losses import Losses
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.polygons import polygonise


@dataclass
class Crops:
    """Full-size masks offered as crops."""

    full: np.ndarray
    scores: np.ndarray
    stability: np.ndarray
    level: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.full.shape[1:]

    @property
    def area(self) -> np.ndarray:
        return self.full.sum(axis=(1, 2))

    def __len__(self) -> int:
        return len(self.full)

    def crop(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        rows, columns = np.nonzero(self.full[index])
        if not len(rows):
            return np.zeros((0, 0), dtype=bool), (0, 0)
        y0, x0 = int(rows.min()), int(columns.min())
        part = self.full[index, y0 : rows.max() + 1, x0 : columns.max() + 1]
        return part, (y0, x0)


def make_crops() -> Crops:
    """A square, a square with a speck, nothing, and a square with a hole."""
    full = np.zeros((4, 40, 50), dtype=bool)
    full[0, 2:12, 3:13] = True
    full[1, 20:32, 20:32] = True
    full[1, 36, 45] = True
    full[3, 5:25, 25:45] = True
    full[3, 12:15, 30:33] = False
    return Crops(
        full,
        np.array([0.9, 0.8, 0.7, 0.6], dtype=np.float32),
        np.array([0.99, 0.98, 0.97, 0.96], dtype=np.float32),
        np.array([1, 2, 3, 0], dtype=np.int8),
    )


def squares(*corners: tuple[int, int], size: int = 10, **features: object) -> Objects:
    polygons = [shapely.box(y, x, y + size, x + size) for y, x in corners]
    return Objects(polygons, pd.DataFrame(features, index=range(len(polygons))))


def test_masks_become_objects_with_all_that_is_known():
    crops = make_crops()
    objects, losses = Objects.from_masks(
        crops,
        FrameIndex(1, 2, 3),
        tag="cell",
        model="sam2-nano",
        run="7",
        smoothing=0,
        source={"image": "a.tif"},
    )
    table = objects.features
    assert list(table.columns) == list(COLUMNS)
    assert table["area"].tolist() == [100, 144, 391]
    assert table["score"].tolist() == pytest.approx([0.9, 0.8, 0.6])
    assert table["level"].tolist() == [1, 2, 0]
    assert set(table["tag"]) == {"cell"}
    assert objects.frames() == [FrameIndex(1, 2, 3)]
    assert objects.source == {"image": "a.tif"}
    assert losses == Losses(masks=4, empty=1, dropped_parts=1, dropped_pixels=1)


def test_columns_of_masks_have_their_types_before_there_is_a_table() -> None:
    scores, frame = [1, None, 0.5, 0.25], FrameIndex(time=np.int64(2))
    objects, _ = Objects.from_masks(
        make_crops(), frame, columns={"score": scores, "similarity": [1.5] * 4}
    )
    columns = objects.columns()
    assert columns["score"].dtype == np.float64
    assert type(columns["similarity"]) is np.ndarray  # as fast formats need it
    assert objects.to_labels((40, 50)).max() == 3
    assert all(type(part) is int for part in objects.frames()[0])
    assert objects.features.dtypes["score"] == np.float64


def test_nobody_changes_the_texts_of_other_objects() -> None:
    first, _ = Objects.from_masks(make_crops(), FrameIndex(), tag="mine")
    first.columns()["tag"][0] = "other"
    second, _ = Objects.from_masks(make_crops(), FrameIndex(), tag="mine")
    assert second.features["tag"].tolist() == ["mine"] * 3


@pytest.mark.parametrize(
    "kept",
    [
        lambda objects: objects,
        copy.copy,
        lambda objects: pickle.loads(pickle.dumps(objects)),
    ],
)
def test_the_table_is_made_when_it_is_asked_for_and_only_once(kept) -> None:
    made, _ = Objects.from_masks(
        make_crops(), FrameIndex(time=2), columns={"runner_up": ["a", "b", "c", "d"]}
    )
    objects = kept(made)
    before = objects.columns()
    labels, frames = objects.to_labels((40, 50)), objects.frames()
    assert "features" not in vars(objects)
    table = objects.features
    assert objects.features is table
    assert {n: list(v) for n, v in before.items()} == table.to_dict("list")
    assert list(objects.columns()) == list(before)
    assert table["runner_up"].tolist() == ["a", "b", "d"]
    assert (objects.to_labels((40, 50)) == labels).all()
    assert objects.frames() == frames == [FrameIndex(time=2)]
    with pytest.raises(AttributeError, match="nothing"):
        _ = objects.nothing


def test_masks_without_overlap_come_back_as_labels_pixel_for_pixel():
    crops = make_crops()
    objects, _ = Objects.from_masks(crops, FrameIndex(), smoothing=0, parts="all")
    labels = objects.to_labels(crops.shape)
    for number, index in enumerate((0, 1, 3), start=1):
        visible = crops.full[index] & ~(crops.full[1] if index == 3 else False)
        np.testing.assert_array_equal(labels == number, visible)


def tissue(seed: int = 0, side: int = 90, count: int = 60) -> Crops:
    """Cells that touch, some of them in pieces or around another."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, side, (count, 2))
    grid = np.indices((side, side)).reshape(2, -1).T
    distance = np.linalg.norm(grid[:, None] - seeds[None], axis=2)
    labels = np.where(distance.min(1) < 7, distance.argmin(1) + 1, 0)
    labels = labels.reshape(side, side)
    labels[rng.random(labels.shape) < 0.02] = 0
    labels[40:44, 40:44] = count + 1
    full = np.array([labels == n for n in range(1, count + 2)])
    return Crops(full, rng.random(len(full)), np.ones(len(full)), np.zeros(len(full)))


@pytest.mark.parametrize("parts", ["largest", "main", "all"])
@pytest.mark.parametrize("padding", [0.7, 3, 12])
def test_padding_makes_no_exclusive_objects_overlap(padding, parts):
    crops = tissue()
    options = {"padding": padding, "parts": parts}
    loose, _ = Objects.from_masks(crops, FrameIndex(), **options)
    objects, _ = Objects.from_masks(crops, FrameIndex(), exclusive=True, **options)
    plain, _ = Objects.from_masks(crops, FrameIndex(), parts=parts)
    assert overlap(loose.polygons) > 50
    assert overlap(objects.polygons) < 1e-6
    assert len(objects) == len(plain)
    for cut, core, grown in zip(
        objects.polygons, plain.polygons, loose.polygons, strict=True
    ):
        assert cut.is_valid
        assert isinstance(cut, shapely.Polygon) or parts != "largest"
        assert core.difference(cut).area < 0.05 * core.area + 0.5
        assert cut.difference(grown).area < 1e-6
    labels = objects.to_labels(crops.shape)
    areas = np.bincount(labels.ravel(), minlength=len(objects) + 1)[1:]
    np.testing.assert_array_equal(objects.features["area"], areas)


def overlap(polygons: list[shapely.Polygon]) -> float:
    return sum(
        one.intersection(other).area
        for number, one in enumerate(polygons)
        for other in polygons[:number]
    )


def test_what_two_would_grow_into_goes_to_the_first():
    full = np.zeros((2, 20, 40), bool)
    full[0, 5:15, 5:15] = full[1, 5:15, 17:27] = True
    crops = Crops(full, np.array([0.9, 0.8]), np.ones(2), np.zeros(2))
    objects, _ = Objects.from_masks(crops, FrameIndex(), padding=4, exclusive=True)
    across = shapely.LineString([(10, 0), (10, 40)])
    first, second = (across.intersection(p).bounds for p in objects.polygons)
    assert (first[1], first[3]) == pytest.approx((0.5, 16.5), abs=0.1)
    assert (second[1], second[3]) == pytest.approx((16.5, 30.5), abs=0.1)


def test_padded_objects_report_the_area_they_are_drawn_with():
    objects, losses = Objects.from_masks(make_crops(), FrameIndex(), padding=-4.2)
    labels = objects.to_labels((40, 50))
    assert objects.features["area"].tolist()[0] == (labels == 1).sum() == 4
    assert losses.shrunk == 0
    nothing, losses = Objects.from_masks(make_crops(), FrameIndex(), padding=-20)
    assert len(nothing) == 0
    assert (losses.shrunk, losses.empty) == (3, 1)


def test_losses_are_told_in_one_sentence_and_add_up():
    _, losses = Objects.from_masks(make_crops(), FrameIndex(), min_hole=math.inf)
    assert (losses + losses).dropped_parts == 2
    assert losses.summary() == "Of 4 masks: 1 mask had no pixel, 1 hole (9 px) filled."
    assert not Losses(masks=3)
    assert Losses(masks=3).summary() == ""


@pytest.mark.parametrize(("pixels", "told"), [(2, False), (40, True)])
def test_specks_are_counted_but_not_told(pixels: int, told: bool):
    whole = np.zeros((20, 40), bool)
    whole[2:18, 2:18] = True
    whole[5, 20:21] = whole[8, 20:21] = True
    whole[12:16, 20:30] = pixels == 40
    masks = MaskBuilder(whole.shape)
    masks.add(whole, (0, 0))
    _, losses = Objects.from_masks(masks.build(), FrameIndex())
    assert losses.dropped_pixels == 2 + pixels * told
    assert bool(losses) is told
    assert ("smaller islands (42 px) left out" in losses.summary()) is told


def test_further_columns_follow_the_masks_that_are_kept():
    columns = {"tag": ["a", "b", "lost", "d"], "margin": np.arange(4) / 4}
    objects, _ = Objects.from_masks(
        make_crops(), FrameIndex(), tag="cell", columns=columns
    )
    assert objects.features["tag"].tolist() == ["a", "b", "d"]
    assert objects.features["margin"].tolist() == [0, 0.25, 0.75]
    assert list(objects.features.columns) == [*COLUMNS, "margin"]


def test_a_column_that_does_not_fit_the_masks_is_refused():
    with pytest.raises(ParameterError, match="2 values of 'margin' do not fit 4"):
        Objects.from_masks(make_crops(), FrameIndex(), columns={"margin": [1, 2]})


def test_no_masks_give_no_objects():
    crops = make_crops()
    none = Crops(crops.full[:0], crops.scores[:0], crops.stability[:0], crops.level[:0])
    objects, losses = Objects.from_masks(none, FrameIndex())
    assert len(objects) == 0
    assert not losses
    assert objects.to_labels((5, 6)).tolist() == np.zeros((5, 6)).tolist()


def test_a_mask_of_the_whole_image_is_one_object():
    full = np.ones((1, 9, 7), dtype=bool)
    one = np.ones(1)
    objects, _ = Objects.from_masks(Crops(full, one, one, one), FrameIndex())
    assert (objects.to_labels((9, 7)) == 1).all()


def test_every_object_has_its_own_id_and_keeps_it():
    objects = squares((0, 0), (20, 20), (30, 5))
    ids = objects.features["id"].tolist()
    assert len({UUID(one) for one in ids}) == 3
    assert objects.select([2, 0]).features["id"].tolist() == [ids[2], ids[0]]
    assert objects.with_tags("x").features["id"].tolist() == ids
    both = Objects.concat([objects, objects]).features["id"]
    assert both.tolist()[:3] == ids
    assert both.is_unique


def test_missing_columns_are_completed_and_others_kept():
    objects = squares((0, 0), (5, 5), size=3, similarity=[0.5, 0.7], tag=["a", None])
    assert objects.features["tag"].tolist() == ["a", "unassigned"]
    assert objects.features["area"].tolist() == [9, 9]
    assert objects.features["similarity"].tolist() == [0.5, 0.7]
    assert objects.features["level"].dtype == np.int64


def test_rows_and_polygons_must_match():
    with pytest.raises(ParameterError, match="2 polygons came with 1 row"):
        Objects([shapely.box(0, 0, 1, 1)] * 2, pd.DataFrame({"tag": ["a"]}))


def test_selecting_by_boolean_or_number():
    objects = squares((0, 0), (5, 5), (9, 9), tag=["a", "b", "c"])
    chosen = objects.select(objects.features["tag"] != "b")
    assert chosen.features["tag"].tolist() == ["a", "c"]
    assert chosen.polygons == [objects.polygons[0], objects.polygons[2]]
    assert len(objects.select([])) == 0
    with pytest.raises(ParameterError):
        objects.select([True, False])


def test_nothing_changes_in_place():
    objects = squares((0, 0), (5, 5))
    objects.with_tags(["a", "b"])
    objects.with_features(score=0.5)
    table = objects.select([0]).features
    table.loc[0, "tag"] = "changed"
    assert objects.features["tag"].tolist() == ["unassigned"] * 2
    assert objects.features["score"].isna().all()


def test_a_wrong_number_of_tags_is_refused():
    with pytest.raises(ParameterError, match="2 values of 'tag' do not fit 3 objects"):
        squares((0, 0), (5, 5), (9, 9)).with_tags(["a", "b"])


def test_objects_of_a_frame():
    objects = squares((0, 0), (5, 5), (9, 9), time=[0, 1, 1], z=[0, 0, 2])
    assert objects.frames() == [FrameIndex(), FrameIndex(0, 1, 0), FrameIndex(0, 1, 2)]
    assert objects.at(FrameIndex(0, 1, 2)).polygons == objects.polygons[2:]
    assert len(objects.at(FrameIndex(0, 5, 0))) == 0


def test_concat_keeps_order_and_common_source():
    one, two = squares((0, 0), tag="a"), squares((5, 5), tag="b", extra=1.5)
    joined = Objects.concat([one, Objects.empty(), two])
    assert joined.features["tag"].tolist() == ["a", "b"]
    assert joined.features["extra"].tolist()[1] == 1.5
    same = Objects([], source={"image": "i"})
    assert Objects.concat([same, same]).source == {"image": "i"}
    other = Objects([], source={"image": "j"})
    mixed = Objects.concat([Objects.concat([same, other]), same])
    assert mixed.source == {"sources": [{"image": "i"}, {"image": "j"}]}
    assert len(Objects.concat([])) == 0


def test_better_score_lies_on_top_of_labels_and_unknown_scores_lie_below():
    objects = squares((0, 0), (5, 5), (8, 8), score=[0.5, 0.9, math.nan])
    labels = objects.to_labels((30, 30))
    assert (labels[0, 0], labels[7, 7], labels[10, 10]) == (1, 2, 2)
    assert labels[17, 17] == 3


def test_of_equal_scores_the_smaller_lies_on_top():
    small, large = shapely.box(5, 5, 8, 8), shapely.box(0, 0, 20, 20)
    labels = Objects([small, large]).to_labels((25, 25))
    assert (labels[6, 6], labels[15, 15]) == (1, 2)


def test_labels_have_16_bits_and_32_where_needed():
    speck = polygonise(np.ones((1, 1), dtype=bool)).polygon
    few, many = Objects([speck] * 65535), Objects([speck] * 65536)
    assert few.to_labels((1, 1)).dtype == np.uint16
    labels = many.to_labels((1, 1))
    assert (labels.dtype, labels.max()) == (np.uint32, 65536)


def test_labels_of_several_frames_need_a_frame():
    objects = squares((0, 0), (5, 5), time=[0, 1])
    with pytest.raises(ParameterError, match="2 frames"):
        objects.to_labels((20, 20))
    assert objects.to_labels((20, 20), FrameIndex(0, 1, 0))[5, 5] == 1


@pytest.mark.parametrize(
    ("track", "numbers"),
    [
        ([math.nan, 3, math.nan, 5], [4, 3, 6, 5]),  # added by hand beside tracks
        ([0, 3, 2.5, -1], [4, 3, 1, 2]),
        ([2, 2, 7, 7], [2, 3, 7, 8]),  # daughters that one number was given to
        ([math.inf, 2**40, 1e300, 1], [1, 2, 2, 1]),
        (["4", "", None, "x"], [4, 5, 1, 2]),
        (pd.array([1, None, 4, None], "Int64"), [1, 2, 4, 5]),
    ],
)
def test_every_object_has_a_number_of_its_own_beside_tracks(track, numbers):
    objects = squares((0, 0), (15, 0), (0, 0), (15, 0), time=[0, 0, 1, 1])
    objects = objects.with_features(track=track)
    assert objects.numbers().tolist() == numbers
    for time in range(2):
        drawn = objects.to_labels((30, 30), FrameIndex(0, time, 0))
        assert [drawn[5, 5], drawn[20, 5]] == numbers[2 * time : 2 * time + 2]


def test_objects_partly_or_wholly_outside_are_cut_off():
    objects = squares((-5, -5), (100, 100), (15, 15))
    labels = objects.to_labels((20, 20))
    assert set(np.unique(labels)) == {0, 1, 3}
    assert (labels == 1).sum() == 36


def test_label_images_become_objects_without_losing_a_pixel():
    labels = np.zeros((30, 30), dtype=np.uint16)
    labels[2:12, 2:12] = 7
    labels[5:7, 5:7] = 0
    labels[20, 20] = labels[25, 3] = 300
    objects = Objects.from_labels(labels, FrameIndex(0, 0, 4), tag="nucleus")
    assert objects.features["label"].tolist() == [7, 300]
    assert objects.features["area"].tolist() == [96, 2]
    assert objects.frames() == [FrameIndex(0, 0, 4)]
    found = objects.to_labels(labels.shape)
    np.testing.assert_array_equal(found, np.searchsorted([0, 7, 300], labels))


def test_label_images_without_background_or_without_objects():
    full = Objects.from_labels(np.full((4, 4), 3))
    assert full.features[["label", "area"]].to_numpy().tolist() == [[3, 16]]
    assert len(Objects.from_labels(np.zeros((4, 4), dtype=int))) == 0


def test_unknown_file_endings_name_the_known_ones(tmp_path):
    with pytest.raises(ParameterError, match=r"'\.xyz'.*geojson.*labels"):
        squares((0, 0)).save(tmp_path / "a.xyz")
    assert not list(tmp_path.iterdir())

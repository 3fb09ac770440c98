"""The documented few-shot algorithm: every formula, with numbers worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from engine.fewshot_fakes import BLUE, RED, ColourSam, dots, tagged
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.fewshot.exact import (
    cosines,
    crop_vectors,
    crop_window,
    pool_crop,
    prototype,
)
from napari_sam_suite.engine.fewshot.examples import choose_examples
from napari_sam_suite.engine.fewshot.finder import FewShot
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.models.registry import find_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

SQUARE = (1024, 1024)


def nothing(*_: object) -> bool:
    return False


def window(y0, x0, height, width, area=None, shape=(200, 200), occupancy=0.2):
    box = (y0, x0, y0 + height, x0 + width)
    return crop_window(box, area or height * width, shape, occupancy)


def documented_window(
    y0, x0, height, width, area=None, shape=(200, 200), occupancy=0.2
):
    """As the workers compute it, from inclusive corners."""
    side = int(np.sqrt((area or height * width) / occupancy))
    side = max(side, height, width)
    cuts = []
    for first, size, length in ((y0, height, shape[0]), (x0, width, shape[1])):
        middle = (first + first + size - 1) / 2
        low = int(max(0, middle - side / 2))
        high = int(min(length, low + side))
        if high - low < side and low > 0:
            low = max(0, high - side)
        cuts.append((low, high))
    return cuts[0][0], cuts[1][0], cuts[0][1], cuts[1][1]


class TestTheCrop:
    def test_has_a_side_that_the_object_fills_to_a_fifth(self) -> None:
        y0, x0, y1, x1 = window(90, 90, 20, 20)
        assert (y1 - y0, x1 - x0) == (44, 44)
        assert pytest.approx(0.207, abs=0.001) == 400 / 44**2

    def test_in_a_corner_is_moved_inside_the_image(self) -> None:
        assert window(0, 0, 10, 10) == (0, 0, 22, 22)
        assert window(190, 190, 10, 10) == (178, 178, 200, 200)

    def test_of_one_pixel_has_two_by_two(self) -> None:
        y0, x0, y1, x1 = window(50, 50, 1, 1)
        assert (y1 - y0, x1 - x0) == (2, 2)
        assert y0 <= 50 < y1

    @pytest.mark.parametrize("y0", range(40, 60))
    def test_of_a_long_object_keeps_its_last_row(self, y0: int) -> None:
        top, left, bottom, right = window(y0, 90, 100, 5)
        assert top <= y0
        assert bottom >= y0 + 100
        assert left <= 90 < 95 <= right

    def test_that_an_object_fills_keeps_all_of_it(self) -> None:
        assert window(30, 30, 20, 20, occupancy=1.0) == (30, 30, 50, 50)

    def test_is_never_larger_than_the_image(self) -> None:
        assert window(10, 10, 90, 90, shape=(120, 110)) == (0, 0, 120, 110)

    @pytest.mark.parametrize("seed", range(20))
    def test_is_the_documented_one_where_that_cuts_nothing(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        height, width = rng.integers(2, 30, 2).tolist()
        y0, x0 = rng.integers(0, 200 - np.array([height, width])).tolist()
        documented = documented_window(y0, x0, height, width)
        if documented[2] >= y0 + height and documented[3] >= x0 + width:
            assert window(y0, x0, height, width) == documented


class TestPooling:
    def features(self, size: int = 4) -> NDArray[np.float32]:
        """One channel with the number of the column, one with the row."""
        row, column = np.mgrid[:size, :size]
        return np.stack([column, row]).astype(np.float32)

    def test_of_a_full_mask_is_the_mean(self) -> None:
        pooled = pool_crop(self.features(), np.ones((4, 4), bool), SQUARE)
        assert pooled == pytest.approx([1.5, 1.5])

    def test_of_a_mask_on_the_cells_is_their_weighted_mean(self) -> None:
        mask = np.zeros((4, 4), bool)
        mask[0, 1] = mask[2, 3] = True
        assert pool_crop(self.features(), mask, SQUARE) == pytest.approx([2.0, 1.0])

    def test_of_an_empty_mask_is_the_plain_mean(self) -> None:
        pooled = pool_crop(self.features(), np.zeros((4, 4), bool), SQUARE)
        assert pooled == pytest.approx([1.5, 1.5])

    def test_is_the_documented_one_where_the_mask_grows(self) -> None:
        rng = np.random.default_rng(0)
        mask = rng.random((5, 7)) > 0.5
        features = torch.from_numpy(rng.random((1, 3, 16, 16))).float()
        m = torch.nn.functional.interpolate(
            torch.from_numpy(mask).float()[None, None], (16, 16), mode="bilinear"
        )
        expected = (features * m).sum((2, 3)) / m.sum()
        assert pool_crop(features[0].numpy(), mask, SQUARE) == pytest.approx(
            expected[0].numpy(), abs=1e-5
        )

    def test_sees_a_line_much_thinner_than_a_cell(self) -> None:
        mask = np.zeros((400, 400), bool)
        mask[:, 299:301] = True
        column, _ = pool_crop(self.features(), mask, SQUARE)
        assert column == pytest.approx(2.5, abs=0.2)

    def test_follows_the_padding_of_sam_1(self) -> None:
        # 64 x 32 pixels fill the left half of the square: columns 0 and 1 of 4.
        mask = np.zeros((64, 32), bool)
        mask[:, 16:] = True
        column, _ = pool_crop(self.features(), mask, (1024, 512))
        assert column == pytest.approx(1.0, abs=0.3)


class TestThePrototype:
    def test_is_the_mean_of_raw_vectors_with_length_one(self) -> None:
        # The mean is (3, 4), where the mean of normalised vectors would be (.5, .5).
        assert prototype(np.array([[6.0, 0.0], [0.0, 8.0]])) == pytest.approx(
            [0.6, 0.8]
        )

    def test_of_zeros_is_zero(self) -> None:
        assert prototype(np.zeros((2, 3))) == pytest.approx([0, 0, 0])

    def test_is_compared_by_cosine(self) -> None:
        vectors = np.array([[5.0, 0.0], [1.0, 1.0], [-2.0, 0.0]])
        found = cosines(vectors, np.array([1.0, 0.0]))
        assert found == pytest.approx([1.0, np.sqrt(0.5), -1.0])


class TestEveryCandidate:
    def test_is_encoded_on_its_own_crop_and_several_at_a_time(self) -> None:
        model = ColourSam()
        builder = MaskBuilder((100, 100))
        for k in range(10):
            builder.add(np.ones((4, 4), bool), (10 + 6 * k, 50))
        calls = []
        encode = model.encode
        model.encode = lambda images: calls.append(len(images)) or encode(images)
        image = np.zeros((100, 100, 3), np.uint8)
        vectors = crop_vectors(model, image, builder.build(), 0.2, nothing, nothing)
        assert vectors.shape == (10, 3)
        assert sum(calls) == 10
        assert len(calls) == 2

    def test_gets_the_features_under_its_mask(self) -> None:
        model = ColourSam()
        image = np.zeros((64, 64, 3), np.uint8)
        image[16:32, 16:32] = (255, 0, 0)
        builder = MaskBuilder((64, 64))
        builder.add(np.ones((16, 16), bool), (16, 16))
        vectors = crop_vectors(model, image, builder.build(), 0.25, nothing, nothing)
        assert vectors[0] == pytest.approx([1, 0, 0], abs=0.15)


class TestTheWholeAlgorithm:
    """Beside the documented one, where that cuts nothing off and loses no thin mask."""

    SPOTS = ((20, 20, RED), (20, 60, BLUE), (60, 24, RED), (62, 62, (150, 20, 90)))
    SHAPE = (96, 96)

    def documented_vector(self, model, image, mask) -> torch.Tensor:
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        y0, x0 = rows[0], columns[0]
        top, left, bottom, right = documented_window(
            y0, x0, len(rows), len(columns), int(mask.sum()), self.SHAPE
        )
        assert mask[top:bottom, left:right].sum() == mask.sum()
        crop = np.ascontiguousarray(image[top:bottom, left:right])
        features = torch.from_numpy(model.encode([crop])[0].maps()["image"])
        assert bottom - top < features.shape[1]
        m = torch.nn.functional.interpolate(
            torch.from_numpy(mask[top:bottom, left:right]).float()[None, None],
            features.shape[1:],
            mode="bilinear",
            align_corners=False,
        )[0]
        return (features * m).sum((1, 2)) / m.sum()

    def test_finds_the_same_cosines(self) -> None:
        from torch.nn.functional import cosine_similarity, normalize

        image = dots(self.SHAPE, *self.SPOTS)
        drawn = tagged(self.SHAPE, (20, 20, "red"), (60, 24, "red"))
        source = open_image(image[None], axes="TYXC")
        examples = choose_examples(source, drawn, ["red"])
        params = FewShotParams(
            mode="exact", threshold=0.0, points_per_side=32, overlap="allow"
        )
        model = ColourSam(input_size=512)
        found = FewShot(params, examples)(
            model, image, FrameIndex(), report=nothing, stop=nothing
        )
        shown, _ = examples.masks(FrameIndex())
        vectors = [self.documented_vector(model, image, shown.full(i)) for i in (0, 1)]
        mean = normalize(torch.stack(vectors).mean(0), dim=0)
        expected = [
            float(cosine_similarity(vector, mean, dim=0))
            for vector in (
                self.documented_vector(model, image, found.masks.full(i))
                for i in range(len(found.masks))
            )
        ]
        assert len(expected) == len(self.SPOTS)
        assert max(expected) - min(expected) > 0.2
        assert found.columns["similarity"] == pytest.approx(expected, abs=1e-5)


class TestTheSettings:
    @pytest.mark.parametrize(
        ("name", "low", "high"),
        [
            ("points_per_side", 16, 256),
            ("min_area", 0, 100_000),
            ("max_area", 0, 100_000),
            ("occupancy", 0.05, 0.8),
            ("threshold", 0.0, 1.0),
            ("smoothing", 0, 3),
        ],
    )
    def test_have_the_documented_ranges(self, name, low, high) -> None:
        for value in (low, high):
            assert getattr(FewShotParams(**{name: value}), name) == value
        step = 0.001 if isinstance(high, float) else 1
        for value in (low - step, high + step):
            with pytest.raises(ParameterError, match=name):
                FewShotParams(**{name: value})

    def test_have_the_documented_defaults(self) -> None:
        exact = FewShotParams(mode="exact").resolved(find_model("sam2.1_hiera_tiny"))
        assert exact.threshold == 0.5
        assert exact.occupancy == 0.2
        assert exact.points_per_side == 128
        assert exact.min_area == 30
        assert exact.smoothing == 0.3

    def test_of_sam_1_end_at_128_points(self) -> None:
        params = FewShotParams(mode="exact", points_per_side=256)
        assert params.resolved(find_model("sam2.1_hiera_tiny")).points_per_side == 256
        with pytest.raises(ParameterError, match="points_per_side cannot be 256"):
            params.resolved(find_model("sam_vit_b_01ec64"))

    def test_must_leave_room_between_the_areas(self) -> None:
        with pytest.raises(ParameterError) as caught:
            FewShotParams(min_area=100, max_area=50)
        said, _ = caught.value.worded(str.upper)
        assert said == "MAX_AREA cannot be 50: MIN_AREA is 100."

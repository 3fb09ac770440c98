from __future__ import annotations

import importlib.util
import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_sam_suite.engine.errors import ImageError
from napari_sam_suite.engine.metrics import (
    AP_THRESHOLDS,
    Scores,
    evaluate_files,
    evaluate_labels,
    match_objects,
    overlap_matrix,
    pair_label_files,
)
from napari_sam_suite.engine.synthetic.scene import synthesize

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


def bars(*spans: tuple[int, int], length: int = 100) -> np.ndarray:
    labels = np.zeros((10, length), dtype=np.int32)
    for number, (start, stop) in enumerate(spans, start=1):
        labels[:, start:stop] = number
    return labels


def random_labels(rng: np.random.Generator, count: int = 6) -> np.ndarray:
    cuts = np.sort(rng.choice(np.arange(1, 40), count, replace=False))
    row = np.repeat(rng.permutation(count + 1), np.diff([0, *cuts, 40]))
    return np.tile(row, (3, 1))


def best_by_trying_all(iou: np.ndarray, threshold: float) -> tuple[int, float]:
    rows, columns = iou.shape
    best = (0, 0.0)
    for order in itertools.permutations(range(max(rows, columns)), rows):
        pairs = [iou[i, j] for i, j in enumerate(order) if j < columns]
        hits = [value for value in pairs if value >= threshold]
        best = max(best, (len(hits), sum(hits)))
    return best


def test_a_perfect_prediction_scores_one_whatever_its_numbers():
    truth = bars((0, 20), (30, 60))
    scores = evaluate_labels(np.where(truth == 1, 9, truth), truth)
    assert (scores.precision, scores.recall, scores.f1) == (1, 1, 1)
    assert (scores.ap, scores.mean_iou) == (1, 1)


def test_counts_by_hand():
    truth = bars((0, 20), (30, 50), (60, 80))
    found = bars((0, 16), (30, 42), (83, 90), (95, 100))
    scores = evaluate_labels(found, truth)
    assert (scores.truth, scores.predicted, scores.matched) == (3, 4, 2)
    assert scores.precision == 2 / 4
    assert scores.recall == 2 / 3
    assert scores.f1 == 4 / 7
    assert scores.mean_iou == pytest.approx((0.8 + 0.6) / 2)


def test_the_iou_asked_for_decides_what_a_pair_is():
    truth, found = bars((0, 20)), bars((0, 8))
    assert evaluate_labels(found, truth).matched == 0
    assert evaluate_labels(found, truth, iou=0.3).matched == 1


def test_small_objects_are_left_out_on_both_sides():
    truth, found = bars((0, 20), (40, 41)), bars((0, 20), (60, 61))
    scores = evaluate_labels(found, truth, min_area=20)
    assert (scores.truth, scores.predicted) == (1, 1)
    scores = evaluate_labels(found, truth, min_area=0)
    assert (scores.truth, scores.predicted) == (2, 2)


def test_empty_images_have_no_score_and_do_not_spoil_the_total():
    empty = np.zeros((10, 100), dtype=np.uint8)
    scores = evaluate_labels(empty, empty)
    assert math.isnan(scores.f1)
    assert scores.as_dict()["f1"] is None
    total = scores + evaluate_labels(bars((0, 20)), bars((0, 20)))
    assert (total.f1, total.images) == (1, 2)
    assert evaluate_labels(bars((0, 20)), empty).precision == 0


def test_planes_of_a_stack_are_scored_one_by_one_and_added():
    plane = bars((0, 20), (30, 50))
    scores = evaluate_labels(np.stack([plane, plane * 0]), np.stack([plane, plane]))
    assert (scores.truth, scores.matched, scores.images) == (4, 2, 2)


def test_shapes_must_agree():
    with pytest.raises(ImageError, match=r"\(10, 90\).*\(10, 100\)"):
        evaluate_labels(bars(length=90), bars(length=100))


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5])
def test_matching_is_the_best_of_all_possible_ones(threshold):
    rng = np.random.default_rng(0)
    for _ in range(40):
        overlap = overlap_matrix(random_labels(rng), random_labels(rng))
        matches = match_objects(overlap, threshold)
        count, total = best_by_trying_all(overlap.toarray(), threshold)
        assert len(matches.iou) == count
        assert matches.iou.sum() == pytest.approx(total)
        assert len(set(matches.truth.tolist())) == count
        assert len(set(matches.predicted.tolist())) == count


def test_overlap_matrix_is_the_iou_of_every_pair():
    truth, found = bars((0, 20), (20, 40)), bars((10, 30))
    expected = [[10 / 30], [10 / 30]]
    np.testing.assert_allclose(overlap_matrix(found, truth).toarray(), expected)


def test_folders_are_paired_by_stem(tmp_path):
    truth, found = tmp_path / "truth", tmp_path / "found"
    truth.mkdir()
    (found / "below").mkdir(parents=True)
    plane = bars((0, 20)).astype(np.uint16)
    for name in ("lab_000.tif", "lab_001.tif", "lab_002.tif", "other.tif"):
        tifffile.imwrite(truth / name, plane)
    tifffile.imwrite(found / "img_000.tif", plane)
    tifffile.imwrite(found / "below" / "img_001_sam.tif", plane[None])
    pairs = pair_label_files(found, truth)
    assert [pair.name for pair in pairs] == ["000", "001", "002"]
    assert [pair.predicted and pair.predicted.name for pair in pairs] == [
        "img_000.tif",
        "img_001_sam.tif",
        None,
    ]
    total = sum((scores for _, scores in evaluate_files(found, truth)), Scores())
    assert (total.truth, total.matched, total.images) == (3, 2, 3)


def test_a_prediction_of_the_same_name_comes_before_longer_names(tmp_path):
    truth, found = tmp_path / "truth", tmp_path / "found"
    for folder, names in ((truth, ["b1", "ab1", "c [1]"]), (found, ["b1", "ab1"])):
        folder.mkdir()
        for name in [*names, "c [1]"]:
            tifffile.imwrite(folder / f"{name}.tif", bars((0, 20)).astype(np.uint16))
    pairs = pair_label_files(found, truth)
    assert [pair.predicted and pair.predicted.stem for pair in pairs] == [
        "ab1",
        "b1",
        "c [1]",
    ]


def paired(tmp_path, truths, predictions):
    for folder, stems in (("truth", truths), ("found", predictions)):
        (tmp_path / folder).mkdir()
        for stem in stems:
            (tmp_path / folder / f"{stem}.tif").touch()
    pairs = pair_label_files(tmp_path / "found", tmp_path / "truth")
    return {pair.name: pair.predicted and pair.predicted.stem for pair in pairs}


@pytest.mark.parametrize(
    ("truths", "predictions", "expected"),
    [
        (["lab_1", "lab_10"], ["10"], {"1": None, "10": "10"}),
        (["lab_1", "lab_10"], ["img_10_sam"], {"1": None, "10": "img_10_sam"}),
        (["cell", "cell_b"], ["cell_b"], {"cell": None, "cell_b": "cell_b"}),
        (["cell", "cell_b"], ["cell_b_sam"], {"cell": None, "cell_b": "cell_b_sam"}),
        (["1", "img_1"], ["1", "img_1"], {"1": "1", "img_1": "img_1"}),
        (["a1"], ["xa1", "a1x", "a1-sam"], {"a1": "a1-sam"}),
        (["a+(1)"], ["sam a+(1)"], {"a+(1)": "sam a+(1)"}),
        (["p_cp_masks", "p"], ["p"], {"p": "p"}),
        (["p", "q"], ["p_cp_masks", "p", "q"], {"p": "p_cp_masks", "q": "q"}),
        (["img_p"], ["p_labels"], {"img_p": "p_labels"}),
        (["p_mask", "p_gt"], ["p_mask"], {"p_mask": "p_mask", "p_gt": None}),
    ],
)
def test_no_prediction_is_that_of_another_image(
    tmp_path, truths, predictions, expected
):
    assert paired(tmp_path, truths, predictions) == expected


def test_of_several_loose_predictions_none_is_guessed(tmp_path):
    with pytest.raises(
        ImageError, match=r"may be of '1': sam_1_a, sam_1_b\."
    ) as caught:
        paired(tmp_path, ["lab_1"], ["sam_1_a", "sam_1_b"])
    assert "name it 1.tif" in caught.value.hint


def test_two_files_are_a_pair(tmp_path):
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, bars((0, 20)).astype(np.uint16))
    ((pair, scores),) = evaluate_files(tmp_path / "a.tif", tmp_path / "b.tif")
    assert (pair.name, scores.f1) == ("b", 1)


@pytest.mark.parametrize("kind", ["8", "16", "palette"])
def test_png_labels_as_cellpose_names_them_are_scored(tmp_path, kind):
    truth, found = tmp_path / "truth", tmp_path / "found"
    truth.mkdir()
    found.mkdir()
    labels = bars((0, 20), (30, 60)).astype(np.uint8)
    picture = Image.fromarray(labels.astype(np.uint16) if kind == "16" else labels)
    if kind == "palette":
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(truth / "plate_cp_masks.png")
    noise = np.random.default_rng(0).integers(0, 4000, labels.shape, np.uint16)
    tifffile.imwrite(truth / "plate.tif", noise)
    tifffile.imwrite(found / "plate.tif", labels.astype(np.uint16))
    Image.fromarray(np.stack([labels] * 3, -1)).save(found / "plate_overlay.png")
    ((pair, scores),) = evaluate_files(found, truth)
    assert (pair.name, scores.truth, scores.f1) == ("plate", 2, 1)
    with pytest.raises(ImageError, match="colour picture"):
        list(evaluate_files(found / "plate_overlay.png", truth / "plate_cp_masks.png"))


@pytest.mark.parametrize("size", [1, 3])
def test_many_small_objects_are_not_taken_for_intensities(tmp_path, size):
    labels = np.arange(1, 401, dtype=np.uint16).reshape(20, 20)
    labels = np.kron(labels, np.ones((size, size), np.uint16))
    labels = (
        np.kron(labels, np.array([[1, 0], [0, 0]], np.uint16)) if size < 3 else labels
    )
    tifffile.imwrite(tmp_path / "a.tif", labels)
    ((_, scores),) = evaluate_files(tmp_path / "a.tif", tmp_path / "a.tif", min_area=0)
    assert (scores.truth, scores.f1) == (400, 1)


@pytest.mark.parametrize("bits", [8, 16])
def test_intensities_on_a_background_of_zeros_are_refused(tmp_path, bits):
    scene = synthesize("nuclei", (96, 96), seed=1, diameter=18, bits=bits)
    image = np.where(scene.labels > 0, scene.image, 0)
    assert 0 < np.count_nonzero(image) < 0.5 * image.size
    tifffile.imwrite(tmp_path / "img.tif", image)
    tifffile.imwrite(tmp_path / "lab.tif", scene.labels)
    for pair in (("img.tif", "lab.tif"), ("lab.tif", "img.tif")):
        with pytest.raises(ImageError, match=r"img\.tif does not look like a label"):
            list(evaluate_files(*(tmp_path / name for name in pair)))


def test_fragmented_and_crowded_labels_are_not_taken_for_intensities(tmp_path):
    rng = np.random.default_rng(0)
    labels = synthesize("nuclei", (96, 96), seed=1, diameter=18).labels
    holes = np.where(rng.random(labels.shape) < 0.4, labels, 0)
    specks = np.where(rng.random(labels.shape) < 0.15, rng.integers(1, 999), labels)
    crowd = np.arange(1, 401).reshape(20, 20).repeat(4, 0).repeat(4, 1)
    cells = np.arange(labels.size).reshape(labels.shape) * (rng.random((96, 96)) < 0.02)
    for image in (holes, specks, crowd, cells):
        tifffile.imwrite(tmp_path / "a.tif", image.astype(np.uint16))
        ((_, scores),) = evaluate_files(
            tmp_path / "a.tif", tmp_path / "a.tif", min_area=0
        )
        assert scores.f1 == 1


def test_missing_folders_and_empty_folders_are_named(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere does not exist"):
        pair_label_files(tmp_path / "nowhere", tmp_path)
    with pytest.raises(ImageError, match="no label image"):
        pair_label_files(tmp_path, tmp_path)


def test_a_prediction_of_another_size_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", bars(length=90).astype(np.uint16))
    tifffile.imwrite(tmp_path / "b.tif", bars(length=100).astype(np.uint16))
    with pytest.raises(ImageError, match=r"a\.tif has shape \(10, 90\)"):
        list(evaluate_files(tmp_path / "a.tif", tmp_path / "b.tif"))


def load_scorer(folder: Path) -> ModuleType:
    path = folder.parent / "tools" / "score.py"
    if not path.exists():
        pytest.skip("the reference scorer is not beside this checkout")
    spec = importlib.util.spec_from_file_location("reference_scorer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("folder", ["dev_bacteria_omnipose", "dev_bbbc039_16bit"])
def test_agrees_with_the_reference_scorer_on_spoiled_truth(shared_data, folder):
    scorer = load_scorer(shared_data)
    rng = np.random.default_rng(0)
    for path in sorted((shared_data / folder).glob("lab_*.tif"))[:3]:
        truth = tifffile.imread(path).astype(np.int64)
        found = np.roll(truth, tuple(rng.integers(-3, 4, 2)), (0, 1))
        found[np.isin(found, rng.choice(np.unique(truth), 5))] = 0
        found += (np.indices(found.shape)[0] % 40 < 20) * (found % 5 == 1) * 10000
        expected = scorer.iou_matrix(truth, found, 20)
        hits, matched = scorer.counts(expected)
        scores = evaluate_labels(found, truth)
        assert (scores.truth, scores.predicted) == expected.shape
        assert scores.ap_matched == tuple(hits.tolist())
        assert scores.matched == len(matched)
        assert scores.iou_sum == pytest.approx(matched.sum())
    assert len(AP_THRESHOLDS) == len(scorer.THRESHOLDS)

"""What was learnt: kept in two files, and refused where it does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from engine.fewshot_fakes import ColourSam
from napari_sam_suite.engine.errors import ModelError, ParameterError
from napari_sam_suite.engine.fewshot.calibrate import probability
from napari_sam_suite.engine.fewshot.fast import Sizes
from napari_sam_suite.engine.fewshot.judgement import Judgement
from napari_sam_suite.engine.fewshot.prototype_files import prototype_files
from napari_sam_suite.engine.fewshot.prototypes import Prototypes, temper
from napari_sam_suite.engine.fewshot.quality import size_odds
from napari_sam_suite.engine.fewshot.verifier import COLUMNS, verify
from napari_sam_suite.engine.models.protocol import weights_of

if TYPE_CHECKING:
    from pathlib import Path


def learnt(**changes) -> Prototypes:
    rng = np.random.default_rng(0)

    def rows(count: int, shift: float, size: int = 4) -> np.ndarray:
        found = rng.normal(size=(count, size)).astype(np.float32)
        found[:, 0] += shift
        return found

    values = {
        "model": "fake",
        "weights": "fake",
        "mode": "fast",
        "tags": ("cell", "bud"),
        "negatives": ("dirt",),
        "labels": ("cell",) * 5 + ("bud",) * 5 + ("dirt",) * 5,
        "vectors": np.concatenate([rows(5, 9), rows(5, -9), rows(5, 30)]),
        "groups": np.arange(15),
        "areas": np.full(15, 50, np.float32),
        "widths": np.full(15, 7, np.float32),
        "rest": rows(100, 0),
        "cells": rows(15, 5, 3),
        "cell_rest": rows(50, 0, 3),
        "rated": np.full(15, np.nan, np.float32),
    }
    return Prototypes(**(values | changes))


def test_they_come_back_from_their_files_as_they_were(tmp_path: Path) -> None:
    before = learnt()
    before.save(tmp_path / "cells.safetensors")
    after = Prototypes.load(tmp_path / "cells.safetensors")
    for name in ("model", "weights", "mode", "tags", "negatives", "labels"):
        assert getattr(after, name) == getattr(before, name)
    names = ("vectors", "groups", "areas", "widths", "rest", "cells", "cell_rest")
    for name in (*names, "rated"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    some = np.random.default_rng(1).normal(size=(20, 4))
    assert after.judge(some).tags == before.judge(some).tags
    assert after.calibrations == before.calibrations


def test_the_card_beside_them_tells_a_person_what_they_are(tmp_path: Path) -> None:
    learnt().save(tmp_path / "cells")
    card = json.loads((tmp_path / "cells.json").read_text())
    assert card["model"] == "fake"
    assert card["tags"] == ["cell", "bud"]
    assert card["examples"] == 15


def test_names_that_differ_after_a_dot_are_files_of_their_own(tmp_path: Path) -> None:
    learnt().save(tmp_path / "cells.v1")
    learnt(model="other").save(tmp_path / "cells.v2")
    assert Prototypes.load(tmp_path / "cells.v1").model == "fake"
    assert Prototypes.load(tmp_path / "cells.v2.safetensors").model == "other"


@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_a_folder_is_no_name_for_them(folder: str) -> None:
    with pytest.raises(ParameterError, match="is no name for prototypes"):
        learnt().save(folder)


@pytest.mark.parametrize("missing", ["cells.json", "cells.safetensors"])
def test_a_missing_file_is_told(tmp_path: Path, missing: str) -> None:
    learnt().save(tmp_path / "cells")
    (tmp_path / missing).unlink()
    with pytest.raises(ParameterError, match="no prototypes at"):
        Prototypes.load(tmp_path / "cells.safetensors")


@pytest.mark.parametrize("damaged", ["cells.json", "cells.safetensors"])
def test_a_damaged_file_is_told(tmp_path: Path, damaged: str) -> None:
    learnt().save(tmp_path / "cells")
    (tmp_path / damaged).write_text("{}")
    with pytest.raises(ParameterError, match="damaged"):
        Prototypes.load(tmp_path / "cells.safetensors")


def test_another_model_is_told() -> None:
    with pytest.raises(ParameterError, match="the model fake, not sam2-nano"):
        learnt().check("sam2-nano")


def test_another_mode_is_told() -> None:
    with pytest.raises(ParameterError, match="in fast mode, not in exact mode"):
        learnt().check("fake", "exact")


def test_other_weights_of_the_same_model_are_told() -> None:
    model = ColourSam()
    learnt(weights=weights_of(model)).check_weights(model)
    with pytest.raises(ModelError, match="other weights of fake"):
        learnt(weights="older").check_weights(model)


def test_another_precision_of_the_same_weights_is_fine() -> None:
    model = ColourSam()
    model.identity = "abc-torch.float32"
    half = ColourSam()
    half.identity = "abc-torch.bfloat16"
    learnt(weights=weights_of(model)).check_weights(half)


def test_every_tag_has_a_scorer_of_its_own() -> None:
    assert set(learnt().scorers) == {"cell", "bud", "dirt"}
    assert set(learnt().calibrations) == {"cell", "bud", "dirt"}


def test_candidates_get_the_tag_that_they_are_most_like() -> None:
    judged = learnt().judge(
        np.array([[9.0, 0, 0, 0], [-9.0, 0, 0, 0], [30.0, 0, 0, 0]])
    )
    assert judged.tags[:2] == ["cell", "bud"]


def test_the_margin_is_the_distance_to_the_second_tag() -> None:
    scores, ranks = np.array([[0.2, 0.9, 0.6]]), np.array([[7.0, 5.0, 9.0]])
    judged = Judgement.of(["a", "b", "c"], scores, ranks)
    assert judged.tags == ["b"]
    assert judged.runners_up == ["c"]
    assert judged.similarity == pytest.approx([0.9])
    assert judged.margin == pytest.approx([0.3])
    assert judged.rank.tolist() == [5]


def test_the_margin_of_a_single_tag_is_the_distance_to_the_background() -> None:
    judged = Judgement.of(["a"], np.array([[0.7]]), np.array([[5.0]]))
    assert judged.runners_up == [""]
    assert judged.margin == pytest.approx([0.7])


def rated(odds: float, count: int = 5) -> Prototypes:
    """Of which the model outlines the first `count` cells, rated as given."""
    values = np.full(15, np.nan, np.float32)
    values[:count] = odds
    return learnt(rated=values)


def looked_at(prototypes: Prototypes) -> np.ndarray:
    rng = np.random.default_rng(4)
    return rng.normal(size=(len(prototypes.labels), COLUMNS)).astype(np.float32)


def test_looks_come_back_from_their_file(tmp_path: Path) -> None:
    before = learnt(looks=looked_at(learnt()))
    before.save(tmp_path / "cells")
    after = Prototypes.load(tmp_path / "cells")
    np.testing.assert_array_equal(after.looks, before.looks)


def test_looks_that_are_of_something_else_are_told(tmp_path: Path) -> None:
    path, _ = prototype_files(tmp_path / "cells")
    learnt(looks=looked_at(learnt())[:9]).save(path)
    with pytest.raises(ParameterError, match="damaged"):
        Prototypes.load(path)


@pytest.mark.parametrize("verifier", [None, "another"])
def test_looks_of_another_verifier_do_not_count(
    tmp_path: Path, verifier: str | None
) -> None:
    path, about = prototype_files(tmp_path / "cells")
    learnt(looks=looked_at(learnt())).save(path)
    card = json.loads(about.read_text())
    if verifier is None:  # as before there was one
        del card["verifier"]
        arrays = load_file(path)
        del arrays["looks"]
        save_file(arrays, path)
    else:
        card["verifier"] = verifier
    about.write_text(json.dumps(card))
    some = np.random.default_rng(1).normal(size=(20, 4))
    after = Prototypes.load(path).judge(some, looks=np.zeros((20, COLUMNS)))
    assert after.similarity == pytest.approx(learnt().judge(some).similarity)


def test_candidates_are_verified_beside_the_examples_of_each_tag() -> None:
    prototypes = learnt(looks=looked_at(learnt()))
    some = np.zeros((3, 4))
    looks = np.random.default_rng(5).normal(size=(3, COLUMNS))
    judged = prototypes.judge(some, 0.0, None, looks)
    assert judged.similarity != pytest.approx(prototypes.judge(some).similarity)
    of_buds = prototypes.looks[5:10]
    only = learnt(tags=("bud",), negatives=(), looks=prototypes.looks)
    said = only.judge(some, 0.0, None, looks).similarity
    alike = temper(only.calibrations["bud"].log_odds(only.scorers["bud"].score(some)))
    wanted = probability(0.5 + 0.5 * alike + 0.7 * verify(looks, of_buds))
    assert said == pytest.approx(wanted)


def test_outlines_of_one_object_are_ranked_without_what_they_are_like() -> None:
    prototypes = learnt(tags=("cell",), negatives=(), looks=looked_at(learnt()))
    looks = np.random.default_rng(5).normal(size=(3, COLUMNS))
    areas = np.array([50, 50, 500])
    near, far = (np.full((3, 4), shift, float) for shift in (9, -9))
    one, two = (prototypes.judge(some, 0.0, areas, looks) for some in (near, far))
    assert (one.similarity > two.similarity).all()
    outlined = 0.7 * verify(looks, prototypes.looks[:5])
    assert one.rank == pytest.approx(outlined + size_odds(areas, np.full(5, 50)))
    assert two.rank == pytest.approx(one.rank)
    rated = prototypes.judge(near, np.array([3.0, 0, 0]), areas, looks)
    assert rated.similarity[0] > one.similarity[0]
    assert rated.rank == pytest.approx(one.rank)


def test_without_a_verifier_outlines_are_ranked_by_all_that_is_known() -> None:
    judged = learnt().judge(np.array([[9.0, 0, 0, 0], [1, 0, 0, 0]]), 0.5)
    assert probability(judged.rank) == pytest.approx(judged.similarity)


def test_only_outlines_that_a_person_drew_are_examples_for_the_verifier() -> None:
    looks, groups = looked_at(learnt()), np.arange(15)
    groups[4] = 3  # as the model draws it
    other = looks.copy()
    other[4] += 9
    some, seen = np.zeros((3, 4)), np.zeros((3, COLUMNS))
    one, two = (
        learnt(looks=each, groups=groups).judge(some, 0.0, None, seen).similarity
        for each in (looks, other)
    )
    assert two == pytest.approx(one)


def test_what_a_person_confirms_is_no_example_for_the_verifier(tmp_path: Path) -> None:
    before = learnt(tags=("cell",), negatives=(), looks=looked_at(learnt()))
    vectors, sizes = before.vectors[:2] + 1, Sizes(before.areas[:2], before.widths[:2])
    before.accept(vectors, ["cell", "cell"], sizes).save(tmp_path / "cells")
    after = Prototypes.load(tmp_path / "cells")
    some, looks = np.zeros((3, 4)), np.random.default_rng(5).normal(size=(3, COLUMNS))
    said = after.judge(some, 0.0, None, looks).similarity
    score = after.scorers["cell"].score(some)
    alike = temper(after.calibrations["cell"].log_odds(score))
    verified = verify(looks, before.looks[:5])
    assert said == pytest.approx(probability(0.5 + 0.5 * alike + 0.7 * verified))


def test_a_tag_that_nobody_drew_is_not_verified() -> None:
    unseen = looked_at(learnt())
    unseen[5:10] = np.nan
    prototypes = learnt(tags=("bud",), negatives=(), looks=unseen)
    looks = np.zeros((3, COLUMNS))
    said = prototypes.judge(np.zeros((3, 4)), 0.0, None, looks).similarity
    assert np.isfinite(said).all()


def test_a_bar_that_the_examples_do_not_pass_is_lowered() -> None:
    low, lower = rated(-5).allowances, rated(-6).allowances
    assert low["cell"] > 0
    assert lower["cell"] - low["cell"] == pytest.approx(1)
    assert low["bud"] == 0  # nothing is known of their outlines


def test_three_quarters_of_the_examples_pass_the_lowered_bar() -> None:
    prototypes = rated(-5, 5)
    prototypes.rated[:5] = [-3, -4, -5, -6, -20]
    cells, rating = prototypes.vectors[:5], prototypes.rated[:5]
    judged = prototypes.judge(cells, rating, prototypes.areas[:5])
    assert np.count_nonzero(judged.similarity >= 0.5) == 4


def test_a_bar_that_the_examples_pass_easily_is_raised_by_half_of_it() -> None:
    high, higher = rated(5).allowances, rated(6).allowances
    assert high["cell"] < 0
    assert higher["cell"] - high["cell"] == pytest.approx(-0.5)
    assert high["bud"] == high["dirt"] == 0


def test_few_outlines_do_not_move_the_bar() -> None:
    assert rated(-5, 3).allowances["cell"] == 0
    assert rated(5, 3).allowances["cell"] == 0


def test_a_verifier_needs_no_other_bar() -> None:
    low = rated(-5)
    assert replace(low, looks=looked_at(low)).allowances["cell"] == 0


def test_files_of_another_version_are_refused(tmp_path: Path) -> None:
    learnt().save(tmp_path / "cells")
    card = tmp_path / "cells.json"
    card.write_text(card.read_text().replace('"version": 2', '"version": 1'))
    with pytest.raises(ParameterError, match="Save the prototypes again"):
        Prototypes.load(tmp_path / "cells")


def test_accepted_objects_become_examples() -> None:
    sizes = Sizes(np.array([60], np.float32), np.array([8], np.float32))
    more = learnt().accept(np.array([[9.0, 0, 0, 0]]), ["cell"], sizes)
    assert len(more) == 16
    assert more.labels[-1] == "cell"
    assert more.groups[-1] == 15


def test_an_unknown_tag_is_not_accepted() -> None:
    with pytest.raises(ParameterError, match="know no tag 'mouse'"):
        learnt().accept(
            np.zeros((1, 4)), ["mouse"], Sizes(*[np.ones(1, np.float32)] * 2)
        )


def test_rejected_objects_score_less() -> None:
    wrong = np.tile([6.0, 5.0, 0.0, 0.0], (20, 1))
    before = learnt(labels=("cell",) * 15, tags=("cell",), negatives=())
    after = before.reject(wrong)
    assert after.judge(wrong).similarity.mean() < before.judge(wrong).similarity.mean()

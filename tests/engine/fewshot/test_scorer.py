"""Scores from whitened descriptors, and what they mean, from the examples alone."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_suite.engine.fewshot.calibrate import Calibration, probability
from napari_sam_suite.engine.fewshot.scorer import Scorer


def crowd(count: int, seed: int = 0, size: int = 6) -> np.ndarray:
    """Descriptors that share a large common part and vary most in the first column."""
    spread = np.array([10.0, *[1.0] * (size - 1)])
    return 100 + np.random.default_rng(seed).normal(size=(count, size)) * spread


def kind(count: int, seed: int = 1) -> np.ndarray:
    """The same, a little higher in the last column."""
    found = crowd(count, seed)
    found[:, -1] += 6
    return found


def test_the_rest_scores_zero_and_the_examples_one() -> None:
    scorer = Scorer.fit(kind(10), crowd(300))
    assert scorer.score(crowd(300)).mean() == pytest.approx(0, abs=1e-6)
    assert scorer.score(kind(10)).mean() == pytest.approx(1, abs=1e-6)


def test_what_a_plain_cosine_cannot_see_separates_after_whitening() -> None:
    examples, new, others = kind(10), kind(50, seed=2), crowd(200, seed=3)
    mean = examples.mean(0)

    def cosine(x: np.ndarray) -> np.ndarray:
        return x @ mean / np.linalg.norm(x, axis=1) / np.linalg.norm(mean)

    scorer = Scorer.fit(examples, crowd(300))
    assert np.quantile(cosine(new), 0.1) < np.quantile(cosine(others), 0.9)
    assert np.quantile(scorer.score(new), 0.1) > np.quantile(scorer.score(others), 0.9)


def test_one_example_is_enough_and_nothing_else_is_needed() -> None:
    one = np.array([[3.0, 4.0]])
    scorer = Scorer.fit(one, np.zeros((0, 2)))
    assert scorer.score(np.array([[3.0, 4.0], [-3.0, -4.0]])) == pytest.approx([1, -1])


def test_a_column_that_never_changes_does_no_harm() -> None:
    examples, rest = kind(5), crowd(50)
    examples[:, 1] = rest[:, 1] = 7.0
    assert np.isfinite(Scorer.fit(examples, rest).score(rest)).all()


def test_a_held_out_example_scores_as_if_it_had_not_been_given() -> None:
    examples, rest = kind(6), crowd(300)
    scorer = Scorer.fit(examples, rest)
    alone = Scorer(
        scorer.centre, scorer.spread, scorer.whiten, scorer.examples[1:],
        scorer.groups[1:], scorer.nearest,
    )  # fmt: skip
    assert scorer.held_out()[0] == pytest.approx(alone.score(examples[:1])[0])


def test_descriptors_of_one_example_are_held_out_together() -> None:
    examples = kind(6)
    doubled = np.concatenate([examples, examples])
    groups = np.tile(np.arange(6), 2)
    scorer = Scorer.fit(doubled, crowd(300), groups)
    once = Scorer.fit(doubled, crowd(300))
    assert len(scorer.held_out()) == 6
    assert scorer.held_out().mean() < once.held_out().mean()


def test_every_descriptor_can_be_held_out_with_its_example() -> None:
    examples = np.array([[2.0, 0], [2.2, 0], [1.0, 1]])
    scorer = Scorer.fit(examples, np.zeros((0, 2)), np.array([0, 0, 1]))
    alone = Scorer.fit(examples[2:], np.zeros((0, 2)))
    each = scorer.held_out_each()
    assert each[:2] == pytest.approx(alone.score(examples[:2]))
    assert scorer.held_out() == pytest.approx(each[[0, 2]])


def test_examples_of_two_kinds_are_both_found() -> None:
    rest = crowd(300)
    high, low = kind(6), kind(6, seed=4)
    low[:, -1] -= 12
    scorer = Scorer.fit(np.concatenate([high, low]), rest)
    new = kind(50, seed=5)
    other = new - np.array([0, 0, 0, 0, 0, 12.0])
    assert np.median(scorer.score(new)) > np.quantile(scorer.score(rest), 0.9)
    assert np.median(scorer.score(other)) > np.quantile(scorer.score(rest), 0.9)


def test_a_single_example_has_no_held_out_score() -> None:
    assert len(Scorer.fit(kind(1), crowd(20)).held_out()) == 0


# Probabilities


def test_even_odds_lie_in_the_middle_of_the_two_means() -> None:
    held_out = np.array([1.1, 0.9, 1.1, 0.9])
    calibration = Calibration.of(held_out, np.array([0.3, -0.1]))
    assert calibration.middle == pytest.approx((1.0 + 0.1) / 2)
    assert probability(calibration.log_odds(np.array([0.55]))) == pytest.approx([0.5])


def test_log_odds_are_those_of_two_bell_curves_of_one_width() -> None:
    held_out = np.array([1.3, 0.7, 1.3, 0.7])  # mean 1.0, deviation 0.3
    rest = np.array([0.3, -0.3])  # mean 0.0, deviation 0.3
    x = np.array([0.8])
    expected = -((x - 1.0) ** 2 - x**2) / (2 * 0.3**2)
    assert Calibration.of(held_out, rest).log_odds(x) == pytest.approx(expected)


def test_scores_that_tell_nothing_leave_everything_even() -> None:
    below = Calibration.of(np.full(5, -0.2), np.array([0.1, -0.1]))
    assert probability(below.log_odds(np.array([-3.0, 3.0]))) == pytest.approx(
        [0.5] * 2
    )


def test_few_examples_are_not_trusted_about_their_spread() -> None:
    alike = Calibration.of(np.array([1.0, 1.0]), np.array([0.25, -0.25]))
    assert alike.middle == pytest.approx(0.25)
    assert alike.slope == pytest.approx(0.5 / 0.25**2)


def test_probabilities_stay_between_0_and_1() -> None:
    sure = Calibration.of(np.full(5, 1.0), np.zeros(5))
    found = probability(sure.log_odds(np.array([-1e6, 1e6])))
    assert 0 < found[0] < 1e-6
    assert 1 - 1e-6 < found[1] < 1

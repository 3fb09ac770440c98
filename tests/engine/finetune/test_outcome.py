"""When a tuned model counts as better."""

from __future__ import annotations

import pytest

from engine.finetune.tiny import Heard, masks_of, sample, tiny_model
from napari_sam_suite.engine.finetune.outcome import Comparison, compare
from napari_sam_suite.engine.finetune.trainee import Trainee
from napari_sam_suite.engine.metrics import Scores

NONE = masks_of((8, 8))


@pytest.mark.parametrize(
    ("base", "tuned", "better"),
    [
        (Scores(), Scores(), False),
        (Scores(2, 2, 0), Scores(2, 1, 0), False),
        (Scores(2, 1, 1), Scores(2, 1, 1), False),
        (Scores(2, 1, 1), Scores(2, 2, 2), True),
        (Scores(2, 0, 0), Scores(2, 2, 1), True),
    ],
)
def test_a_model_is_better_if_it_finds_more(
    base: Scores, tuned: Scores, *, better: bool
) -> None:
    found = Comparison(sample(), NONE, NONE, base, tuned, {})
    assert found.better is better


def test_an_untaught_model_is_no_better_than_itself_however_thresholds_are_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("napari_sam_suite.engine.finetune.calibrate._POINTS", 3)
    heard = Heard()
    found = compare(
        Trainee(tiny_model()),
        [sample()],
        64,
        (0.5, 0.5),
        report=heard.report,
        stop=bool,
    )
    assert found.base == found.tuned
    assert not found.better

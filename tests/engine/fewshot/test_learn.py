"""What is learnt from examples, and that nothing is done twice for it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from engine.fewshot_fakes import BLUE, RED, ColourSam, dots, tagged
from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.engine.fewshot import learn
from napari_sam_suite.engine.fewshot.examples import choose_examples
from napari_sam_suite.engine.fewshot.finder import FewShot
from napari_sam_suite.engine.fewshot.learn import Learner
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.masks import Masks
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from napari_sam_suite.engine.fewshot.examples import Examples
    from napari_sam_suite.engine.finder import Found

SHAPE = (64, 64)
REDS = [(8, 8), (24, 40), (48, 20)]
BLUES = [(8, 40), (40, 8), (50, 50)]
FIRST = dots(SHAPE, *[(*at, RED) for at in REDS], *[(*at, BLUE) for at in BLUES])
SECOND = dots(SHAPE, *[(*at, BLUE) for at in BLUES])
FRAMES = [(FrameIndex(), FIRST), (FrameIndex(time=1), SECOND)]


def quiet(*_: object) -> bool:
    return False


def of_two_frames() -> Examples:
    """Red ones are tagged on the first frame, blue ones on the second."""
    red = tagged(SHAPE, *[(*at, "red") for at in REDS])
    blue = tagged(SHAPE, *[(*at, "blue") for at in BLUES])
    blue = replace(blue, features=blue.features.assign(time=1))
    image = open_image(np.stack([FIRST, SECOND]), axes="TYXC")
    return choose_examples(image, Objects.concat([red, blue]), ["red", "blue"])


def search(finder: FewShot, model: ColourSam) -> list[Found]:
    return [finder(model, rgb, at, report=quiet, stop=quiet) for at, rgb in FRAMES]


def test_only_masks_that_could_share_pixels_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = open_image(FIRST[None], axes="TYXC")
    shapes = tagged(SHAPE, *[(*at, "red") for at in REDS])
    examples = choose_examples(image, shapes, ["red"])
    plain, apart = Masks.intersection, []

    def intersection(self: Masks, i: int, j: int, other: Masks) -> int:
        a, b = self.boxes[i], other.boxes[j]
        apart.append((np.maximum(a[:2], b[:2]) >= np.minimum(a[2:], b[2:])).any())
        return plain(self, i, j, other)

    monkeypatch.setattr(Masks, "intersection", intersection)
    learner = Learner(ColourSam(), FewShotParams(), quiet, quiet)
    learnt = learner.learn(examples)
    assert apart
    assert not any(apart)
    # Every example as drawn and as the model draws it; copies where there are none.
    assert learnt.groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(learnt.rest) > 10


@pytest.mark.parametrize("kept", [0, 1, 32])
def test_frames_with_examples_are_searched_for_what_is_tagged_on_others(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "_KEPT", kept)
    examples = of_two_frames()
    finder = FewShot(FewShotParams(), examples, known=examples.objects)
    found = search(finder, ColourSam())
    assert [one.columns.get("tag", []) for one in found] == [["blue"] * 3, []]
    later = FewShot(finder.params, prototypes=finder.prototypes, known=examples.objects)
    again = search(later, ColourSam())
    assert [one.masks.boxes.tolist() for one in found] == [
        one.masks.boxes.tolist() for one in again
    ]


@pytest.mark.parametrize(("kept", "twice"), [(32, 0), (1, 1)])
def test_tiles_are_encoded_once_but_no_more_are_kept_than_fit(
    kept: int, twice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "_KEPT", kept)
    model = ColourSam()
    search(FewShot(FewShotParams(), of_two_frames()), model)
    assert len(model.encoded) == len(FRAMES) + twice


def test_learning_tells_how_far_it_is_to_the_end() -> None:
    told = []
    learner = Learner(
        ColourSam(), FewShotParams(), lambda *news: told.append(news), quiet
    )
    learner.learn(of_two_frames())
    shares = [done / total for done, total, _ in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert len(set(shares)) == 5


def test_a_wish_to_stop_is_heard_before_anything_is_looked_at() -> None:
    told, model = [], ColourSam()
    learner = Learner(
        model,
        FewShotParams(),
        lambda done, total, _: told.append(done / total),
        lambda: bool(told) and told[-1] >= 0.5,
    )
    with pytest.raises(Cancelled):
        learner.learn(of_two_frames())
    assert len(model.encoded) == len(FRAMES)
    assert not model.decoded

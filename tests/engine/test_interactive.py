from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engine.fakes import FakeSam, scene
from napari_sam_suite.engine.embed import EmbeddingCache, Remembering
from napari_sam_suite.engine.errors import Cancelled, ParameterError
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.jobs import Engine
from napari_sam_suite.engine.prompts.finder import start_prompts
from napari_sam_suite.engine.prompts.interactive import Interactive
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.engine.prompts.prompt import Prompt
from napari_sam_suite.engine.recorded import Said
from napari_sam_suite.engine.synthetic.scene import synthesize

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST = FrameIndex()
CLICK = Prompt(inside=((16, 16),), tag="cell")


class FakeEngine(Engine):
    """The real engine and its thread, with a model that needs no weights."""

    def __init__(self, fake: FakeSam) -> None:
        super().__init__("sam2-nano", device="cpu")
        self.fake = fake
        self.remembering = Remembering(fake, EmbeddingCache())

    def _load(self) -> Any:
        return self.remembering


@pytest.fixture
def fake() -> FakeSam:
    return FakeSam(scores=(0.5, 0.7, 0.9, 0.8))


@pytest.fixture
def engine(fake: FakeSam) -> Iterator[FakeEngine]:
    with FakeEngine(fake) as engine:
        yield engine


@pytest.fixture
def interactive(engine: FakeEngine) -> Interactive:
    frames = [scene((64, 64), (8, 8, 24, 24), (40, 40, 50, 50))[..., 0]] * 3
    return Interactive(engine, open_image(np.stack(frames), axes="TYX"))


def busy(engine: Engine) -> threading.Event:
    """Keep the engine's thread until the event is set."""
    go = threading.Event()
    engine.submit(lambda *_: go.wait(30), "something else")
    return go


def test_a_click_is_answered_with_three_outlines_the_best_first(
    interactive: Interactive,
) -> None:
    found = interactive.ask(CLICK, FIRST).result(30)
    assert [s.answer.level for s in found] == [2, 3, 1]
    polygon = found[0].polygon
    assert polygon is not None
    assert polygon.bounds == (7.5, 7.5, 23.5, 23.5)


def test_a_prepared_frame_is_not_encoded_again_by_a_click(
    interactive: Interactive, fake: FakeSam
) -> None:
    assert interactive.prepare(FIRST).result(30) == 1
    for _ in range(3):
        interactive.ask(CLICK, FIRST).result(30)
    assert len(fake.encoded) == 1


def test_a_large_image_is_prepared_from_where_clicks_are_expected(
    engine: FakeEngine, fake: FakeSam
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (256, 256)).astype(np.uint8)
    image = open_image(noise)
    interactive = Interactive(engine, image, PromptParams(tile=64))
    interactive.prepare(FIRST, near=(250, 10)).result(30)
    assert fake.encoded[0] == (64, 64)
    views = interactive.prepare(FIRST, near=(250, 10), background=True).result(30)
    assert views == 7 * 7 + 1
    count = len(fake.encoded)
    interactive.ask(Prompt(inside=((20, 130),)), FIRST).result(30)
    assert len(fake.encoded) == count


def test_neighbours_are_prepared_when_there_is_nothing_else(
    interactive: Interactive, engine: FakeEngine
) -> None:
    jobs = interactive.prefetch([FrameIndex(time=1), FrameIndex(time=2)])
    assert [job.result(30) for job in jobs] == [1, 1]


def test_neighbours_do_not_push_the_present_frame_out(
    engine: FakeEngine, fake: FakeSam
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 3, 96, 96)).astype(np.uint8)
    interactive = Interactive(
        engine, open_image(noise, axes="TZYX"), PromptParams(tile=32)
    )
    cache = engine.remembering.cache
    views = interactive.prepare(FIRST, background=True).result(30)
    cache.memory = 3 * cache.nbytes  # half of it is for the neighbours
    here = FrameIndex(time=1, z=1)
    assert interactive.prepare(here, background=True).result(30) == views
    beside = [FrameIndex(time=t, z=z) for t, z in ((0, 1), (2, 1), (1, 0), (1, 2))]
    told = [job.result(30) for job in interactive.prefetch(beside)]
    assert 1 <= min(told) <= max(told) < views // 2
    encoded = len(fake.encoded)
    for place in (10, 48, 90):
        interactive.ask(Prompt(inside=((place, place),)), here).result(30)
    assert len(fake.encoded) == encoded


def test_preparations_give_way_to_any_work(
    interactive: Interactive, engine: FakeEngine
) -> None:
    go = busy(engine)
    waiting = interactive.prefetch([FrameIndex(time=1), FrameIndex(time=2)])
    work = interactive.ask(CLICK, FIRST)
    go.set()
    assert len(work.result(30)) == 3
    for job in waiting:
        with pytest.raises(Cancelled):
            job.result(30)


def test_a_new_prompt_takes_the_place_of_one_that_still_waits(
    interactive: Interactive, engine: FakeEngine
) -> None:
    go = busy(engine)
    first = interactive.ask(CLICK, FIRST)
    second = interactive.ask(CLICK, FIRST)
    go.set()
    assert len(second.result(30)) == 3
    with pytest.raises(Cancelled):
        first.result(30)


def test_a_prompt_that_makes_no_sense_has_its_sentence(
    interactive: Interactive,
) -> None:
    with pytest.raises(ParameterError, match="outside the image"):
        interactive.ask(Prompt(inside=((99, 99),)), FIRST).result(30)


def test_an_answer_becomes_an_object_with_the_tag_of_its_prompt(
    interactive: Interactive,
) -> None:
    found = interactive.ask(CLICK, FrameIndex(time=2)).result(30)
    objects = interactive.objects(CLICK, found[0].answer, FrameIndex(time=2))
    row = objects.features.iloc[0]
    assert (row["tag"], row["time"], row["area"]) == ("cell", 2, 256)
    assert row["score"] == pytest.approx(0.9)


def test_a_correction_goes_on_from_the_answer_before(
    interactive: Interactive, fake: FakeSam
) -> None:
    found = interactive.ask(CLICK, FIRST).result(30)
    more = Prompt(inside=((16, 16),), outside=((45, 45),))
    again = interactive.ask(more, FIRST, after=found[0].answer).result(30)
    assert again[0].answer.level == 0
    assert again[0].answer.view == found[0].answer.view


def test_what_was_said_click_by_click_is_answered_so_again() -> None:
    rgb = synthesize("touching nuclei", (160, 160), seed=3).image
    rgb = np.repeat(rgb[..., None], 3, axis=2) if rgb.ndim == 2 else rgb
    image = open_image(rgb, axes="YXS")
    with Engine("sam2-nano", device="cpu") as engine:
        asks = Interactive(engine, image)
        first = Prompt(inside=((70, 70),))
        begun = asks.ask(first, FIRST).result(60)
        corrected = Prompt(inside=((70, 70), (90, 84)))
        after = asks.ask(corrected, FIRST, after=begun[1].answer).result(60)
        chosen = after[2].answer
        prompt = replace(
            corrected,
            before=replace(first, level=begun[1].answer.level),
            level=chosen.level,
            frame=FIRST,
        )
        said = Said.of(prompt)
        assert Said.model_validate_json(said.model_dump_json()) == said
        objects = start_prompts(engine, image, [said.prompt(1)]).result(60)
        alone = start_prompts(engine, image, [corrected]).result(60)
    [drawn] = objects.polygons
    shown = after[2].polygon
    assert shown is not None
    assert drawn.intersection(shown).area / drawn.union(shown).area > 0.99
    # which the points alone do not tell
    [other] = alone.polygons
    assert other.intersection(shown).area / other.union(shown).area < 0.95

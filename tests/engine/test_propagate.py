from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from shapely import box

from engine.fakes import FAKE, FakeSam
from napari_sam_suite.engine.errors import FrameError, OutOfMemory, ParameterError
from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.jobs import Engine
from napari_sam_suite.engine.models.protocol import Decoded
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.propagation.finder import Propagated, start_propagate
from napari_sam_suite.engine.propagation.frames import ByFrames
from napari_sam_suite.engine.propagation.motion import Motion, grey
from napari_sam_suite.engine.propagation.params import PropagateParams
from napari_sam_suite.engine.propagation.track import mark

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SIZE = 64
_NOISE = np.random.default_rng(0).integers(0, 40, (SIZE, SIZE))


class FakeEngine(Engine):
    """The real engine and its thread, with a model that needs no weights."""

    def __init__(self, fake: FakeSam) -> None:
        super().__init__("sam2-nano", device="cpu")
        self.fake = fake

    def _load(self) -> Any:
        return self.fake


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with FakeEngine(FakeSam()) as engine:
        yield engine


def frame_with(*squares: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Grey noise with bright squares of 12 pixels: (y, x, brightness)."""
    image = _NOISE.astype(np.uint8)
    for y, x, value in squares:
        image[y : y + 12, x : x + 12] = value
    return image


def squares(*places: tuple[int, int]) -> Objects:
    labels = np.zeros((SIZE, SIZE), np.int32)
    for number, (y, x) in enumerate(places, 1):
        labels[y : y + 12, x : x + 12] = number
    return Objects.from_labels(labels).with_tags("cell")


def run(
    engine: Engine,
    frames: Sequence[NDArray[np.uint8]],
    objects: Objects,
    axes: str = "TYX",
    **values: Any,
) -> tuple[Objects, list[str]]:
    image = open_image(np.stack(frames), axes=axes)
    job = start_propagate(engine, image, objects, PropagateParams(**values))
    return job.result(60), job.notices


def middles(objects: Objects, track: int = 1, axis: str = "time") -> list[Any]:
    table = objects.features
    rows = np.flatnonzero(table["track"] == track)
    return [
        (int(table[axis][row]), *np.floor(objects.polygons[row].centroid.coords[0]))
        for row in rows
    ]


MOVING = [frame_with((20, 10 + 3 * t, 200), (44, 44, 150)) for t in range(5)]


def test_objects_keep_their_identity_while_they_move(engine: FakeEngine) -> None:
    objects, notices = run(engine, MOVING, squares((20, 10), (44, 44)))
    assert middles(objects, 1) == [(t, 25, 15 + 3 * t) for t in range(5)]
    assert middles(objects, 2) == [(t, 49, 49) for t in range(5)]
    assert notices == []


def test_every_object_names_the_one_before_as_its_parent(engine: FakeEngine) -> None:
    given = squares((20, 10))
    objects, _ = run(engine, MOVING, given)
    table = objects.features
    assert table["id"][0] == given.features["id"][0]
    assert list(table["parent"]) == ["", *table["id"][:-1]]
    assert table["id"].is_unique
    assert set(table["tag"]) == {"cell"}


def test_tracks_go_on_where_they_ended(engine: FakeEngine) -> None:
    first, _ = run(engine, MOVING, squares((20, 10), (44, 44)), steps=2)
    last = first.at(FrameIndex(time=2)).select([1, 0])
    on, _ = run(engine, MOVING, last)
    assert middles(on, 1) == [(t, 25, 15 + 3 * t) for t in (2, 3, 4)]
    assert middles(on, 2) == [(t, 49, 49) for t in (2, 3, 4)]
    assert list(on.features["parent"][:2]) == list(last.features["parent"])
    assert list(on.features["by"][:2]) == ["model", "model"]


def test_objects_without_a_track_get_the_next_numbers() -> None:
    given = squares((2, 2), (2, 22), (2, 42), (22, 2))
    old = given.with_features(track=[0, 4, 4, np.nan], parent=["", "a", "b", None])
    marked = mark(old, taken=6).features
    assert list(marked["track"]) == [7, 4, 8, 9]
    assert list(marked["parent"]) == ["", "a", "", ""]
    drawn = Objects(given.polygons)
    assert list(mark(drawn).features["track"]) == [1, 2, 3, 4]


def test_objects_of_a_label_image_keep_their_numbers() -> None:
    given = squares((2, 2), (2, 22), (2, 42), (22, 2))
    labelled = given.with_features(label=[7, 9, 10, 3], parent=["a", "b", "c", "d"])
    marked = mark(labelled).features
    assert list(marked["track"]) == [7, 9, 10, 3]
    assert set(marked["parent"]) == {""}
    assert set(marked["by"]) == {"given"}

    def tracks(label: list[Any], taken: int = 0) -> list[int]:
        return list(mark(given.with_features(label=label), taken).features["track"])

    assert tracks([7, 7, 0, 9]) == [7, 10, 11, 9]
    assert tracks([7, 9, 10, 3], taken=8) == [11, 9, 10, 12]  # others have 1 to 8
    assert tracks(["cell", "5", None, 2.5]) == [6, 5, 7, 8]
    both = labelled.with_features(track=[4, 0, 0, 0])
    assert list(mark(both).features["track"]) == [4, 5, 6, 7]


def test_an_answer_that_agrees_with_the_motion_is_the_models(
    engine: FakeEngine,
) -> None:
    objects, _ = run(engine, MOVING, squares((20, 10)))
    assert list(objects.features["by"]) == ["given", *["model"] * 4]


def test_where_the_model_errs_the_motion_carries_the_object_on() -> None:
    class Blind(FakeSam):
        """Takes everything for one object."""

        def _same(self, embedding: Any, colour: Any) -> NDArray[np.int32]:
            return np.ones((SIZE, SIZE), np.int32)

    with FakeEngine(Blind()) as engine:
        objects, _ = run(engine, MOVING, squares((20, 10)))
    assert set(objects.features["by"][1:]) == {"motion"}
    ends = middles(objects)[-1]
    assert abs(ends[1] - 25) <= 1
    assert abs(ends[2] - 27) <= 1


def test_what_covers_no_pixel_is_left_out_and_told(engine: FakeEngine) -> None:
    y, x = 40.3, 9.3
    speck = Objects([box(y, x, y + 0.4, x + 0.4)])
    given = Objects.concat([speck, squares((20, 10))])
    objects, notices = run(engine, MOVING, given)
    assert middles(objects) == [(t, 25, 15 + 3 * t) for t in range(5)]
    assert len(objects) == 5
    assert notices == ["1 object covers no pixel of the image and was left out."]
    image = open_image(np.stack(MOVING), axes="TYX")
    with pytest.raises(ParameterError, match="cover no pixel"):
        start_propagate(engine, image, speck)


def test_an_answer_without_pixels_is_none() -> None:
    """However little is trusted."""

    class Blind(FakeSam):
        def decode(self, *arguments: Any, **options: Any) -> Decoded:
            found = super().decode(*arguments, **options)
            return replace(found, logits=np.full_like(found.logits, -9))

    with FakeEngine(Blind()) as engine:
        objects, _ = run(engine, MOVING, squares((44, 44)), trust=0)
    assert middles(objects) == [(t, 49, 49) for t in range(5)]
    assert list(objects.features["by"][1:]) == ["motion"] * 4


def test_what_vanishes_is_lost_after_the_longest_gap(engine: FakeEngine) -> None:
    frames = [frame_with((20, 10, 200), (44, 44, 150))] * 2
    frames += [frame_with((44, 44, 150))] * 4
    objects, notices = run(engine, frames, squares((20, 10), (44, 44)), max_gap=1)
    assert [t for t, *_ in middles(objects, 1)] == [0, 1]
    assert [t for t, *_ in middles(objects, 2)] == [0, 1, 2, 3, 4, 5]
    assert notices == ["Lost after time 2: track 1."]


def test_what_is_not_seen_at_the_end_is_told(engine: FakeEngine) -> None:
    both = frame_with((20, 10, 200), (44, 44, 150))
    one, given = frame_with((44, 44, 150)), squares((20, 10), (44, 44))
    _, notices = run(engine, [both, both, one], given)
    assert notices == ["Lost after time 2: track 1."]
    _, notices = run(engine, [both, both, one, both], given, steps=2)
    assert notices == ["Lost after time 2: track 1."]
    _, notices = run(engine, [both, frame_with(), one], given)
    assert notices == [
        "Lost after time 1: track 1.",
        "Not seen in time 2: track 2.",
    ]


def test_what_is_not_seen_before_the_way_turns_is_told(engine: FakeEngine) -> None:
    both = frame_with((20, 10, 200), (44, 44, 150))
    first, second = frame_with((20, 10, 200)), frame_with((44, 44, 150))
    given = squares((20, 10), (44, 44)).with_features(time=2)
    frames = [first, both, both, both, second]
    _, notices = run(engine, frames, given, direction="both")
    assert notices == ["Lost after time 4: track 1.", "Lost after time 2: track 2."]


def test_a_gap_is_bridged_and_reported(engine: FakeEngine) -> None:
    there, gone = frame_with((20, 10, 200)), frame_with()
    objects, notices = run(engine, [there, gone, gone, there], squares((20, 10)))
    assert [t for t, *_ in middles(objects)] == [0, 3]
    assert list(objects.features["gap"]) == [0, 2]
    assert notices == ["Not seen in time 2-3: track 1."]


def test_a_black_frame_is_a_gap(engine: FakeEngine) -> None:
    there = frame_with((20, 10, 200))
    objects, _ = run(engine, [there, np.zeros_like(there), there], squares((20, 10)))
    assert [t for t, *_ in middles(objects)] == [0, 2]


def test_of_two_tracks_that_become_one_object_one_goes_on(engine: FakeEngine) -> None:
    frames = [frame_with((20, 10, 200), (44, 44, 150))] * 2
    same = Objects.concat([squares((20, 10)), squares((20, 10), (44, 44))])
    objects, _ = run(engine, frames, same)
    assert len(objects.at(FrameIndex(time=1))) == 2


@pytest.mark.parametrize(
    ("direction", "times"),
    [
        ("forward", [2, 3, 4]),
        ("backward", [2, 1, 0]),
        ("both", [2, 3, 4, 1, 0]),
    ],
)
def test_directions_and_their_order(
    engine: FakeEngine, direction: str, times: list[int]
) -> None:
    given = squares((20, 16)).with_features(time=2)
    objects, _ = run(engine, MOVING, given, direction=direction)
    assert middles(objects) == [(t, 25, 15 + 3 * t) for t in times]


def test_the_way_back_begins_again_from_what_was_given(engine: FakeEngine) -> None:
    given = squares((20, 16)).with_features(time=2)
    objects, _ = run(engine, MOVING, given, direction="both")
    first = objects.features["id"][0]
    back = objects.features["time"] == 1
    assert list(objects.features["parent"][back]) == [first]


def test_z_is_gone_through_at_the_same_time_and_position(engine: FakeEngine) -> None:
    given = squares((20, 10)).with_features(time=1)
    frames = [[frame_with()] * 3, [frame_with((20, 10, 200))] * 3]
    objects, _ = run(engine, np.array(frames), given, axes="TZYX", axis="z")
    assert [f.time for f in objects.frames()] == [1, 1, 1]
    assert middles(objects, axis="z") == [(z, 25, 15) for z in range(3)]


def test_steps_limit_the_way(engine: FakeEngine) -> None:
    objects, _ = run(engine, MOVING, squares((20, 10)), steps=2)
    assert [t for t, *_ in middles(objects)] == [0, 1, 2]


def test_memory_does_not_grow_with_the_stack() -> None:
    finder = Propagated(squares((20, 10), (44, 44)), PropagateParams(), 12)
    model = FakeSam()
    for t in range(12):
        rgb = np.repeat(MOVING[0][..., None], 3, -1)
        finder(
            model,
            rgb,
            FrameIndex(time=t),
            report=lambda *_: None,
            stop=lambda: False,
        )
        assert len(finder._follower.pictures) == 1  # type: ignore[union-attr]


def test_tracks_are_the_numbers_of_label_images(engine: FakeEngine) -> None:
    objects, _ = run(engine, MOVING, squares((20, 10), (44, 44)))
    for t in range(5):
        drawn = objects.to_labels((SIZE, SIZE), FrameIndex(time=t))
        assert drawn[26, 16 + 3 * t] == 1
        assert drawn[50, 50] == 2


# -- by video memory -------------------------------------------------------------


class FakeMemory:
    """Knows an object again by its colour."""

    def __init__(self, model: FakeSam) -> None:
        self.model = model
        self.colours: dict[int, NDArray[np.uint8]] = {}
        self.known: set[int] = set()
        self.steps: list[tuple[int, list[int]]] = []
        self.backward: list[bool] = []
        self.most = 99
        self.batch = 16

    def give(
        self, place: int, embedding: Any, number: int, mask: NDArray[np.bool_]
    ) -> None:
        y, x = np.argwhere(mask).mean(0).astype(int)
        self.colours[number] = embedding.features["image"].numpy()[y, x]

    def turn(self, *, backward: bool) -> None:
        self.backward.append(backward)
        self.known = set(self.colours)

    def forget(self, keep: Sequence[int]) -> None:
        self.known = set(keep)

    def step(self, place: int, embedding: Any, numbers: Sequence[int]) -> Decoded:
        self.steps.append((place, list(numbers)))
        if len(numbers) > self.most:
            raise torch.OutOfMemoryError("the fake device is full")
        low = self.model._low(embedding)
        alike = [(low == self.colours[n]).all(-1) for n in numbers]
        logits = np.where(alike, 8.0, -1024.0).astype(np.float32)
        return Decoded(
            logits,
            np.ones(len(numbers)),
            np.arange(len(numbers)),
            np.ones(len(numbers)),
        )


class MemorySam(FakeSam):
    """The fake with a video memory, as a checkpoint of SAM 2 has it."""

    spec = replace(FAKE, config="configs/sam2.1/fake")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.video = FakeMemory(self)

    def video_memory(self, length: int) -> Any:
        return self.video


def remember(
    frames: Sequence[NDArray[np.uint8]],
    objects: Objects,
    model: MemorySam | None = None,
    **values: Any,
) -> tuple[Objects, list[str]]:
    with FakeEngine(model or MemorySam()) as engine:
        engine.spec = MemorySam.spec
        return run(engine, frames, objects, **values)


def test_a_model_that_has_a_memory_follows_by_it() -> None:
    jumping = [frame_with((4 + 12 * (t % 3), 10, 200), (44, 44, 150)) for t in range(5)]
    objects, notices = remember(jumping, squares((4, 10), (44, 44)))
    assert middles(objects, 1) == [(t, 9 + 12 * (t % 3), 15) for t in range(5)]
    assert middles(objects, 2) == [(t, 49, 49) for t in range(5)]
    assert list(objects.features["by"]) == ["given"] * 2 + ["memory"] * 8
    assert notices == []


def test_a_memory_is_not_used_where_frames_are_wanted() -> None:
    objects, _ = remember(MOVING, squares((20, 10)), method="frames")
    assert set(objects.features["by"]) == {"given", "model"}


def test_what_the_memory_does_not_see_is_lost_and_forgotten() -> None:
    frames = [frame_with((20, 10, 200), (44, 44, 150))] * 2
    frames += [frame_with((44, 44, 150))] * 4
    model = MemorySam()
    objects, notices = remember(frames, squares((20, 10), (44, 44)), model, max_gap=1)
    assert [t for t, *_ in middles(objects, 1)] == [0, 1]
    assert notices == ["Lost after time 2: track 1."]
    assert model.video.steps[-1] == (5, [2])
    assert model.video.known == {2}


class SometimesFull(MemorySam):
    """Its device is full at one frame of the movie."""

    def __init__(self, frame: int) -> None:
        super().__init__()
        self.device = torch.device("cuda")
        self._frame = frame

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Any]:
        if len(self.encoded) == self._frame and self.device.type == "cuda":
            raise torch.OutOfMemoryError("the fake device is full")
        return super().encode(images)


@pytest.mark.parametrize("method", ["memory", "frames"])
def test_who_is_lost_is_told_though_the_device_is_full_in_that_frame(
    method: str,
) -> None:
    frames = [frame_with((20, 10, 200), (44, 44, 150))] * 2
    frames += [frame_with((44, 44, 150))] * 4
    full = [SometimesFull(frame) for frame in range(6)]
    told = [
        remember(frames, squares((20, 10), (44, 44)), m, max_gap=1, method=method)[1]
        for m in full
    ]
    assert sum("memory of cuda is full" in text for texts in told for text in texts) > 3
    for texts in told:
        assert "Lost after time 2: track 1." in texts


def test_why_the_memory_is_not_used_is_told_though_the_device_is_full() -> None:
    labels = np.zeros((SIZE, SIZE), np.int32)
    labels[22:25, 22:25] = 1
    given = mark(Objects.from_labels(labels))
    finder = Propagated(given, PropagateParams(), 2)
    rgb = np.repeat(MOVING[0][..., None], 3, -1)

    def full(*_: object, **__: object) -> None:
        raise OutOfMemory("full", "")

    def find() -> Any:
        model: Any = MemorySam()
        report, stop = (lambda *_: None), (lambda: False)
        return finder(model, rgb, FrameIndex(), report=report, stop=stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ByFrames, "begin", full)
        with pytest.raises(OutOfMemory):
            find()
    assert find().notices[0].startswith("The objects are too small")


def test_the_memory_begins_again_on_the_way_back() -> None:
    model = MemorySam()
    given = squares((20, 16)).with_features(time=2)
    objects, _ = remember(MOVING, given, model, direction="both")
    assert middles(objects) == [(t, 25, 15 + 3 * t) for t in (2, 3, 4, 1, 0)]
    assert model.video.backward == [False, True]


def test_objects_are_remembered_in_batches_that_fit_the_device() -> None:
    model = MemorySam()
    model.video.most = 1
    frames = [frame_with((20, 10, 200), (44, 44, 150))] * 2
    objects, _ = remember(frames, squares((20, 10), (44, 44)), model)
    assert len(objects) == 4
    assert [numbers for _, numbers in model.video.steps] == [[1, 2], [1], [2]]


def test_auto_goes_by_frames_where_memory_would_not_do_and_says_why() -> None:
    places = [(y, x) for y in (2, 22, 42) for x in (2, 22, 42)]
    frames = [frame_with(*((*p, 100 + 10 * k) for k, p in enumerate(places)))] * 2
    objects, notices = remember(frames, squares(*places))
    assert "memory" not in set(objects.features["by"])
    assert notices[0].startswith("Video memory takes seconds for each object on a CPU")
    objects, _ = remember(frames, squares(*places), method="memory")
    assert set(objects.features["by"]) == {"given", "memory"}
    labels = np.zeros((SIZE, SIZE), np.int32)
    labels[22:25, 22:25] = 1
    _, notices = remember(frames, Objects.from_labels(labels))
    assert notices[0].startswith("The objects are too small for video memory")


def test_a_memory_is_not_asked_of_a_model_that_has_none(engine: FakeEngine) -> None:
    image = open_image(np.stack(MOVING), axes="TYX")
    params = PropagateParams(method="memory")
    with pytest.raises(ParameterError, match="sam2-nano has no video memory"):
        start_propagate(engine, image, squares((20, 10)), params)


def test_what_cannot_be_begun_is_said(engine: FakeEngine) -> None:
    image = open_image(np.stack(MOVING), axes="TYX")
    flat = open_image(MOVING[0])
    with pytest.raises(ParameterError, match="no objects to carry on"):
        start_propagate(engine, image, Objects())
    both = Objects.concat([squares((20, 10)), squares((20, 10)).with_features(time=1)])
    with pytest.raises(ParameterError, match="objects are of 2 frames"):
        start_propagate(engine, image, both)
    with pytest.raises(ParameterError, match="no frame backward of time 1"):
        params = PropagateParams(direction="backward")
        start_propagate(engine, image, squares((20, 10)), params)
    with pytest.raises(ParameterError, match=r"only one time point.* Open it with"):
        start_propagate(engine, flat, squares((20, 10)))
    with pytest.raises(ParameterError, match=r"only one plane.* time: it has [0-9]"):
        params = PropagateParams(axis="z")
        start_propagate(engine, image, squares((20, 10)), params)
    with pytest.raises(FrameError):
        start_propagate(engine, image, squares((20, 10)).with_features(time=9))


def test_objects_of_an_image_of_another_size_are_refused(engine: FakeEngine) -> None:
    image = open_image(np.stack(MOVING), axes="TYX")
    source = {"sizes": Sizes(y=SIZE, x=2 * SIZE)._asdict()}
    other = Objects([box(20, 10, 30, 20)], source=source)
    with pytest.raises(ParameterError, match=f"of an image of {SIZE} x {2 * SIZE}"):
        start_propagate(engine, image, other)
    beyond = Objects([box(20, 10, 30, 20), box(20, 99, 30, 110)])
    with pytest.raises(ParameterError, match="1 of 2 objects are outside the image"):
        start_propagate(engine, image, beyond)


# -- motion ----------------------------------------------------------------------


def texture(shift: tuple[int, int], side: int = 96) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    wide = np.random.default_rng(3).random((side + 40, side + 40))
    smooth = gaussian_filter(wide, 2)
    y, x = 20 - shift[0], 20 - shift[1]
    part = smooth[y : y + side, x : x + side]
    low, high = smooth.min(), smooth.max()
    return ((part - low) / (high - low)).astype(np.float32)


@pytest.mark.parametrize("side", [96, 1000])
def test_a_mask_goes_where_its_pixels_go(side: int) -> None:
    motion = Motion(texture((0, 0), side), texture((3, -2), side))
    crop, origin = motion.carry(np.ones((10, 14), bool), (40, 50))
    assert np.abs(np.array(origin) - (43, 48)).max() <= 1
    assert abs(int(crop.sum()) - 140) <= 20


def test_a_moved_picture_is_alike_and_another_one_is_not() -> None:
    before, after = texture((0, 0)), texture((2, 1))
    mask = np.ones((20, 20), bool)
    assert Motion(before, after).likeness(mask, (40, 40)) > 0.9
    other = np.random.default_rng(9).random(before.shape, np.float32)
    assert Motion(before, other, still=True).likeness(mask, (40, 40)) < 0.3
    assert Motion(before, np.zeros_like(before)).likeness(mask, (40, 40)) == 0


def test_without_motion_a_mask_stays_where_it_is() -> None:
    motion = Motion(texture((0, 0)), texture((3, 3)), still=True)
    crop, origin = motion.carry(np.ones((6, 7), bool), (0, 89))
    assert origin == (0, 89)
    assert crop.shape == (6, 7)
    assert crop.all()


# -- real data -------------------------------------------------------------------


@pytest.mark.slow
def test_yeast_is_followed_better_than_by_copying(shared_data: Path) -> None:
    import tifffile

    folder = shared_data / "dev_yeast_timelapse_2ch"
    truth = tifffile.imread(folder / "lab_000.tif")
    image = open_image(folder / "img_000.tif")
    given = Objects.from_labels(truth[0])
    with Engine("sam2-nano", device="cpu") as engine:
        params = PropagateParams(steps=4)
        objects = start_propagate(engine, image, given, params).result(900)
    sizes = Sizes(y=truth.shape[1], x=truth.shape[2])
    drawn = objects.to_labels((sizes.y, sizes.x), FrameIndex(time=4))
    copied, followed = [], []
    for track, number in enumerate(given.features["label"], 1):
        real = truth[4] == number
        for ious, mask in ((copied, truth[0] == number), (followed, drawn == track)):
            ious.append((real & mask).sum() / max((real | mask).sum(), 1))
    assert np.mean(followed) > np.mean(copied) + 0.05


def test_brightness_is_between_0_and_1() -> None:
    rgb = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    assert grey(rgb) == pytest.approx(np.array([[0, 1, 1 / 3]]))

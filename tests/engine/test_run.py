from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from engine.fakes import FakeSam, scene
from napari_sam_suite.engine.auto import Automatic, automatic_masks
from napari_sam_suite.engine.composite import Channel, Composite
from napari_sam_suite.engine.errors import (
    Cancelled,
    FrameError,
    ImageError,
    OutOfMemory,
    UnreadFrames,
)
from napari_sam_suite.engine.finder import Found
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import ImageSource, open_image
from napari_sam_suite.engine.masks import MaskBuilder
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.params import AutoParams, PolygonParams
from napari_sam_suite.engine.run import FrameResult, run_frames

FEW = AutoParams(points_per_side=8)
ONE_BOX = (4, 6, 20, 26)


class Listener:
    """Remembers what it is told; wants to stop after some frames."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.parts: list[FrameResult] = []
        self.progress: list[tuple[int, int, str]] = []
        self.notices: list[str] = []
        self._stop_after = stop_after

    def stopping(self) -> bool:
        return self._stop_after is not None and len(self.parts) >= self._stop_after

    def report(self, done: int, total: int, text: str = "") -> None:
        self.progress.append((done, total, text))

    def give(self, part: FrameResult) -> None:
        self.parts.append(part)

    def notice(self, text: str) -> None:
        self.notices.append(text)


def run(
    image: ImageSource,
    *,
    model: FakeSam | None = None,
    job: Listener | None = None,
    params: AutoParams = FEW,
    **options: Any,
) -> Objects:
    with ThreadPoolExecutor(1, "polygons") as pool:
        return run_frames(
            model or FakeSam(),
            image,
            Automatic(params),
            job=job or Listener(),
            pool=pool,
            **options,
        )


def grey(*boxes: tuple[int, int, int, int], level: int = 200) -> np.ndarray:
    plane = np.zeros((32, 32), np.uint16)
    for y0, x0, y1, x1 in boxes:
        plane[y0:y1, x0:x1] = level
    return plane


def stack(positions: int = 2, times: int = 2, depth: int = 2) -> ImageSource:
    """One box on every frame, its height telling which frame it is."""
    pixels = np.zeros((positions, times, depth, 32, 32), np.uint16)
    for number, index in enumerate(np.ndindex(positions, times, depth)):
        pixels[index] = grey((2, 2, 10 + number, 20))
    return open_image(pixels, axes="PTZYX", name="stack")


def test_frames_come_as_positions_then_z_then_time() -> None:
    objects = run(stack())
    order = objects.features[["position", "z", "time"]].to_numpy().tolist()
    assert order == [[p, z, t] for p in (0, 1) for z in (0, 1) for t in (0, 1)]


def test_every_object_carries_the_frame_it_was_found_in() -> None:
    objects = run(stack())
    for (_, row), polygon in zip(
        objects.features.iterrows(), objects.polygons, strict=True
    ):
        number = row["position"] * 4 + row["time"] * 2 + row["z"]
        assert row["area"] == (8 + number) * 18
        assert polygon.area == pytest.approx(row["area"], rel=0.02)


def test_only_the_chosen_frames_are_looked_at_in_the_order_given() -> None:
    model, job = FakeSam(), Listener()
    chosen = [FrameIndex(1, 1, 0), FrameIndex(0, 0, 1)]
    objects = run(stack(), model=model, job=job, frames=chosen)
    assert [part.frame for part in job.parts] == chosen
    assert len(model.encoded) == 2
    assert objects.frames() == sorted(chosen)


def test_a_frame_outside_the_image_is_refused_before_any_work() -> None:
    model = FakeSam()
    with pytest.raises(FrameError):
        run(stack(), model=model, frames=FrameIndex(5, 0, 0))
    assert not model.encoded


def test_objects_know_their_model_parameters_and_image() -> None:
    objects = run(stack(1, 1, 1))
    assert objects.features["model"].tolist() == ["fake"]
    assert objects.source["image"] == "stack"
    assert objects.source["params"]["points_per_side"] == 8
    assert objects.source["params"]["pred_iou_thresh"] == 0.8
    assert objects.source["composite"]["channels"][0]["mode"] == "absolute"
    assert objects.source["sizes"]["y"] == 32
    assert "rgb" not in objects.source
    coloured = np.stack([grey(ONE_BOX)] * 3, axis=-1).astype(np.uint8)
    assert run(open_image(coloured, axes="YXS")).source["rgb"] is True


def test_scores_and_levels_are_those_of_the_token_that_drew_the_mask() -> None:
    model = FakeSam(scores=(0, 0.85, 0.95, 0.9))
    row = run(stack(1, 1, 1), model=model).features.iloc[0]
    assert row["score"] == pytest.approx(0.95)
    assert row["level"] == 2


def test_polygons_are_made_beside_the_models_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[str] = []
    original = Objects.from_masks

    def watched(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.current_thread().name)
        return original(*args, **kwargs)

    monkeypatch.setattr(Objects, "from_masks", watched)
    run(stack())
    assert len(threads) == 8
    assert all(name.startswith("polygons") for name in threads)


def test_what_polygons_leave_out_is_told() -> None:
    job = Listener()
    objects = run(stack(), params=FEW.with_(padding=-20), job=job)
    assert len(objects) == 0
    assert job.notices == ["Of 8 masks: 8 masks vanished when shrunk."]


@pytest.mark.parametrize(("padding", "grown"), [(2, 1), (-2, -1)])
def test_padding_grows_or_shrinks_objects(padding: float, grown: int) -> None:
    plain = run(stack(1, 1, 1)).features["area"].iloc[0]
    padded = run(stack(1, 1, 1), params=FEW.with_(padding=padding))
    assert np.sign(padded.features["area"].iloc[0] - plain) == grown


@pytest.mark.parametrize("overlap", ["exclusive", "allow"])
def test_padded_objects_overlap_only_where_they_may(overlap: str) -> None:
    image = open_image(grey((4, 4, 16, 14)) + grey((4, 16, 16, 26), level=90))
    one, other = run(image, params=FEW.with_(padding=3, overlap=overlap)).polygons
    assert (one.intersection(other).area > 5) is (overlap == "allow")


# Intensity limits


def test_limits_are_the_same_for_all_frames_of_a_run() -> None:
    pixels = np.array([grey(ONE_BOX, level=100), grey(ONE_BOX, level=1000)])
    seen: list[int] = []
    model = FakeSam(score=lambda token, colour: seen.append(int(colour[0])) or 0.9)
    run(open_image(pixels, axes="TYX"), model=model)
    assert list(dict.fromkeys(seen)) == [26, 255]


def test_limits_and_colours_are_those_of_the_composite() -> None:
    channel = Channel(index=0, limits=(0, 400), mode="absolute", color="#ff0000")
    seen: list[np.ndarray] = []
    model = FakeSam(score=lambda token, colour: seen.append(colour) or 0.9)
    image = open_image(grey(ONE_BOX, level=200))
    run(image, model=model, composite=Composite(channels=(channel,)))
    assert {tuple(colour) for colour in seen} == {(128, 0, 0)}


# Frames in which there is nothing


@pytest.mark.parametrize("level", [0, 7, 65535])
def test_an_image_of_one_colour_is_refused_in_one_sentence(level: int) -> None:
    model = FakeSam()
    image = open_image(np.full((32, 32), level, np.uint16), name="blank")
    with pytest.raises(ImageError, match="'blank' is one colour everywhere"):
        run(image, model=model)
    assert not model.encoded


def test_an_rgb_image_of_one_colour_is_refused() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8) + np.array([200, 10, 30], np.uint8)
    with pytest.raises(ImageError, match="one colour"):
        run(open_image(pixels, axes="YXS"))


def test_an_image_without_a_finite_pixel_is_refused() -> None:
    with pytest.raises(ImageError, match="NaN"):
        run(open_image(np.full((32, 32), np.nan, np.float32)))


def test_the_one_blank_frame_that_was_asked_for_is_named() -> None:
    pixels = np.array([grey(ONE_BOX), grey()])
    image = open_image(pixels, axes="TYX", name="movie")
    with pytest.raises(ImageError, match="Time 2 of 2 of 'movie'"):
        run(image, frames=FrameIndex(time=1))


@pytest.mark.parametrize("blank", [0, 1, 3])
@pytest.mark.parametrize("value", [0.0, 50.0, np.nan])
def test_a_blank_frame_among_others_is_empty_and_told(blank: int, value: float) -> None:
    pixels = np.array([grey(ONE_BOX)] * 4, np.float32)
    pixels[blank] = value
    job, model = Listener(), FakeSam()
    objects = run(open_image(pixels, axes="TYX"), job=job, model=model)
    assert [len(part.objects) for part in job.parts] == [
        int(i != blank) for i in range(4)
    ]
    assert len(objects) == 3
    assert len(model.encoded) == 3
    assert len(job.notices) == 1
    assert "1 of 4 frames" in job.notices[0]
    assert f"time {blank + 1} of 4" in job.notices[0]


def test_progress_reaches_the_end_with_blank_frames_too() -> None:
    for blank in range(3):
        pixels = np.array([grey(ONE_BOX)] * 3)
        pixels[blank] = 0
        job = Listener()
        run(open_image(pixels, axes="TYX"), job=job)
        shares = [done / total for done, total, _ in job.progress]
        assert shares == sorted(shares)
        assert shares.count(1) == 1 and shares[-1] == 1


def test_a_run_of_blank_frames_can_be_stopped() -> None:
    pixels = np.zeros((5, 32, 32), np.uint16)
    with pytest.raises(Cancelled):
        run(open_image(pixels, axes="TYX"), job=Listener(stop_after=0))


def test_some_pixels_that_are_not_finite_do_no_harm() -> None:
    pixels = grey(ONE_BOX).astype(np.float32)
    pixels[0, 0], pixels[31, 31], pixels[31, 0] = np.nan, np.inf, -np.inf
    assert len(run(open_image(pixels))) == 1


def test_an_image_with_nothing_to_find_has_no_objects() -> None:
    model = FakeSam(scores=(0, 0, 0, 0))
    job = Listener()
    assert len(run(stack(1, 2, 1), model=model, job=job)) == 0
    assert [len(part.objects) for part in job.parts] == [0, 0]


# Stopping and failing


def test_frames_finished_before_a_stop_are_kept_the_one_in_work_too() -> None:
    job = Listener(stop_after=2)
    with pytest.raises(Cancelled):
        run(stack(1, 8, 1), job=job)
    assert [part.frame.time for part in job.parts] == [0, 1, 2]


class Damaged:
    """A movie of which some planes can be looked at once, and not again."""

    def __init__(self, *bad: int) -> None:
        self.pixels = np.array([grey(ONE_BOX)] * 5)
        self.shape, self.dtype = self.pixels.shape, self.pixels.dtype
        self.bad, self.reads = bad, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        if key[0] in self.bad and self.reads >= 5:
            raise OSError("bad sector")
        self.reads += 1
        return self.pixels[key]


@pytest.mark.parametrize(
    ("bad", "kept", "told"),
    [
        ((3,), [0, 1, 2, 4], "Time 4 of 5"),
        ((0, 3), [1, 2, 4], "2 of 5 frames .*(time 1 of 5; time 4 of 5)"),
        ((0, 1, 2, 3, 4), [], "5 of 5 frames cannot be read"),
    ],
)
def test_frames_that_cannot_be_read_do_not_stop_the_others(
    bad: tuple[int, ...], kept: list[int], told: str
) -> None:
    job = Listener()
    with pytest.raises(UnreadFrames, match=told) as failed:
        run(open_image(Damaged(*bad), axes="TYX"), job=job)
    assert [part.frame.time for part in job.parts] == kept
    assert failed.value.objects.features["time"].tolist() == kept
    assert "bad sector" in failed.value.message
    done, total, _ = job.progress[-1]
    assert done == total


def test_blank_frames_are_told_beside_those_that_cannot_be_read() -> None:
    image, job = Damaged(3), Listener()
    image.pixels[1] = 0
    with pytest.raises(UnreadFrames):
        run(open_image(image, axes="TYX"), job=job)
    assert "time 2 of 5" in job.notices[0]


def test_what_a_reader_held_when_it_failed_is_let_go() -> None:
    with pytest.raises(UnreadFrames) as failed:
        run(open_image(Damaged(1, 3), axes="TYX"))
    assert failed.value.__cause__ is None and failed.value.__context__ is None


def test_frames_that_follow_from_one_that_cannot_be_read_are_not_made_up() -> None:
    class Following(Automatic):
        in_order = True

    job = Listener()
    with ThreadPoolExecutor(1) as pool, pytest.raises(ImageError, match="Time 3 of 5"):
        run_frames(
            FakeSam(),
            open_image(Damaged(2), axes="TYX"),
            Following(FEW),
            job=job,
            pool=pool,
        )
    assert [part.frame.time for part in job.parts] == [0, 1]


def test_a_run_of_frames_that_cannot_be_read_can_be_stopped() -> None:
    with pytest.raises(Cancelled):
        run(open_image(Damaged(1, 2, 3, 4), axes="TYX"), job=Listener(stop_after=1))


def test_what_overlaps_leave_is_not_below_the_smallest_area() -> None:
    outer, inner = (4, 4, 24, 24), (4, 4, 16, 20)
    image = scene((32, 32), outer, inner)
    params = FEW.with_(min_area=250)
    masks = automatic_masks(FakeSam(), image, params)
    assert masks.area.tolist() == []
    assert automatic_masks(FakeSam(), image, FEW).area.sum() == 400


# Memory of the device


@pytest.mark.parametrize("memory", [1, 3, 7, 16])
def test_out_of_memory_halves_the_batch_and_changes_nothing(memory: int) -> None:
    image = scene((64, 64), (4, 4, 20, 20), (30, 10, 50, 40), (40, 44, 60, 60))
    plenty, little = FakeSam(), FakeSam(memory=memory)
    params = AutoParams(points_per_side=9)
    expected = automatic_masks(plenty, image, params)
    masks = automatic_masks(little, image, params)
    assert len(masks) == 3
    for name in ("boxes", "scores", "stability", "level", "points", "area"):
        np.testing.assert_array_equal(getattr(masks, name), getattr(expected, name))
    assert little.batch <= memory


def test_after_a_halving_the_next_frame_starts_with_the_smaller_batch() -> None:
    model = FakeSam(memory=4, batch=16)
    run(stack(1, 2, 1), model=model)
    fitted = np.cumsum([n if n <= 4 else 0 for n in model.decoded])
    assert fitted[-1] == 2 * 64
    second = int(np.searchsorted(fitted, 64)) + 1
    assert max(model.decoded[:second]) == 16
    assert max(model.decoded[second:]) <= 4


def test_a_batch_size_asked_for_is_not_tried_again_and_again() -> None:
    model = FakeSam(memory=4)
    automatic_masks(model, scene((32, 32), ONE_BOX), FEW.with_(points_per_batch=64))
    assert [n for n in model.decoded if n > 4] == [64, 32, 16, 8]


def test_a_failed_attempt_is_forgotten_before_the_next() -> None:
    class Heavy(FakeSam):
        alive: weakref.ref[np.ndarray] | None = None

        def decode(self, *args: Any, **kwargs: Any) -> Any:
            assert self.alive is None or self.alive() is None
            tensors = np.zeros(1000)
            self.alive = weakref.ref(tensors)
            return super().decode(*args, **kwargs)

    model = Heavy(memory=4)
    assert len(automatic_masks(model, scene((32, 32), ONE_BOX), FEW)) == 1
    assert max(model.decoded) > 4


def test_if_not_even_one_prompt_fits_it_is_said() -> None:
    with pytest.raises(OutOfMemory, match="too little memory on cpu for fake"):
        run(stack(1, 1, 1), model=FakeSam(memory=0))


def test_a_device_that_is_full_is_left_for_the_cpu_and_the_user_is_told() -> None:
    image = stack(1, 1, 1)
    expected = run(image, model=FakeSam())
    model, job = FakeSam(memory=0), Listener()
    model.device = torch.device("cuda")
    found = run(image, model=model, job=job)
    assert model.device == torch.device("cpu")
    assert len(found) == len(expected) > 0
    assert job.notices == [
        "The memory of cuda is full; going on with the CPU, which is slower."
    ]


def test_another_error_of_torch_is_not_taken_for_a_full_memory() -> None:
    model = FakeSam()
    model.failure = torch.linalg.LinAlgError("singular")
    with pytest.raises(torch.linalg.LinAlgError):
        run(stack(1, 1, 1), model=model)
    assert len(model.decoded) == 1


# Any capability


class LeftHalf:
    """A capability that finds the left half of a frame, and nothing that is seen."""

    name = "left-half"
    params = PolygonParams(smoothing=0)

    def __init__(self) -> None:
        self.asked: list[FrameIndex] = []

    def __call__(
        self, model: Any, rgb: np.ndarray, frame: FrameIndex, *, report: Any, stop: Any
    ) -> Found:
        self.asked.append(frame)
        builder = MaskBuilder(rgb.shape[:2])
        builder.add(np.zeros((1, 1), bool), (0, 0))
        builder.add(np.ones((rgb.shape[0], rgb.shape[1] // 2), bool), (0, 0))
        masks = builder.build()
        columns = {"tag": ["gone", "half"], "similarity": [0.0, 0.75]}
        return Found(masks, columns, candidates=masks)


def look(finder: Any, image: ImageSource, job: Listener, **options: Any) -> Objects:
    with ThreadPoolExecutor(1, "polygons") as pool:
        return run_frames(FakeSam(), image, finder, job=job, pool=pool, **options)


def test_any_capability_goes_through_the_frames_and_is_named() -> None:
    finder, job = LeftHalf(), Listener()
    objects = look(finder, stack(1, 2, 1), job, run="first")
    assert finder.asked == [FrameIndex(time=0), FrameIndex(time=1)]
    assert objects.source["capability"] == "left-half"
    assert objects.source["params"] == finder.params.model_dump(mode="json")
    assert objects.features["run"].tolist() == ["first", "first"]


def test_columns_of_a_capability_stay_with_their_masks() -> None:
    objects = look(LeftHalf(), stack(1, 2, 1), Listener())
    assert objects.features["tag"].tolist() == ["half", "half"]
    assert objects.features["similarity"].tolist() == [0.75, 0.75]
    assert objects.features["area"].tolist() == [512, 512]


def test_candidates_come_with_their_frame() -> None:
    job = Listener()
    look(LeftHalf(), stack(1, 2, 1), job)
    assert [len(part.candidates) for part in job.parts if part.candidates] == [2, 2]


def test_automatic_masks_are_named_too() -> None:
    assert run(stack(1, 1, 1)).source["capability"] == "auto"

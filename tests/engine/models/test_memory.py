"""SAM 2's video memory against the video predictor of the `sam2` package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_sam_suite.engine.errors import ModelError
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.registry import MODELS
from napari_sam_suite.engine.models.sam2 import Sam2Model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

TINY = MODELS["sam2.1_hiera_tiny"]
SIDE = 128
"""Side of the network's input: a 64th of the work of the real one."""
PLACES = [(40, 60), (130, 150)]
SIZE = (200, 240)


def build(video: bool, side: int = SIDE) -> Any:
    """The published architecture with seeded random weights at a small input."""
    from sam2.build_sam import build_sam2, build_sam2_video_predictor

    build = build_sam2_video_predictor if video else build_sam2
    torch.manual_seed(0)
    network = build(
        TINY.config,
        device="cpu",
        apply_postprocessing=video,
        hydra_overrides_extra=[f"++model.image_size={side}"],
    )
    # Random weights would say that there is nothing: every object is there.
    network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(5.0)
    # Random layers hardly use the memory; these make it count.
    for layer in network.memory_attention.layers:
        layer.cross_attn_image.out_proj.weight.data.mul_(20)
    return network


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    load_model("sam2-nano", device="cpu")  # sets torch and sam2 up
    return Sam2Model(build(False), TINY, torch.device("cpu"), torch.float32)


def movie(length: int) -> list[NDArray[np.uint8]]:
    """Two discs that move, in colour."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    frames = []
    for t in range(length):
        noise = np.random.default_rng(t).integers(0, 60, (*SIZE, 3)).astype(np.uint8)
        for k, (cy, cx) in enumerate(PLACES):
            noise[(y - cy - 4 * t) ** 2 + (x - cx) ** 2 < 900] = (200, 90 * k, 40)
        frames.append(noise)
    return frames


def masks() -> list[NDArray[np.bool_]]:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return [(y - cy) ** 2 + (x - cx) ** 2 < 900 for cy, cx in PLACES]


@pytest.fixture(scope="module")
def predictor(model: Sam2Model) -> Any:
    """The video predictor of the package, with the same weights."""
    predictor = build(True)
    predictor.load_state_dict(model.network.state_dict())
    predictor.fill_hole_area = 0  # needs a CUDA extension, and says so
    return predictor


def upstream(
    predictor: Any,
    model: Sam2Model,
    frames: list[NDArray[np.uint8]],
    start: int,
    reverse: bool,
    objects: int = 2,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Logits (objects, 1, H, W) of the video predictor, frame by frame."""
    from sam2 import sam2_video_predictor

    pixels = torch.stack([model._prepare(frame) for frame in frames])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sam2_video_predictor, "load_video_frames", lambda **_: (pixels, *SIZE)
        )
        state = predictor.init_state("")
    for number, mask in enumerate(masks()[:objects]):
        predictor.add_new_mask(state, start, number, mask)
    for place, _, logits in predictor.propagate_in_video(state, reverse=reverse):
        if place != start:
            yield place, logits


def follow(
    model: Sam2Model,
    frames: list[NDArray[np.uint8]],
    start: int,
    reverse: bool,
    objects: int = 2,
) -> Iterator[tuple[int, torch.Tensor]]:
    memory = model.video_memory(len(frames))
    (embedding,) = model.encode([frames[start]])
    for number, mask in enumerate(masks()[:objects]):
        memory.give(start, embedding, number, mask)
    memory.turn(backward=reverse)
    order = range(start - 1, -1, -1) if reverse else range(start + 1, len(frames))
    for place in order:
        (embedding,) = model.encode([frames[place]])
        yield place, memory.step(place, embedding, [*range(objects)]).logits[:, None]


@pytest.mark.parametrize(("length", "start", "reverse"), [(9, 0, False), (4, 3, True)])
def test_logits_are_those_of_the_video_predictor(
    model: Sam2Model, predictor: Any, length: int, start: int, reverse: bool
) -> None:
    compare(model, predictor, movie(length), start, reverse)


@pytest.mark.slow
def test_so_they_are_at_the_size_that_the_models_are_made_for() -> None:
    load_model("sam2-nano", device="cpu")  # sets torch and sam2 up
    cpu = torch.device("cpu")
    model = Sam2Model(build(False, 1024), TINY, cpu, torch.float32)
    predictor = build(True, 1024)
    predictor.load_state_dict(model.network.state_dict())
    predictor.fill_hole_area = 0
    compare(model, predictor, movie(3), 0, False, objects=1)


def compare(
    model: Sam2Model,
    predictor: Any,
    frames: list[NDArray[np.uint8]],
    start: int,
    reverse: bool,
    objects: int = 2,
) -> None:
    """Assert that both give the same logits for every frame."""
    theirs = dict(upstream(predictor, model, frames, start, reverse, objects))
    seen = []
    for place, logits in follow(model, frames, start, reverse, objects):
        large = torch.nn.functional.interpolate(logits, SIZE, mode="bilinear")
        seen.append(place)
        spread = float(theirs[place].std())
        assert spread > 0.01
        assert float((large - theirs[place]).abs().max()) < 1e-4 * spread
    assert seen == list(theirs)


def test_what_was_seen_before_matters(model: Sam2Model) -> None:
    frames = movie(3)
    after_one = dict(follow(model, [frames[0], frames[2]], 0, False))[1]
    after_two = dict(follow(model, frames, 0, False))[2]
    assert float((after_one - after_two).abs().max()) > 1e-3


def test_objects_of_one_step_do_not_see_each_other(model: Sam2Model) -> None:
    frames = movie(3)
    together = dict(follow(model, frames, 0, False))[2]
    embeddings = model.encode(frames)
    memory = model.video_memory(3)
    for number, mask in enumerate(masks()):
        memory.give(0, embeddings[0], number, mask)
    memory.turn(backward=False)
    for place in (1, 2):
        apart = [memory.step(place, embeddings[place], [n]).logits for n in (0, 1)]
    np.testing.assert_allclose(torch.cat(apart), together[:, 0], atol=1e-5)


def test_asking_again_about_a_frame_changes_nothing(model: Sam2Model) -> None:
    embeddings = model.encode(movie(2))
    memory = model.video_memory(2)
    memory.give(0, embeddings[0], 7, masks()[0])
    memory.turn(backward=False)
    once, again = (memory.step(1, embeddings[1], [7]).logits for _ in range(2))
    assert torch.equal(once, again)


def test_memory_does_not_grow_with_the_movie(model: Sam2Model) -> None:
    (embedding,) = model.encode(movie(1))
    memory = model.video_memory(99)
    memory.give(0, embedding, 0, masks()[0])
    memory.turn(backward=False)
    sizes = []
    for place in range(1, 24):
        memory.step(place, embedding, [0])
        sizes.append(memory.nbytes)
    assert len(set(sizes[:6])) == 6
    assert len(set(sizes[14:])) == 1
    memory.forget([])
    memory.turn(backward=True)
    assert memory.nbytes < sizes[0]


def test_an_object_that_is_not_there_has_no_mask(model: Sam2Model) -> None:
    embeddings = model.encode(movie(2))
    memory = model.video_memory(2)
    memory.give(0, embeddings[0], 0, masks()[0])
    memory.turn(backward=False)
    says = model.network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data
    says.fill_(-5.0)
    try:
        found = memory.step(1, embeddings[1], [0])
    finally:
        says.fill_(5.0)
    assert float(found.logits.max()) == -1024


def test_only_checkpoints_of_sam_2_have_a_memory(model: Sam2Model) -> None:
    without = [name for name, spec in MODELS.items() if not spec.has_memory]
    assert without == ["sam2-nano", *(n for n in MODELS if n.startswith("sam_vit"))]
    nano = load_model("sam2-nano", device="cpu")
    with pytest.raises(ModelError, match="sam2-nano has no video memory"):
        nano.video_memory(3)

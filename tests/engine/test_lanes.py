from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from engine.fakes import FAKE, FakeSam
from napari_sam_suite.engine import lanes
from napari_sam_suite.engine.embed import EmbeddingCache, Remembering
from napari_sam_suite.engine.lanes import count_lanes, start_lanes
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.protocol import Prompts
from napari_sam_suite.engine.synthetic.scene import synthesize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SMALL = (512, 512)
TINY = replace(FAKE, memory=0.001)


@pytest.fixture(autouse=True)
def four_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def fake(**parts: Any) -> FakeSam:
    model = FakeSam()
    model.spec = replace(TINY, **parts)
    return model


def test_there_are_as_many_lanes_as_cores_but_no_more_than_frames() -> None:
    assert count_lanes(fake(), 100, SMALL) == 4
    assert count_lanes(fake(), 3, SMALL) == 3
    assert count_lanes(fake(), 1, SMALL) == 1


def test_cores_are_those_that_torch_was_told_of_or_more_that_are_known() -> None:
    torch.set_num_threads(2)
    assert count_lanes(fake(), 100, SMALL) == 2
    assert count_lanes(fake(), 100, SMALL, cores=3) == 3
    assert count_lanes(fake(), 100, SMALL, cores=1) == 2
    torch.set_num_threads(1)
    assert count_lanes(fake(), 100, SMALL) == 1


def test_more_cores_than_lanes_are_for_the_operations() -> None:
    assert count_lanes(fake(), 1000, SMALL, cores=64) == 8
    with start_lanes(8, cores=64) as pool:
        assert pool.submit(torch.get_num_threads).result() == 8


def test_large_frames_are_fewer_at_once() -> None:
    assert count_lanes(fake(), 100, (2341, 3293)) == 3
    assert count_lanes(fake(), 100, (40_000, 40_000)) == 1


def test_models_that_need_much_memory_are_asked_less_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Machine:
        total = 16e9

    monkeypatch.setattr(lanes.psutil, "virtual_memory", Machine)
    assert count_lanes(fake(memory=1.3), 100, SMALL) == 3
    assert count_lanes(fake(memory=4.2), 100, SMALL) == 1
    assert count_lanes(fake(memory=0.0), 100, SMALL) == 2, "it may be a large one"


def test_a_gpu_and_a_model_with_threads_of_its_own_take_one_frame_at_a_time() -> None:
    model = fake()
    model.move(torch.device("cuda"))
    assert count_lanes(model, 100, SMALL) == 1
    assert count_lanes(fake(runtime="onnx"), 100, SMALL) == 1


def test_lanes_share_the_cores_and_leave_those_of_other_threads() -> None:
    """Torch gives threads that begin later the number that any thread has set last."""
    with start_lanes(2) as pool:
        assert torch.get_num_threads() == 4
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 4
        both = threading.Barrier(2)

        def ask() -> int:
            both.wait()
            return torch.get_num_threads()

        told = [pool.submit(ask) for _ in range(2)]
        assert [one.result() for one in told] == [2, 2]


def picture(seed: int) -> NDArray[np.uint8]:
    plane = synthesize("nuclei", (96, 96), seed=seed).image
    return np.repeat(plane[..., None], 3, axis=2)


def test_a_model_gives_several_threads_what_it_gives_one() -> None:
    torch.set_num_threads(1)
    clicks = Prompts.clicks(np.array([[30.0, 40.0], [60.0, 20.0]]))
    pictures = [picture(seed) for seed in range(4)]

    def look(model: Any, image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        [embedding] = model.encode([image])
        return [model.decode(embedding, clicks).numpy().logits for _ in range(3)]

    alone = load_model("sam2-nano", device="cpu")
    wanted = [look(alone, image) for image in pictures]
    together = Remembering(load_model("sam2-nano", device="cpu"), EmbeddingCache())
    with start_lanes(4) as pool:
        found = list(pool.map(lambda image: look(together, image), pictures))
    np.testing.assert_array_equal(found, wanted)


def test_threads_do_not_take_each_others_image_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What prompts on one image share is computed once per image and thread."""
    model: Any = load_model("sam2-nano", device="cpu")
    embeddings = model.encode([picture(0), picture(1)])
    share, shared = model.decoder.share, []
    monkeypatch.setattr(
        model.decoder, "share", lambda e: (shared.append(e), share(e))[1]
    )
    click = Prompts.clicks(np.array([[30.0, 40.0]]))
    with ThreadPoolExecutor(1) as other:
        for _ in range(3):
            model.decode(embeddings[0], click)
            other.submit(model.decode, embeddings[1], click).result()
    assert len(shared) == 2

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from engine.fakes import FakeSam, scene
from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.embed import EmbeddingCache, Remembering
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.protocol import Embedding
from napari_sam_suite.engine.params import AutoParams

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CPU = torch.device("cpu")


def embedding(value: float = 0.5, side: int = 16) -> Embedding:
    features = {"image": torch.full((1, 4, side, side), value)}
    return Embedding(features, (64, 48), (256, 192), padded=True)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def remember(model: FakeSam, folder: Path | None = None) -> Remembering:
    return Remembering(model, EmbeddingCache(folder=folder))


IMAGE = scene((64, 64), (8, 8, 24, 24), (32, 32, 56, 56))


def test_the_same_pixels_are_encoded_once() -> None:
    model = FakeSam()
    remembering = remember(model)
    first = remembering.encode([IMAGE])[0]
    assert remembering.encode([IMAGE.copy()])[0] is first
    assert len(model.encoded) == 1


def test_one_other_pixel_is_another_image() -> None:
    model = FakeSam()
    remembering = remember(model)
    remembering.encode([IMAGE])
    other = IMAGE.copy()
    other[0, 0, 2] = 1
    remembering.encode([other])
    assert len(model.encoded) == 2


def test_the_same_bytes_in_another_shape_are_another_image() -> None:
    model = FakeSam()
    remembering = remember(model)
    remembering.encode([np.zeros((32, 128, 3), np.uint8)])
    found = remembering.encode([np.zeros((128, 32, 3), np.uint8)])[0]
    assert found.shape == (128, 32)


def test_twins_in_one_batch_are_encoded_once_and_the_order_is_kept() -> None:
    model = FakeSam()
    other = np.zeros((64, 32, 3), np.uint8)
    found = remember(model).encode([IMAGE, other, IMAGE])
    assert [e.shape for e in found] == [(64, 64), (64, 32), (64, 64)]
    assert len(model.encoded) == 2


def test_automatic_masks_and_the_next_run_share_their_tiles() -> None:
    model = FakeSam(input_size=64)
    remembering = remember(model)
    params = AutoParams(points_per_side=8, tile=32)
    first = automatic_masks(remembering, IMAGE, params)
    count = len(model.encoded)
    again = automatic_masks(remembering, IMAGE, params)
    assert count > 1
    assert len(model.encoded) == count
    assert again.boxes.tolist() == first.boxes.tolist()


def test_memory_is_counted_in_bytes_and_the_oldest_use_goes_first() -> None:
    size = embedding().nbytes
    cache = EmbeddingCache(memory=2 * size)
    cache.put("a", CPU, embedding())
    cache.put("b", CPU, embedding())
    cache.get("a", CPU)
    cache.put("c", CPU, embedding())
    assert cache.nbytes == 2 * size
    assert cache.get("b", CPU) is None
    assert cache.get("a", CPU) is not None


def test_what_is_larger_than_the_memory_is_not_kept() -> None:
    cache = EmbeddingCache(memory=10)
    cache.put("a", CPU, embedding())
    assert cache.nbytes == 0


def test_threads_may_share_a_cache() -> None:
    size = embedding().nbytes
    cache = EmbeddingCache(memory=3 * size)

    def use(number: int) -> None:
        for turn in range(400):
            key = f"{number} {turn % 7}"
            cache.put(key, CPU, embedding())
            cache.get(f"{(number + 1) % 4} {turn % 7}", CPU)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(use, range(4)))
    finally:
        sys.setswitchinterval(before)
    assert cache.nbytes <= 3 * size


def test_a_file_gives_the_embedding_back_to_the_next_process(tmp_path: Path) -> None:
    EmbeddingCache(folder=tmp_path).put("a", CPU, embedding(0.1))
    found = EmbeddingCache(folder=tmp_path).get("a", CPU)
    assert found is not None
    assert (found.shape, found.scaled, found.padded) == ((64, 48), (256, 192), True)
    assert found.features["image"].dtype == torch.float32
    torch.testing.assert_close(
        found.features["image"], torch.full((1, 4, 16, 16), 0.1), rtol=1e-3, atol=0
    )


def test_a_file_gives_the_maps_back_in_their_order(tmp_path: Path) -> None:
    names = ("image", "middle", "fine", "guide")
    features = {name: torch.rand(1, 2, 4, 4) for name in names}
    EmbeddingCache(folder=tmp_path).put("a", CPU, Embedding(features, (9, 9), (9, 9)))
    found = EmbeddingCache(folder=tmp_path).get("a", CPU)
    assert found is not None
    assert tuple(found.maps()) == names


def test_what_is_found_does_not_depend_on_who_encoded_first(tmp_path: Path) -> None:
    class Fine(FakeSam):
        def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
            return [embedding(0.1) for _ in images]

    first, again = remember(Fine(), tmp_path), remember(Fine(), tmp_path)
    [fresh], [kept] = first.encode([IMAGE]), first.encode([IMAGE])
    [read] = again.encode([IMAGE])
    [bare] = remember(Fine()).encode([IMAGE])
    for one in (kept, read):
        torch.testing.assert_close(
            one.features["image"], fresh.features["image"], rtol=0, atol=0
        )
    assert fresh.features["image"].dtype == torch.float32
    assert not torch.equal(bare.features["image"], fresh.features["image"])


def test_files_hold_half_the_bytes(tmp_path: Path) -> None:
    large = embedding(side=128)
    EmbeddingCache(folder=tmp_path).put("a", CPU, large)
    assert files(tmp_path)[0].stat().st_size < 0.51 * large.nbytes


@pytest.mark.parametrize("at", [0.5, 0.999])
def test_a_damaged_file_is_made_again(tmp_path: Path, at: float) -> None:
    first = FakeSam()
    remember(first, tmp_path).encode([IMAGE])
    path = files(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 255
    path.write_bytes(bytes(data))
    second = FakeSam()
    found = remember(second, tmp_path).encode([IMAGE])[0]
    assert len(second.encoded) == 1
    assert np.array_equal(found.features["image"].numpy(), IMAGE)


def test_a_file_cut_short_is_made_again(tmp_path: Path) -> None:
    remember(FakeSam(), tmp_path).encode([IMAGE])
    path = files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:100])
    model = FakeSam()
    remember(model, tmp_path).encode([IMAGE])
    assert len(model.encoded) == 1
    healed = FakeSam()
    remember(healed, tmp_path).encode([IMAGE])
    assert healed.encoded == []


WRITER = """
import sys
import numpy as np
from napari_sam_suite.engine.embed import EmbeddingCache
from napari_sam_suite.engine.models.protocol import Embedding

cache = EmbeddingCache(folder=sys.argv[1], quota=int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
for turn in range(150):
    value = np.full((64, 64), turn % 7, np.float32)
    key = f"key{turn % 5}"
    cache.put(key, "cpu", Embedding({"image": value}, (64, 64), (64, 64), False))
    if cache.folder is None:
        sys.exit("gave up")
"""


def test_two_processes_that_write_the_same_files_do_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [sys.executable, "-c", WRITER, str(tmp_path), str(3 * 9000)]
    writers = [
        subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdin is not None
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        writer.stdin.close()  # type: ignore[union-attr]
    read = 0
    while any(writer.poll() is None for writer in writers):
        for number in range(5):
            found = EmbeddingCache(folder=tmp_path).get(f"key{number}", CPU)
            if found is not None:
                assert len(np.unique(np.asarray(found.features["image"]))) == 1
                read += 1
    for writer in writers:
        writer.stdout.close()  # type: ignore[union-attr]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert read > 0
    assert "damaged" not in caplog.text
    assert all(path.suffix == ".safetensors" for path in tmp_path.iterdir())
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 3 * 9000


def test_the_quota_removes_the_files_used_longest_ago(tmp_path: Path) -> None:
    cache = EmbeddingCache(folder=tmp_path)
    cache.put("a", CPU, embedding())
    size = files(tmp_path)[0].stat().st_size
    os.utime(tmp_path / "a.safetensors", (0, 0))
    limited = EmbeddingCache(folder=tmp_path, quota=2 * size + 100)
    limited.put("b", CPU, embedding())
    limited.put("c", CPU, embedding())
    assert [path.stem for path in files(tmp_path)] == ["b", "c"]


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    model = FakeSam()
    remembering = remember(model, tmp_path / "file")
    remembering.encode([IMAGE])
    remembering.encode([IMAGE])
    assert len(model.encoded) == 1


def test_numbers_too_large_for_16_bits_stay_in_memory(tmp_path: Path) -> None:
    cache = EmbeddingCache(folder=tmp_path)
    cache.put("a", CPU, embedding(1e6))
    assert files(tmp_path) == []
    assert cache.get("a", CPU) is not None


def test_other_weights_and_precisions_have_embeddings_of_their_own() -> None:
    names = [
        load_model("sam2-nano", device="cpu", precision="float32").identity,
        load_model("sam2-nano", device="cpu", precision="bfloat16").identity,
        load_model("sam2-nano", device="cpu", random_weights=True).identity,
    ]
    assert len(set(names)) == 3
    again = load_model("sam2-nano", device="cpu", precision="float32").identity
    assert again == names[0]


def test_memory_is_given_back_before_the_encoder_gives_up() -> None:
    class Full(FakeSam):
        def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
            if remembering.cache.nbytes:
                raise torch.OutOfMemoryError("full of embeddings")
            return super().encode(images)

    remembering = Remembering(Full(), EmbeddingCache())
    remembering.encode([IMAGE])
    other = np.zeros((64, 64, 3), np.uint8)
    assert remembering.encode([other])[0].shape == (64, 64)


def test_moving_to_another_device_lets_the_memory_go() -> None:
    remembering = remember(FakeSam())
    remembering.encode([IMAGE])
    remembering.move(torch.device("meta"))
    assert remembering.cache.nbytes == 0
    assert remembering.device == torch.device("meta")

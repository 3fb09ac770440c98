from __future__ import annotations

import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_sam_suite.engine.errors import CheckpointMissing, ModelError
from napari_sam_suite.engine.models.load import load_model, read_weights
from napari_sam_suite.engine.models.nano.config import WEIGHTS
from napari_sam_suite.engine.models.registry import MODELS, ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS_OF_NOTHING = {"a": torch.arange(4.0), "b": torch.ones(2, 3)}


def local(file: Path) -> ModelSpec:
    """The embedded architecture with weights from a file."""
    return ModelSpec(
        id=file.stem, family="sam2", config="nano", title="", input_size=512, file=file
    )


@pytest.fixture(scope="module")
def nano() -> dict[str, torch.Tensor]:
    return dict(load_file(WEIGHTS))


# Reading


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".torch"])
def test_weights_are_read_bare_and_as_meta_wraps_them(
    tmp_path: Path, wrapped: bool, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    content = {"model": WEIGHTS_OF_NOTHING} if wrapped else WEIGHTS_OF_NOTHING
    torch.save(content, path)
    found = read_weights(path)
    assert found.keys() == WEIGHTS_OF_NOTHING.keys()
    assert all(torch.equal(found[k], v) for k, v in WEIGHTS_OF_NOTHING.items())


@pytest.mark.parametrize("name", ["model_state", "model_state_dict", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "sam.", "module.sam."])
def test_weights_are_read_as_micro_sam_and_trainers_keep_them(
    tmp_path: Path, name: str, prefix: str
) -> None:
    content = {f"{prefix}{k}": v for k, v in WEIGHTS_OF_NOTHING.items()}
    torch.save({name: content, "epoch": 3}, tmp_path / "vit_b.pt")
    assert read_weights(tmp_path / "vit_b.pt").keys() == WEIGHTS_OF_NOTHING.keys()


def test_a_word_before_some_weights_only_belongs_to_them(tmp_path: Path) -> None:
    content = {"sam.a": torch.zeros(1), "b": torch.zeros(1)}
    torch.save(content, tmp_path / "a.pt")
    assert read_weights(tmp_path / "a.pt").keys() == content.keys()


@pytest.mark.parametrize("kind", ["pickled", "rubbish", "safetensors"])
def test_nobody_is_told_to_delete_a_training(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"mine{'.safetensors' if kind == 'safetensors' else '.pt'}"
    if kind == "pickled":
        torch.save({"model_state": WEIGHTS_OF_NOTHING, "init": Bomb}, path)
    else:
        path.write_bytes(b"rubbish" * 999)
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    assert ("holds more than weights" in caught.value.message) == (kind == "pickled")
    assert "elete" not in caught.value.hint
    assert "state_dict as .safetensors" in caught.value.hint
    with pytest.raises(ModelError) as caught:
        read_weights(path, published=True)
    assert "download it again" in caught.value.hint


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(WEIGHTS_OF_NOTHING, tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors")
    assert torch.equal(found["b"], WEIGHTS_OF_NOTHING["b"])


class Bomb:
    """A pickle that would do something when it is read."""

    fuse = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "fuse", True)


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    torch.save({"model": Bomb()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Bomb()))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(ModelError, match=name):
            read_weights(tmp_path / name)
    assert not Bomb.fuse


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"<!DOCTYPE html><html>404</html>", b"\x00" * 3000, b"rubbish" * 999],
    ids=["empty", "html", "zeros", "rubbish"],
)
def test_a_file_that_is_no_checkpoint_is_one_sentence(
    tmp_path: Path, suffix: str, content: bytes
) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    assert path.name in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_cut_short_is_damaged(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"short{suffix}"
    large = {"a": torch.zeros(1000)}
    save_file(large, path) if suffix == ".safetensors" else torch.save(large, path)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(ModelError, match="damaged"):
        read_weights(path)


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"epoch": 3}, [1, 2], "text"])
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(ModelError, match=r"odd\.pt holds no model weights"):
        read_weights(tmp_path / "odd.pt")


# Loading


def test_the_embedded_model_loads_as_it_was_written(
    nano: dict[str, torch.Tensor],
) -> None:
    model: Any = load_model("sam2-nano", device="cpu")
    state = model.network.state_dict()
    assert state.keys() == nano.keys()
    assert all(torch.equal(state[k], v.to(state[k].dtype)) for k, v in nano.items())
    assert not model.network.training
    assert (model.spec, model.device.type) == (MODELS["sam2-nano"], "cpu")


def test_a_local_file_fills_the_architecture(
    tmp_path: Path, nano: dict[str, torch.Tensor]
) -> None:
    changed = {k: torch.zeros_like(v) for k, v in nano.items()}
    torch.save({"model": changed}, tmp_path / "mine.pt")
    model: Any = load_model(local(tmp_path / "mine.pt"), device="cpu")
    assert all(not bool(v.any()) for v in model.network.state_dict().values())


def test_random_weights_need_no_file_and_are_always_the_same() -> None:
    state = [
        load_model("sam2-nano", device="cpu", random_weights=True).network.state_dict()  # type: ignore[attr-defined]
        for _ in range(2)
    ]
    assert all(torch.equal(state[0][k], state[1][k]) for k in state[0])


def test_random_weights_leave_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_model("sam2-nano", device="cpu", random_weights=True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_of_another_architecture_are_refused(
    tmp_path: Path, nano: dict[str, torch.Tensor], change: str
) -> None:
    weights = dict(nano)
    first = next(iter(weights))
    if change == "missing":
        del weights[first]
    elif change == "extra":
        weights["extra.weight"] = torch.ones(1)
    else:
        weights[first] = torch.ones(1, 2, 3)
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="another architecture"):
        load_model(local(tmp_path / "other.safetensors"), device="cpu")


def test_a_missing_checkpoint_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissing, match="hiera_tiny") as caught:
        load_model("sam2.1_hiera_tiny", device="cpu", folder=tmp_path)
    assert "models download sam2.1_hiera_tiny" in caught.value.hint


def test_a_checkpoint_of_the_wrong_size_is_not_even_read(tmp_path: Path) -> None:
    spec = MODELS["sam_vit_b_01ec64"]
    (tmp_path / spec.filename).write_bytes(b"<html>")
    with pytest.raises(ModelError, match="damaged"):
        load_model(spec, device="cpu", folder=tmp_path)


def test_a_wrong_precision_is_found_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="int4"):
        load_model(
            "sam2.1_hiera_large",
            device="cpu",
            precision="int4",  # type: ignore[arg-type]
            folder=tmp_path,
        )


@pytest.mark.parametrize(
    ("model", "package", "install"),
    [
        ("sam2.1_hiera_tiny", "sam2", "pip install sam2"),
        ("sam_vit_b_01ec64", "segment_anything", "pip install segment-anything"),
    ],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, model: str, package: str, install: str
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=install):
        load_model(model, device="cpu", random_weights=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sam2.1_hiera_tiny", "sam_vit_b_01ec64"])
def test_public_architectures_are_built_with_random_weights(name: str) -> None:
    model = load_model(name, device="cpu", random_weights=True)
    assert (model.spec.id, model.input_size) == (name, 1024)


def test_hydra_may_have_been_cleared_by_somebody_else() -> None:
    import sam2  # noqa: F401
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    model = load_model("sam2.1_hiera_tiny", device="cpu", random_weights=True)
    assert model.input_size == 1024


@pytest.mark.skipif(sys.platform != "linux", reason="looks at a process's memory map")
@pytest.mark.parametrize("mesa", [True, False])
def test_triton_is_bound_to_its_own_symbols_before_torch_where_llvm_is(
    tmp_path: Path, mesa: bool
) -> None:
    (tmp_path / "libLLVM.so.1").write_bytes(b"0" * 4096)
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text(
        "import os, sys\n"
        "print(sys.getdlopenflags() & os.RTLD_DEEPBIND > 0, 'torch' in sys.modules)\n"
        "sys.stdout.flush()\n"
        "os._exit(0)\n"
    )
    code = """
import mmap, sys
sys.path.insert(0, sys.argv[1])
if sys.argv[2] == "True":
    file = open(sys.argv[1] + "/libLLVM.so.1", "rb")
    there = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
class NoTorch:
    def find_spec(self, name, *_):
        if name == "torch":
            sys.exit("torch comes now")
sys.meta_path.insert(0, NoTorch())
from napari_sam_suite.engine.models.load import load_model
load_model("sam2-nano")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(mesa)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == (["True", "False"] if mesa else [])
    assert ("torch comes now" in done.stderr) is not mesa

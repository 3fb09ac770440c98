from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from fsspec.implementations.local import LocalFileSystem

from engine.batch.experiments import contents, recipe_of, write_stack
from napari_sam_suite.engine.batch.run import run_recipe
from napari_sam_suite.engine.errors import OutputError
from napari_sam_suite.engine.store.place import open_place

if TYPE_CHECKING:
    from pathlib import Path

    from engine.fakes import FakeSam


@pytest.fixture(params=["folder", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "place")
    return f"memory://{tmp_path.name}/place"


def test_files_are_written_read_listed_and_removed(address: str) -> None:
    place = open_place(address)
    assert place.names() == set() and place.read("a/b.txt") is None
    place.write("a/b.txt", b"one")
    (place / "a").write("b.txt", b"two")
    assert place.read("a/b.txt") == b"two"
    assert place.names() == {"a"} and (place / "a").names() == {"b.txt"}
    assert open_place((place / "a").address).read("b.txt") == b"two"
    place.remove("a/b.txt")
    place.remove("a/b.txt")
    assert place.read("a/b.txt") is None


def test_a_run_may_go_to_any_place(
    address: str, tmp_path: Path, model: FakeSam
) -> None:
    path = write_stack(tmp_path / "a.tif", 3)
    recipe = recipe_of(path, store=address)
    assert run_recipe(recipe).done == 3
    assert run_recipe(recipe).skipped == 3
    run_recipe(recipe_of(path, store=tmp_path / "local"))
    assert contents(address) == contents(tmp_path / "local")


def test_where_files_show_while_they_are_written_they_are_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_place(f"local://{tmp_path}/place")
    place.write("a.txt", b"one")
    whole = LocalFileSystem.pipe_file

    def killed(self: LocalFileSystem, path: str, value: bytes, **more: object) -> None:
        whole(self, path, value[:1], **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "pipe_file", killed)
        for name in ("a.txt", "b.txt"):
            with pytest.raises(KeyboardInterrupt):
                place.write(name, b"two")
    assert place.read("a.txt") == b"one" and place.names() == {"a.txt"}
    place.tidy()
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["a.txt"]
    place.write("a.txt", b"two")
    assert place.read("a.txt") == b"two"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        open_place(tmp_path / "file" / "place").write("a", b"")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    place = open_place(tmp_path)
    place.write("a", b"one")

    def refuse(*_: object) -> object:
        raise OSError(number, os.strerror(number))

    told = f"cannot be read: {os.strerror(number)}"
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.read_bytes", refuse)
        with pytest.raises(OutputError, match=f"a {told}"):
            place.read("a")
        patch.setattr("os.scandir", refuse)
        with pytest.raises(OutputError, match=told):
            place.names()
    assert place.read("a") == b"one" and place.names() == {"a"}


def test_an_unknown_kind_of_address_is_told() -> None:
    with pytest.raises(OutputError, match="magic://x"):
        open_place("magic://x")


def test_storage_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    place = open_place("memory://nobody")

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Unable to locate credentials")

    for name in ("cat_file", "ls", "exists"):
        monkeypatch.setattr(type(place.system), name, refuse)  # type: ignore[attr-defined]
    for ask in (lambda: place.read("a"), place.names, lambda: place.remove("a")):
        with pytest.raises(OutputError, match=r"nobody.* locate credentials"):
            ask()

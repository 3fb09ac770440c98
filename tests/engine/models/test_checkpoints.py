from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sam_suite.engine.errors import (
    Cancelled,
    CheckpointMissing,
    ModelError,
    OutputError,
)
from napari_sam_suite.engine.models import checkpoints
from napari_sam_suite.engine.models.checkpoints import (
    FOLDER_VARIABLE,
    checkpoint_folder,
    checkpoint_path,
    checkpoint_state,
    download,
    is_installed,
    require_checkpoint,
    verify,
)
from napari_sam_suite.engine.models.registry import MODELS, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

WEIGHTS = np.random.default_rng(0).bytes(4_000_000)


@dataclass
class Server:
    """A file server on this machine that can misbehave."""

    body: bytes = WEIGHTS
    status: int = 200
    content_type: str = "application/octet-stream"
    ranges: bool = True
    breaks_after: int | None = None
    """Close the connection after so many bytes of a body, always."""
    breaks_once: bool = False
    seconds_per_chunk: float = 0.0
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def spec(self, **changes: object) -> ModelSpec:
        spec = ModelSpec(
            id="small",
            family="sam2",
            config="nano",
            title="Small",
            url=f"{self.address}/small.pt",
            sha256=hashlib.sha256(WEIGHTS).hexdigest(),
            size_mb=4.0,
        )
        return replace(spec, **changes)  # type: ignore[arg-type]


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.asked.append(asked)
            start = int(asked[6:-1]) if asked and state.ranges else 0
            if start >= len(state.body):
                self.send_error(416)
                return
            body = state.body[start:]
            self.send_response(206 if start else state.status)
            self.send_header("Content-Type", state.content_type)
            self.send_header("Content-Length", str(len(body)))
            if start:
                end, size = len(state.body) - 1, len(state.body)
                self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
            self.end_headers()
            if state.breaks_after is not None:
                body = body[: state.breaks_after]
                if state.breaks_once:
                    state.breaks_after = None
            for chunk in (body[i : i + 20_000] for i in range(0, len(body), 20_000)):
                time.sleep(state.seconds_per_chunk)
                try:
                    self.wfile.write(chunk)
                except OSError:
                    return

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{http.server_port}"
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


# Where checkpoints are


def test_argument_then_environment_then_setting_then_cache_name_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, variable, setting = (tmp_path / name for name in "abc")
    assert checkpoint_folder().parts[-2:] == ("napari-sam-suite", "checkpoints")
    assert checkpoint_folder(preferred=setting) == setting
    monkeypatch.setenv(FOLDER_VARIABLE, str(variable))
    assert checkpoint_folder(preferred=setting) == variable
    assert checkpoint_folder(asked, preferred=setting) == asked


def test_the_home_folder_may_be_written_as_a_tilde() -> None:
    assert checkpoint_folder("~/weights") == Path.home() / "weights"


def test_the_embedded_model_lies_in_the_package(tmp_path: Path) -> None:
    path = checkpoint_path(MODELS["sam2-nano"], tmp_path)
    assert path.parts[-3:] == ("models", "nano", "weights.safetensors")
    assert tmp_path not in path.parents


def test_a_folder_of_local_files_works_offline(tmp_path: Path) -> None:
    spec = Server(address="http://127.0.0.1:1").spec()
    (tmp_path / "small.pt").write_bytes(WEIGHTS)
    assert is_installed(spec, tmp_path)
    assert require_checkpoint(spec, tmp_path) == tmp_path / "small.pt"
    assert verify(spec, tmp_path) == spec.sha256
    assert download(spec, tmp_path) == tmp_path / "small.pt"


def test_the_state_tells_missing_partial_damaged_and_installed(tmp_path: Path) -> None:
    spec, path = Server().spec(), tmp_path / "small.pt"
    assert checkpoint_state(spec, tmp_path) == "missing"
    (tmp_path / "small.pt.part").write_bytes(b"some")
    assert checkpoint_state(spec, tmp_path) == "partial"
    path.write_bytes(WEIGHTS[:1000])
    assert checkpoint_state(spec, tmp_path) == "damaged"
    path.write_bytes(WEIGHTS)
    assert checkpoint_state(spec, tmp_path) == "installed"


def test_a_missing_checkpoint_says_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissing, match="models download small"):
        require_checkpoint(Server(address="http://x").spec(), tmp_path)


def test_a_checkpoint_of_the_wrong_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "small.pt").write_bytes(WEIGHTS[:1000])
    with pytest.raises(ModelError, match=r"damaged: .*small\.pt"):
        require_checkpoint(Server().spec(), tmp_path)


def test_verify_names_a_file_with_another_hash(tmp_path: Path) -> None:
    (tmp_path / "small.pt").write_bytes(WEIGHTS[:-1] + b"!")
    with pytest.raises(ModelError, match=r"not the published small: its SHA-256 is"):
        verify(Server().spec(), tmp_path)


def test_verify_says_when_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissing):
        verify(Server().spec(), tmp_path)


# Downloading


def test_a_download_leaves_the_file_and_reports_progress_to_the_end(
    server: Server, tmp_path: Path
) -> None:
    seen: list[tuple[int, int, str]] = []
    path = download(
        server.spec(),
        tmp_path / "new" / "folder",
        progress=lambda *step: seen.append(step),
    )
    assert path.read_bytes() == WEIGHTS
    assert visible(path.parent) == ["small.pt"]
    received = [done for done, _, text in seen if text == "Downloading small.pt"]
    assert received == sorted(received)
    assert received[-1] == len(WEIGHTS)
    assert all(total == len(WEIGHTS) for _, total, _ in seen)


def test_a_file_that_is_there_is_not_fetched_again(
    server: Server, tmp_path: Path
) -> None:
    download(server.spec(), tmp_path)
    download(server.spec(), tmp_path)
    assert len(server.asked) == 1


def test_a_damaged_file_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "small.pt").write_bytes(b"<html>wrong</html>")
    assert download(server.spec(), tmp_path).read_bytes() == WEIGHTS


def test_a_part_is_continued(server: Server, tmp_path: Path) -> None:
    (tmp_path / "small.pt.part").write_bytes(WEIGHTS[:1_234_567])
    assert download(server.spec(), tmp_path).read_bytes() == WEIGHTS
    assert server.asked == ["bytes=1234567-"]


def test_a_part_is_started_over_when_the_server_knows_no_ranges(
    server: Server, tmp_path: Path
) -> None:
    server.ranges = False
    (tmp_path / "small.pt.part").write_bytes(WEIGHTS[:1_234_567])
    assert download(server.spec(), tmp_path).read_bytes() == WEIGHTS


def test_a_part_of_something_else_is_thrown_away_and_fetched_whole(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "small.pt.part").write_bytes(bytes(1_000_000))
    assert download(server.spec(), tmp_path).read_bytes() == WEIGHTS
    assert server.asked == ["bytes=1000000-", ""]


def test_a_part_that_is_complete_only_needs_its_name(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "small.pt.part").write_bytes(WEIGHTS)
    assert download(server.spec(), tmp_path).read_bytes() == WEIGHTS


def test_a_part_that_is_too_long_is_fetched_anew(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "small.pt.part").write_bytes(WEIGHTS + b"more")
    assert download(server.spec(), tmp_path).read_bytes() == WEIGHTS


def test_a_connection_that_breaks_off_is_taken_up_by_itself(
    server: Server, tmp_path: Path
) -> None:
    server.breaks_after, server.breaks_once = 1_500_000, True
    assert download(server.spec(), tmp_path).read_bytes() == WEIGHTS
    assert len(server.asked) == 2


def test_a_connection_that_keeps_breaking_is_an_error_and_keeps_what_arrived(
    server: Server, tmp_path: Path
) -> None:
    server.breaks_after = 100_000
    with pytest.raises(ModelError, match="broke off after"):
        download(server.spec(), tmp_path)
    assert visible(tmp_path) == ["small.pt.part"]
    server.breaks_after = None
    assert download(server.spec(), tmp_path).read_bytes() == WEIGHTS


def test_a_shorter_file_than_promised_by_the_registry_is_never_kept(
    server: Server, tmp_path: Path
) -> None:
    server.body = WEIGHTS[:-100]
    with pytest.raises(ModelError, match="SHA-256 is wrong"):
        download(server.spec(), tmp_path)
    assert visible(tmp_path) == []


def test_a_file_with_the_wrong_hash_is_never_kept(
    server: Server, tmp_path: Path
) -> None:
    server.body = WEIGHTS[:-1] + b"!"
    with pytest.raises(ModelError, match="SHA-256 is wrong"):
        download(server.spec(), tmp_path)
    assert visible(tmp_path) == []


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "x/y"])
def test_a_web_page_instead_of_the_file_is_refused_and_never_kept(
    server: Server, tmp_path: Path, content_type: str
) -> None:
    server.body = b"\n<!DOCTYPE html><html>Please log in</html>"
    server.content_type = content_type
    with pytest.raises(ModelError, match="web page instead"):
        download(server.spec(), tmp_path)
    assert "small.pt" not in visible(tmp_path)
    server.body, server.content_type = WEIGHTS, "x/y"
    assert download(server.spec(), tmp_path).read_bytes() == WEIGHTS


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_names_its_number(
    server: Server, tmp_path: Path, status: int
) -> None:
    server.status = status
    with pytest.raises(ModelError, match=rf"small\.pt answers {status} "):
        download(server.spec(), tmp_path)
    assert visible(tmp_path) == []


def test_no_network_is_one_sentence_and_what_to_do(tmp_path: Path) -> None:
    spec = Server(address="http://127.0.0.1:1").spec()
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        download(spec, tmp_path)
    assert "checkpoint folder" in caught.value.hint


def test_a_stop_ends_soon_and_the_next_download_goes_on(
    server: Server, tmp_path: Path
) -> None:
    server.seconds_per_chunk = 0.02
    asked_to_stop = threading.Event()

    def progress(done: int, total: int, text: str) -> None:
        if done > 100_000:
            asked_to_stop.set()

    start = time.monotonic()
    with pytest.raises(Cancelled):
        download(server.spec(), tmp_path, progress=progress, stop=asked_to_stop.is_set)
    assert time.monotonic() - start < 3
    kept = (tmp_path / "small.pt.part").stat().st_size
    assert 100_000 < kept < len(WEIGHTS)
    server.seconds_per_chunk = 0
    assert download(server.spec(), tmp_path).read_bytes() == WEIGHTS
    assert server.asked[1] == f"bytes={kept}-"


def test_ctrl_c_keeps_the_part(server: Server, tmp_path: Path) -> None:
    def progress(done: int, total: int, text: str) -> None:
        if done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.spec(), tmp_path, progress=progress)
    assert visible(tmp_path) == ["small.pt.part"]


def _download_in_a_process(spec: ModelSpec, folder: Path) -> None:
    download(spec, folder)


def test_two_processes_at_once_fetch_it_once(server: Server, tmp_path: Path) -> None:
    server.seconds_per_chunk = 0.01
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_download_in_a_process, args=(server.spec(), tmp_path))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "small.pt").read_bytes() == WEIGHTS
    assert len(server.asked) == 1


def test_a_killed_download_leaves_no_lock_and_is_continued(
    server: Server, tmp_path: Path
) -> None:
    server.seconds_per_chunk = 0.02
    part = tmp_path / "small.pt.part"
    process = multiprocessing.get_context("spawn").Process(
        target=_download_in_a_process, args=(server.spec(), tmp_path)
    )
    process.start()
    while not (part.exists() and part.stat().st_size > 100_000):
        time.sleep(0.02)
        assert process.is_alive()
    process.kill()
    process.join()
    server.seconds_per_chunk = 0
    assert download(server.spec(), tmp_path).read_bytes() == WEIGHTS
    assert server.asked[1].startswith("bytes=")


def test_who_waits_for_another_download_can_be_stopped(
    server: Server, tmp_path: Path
) -> None:
    server.seconds_per_chunk = 0.02
    stop_first = threading.Event()
    started = threading.Event()
    texts: list[str] = []

    def first() -> None:
        with pytest.raises(Cancelled):
            download(
                server.spec(),
                tmp_path,
                progress=lambda *_: started.set(),
                stop=stop_first.is_set,
            )

    thread = threading.Thread(target=first)
    thread.start()
    assert started.wait(10)
    with pytest.raises(Cancelled):
        download(
            server.spec(),
            tmp_path,
            progress=lambda done, total, text: texts.append(text),
            stop=lambda: len(texts) > 1,
        )
    stop_first.set()
    thread.join()
    assert "Another process is downloading small.pt" in texts


# A disk that does not want it


def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match=r"folder .*file.* cannot be written to"):
        download(server.spec(), tmp_path / "file" / "models")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_folder_is_named(server: Server, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot be written to"):
            download(server.spec(), tmp_path)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_disk_that_fills_up_is_one_sentence(server: Server, tmp_path: Path) -> None:
    (tmp_path / "small.pt.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="is full"):
        download(server.spec(), tmp_path)
    assert "small.pt" not in visible(tmp_path)


def test_too_little_space_is_noticed_before_anything_is_fetched(
    server: Server, tmp_path: Path
) -> None:
    spec = server.spec(size_mb=1e12)
    with pytest.raises(OutputError, match=r"too full for small: \d+ MB are needed"):
        download(spec, tmp_path)
    assert server.asked == []


def test_a_model_without_an_address_is_not_downloaded(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(b"weights")
    spec = ModelSpec(id="mine", family="sam1", config="vit_b", title="", file=path)
    assert download(spec) == path
    assert checkpoints.verify(spec) == hashlib.sha256(b"weights").hexdigest()
    path.unlink()
    with pytest.raises(CheckpointMissing, match="not on this machine"):
        download(spec)

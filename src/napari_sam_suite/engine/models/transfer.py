"""Fetch one file over HTTP: resumable, cancellable, and nothing but that file."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import Cancelled, ModelError, OutputError

if TYPE_CHECKING:
    from pathlib import Path

    import requests

Progress = Callable[[int, int, str], object]
"""Called with bytes done, bytes in total (0 when unknown) and a short text."""
Stop = Callable[[], bool]
"""Asked often; ``True`` ends the work."""

# Small, so that a stop is noticed soon on a slow line as well.
_CHUNK = 1 << 14
_CONNECT_SECONDS, _SILENCE_SECONDS = 10.0, 30.0
_TRIES = 5
_REPORT_SECONDS = 0.1
_PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml")


def fetch(
    url: str,
    part: Path,
    *,
    sha256: str,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> None:
    """Download `url` into `part` and check its hash.

    What `part` already holds is continued from. A connection that breaks off is
    taken up again by itself a few times; whatever arrived stays in `part`, so that
    the next call goes on from there. A file with the wrong hash is deleted.

    Raises
    ------
    ModelError
        If the server cannot be reached, refuses, sends a web page, keeps breaking
        off, or sends something with another hash.
    OutputError
        If the disk is full or `part` cannot be written.
    Cancelled
        If `stop` said so.
    """
    transfer = _Transfer(url, part, progress, stop)
    for attempt in range(1, _TRIES + 1):
        before = _size(part)
        try:
            transfer.go_on()
        except _BrokenOffError as broken:
            if attempt < _TRIES and _size(part) > before:
                continue
            raise _interrupted(url, part) from broken
        if hash_file(part, progress=progress, stop=stop) == sha256:
            return
        part.unlink()
        if not before:
            break
    raise ModelError(
        f"{url} did not send the expected file: its SHA-256 is wrong.",
        "It was deleted; try again, or copy the file from another machine.",
    )


def hash_file(
    path: Path, *, progress: Progress | None = None, stop: Stop | None = None
) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    report = _Report(progress, f"Checking {path.name}")
    digest = hashlib.sha256()
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            _check(stop)
            digest.update(chunk)
            done += len(chunk)
            report(done, total)
    return digest.hexdigest()


class _BrokenOffError(Exception):
    """The connection ended before the file did."""


@dataclass
class _Transfer:
    url: str
    part: Path
    progress: Progress | None
    stop: Stop | None

    def go_on(self) -> None:
        """Append to the part what is missing of the file."""
        import requests

        start = _size(self.part)
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            response = requests.get(
                self.url,
                headers=headers,
                stream=True,
                timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS),
            )
        except requests.RequestException as error:
            raise ModelError(
                f"{self.url} cannot be reached.",
                "Check the network, or put the file into the checkpoint folder.",
            ) from error
        with response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                return  # nothing is missing; the hash tells whether it is right
            self._check_answer(response)
            self._append(response, start if _continues(response, start) else 0)

    def _check_answer(self, response: requests.Response) -> None:
        if not response.ok:
            raise ModelError(
                f"{self.url} answers {response.status_code} {response.reason}.",
                "Try again later, or put the file into the checkpoint folder.",
            )
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise _web_page(self.url)

    def _append(self, response: requests.Response, done: int) -> None:
        import requests

        length = int(response.headers.get("Content-Length") or 0)
        total = done + length if length else 0
        report = _Report(self.progress, f"Downloading {self.url.rsplit('/', 1)[-1]}")
        chunks: Iterator[Any] = response.iter_content(_CHUNK)
        try:
            with self.part.open("ab" if done else "wb") as file:
                for chunk in chunks:
                    if not done and chunk.lstrip().lower().startswith(_PAGE_STARTS):
                        raise _web_page(self.url)
                    file.write(chunk)
                    done += len(chunk)
                    report(done, total)
                    _check(self.stop)
        except requests.RequestException as error:
            raise _BrokenOffError from error
        except OSError as error:
            raise unwritable(self.part.parent, error) from error
        if done < total:
            raise _BrokenOffError


class _Report:
    """Progress that is passed on some ten times a second."""

    def __init__(self, progress: Progress | None, text: str) -> None:
        self._progress = progress
        self._text = text
        self._due = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._progress and (now >= self._due or done == total):
            self._due = now + _REPORT_SECONDS
            self._progress(done, total, self._text)


def unwritable(folder: Path, error: OSError) -> OutputError:
    """Say in one sentence why `folder` cannot be written to."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"The disk of {folder} is full.",
            "Free some space and start again: what has arrived is kept.",
        )
    return OutputError(
        f"The folder {folder} cannot be written to ({error.strerror or error}).",
        "Choose another with `folder` or NAPARI_SAM_SUITE_CHECKPOINTS.",
    )


def _continues(response: requests.Response, start: int) -> bool:
    sent = response.headers.get("Content-Range", "")
    return response.status_code == 206 and sent.startswith(f"bytes {start}-")


def _interrupted(url: str, part: Path) -> ModelError:
    return ModelError(
        f"The download of {url} broke off after {_size(part) / 1e6:.1f} MB.",
        "Start it again: it goes on from there.",
    )


def _web_page(url: str) -> ModelError:
    return ModelError(
        f"{url} answered with a web page instead of the file.",
        "A proxy or a login page may be in between: open the address in a browser.",
    )


def _check(stop: Stop | None) -> None:
    if stop and stop():
        raise Cancelled("The download was stopped.", "It goes on from there next time.")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

"""Files that are either complete or not there."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import time
import zlib
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from napari_sam_suite.engine.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PART = re.compile(r"\..+\.(?P<where>[0-9a-f]{8})-(?P<pid>[0-9]+)-[0-9a-f]{8}\.part")
# Seconds. Process numbers may be those of another container of the same name: what
# is being written now is never touched.
_QUIET = 60


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file beside its place and move it there once it is complete.

    Missing folders are made. Whatever goes wrong, the old file stays as it was and
    nothing half-written is left.

    Parameters
    ----------
    path : str or Path
        Where the file shall be.

    Yields
    ------
    Path
        Write here; it does not exist yet.

    Raises
    ------
    OutputError
        If the file cannot be written: no permission, disk full, not a folder.
    """
    path = Path(path)
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        # Where there is no folder, there is nothing left in it either.
        with suppress(OSError):
            part.unlink(missing_ok=True)


def put(path: Path, data: bytes) -> None:
    """Write a small file as `replacing` does, in fewer steps.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    folder, name = os.path.split(path)
    part = f"{folder}{os.sep}.{name}.{_mark()}.part"
    try:
        try:
            file = open(part, "xb")  # noqa: SIM115 - many in a second
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(part, "xb")  # noqa: SIM115
        with file:
            file.write(data)
        os.replace(part, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(part)
        if isinstance(error, OSError):
            raise explain(error, path) from error
        raise


def swap(part: Path, path: Path) -> None:
    """Put a complete folder in the place of an old one, which comes back if that fails.

    Raises
    ------
    OSError
        If it cannot be moved.
    """
    old = part_of(path)
    if path.exists():
        os.replace(path, old)
    try:
        os.replace(part, path)
    except OSError:
        if old.exists():
            os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def part_of(path: Path) -> Path:
    """Name beside a file or folder for what is not complete yet.

    `sweep` knows it when its process was killed.
    """
    return path.with_name(f".{path.name}.{_mark()}.part")


def _mark() -> str:
    """Whose a half-written file is, and which of them."""
    return f"{_where()}-{os.getpid()}-{uuid4().hex[:8]}"


def sweep(folder: Path) -> None:
    """Remove what a process could not because it was killed.

    Only files and folders of processes of this machine that are gone, and that nobody
    has written to for a minute, so that other runs into the same folder are not
    disturbed.

    Parameters
    ----------
    folder : Path
        Need not be there.
    """
    import psutil

    for part in folder.glob(".*.part"):
        mark = _PART.fullmatch(part.name)
        if not mark or mark["where"] != _where() or psutil.pid_exists(int(mark["pid"])):
            continue
        # Somebody else may have removed it, or may be the only one who can.
        with suppress(OSError):
            if time.time() - part.stat().st_mtime <= _QUIET:
                continue
            if part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink()


@cache
def _where() -> str:
    """Where this process has its number: a machine, or a container on it."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{zlib.crc32((platform.node() + space).encode()):08x}"


def explain(error: OSError, path: Path) -> OutputError:
    """Say what kept a file from being written, and what to do.

    Parameters
    ----------
    error : OSError
        As the system raised it.
    path : Path
        The file that was asked for.

    Returns
    -------
    OutputError
    """
    if error.errno in _FULL:
        return OutputError(
            f"There is no room left to write {path}.",
            "Free some space or choose another folder.",
        )
    if error.errno in _DENIED:
        return OutputError(
            f"{path} cannot be written: the folder or file is read-only.",
            "Choose a folder you may write to.",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return OutputError(
            f"{path} cannot be written: part of its folder name is a file.",
            "Choose another folder.",
        )
    if error.errno == errno.EISDIR or path.is_dir():
        return OutputError(
            f"{path} cannot be written: there is a folder of that name.",
            "Choose another file name.",
        )
    reason = error.strerror or str(error) or type(error).__name__
    return OutputError(
        f"{path} cannot be written: {reason}.", "Choose another folder or file name."
    )

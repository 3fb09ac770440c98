"""Folders that are remembered in, and do not grow beyond so many bytes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def keep_within(folder: Path, pattern: str, quota: int) -> None:
    """Delete the files used longest ago until the rest fits.

    Parameters
    ----------
    folder : Path
        Any number of processes may share it.
    pattern : str
        Of the files that count, such as ``"*.npz"``.
    quota : int
        Bytes that may stay. When a file was used last is its time of change.
    """
    files = []
    for path in folder.glob(pattern):
        with suppress(OSError):  # another process may have removed it
            found = path.stat()
            files.append((found.st_mtime, found.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= quota:
            break
        with suppress(OSError):
            path.unlink(missing_ok=True)
        total -= size

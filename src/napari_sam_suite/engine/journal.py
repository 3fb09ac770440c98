"""Snapshots of unsaved work that outlive a crash.

Each process has a folder of its own, guarded by a lock that the system frees when the
process dies, however it dies. A folder whose lock is free belongs to nobody: the work
in it was lost and can be restored. Whoever ends well removes the own folder.

A snapshot is one ``.npz`` file of plain arrays and JSON; nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pandas as pd
import platformdirs
from filelock import FileLock, Timeout

from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.formats.atomic import explain, replacing
from napari_sam_suite.engine.formats.tables import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

FOLDER_VARIABLE = "NAPARI_SAM_SUITE_STATE"
"""Environment variable that names the folder of snapshots."""

_SUFFIX = ".npz"
_DAYS, _SESSIONS = 14, 10
_DAMAGE = (OSError, ValueError, TypeError, LookupError, zipfile.BadZipFile, EOFError)


def state_folder() -> Path:
    """Folder of all processes' snapshots; it need not exist."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return platformdirs.user_state_path("napari-sam-suite") / "autosave"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Shapes and their table as they were at one time.

    Attributes
    ----------
    about : mapping
        Whatever else is to be kept, as JSON can hold it.
    points : (n, d) array of float
        Vertices of all shapes, one shape after the other.
    ends : (m,) array of int
        Where each shape ends in `points`.
    kinds : list of str
        Of each shape, such as ``"polygon"``.
    table : DataFrame
        One row per shape.
    looks : mapping of str to array
        Colours and the like, one row per shape.
    """

    about: Mapping[str, Any]
    points: NDArray[Any]
    ends: NDArray[np.int64]
    kinds: list[str] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    looks: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def shapes(self) -> list[NDArray[Any]]:
        """Vertices of each shape, (n, d)."""
        return np.split(self.points, self.ends[:-1]) if len(self.ends) else []


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot, whole or not at all.

    Raises
    ------
    OutputError
        If there is no room, or the folder cannot be written to.
    """
    arrays = {f"look {name}": values for name, values in snapshot.looks.items()}
    texts: dict[str, list[str | None]] = {}
    for name, values in snapshot.table.items():
        if values.dtype.kind in "biuf":
            arrays[f"column {name}"] = values.to_numpy()
        else:
            texts[str(name)] = [None if pd.isna(v) else str(v) for v in values]
    document = {
        "about": snapshot.about,
        "count": len(snapshot.ends),
        "time": time.time(),
        "kinds": snapshot.kinds,
        "columns": [str(name) for name in snapshot.table.columns],
        "texts": texts,
    }
    head = json.dumps(document, default=plain).encode()
    with replacing(path) as part, part.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            document=np.frombuffer(head, np.uint8),
            points=snapshot.points,
            ends=snapshot.ends,
            **arrays,
        )


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot.

    Raises
    ------
    ParameterError
        If the file is missing or damaged.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            document = json.loads(file["document"].tobytes())
            columns = {
                name: file[f"column {name}"]
                if name not in document["texts"]
                else pd.Series(document["texts"][name], dtype="str")
                for name in document["columns"]
            }
            return Snapshot(
                document["about"],
                file["points"],
                file["ends"],
                document["kinds"],
                pd.DataFrame(columns, index=range(document["count"])),
                {n[5:]: file[n] for n in file.files if n.startswith("look ")},
            )
    except _DAMAGE as error:
        raise ParameterError(
            f"The snapshot {path} cannot be read: {error}.",
            "The objects in it are lost; run the segmentation again.",
        ) from error


class Journal:
    """The snapshots of this process, one per layer.

    Nothing is made on the disk before the first `write`. The lock is held until
    `discard`, or until the process ends.

    Parameters
    ----------
    folder : Path, optional
        Of all processes' snapshots.
    """

    def __init__(self, folder: Path | None = None) -> None:
        name = f"{os.getpid()}-{uuid4().hex[:8]}"
        self.folder = (folder or state_folder()) / name
        self._lock = _lock(self.folder)

    def path(self, key: str) -> Path:
        """Where the snapshot of one layer is."""
        return self.folder / f"{key}{_SUFFIX}"

    def write(self, key: str, snapshot: Snapshot) -> None:
        """Keep a snapshot in place of the one before.

        Raises
        ------
        OutputError
            If it cannot be written; the one before stays.
        """
        try:
            # first the lock, so that nobody takes the folder for a dead process's
            # names of images and folders concern nobody else on this machine
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except OSError as error:
            raise explain(error, self.folder) from error
        write_snapshot(self.path(key), snapshot)

    def remove(self, key: str) -> None:
        """Forget one layer."""
        with suppress(OSError):
            self.path(key).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove everything, because all is well."""
        _remove(self.folder, self._lock)


@dataclass(frozen=True, eq=False)
class Lost:
    """What a process that died has left; nobody else can take it meanwhile.

    Attributes
    ----------
    folder : Path
        Its snapshots.
    time : float
        Of the newest one, in seconds since 1970.
    heads : list of dict
        Per snapshot: ``path``, ``about``, ``count`` and ``time``.
    """

    folder: Path
    time: float
    heads: list[dict[str, Any]]
    _lock: FileLock

    def release(self) -> None:
        """Leave it to another process."""
        self._lock.release()

    def discard(self) -> None:
        """Remove it for good."""
        _remove(self.folder, self._lock)


def find_lost(folder: Path | None = None) -> list[Lost]:
    """Claim the work of processes that died, newest first.

    Folders without an undamaged snapshot, older than 14 days, or beyond the newest ten
    are removed; one that the disk does not give at the moment is left alone.
    """
    folder = folder or state_folder()
    found = []
    for one in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not one.is_dir():
            continue
        lock = _lock(one)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            continue
        try:
            heads = [head for path in one.glob(f"*{_SUFFIX}") if (head := _head(path))]
        except OSError:  # perhaps another time
            lock.release()
            continue
        newest = max((head["time"] for head in heads), default=0.0)
        found.append(Lost(one, newest, heads, lock))
    found.sort(key=lambda lost: -lost.time)
    oldest = time.time() - _DAYS * 86400
    kept = [lost for lost in found if lost.heads and lost.time > oldest][:_SESSIONS]
    for lost in found:
        if lost not in kept:
            lost.discard()
    return kept


def _lock(folder: Path) -> FileLock:
    # used from several threads of one process
    return FileLock(f"{folder}.lock", thread_local=False)


def _head(path: Path) -> dict[str, Any] | None:
    """What a snapshot is of, without its shapes; None if it is damaged."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            document = json.loads(file["document"].tobytes())
        return {"path": path, **{k: document[k] for k in ("about", "count", "time")}}
    except OSError:
        raise
    except _DAMAGE:
        return None


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release(force=True)  # each `write` has taken it once more
    with suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)

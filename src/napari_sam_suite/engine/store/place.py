"""A folder on this machine or anywhere else: files that are complete or not there."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from napari_sam_suite.engine.errors import OutputError
from napari_sam_suite.engine.formats.atomic import explain, put, sweep
from napari_sam_suite.engine.formats.extras import load_extra

if TYPE_CHECKING:
    from collections.abc import Iterator

_URL = re.compile(r"[a-z][a-z0-9+.]+://", re.IGNORECASE)
_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "memory"}
"""Kinds of storage that show a file once it is complete."""
_PART = ".part"


class Place(Protocol):
    """A folder; names of files in it may have folders of their own, with slashes."""

    @property
    def address(self) -> str:
        """What a person calls it, and `open_place` takes."""

    def __truediv__(self, name: str) -> Self:
        """A folder inside."""

    def read(self, name: str) -> bytes | None:
        """A whole file, or None if there is none.

        Raises
        ------
        OutputError
            If it cannot be read, or storage elsewhere cannot be reached.
        """

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place, folders included.

        Raises
        ------
        OutputError
            If there is no room, or no permission.
        """

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def names(self) -> set[str]:
        """Names of what is directly in it; none if it is not there.

        Raises
        ------
        OutputError
            If it cannot be looked into.
        """

    def tidy(self) -> None:
        """Remove what a killed process left half-written, directly in it."""


def is_url(text: str) -> bool:
    """Whether an address is a URL, and no path of this machine."""
    return _URL.match(text) is not None


def open_place(address: str | Path) -> Place:
    """A folder by its address; it need not be there yet.

    Parameters
    ----------
    address : str or Path
        A path, or a URL that fsspec knows, such as ``"s3://bucket/run"``.

    Raises
    ------
    MissingExtra
        If the package for this kind of URL is not installed.
    OutputError
        If the address makes no sense.
    """
    text = str(address)
    if not is_url(text):
        return Folder(Path(text).expanduser().absolute())
    if text.startswith("file://"):
        return Folder(Path(text.removeprefix("file://")))
    fsspec = load_extra("fsspec", "scale")
    try:
        system, root = fsspec.core.url_to_fs(text)
    except (ImportError, ValueError) as error:
        raise OutputError(
            f"{text} cannot be opened: {error}.",
            "Install what it names, or choose another place.",
        ) from error
    return Remote(system, root, text)


class Folder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def address(self) -> str:
        """Its path."""
        return str(self.path)

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.path / name)

    def read(self, name: str) -> bytes | None:
        """A whole file, or None if there is none."""
        path = self.path / name
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unread(error, path) from error

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place, folders included."""
        put(self.path / name, data)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise explain(error, self.path / name) from error

    def names(self) -> set[str]:
        """Names of what is directly in it, without what is half-written.

        Files of no bytes are that too: a machine that loses its power leaves them.
        """
        try:
            with os.scandir(self.path) as entries:
                return {
                    entry.name
                    for entry in entries
                    if not entry.name.endswith(_PART)
                    and (not entry.is_file() or entry.stat().st_size)
                }
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except OSError as error:
            raise _unread(error, self.path) from error

    def tidy(self) -> None:
        """Remove what a killed process left half-written."""
        sweep(self.path)


class Remote:
    """A folder somewhere else, through fsspec.

    Object stores show a file once it is complete; elsewhere it is written beside its
    place and renamed.
    """

    def __init__(self, system: Any, root: str, address: str) -> None:
        self.system = system
        self.root = root.rstrip("/")
        self._address = address.rstrip("/")
        kinds = system.protocol
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        self._whole = bool(kinds & _WHOLE)

    @property
    def address(self) -> str:
        """Its URL."""
        return self._address

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.system, f"{self.root}/{name}", f"{self.address}/{name}")

    def read(self, name: str) -> bytes | None:
        """A whole file, or None if there is none."""
        with self._reached(name):
            try:
                data: bytes = self.system.cat_file(f"{self.root}/{name}")
            except FileNotFoundError:
                return None
            return data

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place."""
        path = f"{self.root}/{name}"
        try:
            self.system.makedirs(path.rpartition("/")[0], exist_ok=True)
            if self._whole:
                self.system.pipe_file(path, data)
            else:
                self.system.pipe_file(path + _PART, data)
                self.system.mv(path + _PART, path)
        except Exception as error:
            # Every kind of storage has errors of its own.
            raise OutputError(
                f"{self.address}/{name} cannot be written: {error}.",
                "Check the address, and that you may write there.",
            ) from error

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        path = f"{self.root}/{name}"
        with self._reached(name):
            if self.system.exists(path):
                self.system.rm_file(path)

    def names(self) -> set[str]:
        """Names of what is directly in it, without what is half-written."""
        return {name for name in self._listed() if not name.endswith(_PART)}

    def tidy(self) -> None:
        """Remove what a killed process left half-written."""
        for name in self._listed():
            if name.endswith(_PART):
                self.remove(name)

    def _listed(self) -> set[str]:
        self.system.invalidate_cache()
        with self._reached():
            try:
                listed = self.system.ls(self.root, detail=False)
            except FileNotFoundError:
                return set()
            return {name.rstrip("/").rpartition("/")[2] for name in listed}

    @contextmanager
    def _reached(self, name: str = "") -> Iterator[None]:
        """Say in a sentence what kept storage from answering."""
        try:
            yield
        except Exception as error:
            # Every kind of storage has errors of its own.
            raise OutputError(
                f"{self.address}/{name} cannot be reached: {error}.",
                "Check the address, the network, and that you may read there.",
            ) from error


def _unread(error: OSError, path: Path) -> OutputError:
    """Say what kept a file or folder from being read."""
    reason = error.strerror or str(error) or type(error).__name__
    return OutputError(
        f"{path} cannot be read: {reason}.",
        "Check the drive that it is on, and that you may read there.",
    )

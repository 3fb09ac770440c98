"""Where the weights are, whether they are whole, and how to get them."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import platformdirs
from filelock import FileLock, Timeout

from napari_sam_suite.engine.errors import (
    Cancelled,
    CheckpointMissing,
    ModelError,
    OutputError,
)
from napari_sam_suite.engine.models.nano.config import WEIGHTS
from napari_sam_suite.engine.models.transfer import (
    Progress,
    Stop,
    fetch,
    hash_file,
    unwritable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sam_suite.engine.models.registry import ModelSpec

FOLDER_VARIABLE = "NAPARI_SAM_SUITE_CHECKPOINTS"
"""Environment variable that names the checkpoint folder."""

State = Literal["embedded", "installed", "damaged", "partial", "missing"]

_PUBLISHED_MB_ERROR = 1.0
_SPARE_BYTES = 50_000_000


def checkpoint_folder(
    folder: str | Path | None = None, *, preferred: str | Path | None = None
) -> Path:
    """Return the folder that holds checkpoints; it need not exist.

    Parameters
    ----------
    folder : path, optional
        What the caller asks for now; comes first.
    preferred : path, optional
        A lasting setting; comes after ``NAPARI_SAM_SUITE_CHECKPOINTS`` and before
        the user's cache folder.
    """
    chosen = folder or os.environ.get(FOLDER_VARIABLE) or preferred
    if chosen:
        return Path(chosen).expanduser().absolute()
    return platformdirs.user_cache_path("napari-sam-suite") / "checkpoints"


def tuned_folder(folder: str | Path | None = None) -> Path:
    """Return the folder that fine-tuned models are put into unless told otherwise."""
    return checkpoint_folder(folder) / "tuned"


def tuned_models(folder: str | Path | None = None) -> list[ModelSpec]:
    """Return the user's own models, the newest last.

    Damaged ones are left out, and those that did not become better than their base.
    """
    from napari_sam_suite.engine.models.registry import find_model

    here = tuned_folder(folder)
    files = here.glob("*.safetensors") if here.is_dir() else []
    found = []
    for path in sorted(files, key=lambda p: (p.stat().st_mtime, p.name)):
        with suppress(ModelError):
            model = find_model(path)
            if not _is_its_base(path):
                found.append(model)
    return found


def _is_its_base(path: Path) -> bool:
    """Whether a tuned model's card says that it has the weights of its base."""
    card = path.with_suffix(".json")
    told = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    return told.get("better_than_base") is False


def checkpoint_path(spec: ModelSpec, folder: str | Path | None = None) -> Path:
    """Return where the weights of `spec` are, or would be after a download."""
    if spec.embedded:
        return WEIGHTS
    return spec.file or checkpoint_folder(folder) / spec.filename


def checkpoint_state(spec: ModelSpec, folder: str | Path | None = None) -> State:
    """Tell what is there of a model, from the file's size alone.

    ``"damaged"`` is a file of the wrong size; `verify` reads all of it.
    """
    path = checkpoint_path(spec, folder)
    if not path.is_file():
        return "partial" if _part(path).is_file() else "missing"
    if spec.embedded:
        return "embedded"
    excess = path.stat().st_size / 1e6 - spec.size_mb
    return "damaged" if spec.url and abs(excess) > _PUBLISHED_MB_ERROR else "installed"


def is_installed(spec: ModelSpec, folder: str | Path | None = None) -> bool:
    """Tell whether the weights are here and of the right size."""
    return checkpoint_state(spec, folder) in ("embedded", "installed")


def require_checkpoint(spec: ModelSpec, folder: str | Path | None = None) -> Path:
    """Return the weights file, or say how to get it.

    Raises
    ------
    CheckpointMissing
        If it is not on this machine, or only a part of it.
    ModelError
        If its size is wrong.
    """
    path = checkpoint_path(spec, folder)
    state = checkpoint_state(spec, folder)
    if state in ("missing", "partial"):
        raise CheckpointMissing(
            f"The weights of {spec.id} are not on this machine ({path}).",
            _how_to_get(spec),
        )
    if state == "damaged":
        raise ModelError(
            f"The weights of {spec.id} are damaged: {path} has "
            f"{path.stat().st_size / 1e6:.1f} MB instead of {spec.size_mb:.0f} MB.",
            _how_to_get(spec),
        )
    return path


def verify(
    spec: ModelSpec,
    folder: str | Path | None = None,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> str:
    """Read the whole weights file and return its SHA-256.

    Raises
    ------
    CheckpointMissing
        If the file is not there.
    ModelError
        If it cannot be read or is not the published file.
    """
    path = checkpoint_path(spec, folder)
    if not path.is_file():
        raise CheckpointMissing(
            f"The weights of {spec.id} are not on this machine ({path}).",
            _how_to_get(spec),
        )
    try:
        digest = hash_file(path, progress=progress, stop=stop)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}).") from error
    if spec.sha256 and digest != spec.sha256:
        raise ModelError(
            f"{path} is not the published {spec.id}: its SHA-256 is {digest}.",
            _how_to_get(spec),
        )
    return digest


def download(
    spec: ModelSpec,
    folder: str | Path | None = None,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Path:
    """Make sure that the right weights are in the folder, and return their path.

    A file that is there is verified; a wrong one is replaced. Two processes may ask
    for the same model: one downloads, the other waits.

    Parameters
    ----------
    progress : callable, optional
        ``progress(done, total, text)`` in bytes; `total` is 0 when unknown.
    stop : callable, optional
        Return ``True`` to stop; what has arrived is kept for the next time.

    Raises
    ------
    ModelError
        If the server cannot be reached or does not send the published file.
    OutputError
        If the folder cannot be written to or its disk is full.
    Cancelled
        If `stop` said so.
    """
    path = checkpoint_path(spec, folder)
    if not spec.url:
        return require_checkpoint(spec, folder)
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path, progress, stop):
            if path.is_file():
                if hash_file(path, progress=progress, stop=stop) == spec.sha256:
                    return path
                path.unlink()
            _require_space(spec, part)
            fetch(spec.url, part, sha256=spec.sha256, progress=progress, stop=stop)
            part.replace(path)
    except OSError as error:
        raise unwritable(path.parent, error) from error
    return path


@contextmanager
def _alone(path: Path, progress: Progress | None, stop: Stop | None) -> Iterator[None]:
    """Hold the one right to write `path`; the system frees it if we are killed."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout:
            if stop and stop():
                raise Cancelled from None
            if progress:
                progress(0, 0, f"Another process is downloading {path.name}")
    try:
        yield
    finally:
        lock.release()


def _require_space(spec: ModelSpec, part: Path) -> None:
    here = part.stat().st_size if part.is_file() else 0
    needed = spec.size_mb * 1e6 - here + _SPARE_BYTES
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise OutputError(
            f"The disk of {part.parent} is too full for {spec.id}: "
            f"{needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free.",
            "Free some space, or choose another folder with `folder` or "
            f"{FOLDER_VARIABLE}.",
        )


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _how_to_get(spec: ModelSpec) -> str:
    if spec.url:
        return (
            f"Run 'napari-sam-suite models download {spec.id}', or put "
            f"{spec.filename} into the folder that {FOLDER_VARIABLE} names."
        )
    return "Reinstall the package." if spec.embedded else "Check the path."

"""The demo page beside an export, with the onnxruntime that browsers need.

The page is ours; onnxruntime-web is not, so it is fetched once with npm, compared with
its published checksum, and kept in the user's cache.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import platformdirs

from napari_sam_suite.engine.errors import MissingExtra
from napari_sam_suite.engine.formats.atomic import replacing

VERSION = "1.30.0"
"""Of onnxruntime-web."""
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1Sig"
    "qR4CXAfKYQ=="
)
"""Of its package, as published."""
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
RUNTIME = "ort"
"""Folder of them beside the page."""

PAGE = Path(__file__).parent / "page"
"""The page as it comes with this package."""
_SECONDS = 300


def write_page(folder: Path, runtime: Path | str | None = None) -> None:
    """Put the page and what it runs on into a folder.

    Parameters
    ----------
    folder : Path
        Where the exported files are.
    runtime : path, optional
        A folder that holds onnxruntime-web somewhere, such as ``node_modules``.

    Raises
    ------
    MissingExtra
        If onnxruntime-web is not to be had; the page itself is written before.
    """
    for file in _own_files():
        shutil.copyfile(file, folder / file.name)
    source = find_runtime(runtime)
    target = folder / RUNTIME
    target.mkdir(exist_ok=True)
    for name in RUNTIME_FILES:
        shutil.copyfile(source / name, target / name)


def page_files() -> list[str]:
    """Names of all that `write_page` writes into a folder."""
    own = [file.name for file in _own_files()]
    return [*own, *(f"{RUNTIME}/{name}" for name in RUNTIME_FILES)]


def _own_files() -> list[Path]:
    return sorted(f for f in PAGE.iterdir() if f.suffix in (".html", ".css", ".js"))


def find_runtime(folder: Path | str | None = None) -> Path:
    """Return a folder with `RUNTIME_FILES`.

    Parameters
    ----------
    folder : path, optional
        Looked for here and nowhere else; by default in the cache, then fetched.

    Raises
    ------
    MissingExtra
        If they are not there, or npm is missing, fails, or brings something else.
    """
    if folder is not None:
        for file in Path(folder).rglob(RUNTIME_FILES[0]):
            if _complete(file.parent):
                return file.parent
        raise MissingExtra(
            f"There is no onnxruntime-web in {folder}.",
            f"Name a folder with {', '.join(RUNTIME_FILES)}.",
        )
    cache = platformdirs.user_cache_path("napari-sam-suite")
    kept = cache / f"onnxruntime-web-{VERSION}"
    if not _complete(kept):
        _fetch(kept)
    return kept


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in RUNTIME_FILES)


def _fetch(target: Path) -> None:
    """Let npm bring the package, and keep the files that a page needs."""
    npm = shutil.which("npm")
    if npm is None:
        raise _missing("npm is not installed to fetch it")
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--silent"]
        try:
            subprocess.run(
                command, cwd=scratch, check=True, capture_output=True, timeout=_SECONDS
            )
            (package,) = Path(scratch).glob("*.tgz")
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise _missing("npm could not fetch it") from error
        digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest())
        if f"sha512-{digest.decode()}" != INTEGRITY:
            raise _missing("npm brought something else, whose checksum is wrong")
        with tarfile.open(package) as archive:
            for name in RUNTIME_FILES:
                member = archive.extractfile(f"package/dist/{name}")
                assert member is not None, "the checksum says that it is there"
                with replacing(target / name) as part:
                    part.write_bytes(member.read())


def _missing(why: str) -> MissingExtra:
    return MissingExtra(
        f"The demo page needs onnxruntime-web {VERSION}, and {why}.",
        "Install npm and be online, or give export-onnx a folder that has it as "
        "`runtime`.",
    )

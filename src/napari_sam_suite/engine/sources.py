"""Which files a recipe means: files, folders and patterns."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sam_suite.engine.errors import ImageError, OutputError
from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.engine.image import plain_name
from napari_sam_suite.engine.outputs import overlay_file, result_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".zarr")
_MAGIC = re.compile(r"[*?[]")
_ODD = re.compile(r"[^\w.+-]+")


def find_images(names: Iterable[str]) -> list[Path]:
    """Files that names stand for, each once.

    Parameters
    ----------
    names : iterable of str
        Files; folders, whose images are meant, without those of folders inside; and
        patterns such as ``"plate/**/*_dapi.tif"``. In a pattern only images count.

    Returns
    -------
    list of Path
        In the order of the names, and sorted within each.

    Raises
    ------
    ImageError
        If a name stands for nothing. A file that is named need not be there: it fails
        when it is opened, and does not stop the others.
    """
    found: dict[Path, None] = {}
    for name in names:
        files = _find(name)
        if files is None:
            found[Path(name).expanduser()] = None
            continue
        if not files:
            raise ImageError(
                f"There is no image at {name}.",
                f"Images end in {', '.join(_SUFFIXES)}.",
            )
        found |= dict.fromkeys(sorted(files, key=_natural))
    if not found:
        raise ImageError(
            "No image was given.", "Name files, folders or patterns of images."
        )
    return list(found)


def check_apart(names: Iterable[str], folder: Path, formats: Sequence[str]) -> None:
    """Make sure that results are not taken for images the next time.

    Parameters
    ----------
    names : iterable of str
        What images are found by; see `find_images`. Those that are named one by one
        may have their results beside them.
    folder : Path
        Where results go.
    formats : sequence of str
        Of `outputs.FORMATS`.

    Raises
    ------
    OutputError
        If a folder or a pattern among the names would find one.
    """
    for name in names:
        for path in _find(name) or ():
            for file in _image_files(folder, plain_name(path), formats):
                if _would_find(name, file):
                    raise OutputError(
                        f"Results in {folder} would be taken for images of {name} the "
                        "next time.",
                        "Choose another folder with --out.",
                    )


def name_images(
    paths: Sequence[Path], known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give every image a name of its own that a folder can have.

    Parameters
    ----------
    paths : sequence of Path
        Of images.
    known : mapping, optional
        Paths by name that were given before, and stay.

    Returns
    -------
    dict of str
        Paths by name, in the order of `paths`. Where two files are called the same, a
        checksum of the folder tells them apart.
    """
    before = {path: name for name, path in (known or {}).items()}
    taken = {name.lower() for name in known or {}}
    stems = [_ODD.sub("_", plain_name(path)).strip(".") or "image" for path in paths]
    counts = Counter(stem.lower() for stem in stems)
    often = {stem for stem, count in counts.items() if count > 1}
    named: dict[str, str] = {}
    for path, stem in zip(paths, stems, strict=True):
        text = str(path)
        name = before.get(text, stem)
        if text not in before and (stem.lower() in often | taken):
            name = f"{stem}-{zlib.crc32(text.encode()):08x}"
        taken.add(name.lower())
        named[name] = text
    return named


def _find(name: str) -> list[Path] | None:
    """Images of a folder or a pattern, or None if a name is that of a single one."""
    path = Path(name).expanduser()
    if _MAGIC.search(name) and not path.exists():
        root, parts = _split(path)
        return [p for p in root.glob(str(Path(*parts))) if _is_image(p)]
    if path.is_dir() and not _is_zarr(path):
        return [p for p in path.iterdir() if _is_image(p)]
    return None


def _split(pattern: Path) -> tuple[Path, Sequence[str]]:
    """The last folder without a wildcard, and what is asked below it."""
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    return Path(*parts[:first]), parts[first:]


def _image_files(folder: Path, stem: str, formats: Sequence[str]) -> Iterator[Path]:
    """Files of one image's results that are images, too."""
    yield from filter(_is_image, result_files(folder, stem, formats))
    if "overlay" in formats:
        yield overlay_file(folder, stem, FrameIndex(), Sizes())


def _would_find(name: str, file: Path) -> bool:
    """Whether a folder or a pattern finds a file, were it there."""
    path, file = Path(name).expanduser(), file.parent.resolve() / file.name
    if path.is_dir():
        return file.parent == path.resolve()
    root, parts = _split(path)
    below = root.resolve()
    return file.is_relative_to(below) and _fits(file.relative_to(below).parts, parts)


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_fits(names[i:], pattern[1:]) for i in range(len(names) + 1))
    return (
        bool(names)
        and fnmatchcase(names[0], pattern[0])
        and _fits(names[1:], pattern[1:])
    )


def _is_image(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and path.name.lower().endswith(_SUFFIXES)


def _is_zarr(path: Path) -> bool:
    from napari_sam_suite.engine.readers.ome_zarr import has_zarr_metadata

    return path.suffix.lower() == ".zarr" or has_zarr_metadata(path)


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """Sort key in which ``img10`` comes after ``img9``."""
    pieces = re.split(r"(\d+)", str(path).lower())
    return [(0, int(p)) if p.isdigit() else (1, p) for p in pieces if p]

"""Which files a recipe means: files, folders and patterns."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sam_suite.engine.errors import ImageError
from napari_sam_suite.engine.image import plain_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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
        path = Path(name).expanduser()
        if _MAGIC.search(name) and not path.exists():
            files = [p for p in _glob(path) if _is_image(p)]
        elif path.is_dir() and not _is_zarr(path):
            files = [p for p in path.iterdir() if _is_image(p)]
        else:
            found[path] = None
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


def _glob(pattern: Path) -> Iterable[Path]:
    """Files below the last folder without a wildcard."""
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    root = Path(*parts[:first]) if first else Path()
    return root.glob(str(Path(*parts[first:])))


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

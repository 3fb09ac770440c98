"""Whether a TIFF file is all there, which tifffile says in its log and nowhere else."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_sam_suite.engine.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tifffile

_log = logging.getLogger("tifffile")
# Pages or the description lie behind the end. What else tifffile calls an error, tags
# that make no sense above all, does the pixels no harm.
_BROKEN = (
    "invalid page offset",
    "invalid offset to page",
    "corrupted tag list of page",
    "TiffTag 270 @",
)
# Such series know their length without their pages; those that are missing raise when
# they are read, and the others are not lost.
_KNOWN = ("shaped", "imagej")


class _Listener(logging.Handler):
    """Keeps the errors of one thread."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.said.append(record.getMessage())


@contextmanager
def listening() -> Iterator[list[str]]:
    """What tifffile logs as errors on this thread, for `check_whole`."""
    listener = _Listener()
    _log.addHandler(listener)
    try:
        yield listener.said
    finally:
        _log.removeHandler(listener)


def check_whole(tiff: tifffile.TiffFile, said: list[str], name: str) -> None:
    """Refuse a file that lacks frames which nothing else would miss.

    Parameters
    ----------
    tiff : TiffFile
        Whose series were listed while `listening`.
    said : list of str
        What was heard.
    name : str
        How the error calls the file.

    Raises
    ------
    ImageError
        If it is cut off or damaged.
    """
    series = tiff.series
    if not series or any(one.kind in _KNOWN for one in series):
        return
    found = sum(len(one) for one in series)
    frames = "1 frame" if found == 1 else f"{found} frames"
    told = int((tiff.imagej_metadata or {}).get("images", 1))
    if told > found:
        raise ImageError(
            f"{name} is cut off: it holds {found} of {told} frames.",
            "Copy it again, or write it again.",
        )
    if any(words in text for text in said for words in _BROKEN):
        raise ImageError(
            f"{name} is damaged or cut off: {frames} can be found in it, and there "
            "were more.",
            "Copy it again, or write it again.",
        )

"""What the user chose in napari's preferences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from napari.settings import get_plugin_settings

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = "napari-sam-suite"


class Preferences(NamedTuple):
    """Lasting choices of an engine.

    Attributes
    ----------
    device : str
        Where models run.
    folder : Path
        Of checkpoints.
    cache_bytes : int
        Memory that embeddings may take.
    """

    device: str
    folder: Path
    cache_bytes: int


def preferences() -> Preferences:
    """Read the page "SAM Suite" of the preferences."""
    from napari_sam_suite.engine.models.checkpoints import checkpoint_folder

    page = _page()
    folder = checkpoint_folder(preferred=page.checkpoint_dir)
    return Preferences(page.device, folder, int(page.cache_mb) * 2**20)


def autosave_wanted() -> bool:
    """Whether objects are kept in case of a crash."""
    return bool(_page().autosave)


def _page() -> Any:
    return get_plugin_settings(PLUGIN).engine

"""What the user chose in napari's preferences."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from napari.settings import get_plugin_settings

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = "napari-sam-suite"


class Preferences(NamedTuple):
    """Lasting choices: the device, and the folder of checkpoints."""

    device: str
    folder: Path


def preferences() -> Preferences:
    """Read the page "SAM Suite" of the preferences."""
    from napari_sam_suite.engine.models.checkpoints import checkpoint_folder

    page = get_plugin_settings(PLUGIN).engine
    return Preferences(page.device, checkpoint_folder(preferred=page.checkpoint_dir))

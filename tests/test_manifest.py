from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points, metadata
from pathlib import Path

import pytest

import napari_sam_suite

npe2 = pytest.importorskip("npe2")

NAME = "napari-sam-suite"
MANIFEST = Path(napari_sam_suite.__file__).with_name("napari.yaml")


@pytest.fixture(scope="module")
def manifest() -> npe2.PluginManifest:
    found = npe2.PluginManifest.from_file(MANIFEST)
    found.validate_imports()
    return found


def test_the_manifest_is_named_like_the_distribution(
    manifest: npe2.PluginManifest,
) -> None:
    assert manifest.name == metadata(NAME)["Name"] == NAME


def test_napari_finds_the_manifest(manifest: npe2.PluginManifest) -> None:
    (entry,) = entry_points(group="napari.manifest", name=NAME)
    module, file = entry.value.split(":")
    folder = Path(str(import_module(module).__file__)).parent
    assert (folder / file).samefile(MANIFEST)


def test_every_command_can_be_called(manifest: npe2.PluginManifest) -> None:
    for command in manifest.contributions.commands or []:
        module, _, name = str(command.python_name).partition(":")
        assert callable(getattr(import_module(module), name))


def test_every_contribution_names_a_command_that_is_there(
    manifest: npe2.PluginManifest,
) -> None:
    contributions = manifest.contributions
    known = {command.id for command in contributions.commands or []}
    used = {
        item.command
        for group in (
            contributions.readers,
            contributions.writers,
            contributions.widgets,
            contributions.sample_data,
        )
        for item in group or []
    }
    assert used == known


def test_the_version_is_that_of_the_distribution() -> None:
    assert metadata(NAME)["Version"] == napari_sam_suite.__version__


def test_the_readme_starts_with_the_two_commands_that_exist() -> None:
    root = Path(__file__).parents[1]
    start = (root / "README.md").read_text(encoding="utf-8")[:2000]
    for script in ("scripts/demo.sh", "scripts/test.sh"):
        assert script in start
        assert (root / script).stat().st_mode & 0o100

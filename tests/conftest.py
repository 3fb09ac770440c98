from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from engine.fakes import FakeSam


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared example images, where a checkout has them beside it."""
    for folder in Path(__file__).resolve().parents:
        data = folder / "shared" / "data"
        if data.is_dir():
            return data
    pytest.skip("the shared example images are not beside this checkout")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeSam:
    """What commands get in place of a network."""
    from engine.fakes import FakeSam
    from napari_sam_suite.engine.models import load

    fake = FakeSam()
    monkeypatch.setattr(load, "load_model", lambda spec, **options: fake)
    return fake


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """A picture with the two objects of `commands.BOXES`."""
    from PIL import Image

    from commands import BOXES
    from engine.fakes import scene

    path = tmp_path / "cells.png"
    Image.fromarray(scene((64, 64), *BOXES)).save(path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "out"

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared example images, where a checkout has them beside it."""
    for folder in Path(__file__).resolve().parents:
        data = folder / "shared" / "data"
        if data.is_dir():
            return data
    pytest.skip("the shared example images are not beside this checkout")

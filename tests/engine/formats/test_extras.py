from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from napari_sam_suite.engine.errors import MissingExtra
from napari_sam_suite.engine.formats.extras import load_extra

if TYPE_CHECKING:
    from pathlib import Path


def test_a_package_that_is_missing_is_told_with_the_command() -> None:
    with pytest.raises(MissingExtra, match="pip install"):
        load_extra("a_package_that_nobody_has")
    with pytest.raises(MissingExtra, match=r"napari-sam-suite\[scale\]"):
        load_extra("a_package_that_nobody_has", "scale")


def test_threads_get_a_package_only_when_it_is_imported_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import time\ntime.sleep(0.2)\nvalue = 7\n"
    (tmp_path / "slow_to_import.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(load_extra, "slow_to_import") for _ in range(4)]
        assert [one.result().value for one in found] == [7] * 4

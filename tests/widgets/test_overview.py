"""The labels layer of all objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.layers import Image, Shapes
from qtpy.QtCore import QObject

from napari_sam_suite.widgets.layers import build_picture
from napari_sam_suite.widgets.overview import start_overview


@pytest.mark.parametrize("track", [None, [9, 2, 2, np.nan]], ids=["plain", "tracks"])
def test_every_object_has_its_own_number(qtbot: Any, track: list[float] | None) -> None:
    picture = build_picture([Image(np.zeros((2, 30, 30), np.uint8))], "TYX")
    places = [(0, 2, 2), (0, 15, 2), (1, 2, 2), (1, 15, 2)]
    square = np.array([(0, 0, 0), (0, 0, 8), (0, 8, 8), (0, 8, 0)])
    table = pd.DataFrame({"tag": ["cell"] * 4})
    if track is not None:
        table["track"] = track
    layer = Shapes([square + place for place in places], shape_type="polygon", ndim=3)
    layer.features = table
    owner = QObject()
    work = start_overview(layer, picture, owner)
    with qtbot.waitSignal(work.done, timeout=10_000) as found:
        work.start()
    labels, _ = found.args[0]
    assert [labels[t, y + 4, x + 4] for t, y, x in places] == [1, 2, 3, 4]

"""Nested squares of which everything is known."""

from __future__ import annotations

import shapely

from napari_sam_suite.engine.objects import Objects

SIDE = 100


def square(y: float, x: float, side: float) -> shapely.Polygon:
    """A square of `side` times `side` pixels."""
    return shapely.box(y - 0.5, x - 0.5, y + side - 0.5, x + side - 0.5)


def nested() -> Objects:
    """A whole with two parts, each with a small one, and three that are alone.

    Of 100 x 100 pixels: 1600, 400, 225, 100, 100, 49, 400, 25; the small one of row 5
    lies in the whole but in no part, row 6 is a part and row 7 a small one alone.
    """
    polygons = [
        square(0, 0, 40),
        square(0, 0, 20),
        square(20, 20, 15),
        square(2, 2, 10),
        square(22, 22, 10),
        square(2, 30, 7),
        square(60, 60, 20),
        square(90, 90, 5),
    ]
    sizes = {"y": SIDE, "x": SIDE}
    objects = Objects(polygons, source={"sizes": sizes})
    return objects.with_features(level=[3, 2, 2, 1, 1, 1, 2, 1])

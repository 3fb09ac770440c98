from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import shapely
from napari.layers import Shapes
from shapely import MultiPolygon, Polygon, box

from napari_sam_suite.contributions import read_geojson, write_geojson
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.raster import draw_labels
from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.placement import Placement
from napari_sam_suite.widgets.shapes import (
    layer_options,
    placement_of,
    to_objects,
    to_vertices,
)

if TYPE_CHECKING:
    from pathlib import Path

RING = Polygon(
    box(2, 2, 22, 22).exterior.coords, [list(box(8, 8, 16, 16).exterior.coords)]
)
TWO = MultiPolygon([box(30, 2, 36, 8), box(30, 12, 36, 18)])
PLAIN = Polygon([(2, 30), (12, 30), (12, 44), (7, 40)])
SIEVE = Polygon(
    box(2, 2, 22, 42).exterior.coords,
    [
        list(box(5, start, 15, start + 5).exterior.coords)
        for start in (4, 11, 18, 25, 32)
    ],
)
STACK = Placement("TZYX", {"scale": [1.0, 2.0, 0.5, 0.5]})


@pytest.fixture
def objects() -> Objects:
    return Objects(
        [RING, TWO, PLAIN],
        pd.DataFrame(
            {
                "tag": ["a", "unassigned", "b"],
                "score": [0.5, 0.6, 0.7],
                "time": [0, 1, 2],
                "z": [3, 4, 5],
                "run": "first",
            }
        ),
    )


def as_layer(objects: Objects, placement: Placement) -> Shapes:
    options = layer_options(objects, placement, "cells", {"runs": {}})
    return Shapes(to_vertices(objects, placement), **options)


def test_objects_come_back_from_a_layer_as_they_went_in(objects: Objects) -> None:
    layer = as_layer(objects, STACK)
    assert layer.ndim == 4 and set(layer.shape_type) == {"polygon"}
    back = to_objects(layer.data, layer.shape_type, layer.features, STACK)
    for one, other in zip(back.polygons, objects.polygons, strict=True):
        assert one.symmetric_difference(other).area < 1e-3
    pd.testing.assert_frame_equal(back.features, objects.features, check_dtype=False)


def test_the_area_of_an_outline_that_was_enlarged_is_counted_anew() -> None:
    place = Placement("YX", {})
    found = Objects([box(0, 0, 20, 20), box(30, 30, 50, 50)]).with_features(area=441)
    data = to_vertices(found, place)
    data[1] = data[1] * 2
    back = to_objects(data, ["polygon"] * 2, found.features, place)
    assert back.features["area"].tolist() == [441, 1600]


def test_a_polygon_lies_in_its_own_frame(objects: Objects) -> None:
    for vertices, time, z in zip(
        as_layer(objects, STACK).data, (0, 1, 2), (3, 4, 5), strict=True
    ):
        assert (vertices[:, :2] == (time, z)).all()


def test_holes_and_parts_are_drawn_as_such(objects: Objects) -> None:
    flat = objects.with_features(time=0, z=0)
    layer = as_layer(flat, Placement("YX", {}))
    for drawn, polygon in zip(layer.to_masks((48, 48)), objects.polygons, strict=True):
        wanted = draw_labels([polygon], np.array([1]), (48, 48)) > 0
        # napari also counts the pixels of the outline
        assert not (wanted & ~drawn).any()
        assert np.count_nonzero(drawn & ~wanted) < 120
    assert not layer.to_masks((48, 48))[0][10:14, 10:14].any()


def area_of_triangles(layer: Shapes) -> float:
    mesh = layer._data_view._mesh
    one, two, three = mesh.vertices[mesh.triangles].swapaxes(0, 1)
    across = (two - one)[:, 0] * (three - one)[:, 1]
    return float(np.abs(across - (two - one)[:, 1] * (three - one)[:, 0]).sum() / 2)


@pytest.mark.parametrize("holes", [2, 3, 5])
def test_any_number_of_holes_stays_open(holes: int) -> None:
    sieve = Polygon(SIEVE.exterior, SIEVE.interiors[:holes])
    vertices = to_vertices(Objects([sieve]), Placement("YX", {}))
    layer = Shapes(vertices, shape_type="polygon", edge_width=0)
    assert area_of_triangles(layer) == pytest.approx(sieve.area)
    [back] = to_objects(
        vertices, ["polygon"], pd.DataFrame(), Placement("YX", {})
    ).polygons
    assert back.equals(sieve)


def test_nothing_is_drawn_between_holes() -> None:
    vertices = to_vertices(Objects([SIEVE]), Placement("YX", {}))
    layer = Shapes(vertices, shape_type="polygon", face_color=[0] * 4, edge_width=1)
    mesh = layer._data_view._mesh
    edges = mesh.vertices[mesh.triangles[mesh.triangles_colors[:, 3] > 0]]
    outline = shapely.boundary(SIEVE).buffer(2)
    assert all(outline.contains(shapely.Point(p)) for p in edges.mean(1))


def test_a_hole_may_begin_where_the_outline_does() -> None:
    first = [(0, 0), (0, 20), (20, 20), (20, 0)]
    touching = Polygon(
        first, [[(0, 0), (4, 8), (8, 4)], [(10, 10), (10, 14), (14, 10)]]
    )
    vertices = to_vertices(Objects([touching]), Placement("YX", {}))
    [back] = to_objects(
        vertices, ["polygon"], pd.DataFrame(), Placement("YX", {})
    ).polygons
    assert back.equals(touching)


def test_edges_have_the_colour_of_the_tag_and_faces_none(objects: Objects) -> None:
    layer = as_layer(objects, STACK)
    assert len(np.unique(layer.edge_color, axis=0)) == 3
    assert (layer.face_color[:, 3] == 0).all()


def test_shapes_drawn_by_hand_become_objects() -> None:
    square = np.array([[0, 0], [0, 10], [10, 10], [10, 0]])
    crossed = np.array([[20, 20], [30, 30], [30, 20], [20, 30]])
    kinds = ["rectangle", "ellipse", "path", "line", "polygon"]
    data = [square, square, square, square[:2], crossed]
    objects = to_objects(data, kinds, pd.DataFrame(), Placement("YX", {}))
    areas = [polygon.area for polygon in objects.polygons]
    assert areas == pytest.approx([100, np.pi * 25, 50], rel=0.01)
    assert all(polygon.is_valid for polygon in objects.polygons)
    assert set(objects.features["tag"]) == {"unassigned"}


@pytest.mark.parametrize(
    ("axes", "place", "frame"),
    [
        ("YX", (1,), (0, 0, 0)),
        ("TZYX", (), (0, 0, 0)),
        ("TZYX", (5,), (0, 0, 5)),
        ("TZYX", (1, 4, 5), (0, 4, 5)),
        ("TCYX", (4, 1), (0, 4, 0)),
    ],
)
def test_axes_of_shapes_are_counted_from_the_last(
    axes: str, place: tuple[int, ...], frame: tuple[int, int, int]
) -> None:
    square = np.array([[0, 0], [0, 10], [10, 10], [10, 0]])
    drawn = np.hstack([np.tile(place, (4, 1)), square])
    objects = to_objects([drawn], ["polygon"], pd.DataFrame(), Placement(axes, {}))
    assert objects.frames() == [frame]
    assert objects.polygons[0].area == 100


def test_a_layer_goes_through_geojson(objects: Objects, tmp_path: Path) -> None:
    layer = as_layer(objects, STACK)
    path = str(tmp_path / "cells.geojson")
    data, meta, _ = layer.as_layer_data_tuple()
    assert write_geojson(path, data, meta) == [path]
    read = read_geojson(path)
    assert read is not None
    [(vertices, options, kind)] = read(path)
    again = Shapes(vertices, **options)
    assert kind == "shapes" and again.ndim == 4
    assert again.features["tag"].tolist() == ["a", "unassigned", "b"]
    assert again.features["id"].tolist() == objects.features["id"].tolist()
    for one, other in zip(again.data, layer.data, strict=True):
        assert {tuple(v) for v in np.round(one, 3)} == {
            tuple(v) for v in np.round(other, 3)
        }


def test_other_files_are_left_to_other_readers() -> None:
    assert read_geojson("cells.tif") is None
    assert read_geojson(["a.geojson", "b.csv"]) is None


def test_a_layer_of_unknown_origin_is_understood_by_its_labels() -> None:
    meta = {"metadata": {}, "axis_labels": ("time", "z", "y", "x")}
    assert placement_of(meta).axes == "TZYX"
    meta["metadata"] = {KEY: {"axes": "PTYX"}}
    assert placement_of(meta).axes == "PTYX"

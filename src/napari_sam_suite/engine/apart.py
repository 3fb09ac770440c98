"""Grown outlines cut apart where one would lie on another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_sam_suite.engine.polygons import Parts, Traced

_CRUMB = 1e-6
"""Area in px up to which a piece is rounding."""


def cut_apart(
    grown: Sequence[Traced], trace: Callable[[int], Traced], parts: Parts
) -> list[Traced]:
    """Take from grown outlines what belongs to others.

    Nothing grows into the mask of another; what is then still wanted by two, the first
    of them keeps. Pieces that are cut off from their mask are left out.

    Parameters
    ----------
    grown : sequence of Traced
        The best first, of masks that share no pixel.
    trace : callable
        Traces the mask of a number as it is, without growing it.
    parts : {"largest", "main", "all"}
        With ``"largest"`` an object stays in one piece.

    Returns
    -------
    list of Traced
        Whose polygons overlap by no more than rounding.
    """
    there = [i for i, one in enumerate(grown) if one.polygon is not None]
    outlines = np.array([grown[i].polygon for i in there], dtype=object)
    result = list(grown)
    if len(there) < 2:
        return result
    tree = shapely.STRtree(outlines)
    near: dict[int, list[int]] = {}
    for i, j in tree.query(outlines, predicate="intersects").T.tolist():
        if i != j:
            near.setdefault(i, []).append(j)
    cores = {i: trace(there[i]).polygon for i in sorted(near)}
    for i, others in sorted(near.items()):
        own = cores[i]
        behind = shapely.union_all([cores[j] for j in others if j > i])
        taken = [outlines[j] for j in others if j < i]
        rest = outlines[i].difference(
            shapely.union_all([behind.difference(own), *taken])
        )
        outlines[i] = _keep(rest, own, parts)
        one = grown[there[i]]
        result[there[i]] = (
            replace(one, polygon=None, reason="empty")
            if outlines[i].is_empty
            else replace(one, polygon=outlines[i])
        )
    return result


def _keep(rest: Any, own: Any, parts: Parts) -> Polygon | MultiPolygon:
    """The pieces of `rest` that hold something of the mask `own`."""
    pieces = [
        (shapely.area(piece.intersection(own)), piece)
        for piece in shapely.get_parts(rest)
        if isinstance(piece, Polygon)
    ]
    pieces = [pair for pair in pieces if pair[0] > _CRUMB]
    if parts == "largest":
        pieces = sorted(pieces, key=lambda pair: -pair[0])[:1]
    kept = [piece for _, piece in pieces]
    return kept[0] if len(kept) == 1 else MultiPolygon(kept)

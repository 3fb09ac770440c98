"""What was chosen among candidates, outlined as a run of its own would draw it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.fewshot.params import FewShotParams
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.params import AutoParams
    from napari_sam_suite.widgets.placement import Placement
    from napari_sam_suite.widgets.runs import Run


class Outlined(NamedTuple):
    """What choosing in one frame has given.

    Attributes
    ----------
    pool : Objects
        Of all masks seen so far.
    wanted : dict of str to str
        Ids of those that are chosen now, each with the id of its mask.
    drawn : dict of str to ndarray
        Vertices of the others, by id, as a run would have drawn them.
    """

    pool: Objects
    wanted: dict[str, str]
    drawn: dict[str, NDArray[np.float32]]


def outline(
    masks: Masks,
    ids: Sequence[str],
    frame: FrameIndex,
    pool: Objects,
    params: AutoParams | FewShotParams,
    placement: Placement,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> Outlined:
    """Outline masks that were not outlined before.

    Parameters
    ----------
    masks : Masks
        What is chosen now, the best first.
    ids : sequence of str
        Of the masks: others for other pixels.
    frame : FrameIndex
        Which one they are of.
    pool : Objects
        Outlines of the same frame so far.
    params : AutoParams or FewShotParams
        How outlines are drawn, and whether they may overlap.
    placement : Placement
        Of the image.
    columns : mapping of str to sequence, optional
        Further columns, one value per mask.
    """
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.shapes import to_vertices

    # outlines that are cut where they meet depend on all others
    cut = params.padding > 0 and params.overlap == "exclusive"
    known = set() if cut else set(pool.features["id"])
    fresh = [i for i, one in enumerate(ids) if one not in known]
    more = {name: [v[i] for i in fresh] for name, v in (columns or {}).items()}
    objects, _ = Objects.from_masks(
        masks.select(fresh),
        frame,
        model=pool.source.get("model", ""),
        smoothing=params.smoothing,
        padding=params.padding,
        parts=params.parts,
        exclusive=cut,
        columns=more | {"id": [ids[i] for i in fresh]},
        source=pool.source,
    )
    wanted = dict(zip(ids, ids, strict=True))
    if cut:
        traced = objects.features["id"].tolist()
        objects = _named_by_outline(objects, pool)
        names = objects.features["id"].tolist()
        wanted = dict(zip(names, traced, strict=True))
        new = ~objects.features["id"].isin(pool.features["id"])
        objects = objects.select(np.asarray(new, dtype=bool))
    pool = Objects.concat([pool, objects])
    every = pool.features["id"]
    others = pool.select(np.asarray(~every.isin(wanted), dtype=bool))
    vertices = to_vertices(others, placement)
    drawn = dict(zip(others.features["id"], vertices, strict=True))
    outlined = {one: wanted[one] for one in every if one in wanted}
    return Outlined(pool, outlined, drawn)


def _named_by_outline(objects: Objects, pool: Objects) -> Objects:
    """Give objects that had another outline before another id, always the same."""
    before = dict(zip(pool.features["id"], pool.polygons, strict=True))
    ids = []
    for one, polygon in zip(objects.features["id"], objects.polygons, strict=True):
        name = one
        if one in before and not shapely.equals_exact(before[one], polygon):
            name = str(uuid5(NAMESPACE_OID, one + shapely.to_wkb(polygon, hex=True)))
        ids.append(name)
    return objects.with_features(id=ids)


def redrawn(
    run: Run, rows: Mapping[str, int], drawn: Mapping[str, NDArray[np.float32]]
) -> set[str]:
    """Ids of objects in these rows that are not as they were drawn."""
    from napari_sam_suite.widgets.shapes import is_as_drawn

    if run.layer is None or not rows:
        return set()
    data = run.layer.data
    return {one for one, row in rows.items() if not is_as_drawn(drawn[one], data[row])}
